//! One end: its flow, its channel, and what its application and its engine do.

use std::cmp::Reverse;
use std::collections::VecDeque;

use machnet_flow::{Body, Config, Event, Flow, FlowError, Unit};
use machnet_wire::{Fragment, Header, Hello, Kind, Nanos, Packet, PathEntry, Paths, Reason, Seq};

use super::{A, Channel, STORM, Sim};

/// One end: a flow, its channel, and an application that sends what it is given and reads as it is told.
pub struct End {
    pub flow: Option<Flow<u64, Vec<u8>>>,
    pub channel: Channel,
    /// The channels of connections before: a SYN that comes late begins another, which comes to nothing.
    pub past: Vec<Channel>,
    /// Messages to send, and after how many bytes the application gives them up, if it does.
    pub outbox: VecDeque<(Vec<u8>, Option<usize>)>,
    pub sent: usize,
    /// Units the application may have submitted.
    pub tokens_max: usize,
    pub reading: bool,
    /// A FIN follows when the outbox is empty.
    pub finish: bool,
    /// The application's payload of one unit.
    pub unit: usize,
    pub received: [u64; 8],
    pub errors: Vec<FlowError>,
    pub config: Config,
    pub accepts: bool,
    pub mtu: u16,
    pub tag: u32,
    pub first: Seq,
    /// Runs at these times only, when stalled.
    pub stalled_until: Nanos,
    pub waiting: Vec<Vec<u8>>,
    /// When a packet last came.
    pub heard_at: Nanos,
    /// The header of the packet it sent last.
    pub newest: Option<Header>,
}

impl End {
    /// The channel of the connection that was established last.
    pub fn talk(&self) -> &Channel {
        let all = self.past.iter().chain([&self.channel]);
        all.rev().find(|channel| channel.told(Event::Established) > 0).unwrap_or(&self.channel)
    }

    /// The application has nothing to send any more.
    pub fn quiet(&mut self) {
        self.outbox.clear();
        self.sent = 0;
        self.finish = false;
    }
}

impl Sim {
    pub fn connect(&mut self) {
        self.connect_within(Nanos::secs(5));
    }

    pub fn connect_within(&mut self, timeout: Nanos) {
        let setup = self.setup(A);
        self.ends[A].flow = Some(Flow::connect(self.now, self.ends[A].config, setup, timeout));
        self.pump(A);
    }

    pub fn send(&mut self, i: usize, message: &[u8]) {
        self.ends[i].outbox.push_back((message.to_vec(), None));
        self.pump(i);
    }

    /// Sends a message of several units and gives it up after `cut` bytes.
    pub fn send_part(&mut self, i: usize, message: &[u8], cut: usize) {
        self.ends[i].outbox.push_back((message.to_vec(), Some(cut)));
        self.pump(i);
    }

    /// What an application's close does.
    pub fn close(&mut self, i: usize) {
        self.finish(i);
        self.stop_reading(i);
    }

    /// The same for one that has submitted all that it has to say. False: it has not, and reads on.
    pub fn close_when_said(&mut self, i: usize) -> bool {
        self.finish(i);
        let said = !self.ends[i].finish;
        if said {
            self.stop_reading(i);
        }
        said
    }

    fn stop_reading(&mut self, i: usize) {
        let end = &mut self.ends[i];
        if let Some(flow) = &mut end.flow {
            flow.stop_reading(self.now, &mut end.channel);
        }
        self.pump(i);
    }

    pub fn finish(&mut self, i: usize) {
        self.ends[i].finish = true;
        self.pump(i);
    }

    /// End `i` starts again and knows nothing of any connection; what is under way stays so. Except SYNs: one so late that it
    /// comes between a new one and its third packet takes the half-open connection's place, and the new caller is reset.
    pub fn forget(&mut self, i: usize) {
        self.queue
            .retain(|Reverse((.., bytes))| Packet::parse(bytes).is_ok_and(|p| p.header.kind != Kind::Syn));
        let mut tag = self.rng.word() | 1;
        let end = &mut self.ends[i];
        // A tag is drawn out of 2^32: bytes could choose the old one, chance does not.
        if tag == end.tag {
            tag ^= 0x100;
        }
        end.flow = None;
        end.channel = Channel::new(end.channel.rx_units);
        end.past.clear();
        (end.tag, end.first) = (tag, Seq(tag.rotate_left(7)));
        end.waiting.clear();
        end.quiet();
    }

    pub fn reset(&mut self, i: usize, reason: Reason) {
        let end = &mut self.ends[i];
        end.flow.as_mut().unwrap().reset(reason, &mut end.channel);
        self.pump(i);
    }

    /// The application of `i` is gone, as its engine sees it: what it submitted goes out, and the reset behind that. What it had not
    /// submitted is nothing to anybody. How many messages are left behind so.
    pub fn leave(&mut self, i: usize, reason: Reason) -> usize {
        let end = &mut self.ends[i];
        let unsaid = end.outbox.len();
        end.outbox.clear();
        (end.sent, end.finish) = (0, false);
        let flow = end.flow.as_mut().expect("a flow");
        if flow.message_open() {
            let tx = end.channel.token(&[]);
            flow.abort(tx, &mut end.channel).expect("abort");
        }
        flow.stop_reading(self.now, &mut end.channel);
        flow.reset_behind(self.now, reason, &mut end.channel);
        self.pump(i);
        unsaid
    }

    /// Gives `n` units back as an application does that has read them.
    pub fn read(&mut self, i: usize, n: u32) {
        let end = &mut self.ends[i];
        let n = n.min(end.channel.lent);
        end.channel.lent -= n;
        end.channel.rx_free += n;
        if let Some(flow) = &mut end.flow
            && n > 0
            && end.channel.closed().is_none()
        {
            flow.credit_returned(self.now, n, &mut end.channel);
        }
    }

    /// Lets the application of `i` and its flow do what they can.
    pub fn pump(&mut self, i: usize) {
        if self.ends[i].stalled_until > self.now {
            return;
        }
        if self.ends[i].reading {
            let lent = self.ends[i].channel.lent;
            self.read(i, lent);
        }
        self.submit(i);
        self.transmit(i);
    }

    fn submit(&mut self, i: usize) {
        loop {
            let end = &mut self.ends[i];
            let Some(flow) = &mut end.flow else { return };
            if !flow.is_established() || end.channel.tokens.len() >= end.tokens_max {
                return;
            }
            let Some((message, cut)) = end.outbox.front() else { break };
            if cut.is_some_and(|cut| end.sent > 0 && end.sent >= cut) {
                // What can go out before the application changes its mind does.
                self.transmit(i);
                let end = &mut self.ends[i];
                let tx = end.channel.token(&[]);
                end.flow.as_mut().unwrap().abort(tx, &mut end.channel).expect("abort");
                end.outbox.pop_front();
                end.sent = 0;
                continue;
            }
            let len = (message.len() - end.sent).min(end.unit);
            let begin = end.sent == 0;
            let last = end.sent + len == message.len();
            let payload = message[end.sent..end.sent + len].to_vec();
            let message_len = if begin { message.len() as u32 } else { 0 };
            let tx = end.channel.token(&payload);
            let fragment = Fragment { begin, end: last, message_len };
            flow.send(Unit { fragment, len: len as u32, tx }).expect("room");
            end.sent += len;
            if last {
                end.outbox.pop_front();
                end.sent = 0;
            }
        }
        let end = &mut self.ends[i];
        if end.finish && end.outbox.is_empty() {
            end.finish = false;
            let tx = end.channel.token(&[]);
            end.flow.as_mut().unwrap().fin(tx).expect("finish");
        }
    }

    fn transmit(&mut self, i: usize) {
        let before = self.sent_by[i];
        loop {
            assert!(self.sent_by[i] - before < STORM, "a flow never comes to an end of what it has to send");
            let end = &mut self.ends[i];
            let Some(flow) = &mut end.flow else { return };
            let Some(t) = flow.poll_transmit(self.now, &mut end.channel) else { break };
            let mut t = t;
            let one = [PathEntry { src: 1, dst: 2, queue: 0 }];
            if let Body::Paths(_) = t.body {
                t.body = Body::Paths(&one);
            }
            let mut bytes = vec![0; t.len()];
            let at = t.header.emit_with(t.hit, t.part, t.sack, &mut bytes);
            match t.body {
                Body::None | Body::Padding(_) => {}
                Body::Unit { tx, offset, len } => {
                    let payload = &end.channel.tokens[tx];
                    bytes[at..].copy_from_slice(&payload[offset as usize..(offset + len) as usize]);
                }
                Body::Hello(hello) => bytes[at..].copy_from_slice(&hello.emit()),
                Body::Paths(entries) => assert_eq!(Paths::emit(entries, &mut bytes[at..]), 6),
                Body::Reset(reset) => bytes[at..].copy_from_slice(&reset.emit()),
            }
            self.put(i, bytes);
        }
        if self.ends[i].flow.as_ref().is_some_and(Flow::is_done) {
            self.ends[i].flow = None;
        }
    }

    /// Gives a packet to end `i`.
    pub fn give(&mut self, i: usize, bytes: Vec<u8>) {
        if self.ends[i].stalled_until > self.now {
            self.ends[i].waiting.push(bytes);
            return;
        }
        let packet = Packet::parse(&bytes).expect("packet");
        self.ends[i].received[packet.header.kind as usize] += 1;
        self.ends[i].heard_at = self.now;
        let setup = self.setup(i);
        let now = self.now;
        let end = &mut self.ends[i];
        let taken = match &mut end.flow {
            Some(flow) => flow.on_packet(now, &packet, &mut end.channel),
            None => Err(FlowError::Over),
        };
        if let Err(error) = taken {
            end.errors.push(error);
            let syn = packet.header.kind == Kind::Syn;
            if syn && end.accepts && matches!(error, FlowError::Over | FlowError::Superseded) {
                // As an engine does: with the tag of a new connection, and new books.
                if error == FlowError::Superseded || end.channel.closed().is_some() {
                    let fresh = Channel::new(end.channel.rx_units);
                    end.past.push(std::mem::replace(&mut end.channel, fresh));
                    end.tag += 0x100;
                }
                let mut setup = setup;
                setup.hello.tag = end.tag;
                end.flow = Flow::accept(now, Nanos::ZERO, end.config, setup, &packet).ok();
            } else if packet.header.kind != Kind::Rst && (error == FlowError::Tag || error == FlowError::Over)
            {
                let reason = if syn { Reason::Refused } else { Reason::Closed };
                let echo = if syn {
                    Hello::parse(packet.payload).map_or(0, |hello| hello.tag)
                } else {
                    packet.header.tag
                };
                self.put_reset(i, reason, echo);
            }
        }
        self.pump(i);
    }
}

//! Two flows, a link with faults between them, and applications at both ends, in virtual time. Everything goes through
//! real bytes, and the channel at each end keeps book of every token and every reservation.
#![allow(dead_code)]

mod channel;
mod choices;
pub mod hostile;
pub mod ops;
mod trace;

pub use channel::Channel;
pub use choices::{Choices, Rng};

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use machnet_flow::{Body, Config, Event, Flow, FlowError, Setup, Unit};
use machnet_wire::{Fragment, Header, Hello, Kind, Nanos, Packet, Reason, Seq, header};
use trace::Line;

/// One direction of the link.
#[derive(Debug, Clone)]
pub struct Link {
    pub delay: Nanos,
    /// Per mille.
    pub loss: u64,
    /// Per million, beside it.
    pub loss_ppm: u64,
    pub duplicate: u64,
    pub reorder: u64,
    /// Up to so much more delay, for packets reordered.
    pub jitter: Nanos,
    /// Time one byte takes, picoseconds; 0: none.
    pub ps_per_byte: u64,
    /// Packets that may wait for the link.
    pub queue: u64,
    /// Drops the next packets that this holds of.
    pub drop_if: Option<fn(&Packet<'_>) -> bool>,
    pub drops: u32,
    pub down: bool,
    pub free_at: Nanos,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Nanos::micros(10),
            loss: 0,
            loss_ppm: 0,
            duplicate: 0,
            reorder: 0,
            jitter: Nanos::micros(60),
            ps_per_byte: 0,
            queue: 256,
            drop_if: None,
            drops: 0,
            down: false,
            free_at: Nanos::ZERO,
        }
    }
}

/// One end: a flow, its channel, and an application that sends what it is given and reads as it is told.
pub struct End {
    pub flow: Option<Flow<u64, Vec<u8>>>,
    pub channel: Channel,
    /// The channels of connections before: a SYN that comes late begins another, which comes to nothing.
    past: Vec<Channel>,
    /// Messages to send, and after how many bytes the application gives them up, if it does.
    pub outbox: VecDeque<(Vec<u8>, Option<usize>)>,
    sent: usize,
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
    waiting: Vec<Vec<u8>>,
    /// When a packet last came.
    pub heard_at: Nanos,
    /// The header of the packet it sent last.
    pub newest: Option<Header>,
}

/// When a packet arrives, which one of those that arrive then, at which end, and its bytes.
type Flying = (u64, u64, usize, Vec<u8>);

pub struct Sim {
    pub seed: u64,
    pub rng: Choices,
    pub now: Nanos,
    pub ends: [End; 2],
    pub links: [Link; 2],
    queue: BinaryHeap<Reverse<Flying>>,
    order: u64,
    pub sent: [u64; 8],
    pub sent_by: [u64; 2],
    pub dropped: u64,
    /// A link loses nothing, and is up, for an end that has heard nothing for so long: faults that last, and no peer that is
    /// taken for dead.
    pub mercy: Option<Nanos>,
    /// Steps since time last moved.
    standing: u32,
    trace: VecDeque<Line>,
    /// Every packet put on the link, if there is to be a record.
    pub record: Option<Vec<(usize, Vec<u8>)>>,
}

pub const A: usize = 0;
pub const B: usize = 1;

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.trace {
                eprintln!("{line}");
            }
            for (name, end) in ["A", "B"].iter().zip(&self.ends) {
                let Some(flow) = &end.flow else { continue };
                eprintln!("{name}: {:?} {:?}", flow.stats(), end.channel.events);
                eprintln!(
                    "   queued {} in flight {} window {} next timer {:?}",
                    flow.queued(),
                    flow.in_flight(),
                    flow.window(self.now),
                    flow.next_timeout()
                );
            }
            match self.rng {
                Choices::Seeded(_) => eprintln!("seed {} at {:?}", self.seed, self.now),
                Choices::Read { .. } => eprintln!("choices read from bytes, at {:?}", self.now),
            }
        }
    }
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
    /// A calls B, who listens; nothing has been sent.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Config::default(), 1500, Seq(1000))
    }

    pub fn with(seed: u64, config: Config, mtu: u16, first: Seq) -> Self {
        let end = |accepts, tag| End {
            flow: None,
            channel: Channel::new(1024),
            past: Vec::new(),
            outbox: VecDeque::new(),
            sent: 0,
            tokens_max: 256,
            reading: true,
            finish: false,
            unit: machnet_wire::unit_size(mtu),
            received: [0; 8],
            errors: Vec::new(),
            config,
            accepts,
            mtu,
            tag,
            first,
            stalled_until: Nanos::ZERO,
            waiting: Vec::new(),
            heard_at: Nanos::ZERO,
            newest: None,
        };
        Sim {
            seed,
            rng: Choices::seeded(seed),
            now: Nanos::micros(5),
            ends: [end(false, 0xa1), end(true, 0xb2)],
            links: [Link::default(), Link::default()],
            queue: BinaryHeap::new(),
            order: 0,
            sent: [0; 8],
            sent_by: [0; 2],
            dropped: 0,
            mercy: None,
            standing: 0,
            trace: VecDeque::new(),
            record: None,
        }
    }

    pub fn setup(&self, i: usize) -> Setup {
        let end = &self.ends[i];
        let (local_port, remote_port) = if i == A { (40_000, 80) } else { (80, 40_000) };
        Setup {
            local_port,
            remote_port,
            hello: Hello { tag: end.tag, epoch: 7, mtu: end.mtu, queues: 1, queue: 0, hit: (0, 0) },
            first: end.first,
        }
    }

    pub fn connect(&mut self) {
        self.connect_within(Nanos::secs(5));
    }

    pub fn connect_within(&mut self, timeout: Nanos) {
        let setup = self.setup(A);
        self.ends[A].flow = Some(Flow::connect(self.now, self.ends[A].config, setup, timeout));
        self.pump(A);
    }

    /// Connects and waits until both ends know.
    pub fn establish(&mut self) {
        self.connect();
        self.run_until(Nanos::secs(10), |sim| sim.both(|end| end.channel.told(Event::Established) == 1));
    }

    pub fn both(&self, f: impl Fn(&End) -> bool) -> bool {
        f(&self.ends[A]) && f(&self.ends[B])
    }

    pub fn flow(&mut self, i: usize) -> &mut Flow<u64, Vec<u8>> {
        self.ends[i].flow.as_mut().expect("a flow")
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
            let mut bytes = vec![0; t.len()];
            let at = t.header.emit(t.sack, &mut bytes);
            match t.body {
                Body::None => {}
                Body::Unit { tx, offset, len } => {
                    let payload = &end.channel.tokens[tx];
                    bytes[at..].copy_from_slice(&payload[offset as usize..(offset + len) as usize]);
                }
                Body::Hello(hello) => bytes[at..].copy_from_slice(&hello.emit()),
                Body::Reset(reset) => bytes[at..].copy_from_slice(&reset.emit()),
            }
            self.put(i, bytes);
        }
        if self.ends[i].flow.as_ref().is_some_and(Flow::is_done) {
            self.ends[i].flow = None;
        }
    }

    /// Puts a packet of end `i` on the link.
    pub fn put(&mut self, i: usize, bytes: Vec<u8>) {
        let packet = Packet::parse(&bytes).expect("what is sent can be read");
        if let Some(record) = &mut self.record {
            record.push((i, bytes.clone()));
        }
        self.sent[packet.header.kind as usize] += 1;
        self.sent_by[i] += 1;
        self.ends[i].newest = Some(packet.header);
        let mut line = Line {
            at: self.now,
            from: i,
            header: packet.header,
            sack_words: packet.sack.words(),
            payload: packet.payload.len(),
            lost: false,
        };
        let link = &mut self.links[i];
        let mut drop = link.down
            || self.rng.chance(link.loss)
            || link.loss_ppm > 0 && self.rng.below(1_000_000) < link.loss_ppm;
        if link.drops > 0 && link.drop_if.is_none_or(|f| f(&packet)) {
            link.drops -= 1;
            drop = true;
        }
        drop &= self.mercy.is_none_or(|mercy| self.now - self.ends[1 - i].heard_at <= mercy);
        let wire = bytes.len() as u64 + 28 + 38;
        let start = link.free_at.max(self.now);
        let each = Nanos(wire * link.ps_per_byte / 1000);
        if link.ps_per_byte > 0 && (start - self.now).0 > link.queue * each.0 {
            drop = true;
        }
        if !drop {
            link.free_at = start + each;
        }
        let leaves = start + each;
        line.lost = drop;
        self.note(line);
        if drop {
            self.dropped += 1;
            return;
        }
        let link = self.links[i].clone();
        let copies = 1 + u64::from(self.rng.chance(link.duplicate));
        for copy in 0..copies {
            let mut at = leaves + link.delay;
            if copy > 0 || self.rng.chance(link.reorder) {
                at += Nanos(self.rng.below(link.jitter.0));
            }
            self.order += 1;
            self.queue.push(Reverse((at.0, self.order, 1 - i, bytes.clone())));
        }
    }

    fn note(&mut self, line: Line) {
        if self.trace.len() == 300 {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
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

    /// An RST of an engine that knows no flow.
    pub fn put_reset(&mut self, i: usize, reason: Reason, echo: u32) {
        let mut h = Header::new(Kind::Rst);
        let setup = self.setup(i);
        (h.src, h.dst) = (setup.local_port, setup.remote_port);
        let mut bytes = vec![0; header::LEN + 16];
        let at = h.emit(&[], &mut bytes);
        bytes[at..].copy_from_slice(&machnet_wire::Reset { epoch: 7, echo, reason }.emit());
        self.put(i, bytes);
    }

    /// The next moment when something happens.
    fn next_event(&self) -> Option<Nanos> {
        let mut next = self.queue.peek().map(|Reverse((at, ..))| Nanos(*at));
        for end in &self.ends {
            let timer = end.flow.as_ref().and_then(Flow::next_timeout).map(|at| at.max(end.stalled_until));
            let wakes = (end.stalled_until > self.now).then_some(end.stalled_until);
            for at in [timer, wakes].into_iter().flatten() {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        }
        next
    }

    /// Runs one event; false when nothing is left to happen before `until`.
    pub fn step(&mut self, until: Nanos) -> bool {
        let Some(next) = self.next_event() else { return false };
        if next > until {
            self.now = until;
            return false;
        }
        self.standing = if next > self.now { 0 } else { self.standing + 1 };
        assert!(
            self.standing < STORM as u32,
            "time stands still: a timer fires again and again, or packets answer each other"
        );
        self.now = self.now.max(next);
        for i in [A, B] {
            if self.ends[i].stalled_until <= self.now {
                for bytes in std::mem::take(&mut self.ends[i].waiting) {
                    self.give(i, bytes);
                }
            }
        }
        if self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.0) {
            let Reverse((_, _, to, bytes)) = self.queue.pop().unwrap();
            self.give(to, bytes);
            return true;
        }
        for i in [A, B] {
            let end = &mut self.ends[i];
            if end.stalled_until > self.now {
                continue;
            }
            if let Some(flow) = &mut end.flow
                && flow.next_timeout().is_some_and(|at| at <= self.now)
            {
                flow.on_timeout(self.now, &mut end.channel);
                self.pump(i);
            }
        }
        true
    }

    pub fn run_for(&mut self, time: Nanos) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until `done`, which must happen within `time`.
    pub fn run_until(&mut self, time: Nanos, done: impl Fn(&Sim) -> bool) {
        let until = self.now + time;
        while !done(self) {
            assert!(self.step(until), "not done within {time:?}");
        }
    }

    /// All units back where they belong, except those that the flows have promised.
    pub fn check_books(&self) {
        for end in &self.ends {
            assert!(end.channel.tokens.is_empty(), "{} tokens out", end.channel.tokens.len());
            assert_eq!(end.channel.lent, 0);
            assert_eq!(end.channel.held, 0);
            assert_eq!(end.channel.rx_free + end.channel.reserved, end.channel.rx_units);
        }
    }
}

/// More than any flow has to send at one moment, or any moment has events.
const STORM: u64 = 100_000;

/// A message that says which one it is in every byte.
pub fn message(n: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(n);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&rng.next().to_le_bytes());
    }
    out.truncate(len);
    out
}

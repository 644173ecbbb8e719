//! One end: a real flow, its channel, and what an engine does around them (rust/engine/src/rx.rs, open.rs, tx.rs).

use std::sync::Arc;

use machnet_flow::{Body, Flow, FlowError, Setup, Syns, Unit};
use machnet_wire::{
    Flags, Fragment, Header, Hello, Kind, Nanos, Packet, PathEntry, Paths, Reason, Reset, Seq, header,
};

use crate::channel::{Channel, Record};
use crate::rule::Rule;
use crate::scenario::Scenario;

/// Everything that decides what an end will do, and what its application was told.
#[derive(Clone, Hash, Debug)]
pub struct End {
    side: usize,
    /// Its own clock: it moves only when a timer of this end fires, so that any speed of one end against the other's
    /// is among the runs, and messages take no time.
    pub now: Nanos,
    pub flow: Option<Flow<u64, Vec<u8>>>,
    /// Books of the present connection, or of the last one.
    pub channel: Channel,
    /// Connections before that.
    past: Arc<Vec<Record>>,
    epoch: u64,
    /// Tags drawn so far.
    drawn: u32,
    /// The engine has still to ask the flow what it sends.
    pub due: bool,
    /// SYNs that have arrived and bought no SYN-ACK yet.
    owed: u8,
    /// Copies of a first SYN; with several, both ends ask where their pairs lead, and tell.
    syns: u16,
    /// The listeners that are open, by their numbers.
    listeners: Vec<u8>,
    /// Places in the listeners' backlogs: of connections that are half-open, or established and not taken.
    pub places: Vec<Place>,
    /// Tags of the callers whose SYN a listener had answered that closed then.
    pub left_to_others: Vec<u32>,
    /// Tags of the callers whose SYN found none.
    pub turned_away: Vec<u32>,
    /// Tags of the callers that brought a cookie back, and began a connection by it.
    pub proven: Vec<u32>,
    /// Tags of the callers that brought one back which is not known here.
    pub forgotten: Vec<u32>,
}

/// A place in a listener's backlog.
#[derive(Clone, Copy, Hash, Debug)]
pub struct Place {
    /// The connection's.
    pub tag: u32,
    pub listener: u8,
}

impl End {
    pub fn new(side: usize, scenario: &Scenario) -> End {
        End {
            side,
            now: Nanos::secs(1),
            flow: None,
            channel: Channel::new(Record::default()),
            past: Arc::default(),
            epoch: 1,
            drawn: 0,
            due: false,
            owed: 0,
            syns: scenario.syns,
            listeners: (0..scenario.listeners).filter(|_| scenario.listens[side]).collect(),
            places: Vec::new(),
            left_to_others: Vec::new(),
            turned_away: Vec::new(),
            proven: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// All connections that this end has had, the present one last.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.past.iter().chain(Some(&self.channel.record))
    }

    pub fn record(&self, tag: u32) -> Option<&Record> {
        self.records().find(|record| record.tag == tag && tag != 0)
    }

    /// Whether the connection with this tag is here and not over.
    pub fn lives(&self, tag: u32) -> bool {
        let record = &self.channel.record;
        self.flow.is_some() && record.tag == tag && record.closed.is_none()
    }

    pub fn is_established(&self) -> bool {
        self.flow.as_ref().is_some_and(Flow::is_established)
    }

    // What the application does.

    pub fn may_connect(&self) -> bool {
        self.flow.as_ref().is_none_or(Flow::is_lingering)
    }

    pub fn connect(&mut self, scenario: &Scenario) {
        if self.flow.is_some() {
            self.forget();
        }
        let setup = self.setup(self.syns);
        let flow = Flow::connect(self.now, scenario.config, setup, scenario.connect_timeout);
        self.begin(flow, Record { dialled: true, taken: true, ..Record::default() });
    }

    /// The connection that has waited longest for the application to take it.
    fn offered(&self) -> Option<u32> {
        let mut tags = self.places.iter().map(|place| place.tag);
        tags.find(|tag| self.record(*tag).is_some_and(|record| record.established))
    }

    pub fn may_accept(&self) -> bool {
        self.offered().is_some()
    }

    pub fn accept(&mut self) {
        let Some(tag) = self.offered() else { return };
        self.places.retain(|place| place.tag != tag);
        if self.channel.record.tag == tag {
            self.channel.record.taken = true;
        } else if let Some(record) = Arc::make_mut(&mut self.past).iter_mut().find(|record| record.tag == tag)
        {
            record.taken = true;
        }
    }

    pub fn may_send(&self) -> bool {
        let record = &self.channel.record;
        self.is_established() && record.taken && !record.fin && !record.left
    }

    pub fn send(&mut self) {
        let record = &mut self.channel.record;
        let payload = payload(record.tag, record.peer(), record.sent);
        record.sent += 1;
        let len = payload.len() as u32;
        let fragment = Fragment { begin: true, end: true, message_len: len };
        let tx = self.channel.token(payload);
        let Some(flow) = &mut self.flow else { return };
        if let Err(refused) = flow.send(Unit { fragment, len, tx }) {
            self.channel.fault(Rule::Honest, format!("a message was not taken: {}", refused.why));
        }
    }

    pub fn fin(&mut self) {
        self.channel.record.fin = true;
        let tx = self.channel.token(Vec::new());
        let Some(flow) = &mut self.flow else { return };
        if let Err(refused) = flow.fin(tx) {
            self.channel.fault(Rule::Honest, format!("a half close was not taken: {}", refused.why));
        }
    }

    pub fn may_close(&self) -> bool {
        self.is_established() && self.channel.record.taken && !self.channel.record.stopped
    }

    pub fn close(&mut self) {
        if !self.channel.record.fin {
            self.fin();
        }
        self.channel.record.stopped = true;
        if let Some(flow) = &mut self.flow {
            flow.stop_reading(self.now, &mut self.channel);
        }
    }

    /// Whether the application has a connection, or waits for one, that it can reset.
    pub fn may_reset(&self) -> bool {
        let record = &self.channel.record;
        let here = record.closed.is_none() && !record.left;
        let has = record.taken && (record.established || record.dialled);
        self.flow.is_some() && here && has
    }

    pub fn reset(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.reset(Reason::Aborted, &mut self.channel);
        }
    }

    /// Whether there is an application that may leave, having closed or not.
    pub fn may_leave(&self) -> bool {
        self.is_established() && !self.channel.record.left
    }

    /// As rust/engine/src/channels.rs does where nobody waits for the peer's FIN any more.
    pub fn leave(&mut self) {
        (self.channel.record.stopped, self.channel.record.left) = (true, true);
        if let Some(flow) = &mut self.flow {
            flow.stop_reading(self.now, &mut self.channel);
            flow.reset_behind(self.now, Reason::AppGone, &mut self.channel);
        }
    }

    /// Whether a listener may close while others go on, and nobody waits there to be taken.
    pub fn may_unlisten(&self) -> bool {
        self.listeners.len() > 1 && self.offered().is_none()
    }

    /// As rust/engine/src/listen.rs does where the port has other listeners: a half-open connection is forgotten without a word, and a
    /// caller that has no answer yet meets one of them when it asks again.
    pub fn unlisten(&mut self) {
        let record = &self.channel.record;
        let half_open =
            self.flow.is_some() && !record.dialled && !record.established && record.closed.is_none();
        let closes = if half_open { record.listener } else { self.listeners[0] };
        self.listeners.retain(|listener| *listener != closes);
        if half_open {
            self.left_to_others.push(record.peer());
            self.forget();
        }
        self.places.retain(|place| place.listener != closes);
    }

    /// The engine asks where a packet leads.
    pub fn probe(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.probe_pairs(1);
        }
    }

    // What happens to it.

    /// The sidecar starts anew and knows nothing any more.
    pub fn restart(&mut self) {
        self.flow = None;
        self.epoch += 1;
        self.due = false;
        self.owed = 0;
        self.places.clear();
        self.replace_channel(Record::default());
    }

    pub fn next_timeout(&self) -> Option<Nanos> {
        self.flow.as_ref().and_then(Flow::next_timeout)
    }

    /// Time goes on to the next timeout.
    pub fn time_out(&mut self) {
        if let (Some(at), Some(flow)) = (self.next_timeout(), &mut self.flow) {
            self.now = self.now.max(at);
            flow.on_timeout(self.now, &mut self.channel);
            // The engine would try another pair, which is all the same here.
            flow.take_unanswered();
        }
    }

    /// A packet arrives. What the engine answers itself goes to `out`.
    pub fn give(&mut self, scenario: &Scenario, bytes: &[u8], out: &mut Vec<Vec<u8>>) {
        let packet = Packet::parse(bytes).expect("what is sent can be read");
        let header = &packet.header;
        let proven = self.is_proven(&packet);
        self.owed += u8::from(header.kind == Kind::Syn || proven);
        let Some(flow) = &mut self.flow else { return self.stranger(scenario, &packet, out) };
        match flow.on_packet(self.now, &packet, &mut self.channel) {
            Ok(()) => {
                // The engine would ask for another MAC, which is all the same here.
                flow.take_asked_again();
                self.on_pairs(&packet);
            }
            Err(FlowError::Over) => {}
            Err(FlowError::Tag) if proven => match flow.on_proven_syn(self.now, Nanos::ZERO, &packet) {
                Err(FlowError::Superseded) => {
                    self.forget();
                    self.stranger(scenario, &packet, out);
                }
                Err(error) => self.channel.fault(Rule::Honest, error.to_string()),
                Ok(()) => {
                    flow.take_asked_again();
                }
            },
            Err(FlowError::Tag) => {
                if header.kind != Kind::Rst {
                    out.push(self.refuse(header.tag, Reason::Closed));
                }
            }
            Err(FlowError::Superseded) => {
                self.forget();
                self.stranger(scenario, &packet, out);
            }
            Err(error @ (FlowError::Protocol(_) | FlowError::Malformed(_))) => {
                self.channel.fault(Rule::Honest, error.to_string());
            }
        }
    }

    /// What a packet that was taken asks or tells about pairs.
    fn on_pairs(&mut self, packet: &Packet<'_>) {
        let Some(flow) = self.flow.as_mut().filter(|flow| flow.is_established()) else { return };
        match packet.header.kind {
            Kind::SynAck => {
                let Ok(hello) = Hello::parse(packet.payload) else { return };
                let peers = flow.peer().is_some_and(|peer| peer.tag == hello.tag);
                if peers && packet.header.flags.has(Flags::REPORT) {
                    flow.set_hit(ROUTE);
                    flow.report_pairs();
                }
                self.channel.record.reported |= peers && hello.hit.is_some();
            }
            Kind::Ping if packet.header.flags.has(Flags::REPORT) => flow.report_pairs(),
            Kind::Paths => self.channel.record.reported = true,
            _ => {}
        }
        self.channel.record.reported |= packet.hit.is_some();
    }

    /// A packet of no flow.
    fn stranger(&mut self, scenario: &Scenario, packet: &Packet<'_>, out: &mut Vec<Vec<u8>>) {
        match packet.header.kind {
            Kind::Ack if brings_cookie(packet) && !self.is_proven(packet) => {
                let caller = Hello::parse(packet.payload).map_or(0, |hello| hello.tag);
                if !self.forgotten.contains(&caller) {
                    self.forgotten.push(caller);
                }
                out.push(self.refuse(packet.header.tag, Reason::Closed));
            }
            Kind::Syn | Kind::Ack
                if !self.listeners.is_empty()
                    && (packet.header.kind == Kind::Syn || brings_cookie(packet)) =>
            {
                let caller = Hello::parse(packet.payload).map_or(0, |hello| hello.tag);
                let Some(listener) = self.listener(scenario, caller) else {
                    if !self.turned_away.contains(&caller) {
                        self.turned_away.push(caller);
                    }
                    return;
                };
                if packet.header.kind == Kind::Syn && scenario.cookies {
                    return self.give_cookie(packet, out);
                }
                let setup = self.setup(1);
                match Flow::accept(self.now, Nanos::ZERO, scenario.config, setup, packet) {
                    Ok(flow) => {
                        if brings_cookie(packet) && !self.proven.contains(&caller) {
                            self.proven.push(caller);
                        }
                        if scenario.backlog.is_some() {
                            self.places.push(Place { tag: flow.tag(), listener });
                        }
                        let taken = scenario.backlog.is_none();
                        self.begin(flow, Record { taken, listener, ..Record::default() });
                    }
                    Err(error) => self.channel.fault(Rule::Honest, error.to_string()),
                }
            }
            Kind::Syn => {
                let tag = Hello::parse(packet.payload).map_or(0, |hello| hello.tag);
                out.push(self.refuse(tag, Reason::Refused));
            }
            Kind::Rst => {}
            _ => out.push(self.refuse(packet.header.tag, Reason::Closed)),
        }
    }

    /// As rust/engine/src/cookies.rs does it, without time: a cookie is good for as long as the sidecar runs.
    fn give_cookie(&mut self, syn: &Packet<'_>, out: &mut Vec<Vec<u8>>) {
        self.owed = self.owed.saturating_sub(1);
        let Ok(caller) = Hello::parse(syn.payload) else { return };
        let tag = COOKIE_TAG + self.side as u32;
        let cookie = self.cookie(&caller, syn.header.unit, tag);
        let header = Header {
            tag: caller.tag,
            unit: FIRST,
            ack: syn.header.unit,
            flags: Flags::ECHO,
            ack_tx: syn.header.tx,
            ts_echo: syn.header.ts,
            src: syn.header.dst,
            dst: syn.header.src,
            ..Header::new(Kind::SynAck)
        };
        let mut bytes = vec![0; header::LEN + Hello::LEN];
        let at = header.emit(&[], &mut bytes);
        bytes[at..].copy_from_slice(&Hello { cookie, ..Hello::new(tag, self.epoch, 1500) }.emit());
        out.push(bytes);
    }

    fn cookie(&self, caller: &Hello, unit: Seq, tag: u32) -> u64 {
        crate::world::digest(&(self.side, self.epoch, Hello { cookie: 0, ..*caller }.emit(), unit, tag)) | 1
    }

    /// Whether a packet brings back a cookie of this end's.
    fn is_proven(&self, packet: &Packet<'_>) -> bool {
        let (header, hello) = (&packet.header, Hello::parse(packet.payload));
        brings_cookie(packet)
            && hello.is_ok_and(|hello| hello.cookie == self.cookie(&hello, header.unit, header.tag))
    }

    /// The listener that takes a SYN: the one whose turn it is by the caller's tag, or the next that has a place.
    fn listener(&self, scenario: &Scenario, caller: u32) -> Option<u8> {
        let count = self.listeners.len();
        let taken = |listener| self.places.iter().filter(|place| place.listener == listener).count();
        (0..count)
            .map(|n| self.listeners[(caller as usize + n) % count])
            .find(|listener| scenario.backlog.is_none_or(|most| taken(*listener) < most))
    }

    fn setup(&mut self, syns: u16) -> Setup {
        self.drawn += 1;
        let (local_port, remote_port) = if self.side == 0 { (40_000, 80) } else { (80, 40_000) };
        // A tag is never drawn twice, in the model; in the world it is once in 2^32.
        let tag = 0xa0 + 0x10 * self.side as u32 + self.drawn;
        let hello = Hello::new(tag, self.epoch, 1500);
        let syns = Syns { first: syns, ..Syns::ONE };
        Setup { local_port, remote_port, hello, first: FIRST, syns }
    }

    fn begin(&mut self, flow: Flow<u64, Vec<u8>>, record: Record) {
        self.replace_channel(Record { tag: flow.tag(), ..record });
        self.flow = Some(flow);
    }

    fn replace_channel(&mut self, record: Record) {
        let mut old = std::mem::replace(&mut self.channel, Channel::new(record));
        self.channel.faults = std::mem::take(&mut old.faults);
        if old.record.tag != 0 {
            Arc::make_mut(&mut self.past).push(old.record);
        }
    }

    /// Drops a flow that nothing holds any more.
    fn forget(&mut self) {
        let record = &self.channel.record;
        if record.closed.is_none() && (record.established || record.dialled) {
            self.channel.fault(Rule::ToldOnce, "the application's connection was dropped without a word");
        }
        if !self.channel.is_balanced() {
            self.channel.fault(Rule::Books, "a flow was dropped that held something");
        }
        self.leave_place();
        self.flow = None;
    }

    /// A connection that never came to be has no place any more.
    fn leave_place(&mut self) {
        let record = &self.channel.record;
        if !record.established {
            self.places.retain(|place| place.tag != record.tag);
        }
    }

    /// An RST of an engine that knows no flow.
    fn refuse(&self, echo: u32, reason: Reason) -> Vec<u8> {
        let mut h = Header::new(Kind::Rst);
        (h.src, h.dst) = if self.side == 0 { (40_000, 80) } else { (80, 40_000) };
        let mut bytes = vec![0; header::LEN + Reset::LEN];
        let at = h.emit(&[], &mut bytes);
        bytes[at..].copy_from_slice(&Reset { epoch: self.epoch, echo, reason }.emit());
        bytes
    }

    /// Takes note of what a call did, and lets the application read.
    pub fn note_call(&mut self) {
        if let Some(flow) = &self.flow
            && let Some(peer) = flow.peer()
            && self.channel.record.peer() != peer.tag
        {
            self.channel.record.peers.push(peer.tag);
        }
        for got in std::mem::take(&mut self.channel.came) {
            let record = &mut self.channel.record;
            let want = payload(record.peer(), record.tag, record.delivered);
            record.delivered += 1;
            if got != want {
                self.channel.fault(Rule::OwnData, format!("delivered {got:x?}, expected {want:x?}"));
            }
        }
        if self.channel.lent > 0 {
            let n = std::mem::take(&mut self.channel.lent);
            if let Some(flow) = &mut self.flow
                && self.channel.record.closed.is_none()
            {
                flow.credit_returned(self.now, n, &mut self.channel);
            }
        }
        if self.channel.record.closed.is_some() {
            self.leave_place();
        }
        if !self.channel.record.established && !self.channel.is_balanced() {
            self.channel
                .fault(Rule::HalfOpenIsFree, "something is reserved for a peer that has proved nothing");
        }
    }

    /// Sends what there is to send, and drops a flow that is done.
    pub fn transmit(&mut self, out: &mut Vec<Vec<u8>>) {
        self.due = false;
        while let Some(flow) = &mut self.flow {
            let Some(mut t) = flow.poll_transmit(self.now, &mut self.channel) else { break };
            if let Body::Paths(entries) = &mut t.body {
                *entries = &[ROUTE];
            }
            if let (Kind::SynAck, Body::Hello(hello), 2..) = (t.header.kind, &mut t.body, self.syns) {
                t.header.flags |= Flags::REPORT;
                hello.hit = Some(ROUTE);
            }
            let mut bytes = vec![0; t.len()];
            let at = t.header.emit_with(t.hit, t.part, t.sack, &mut bytes);
            match t.body {
                Body::None | Body::Padding(_) => {}
                Body::Unit { tx, .. } => bytes[at..].copy_from_slice(self.channel.payload(*tx)),
                Body::Paths(entries) => drop(Paths::emit(entries, &mut bytes[at..])),
                Body::Hello(hello) => bytes[at..].copy_from_slice(&hello.emit()),
                Body::Reset(reset) => bytes[at..].copy_from_slice(&reset.emit()),
            }
            let header = t.header;
            let brings = header.flags.has(Flags::HELLO) && self.channel.record.dialled;
            let allowed = brings || matches!(header.kind, Kind::Syn | Kind::SynAck | Kind::Rst);
            if !self.channel.record.established && !allowed {
                self.channel
                    .fault(Rule::Unproven, format!("{:?} to a peer that has proved nothing", header.kind));
            }
            if header.kind == Kind::SynAck {
                match self.owed.checked_sub(1) {
                    Some(left) => self.owed = left,
                    None => self.channel.fault(Rule::OneSynAck, "a SYN-ACK that no SYN has bought"),
                }
            }
            // Of an acknowledgement with another tag this connection's peer learns nothing.
            if header.tag != 0 && header.tag == self.channel.record.peer() {
                let acked = header.ack.since(FIRST).max(0) as u32;
                self.channel.record.acked = self.channel.record.acked.max(acked);
            }
            out.push(bytes);
        }
        self.owed = 0;
        if self.flow.as_ref().is_some_and(Flow::is_done) {
            if self.channel.record.closed.is_none() {
                self.channel.fault(Rule::ToldOnce, "a flow is done and has not told Closed");
            }
            self.flow = None;
        }
        if self.flow.is_none() && !self.channel.is_balanced() {
            self.channel.fault(Rule::Books, "nothing is left, and something is reserved or owed");
        }
    }
}

/// Whether a packet brings a cookie back.
pub fn brings_cookie(packet: &Packet<'_>) -> bool {
    packet.header.kind == Kind::Ack && packet.header.flags.has(Flags::HELLO)
}

/// What the `n`th message of a connection says: whose it is, for whom, and its number.
fn payload(from: u32, to: u32, n: u32) -> Vec<u8> {
    [from, to, n].iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The tag that goes with a cookie, which is no connection's.
const COOKIE_TAG: u32 = 0xc0c0_0000;
/// Where a packet led. The rules of a connection do not depend on it.
const ROUTE: PathEntry = PathEntry { src: 1, dst: 2, queue: 0 };
/// Every connection numbers from here, so that the numbers of an old one fit a new one and only tags tell them apart.
pub const FIRST: Seq = Seq(1000);

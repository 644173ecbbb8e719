//! A peer that knows a flow's tag and sends what it likes.

use super::{A, B, Channel, Choices, Sim, message};
use machnet_flow::{Config, Event, FlowError};
use machnet_wire::{
    Flags, Header, Hello, Kind, Nanos, Packet, Part, PathEntry, Reason, Reset, SackRange, Seq, header, packet,
};

/// What the peer can know: our tag, what we said last, and what it said itself.
struct Forger {
    tag: u32,
    newest: Header,
    tx: Seq,
}

const KINDS: [Kind; 9] = [
    Kind::Data,
    Kind::Data,
    Kind::Data,
    Kind::Ack,
    Kind::Ping,
    Kind::Syn,
    Kind::SynAck,
    Kind::Rst,
    Kind::Paths,
];

impl Forger {
    /// A packet that parses, near enough to what the flow expects that most of it is looked at.
    fn packet(&mut self, choices: &mut Choices) -> Option<Vec<u8>> {
        let kind = KINDS[choices.below(KINDS.len() as u64) as usize];
        // Fields that name what the flow has sent are mostly right, or it would end at the first packet.
        let near = |choices: &mut Choices, base: Seq, behind: u32, reach: u64| match choices.below(256) {
            255 => Seq(choices.word()),
            254 => base + (choices.below(3000) as u32).wrapping_sub(1000),
            _ => base + (choices.below(reach) as u32).wrapping_sub(behind),
        };
        let mut h = Header::new(kind);
        (h.src, h.dst) = (self.newest.dst, self.newest.src);
        // An RST with our tag is the end of it.
        let stranger = choices.chance(if kind == Kind::Rst { 970 } else { 30 });
        h.tag = if stranger { choices.word() } else { self.tag };
        let unit_flags = Flags(choices.byte().into());
        h.flags = Flags(unit_flags.0 & if kind == Kind::Data { 127 } else { 112 });
        if kind == Kind::Data && !choices.chance(100) {
            h.flags = Flags(h.flags.0 & !12 | if choices.chance(100) { 0 } else { 3 });
        }
        let ours = self.newest.unit + u32::from(self.newest.kind == Kind::Data);
        h.unit = near(choices, self.newest.ack, 4, 40);
        h.tx = near(choices, self.tx, 2, 5);
        h.ack = near(choices, ours, 7, 8);
        h.ack_tx = near(choices, self.newest.tx, 5, 6);
        h.credit = if choices.chance(500) { choices.below(20) as u16 } else { choices.below(1 << 16) as u16 };
        (h.ts, h.ts_echo) = (choices.word(), self.newest.ts.wrapping_sub(u32::from(choices.byte()) << 8));
        if choices.chance(300) {
            h.ts_echo = choices.word();
            h.ack_delay = choices.below(1 << 16) as u16 >> choices.below(16);
            h.gap = choices.below(1 << 16) as u16 >> choices.below(16);
        }
        (h.want, h.backlog) = (choices.byte(), choices.byte());
        let words = choices.below(40).saturating_sub(23);
        let mut sack: Vec<u64> =
            (0..words).map(|_| if choices.chance(20) { choices.next() } else { 0 }).collect();
        let mut body = self.body(choices, &mut h);
        let (mut hit, mut part) = (None, None);
        if choices.chance(100) {
            match choices.below(8) {
                0 => h.lane = choices.below(8) as u8,
                1 => h.flags |= Flags::REPORT,
                2 => hit = Some(PathEntry { src: 1, dst: 2, queue: choices.below(4) as u16 }),
                3 if kind == Kind::Data => {
                    let offset = choices.below(1500) as u16;
                    let unit_len = offset + body.len() as u16 + choices.below(2) as u16;
                    part = Some(Part { offset, unit_len });
                    if h.flags.has(Flags::BEGIN) {
                        h.message_len = unit_len.into();
                    }
                }
                4 => {
                    h.flags |= Flags::SEALED;
                    body.extend([7; packet::SEAL]);
                }
                5 if kind == Kind::Ack => {
                    h.flags |= Flags::HELLO;
                    let hello = Hello::new(choices.below(3) as u32 + 0xa1, 7, 1500);
                    body = Hello { cookie: choices.next(), ..hello }.emit().to_vec();
                }
                _ => sack = ranges(choices, &mut h),
            }
        }
        h.flags |= if hit.is_some() { Flags::HIT } else { Flags::NONE };
        h.flags |= if part.is_some() { Flags::PART } else { Flags::NONE };
        let mut bytes = vec![0; header::LEN + 8 * (sack.len() + 2)];
        let at = h.emit_with(hit, part, &sack, &mut bytes);
        bytes.truncate(at);
        bytes.extend(&body);
        let parses = Packet::parse(&bytes).is_ok();
        if parses && h.tag == self.tag && self.tx.before(h.tx) {
            self.tx = h.tx;
        }
        parses.then_some(bytes)
    }

    fn body(&self, choices: &mut Choices, h: &mut Header) -> Vec<u8> {
        let mut body = match h.kind {
            Kind::Syn | Kind::SynAck => {
                let mtu = [1500, 576, 9001, 1460][choices.below(4) as usize];
                let tag = choices.below(3) as u32 + 0xa1;
                let cookie = if choices.chance(100) { choices.next() } else { 0 };
                Hello { cookie, ..Hello::new(tag, 7, mtu) }.emit().to_vec()
            }
            Kind::Rst => {
                let reason = if choices.chance(500) { Reason::Closed } else { Reason::Aborted };
                Reset { epoch: 7, echo: 0xa1 + choices.below(3) as u32, reason }.emit().to_vec()
            }
            Kind::Paths => vec![0; 12],
            Kind::Data if h.flags.0 & 12 == 0 => {
                let len = if choices.chance(5) { 1500 } else { choices.below(60) };
                let fill = choices.byte();
                vec![fill; len as usize]
            }
            _ => Vec::new(),
        };
        if h.flags.has(Flags::BEGIN) && h.kind == Kind::Data {
            h.message_len = body.len() as u32;
            if !h.flags.has(Flags::END) {
                h.message_len += 1 + choices.below(200) as u32;
            }
        }
        if choices.chance(20) && !body.is_empty() {
            let at = choices.below(body.len() as u64) as usize;
            body[at] = choices.byte();
        }
        body
    }
}

/// Ranges of units that may be in flight, or not.
fn ranges(choices: &mut Choices, h: &mut Header) -> Vec<u64> {
    h.flags |= Flags::RANGES;
    let mut named = Vec::new();
    let mut first = 0;
    for _ in 0..1 + choices.below(4) {
        first += choices.below(4) as u16;
        let count = if choices.chance(20) { choices.below(8000) } else { 1 + choices.below(4) } as u16;
        named.push(SackRange { first, count });
        first += count + 1;
    }
    let mut words = [0; header::SACK_WORDS_MAX];
    let n = SackRange::to_words(&named, &mut words);
    words[..n].to_vec()
}

/// What a run came to.
pub struct Outcome {
    pub sim: Sim,
    /// Packets that the flow was given.
    pub taken: u32,
    /// How many of them it found to break the protocol.
    pub broken: u32,
}

/// Attacks one flow: one that is connected, one that answered a call, or one that calls. It stays in bounds, never panics, does
/// nothing for who does not know its tag, and gives everything back when it is told to end.
pub fn run(seed: u64, mut choices: Choices) -> Outcome {
    let rng = &mut choices;
    let config = Config { credit_max: [256, 16, 1024][rng.below(3) as usize], ..Config::default() };
    let first = if rng.chance(500) { Seq(rng.word()) } else { Seq(u32::MAX - 3) };
    let mut sim = Sim::with(seed, config, 1500, first);
    sim.ends[B].channel = Channel::new([1024, 8192, 16][rng.below(3) as usize]);
    let at = begin(&mut sim, rng);
    let tx = sim.ends[1 - at].newest.map_or(first, |header| header.tx);
    let newest = sim.ends[at].newest.expect("it has said something");
    let mut forger = Forger { tag: sim.ends[at].tag, newest, tx };
    let (mut taken, mut broken, mut finished) = (0, 0, false);
    for _ in 0..rng.steps(400) {
        if rng.is_spent() || sim.ends[at].flow.is_none() || sim.ends[at].channel.closed().is_some() {
            break;
        }
        match rng.below(16) {
            0..=2 => sim.run_for(Nanos(rng.below(300_000))),
            3 if rng.chance(100) => sim.run_for(Nanos::millis(rng.below(1000))),
            4 => {
                let n = rng.below(40) as u32;
                sim.read(at, n);
                sim.pump(at);
            }
            5 if rng.chance(100) => sim.ends[at].reading = !sim.ends[at].reading,
            6 if rng.chance(300) && !finished => sim.send(at, &message(2, rng.below(10_000) as usize)),
            7 if !finished && rng.chance(50) => {
                finished = true;
                if rng.chance(500) {
                    sim.close_when_said(at);
                } else {
                    sim.finish(at);
                }
            }
            8 if rng.chance(100) => {
                let now = sim.now;
                sim.flow(at).stalled(now);
            }
            _ => {
                forger.newest = sim.ends[at].newest.expect("it has said something");
                let Some(bytes) = forger.packet(rng) else { continue };
                taken += 1;
                broken += u32::from(give(&mut sim, at, &bytes));
            }
        }
        check(&sim, at);
    }
    // Whatever it believes by now, it ends when told to, and everything comes back.
    let end = &mut sim.ends[at];
    if let Some(flow) = &mut end.flow {
        flow.reset(Reason::Aborted, &mut end.channel);
    }
    assert_eq!((end.channel.reserved, end.channel.held), (0, 0));
    assert!(end.channel.tokens.is_empty());
    Outcome { sim, taken, broken }
}

/// Brings the flow to be attacked to where the attack begins; which end's it is.
fn begin(sim: &mut Sim, rng: &mut Choices) -> usize {
    match rng.below(8) {
        0 => {
            sim.links[A].down = true;
            sim.connect();
            A
        }
        1 => {
            sim.links[B].down = true;
            sim.connect();
            sim.run_for(Nanos::millis(1));
            B
        }
        _ => {
            sim.establish();
            // In most runs the peer whose place the forger takes does not hear what is answered: it would reset the connection.
            sim.links[B].down = !rng.chance(250);
            sim.ends[B].reading = !rng.chance(350);
            sim.send(A, &message(1, 20_000));
            sim.send(B, &message(1, 20_000));
            B
        }
    }
}

/// Gives the flow a packet; whether it found that the peer breaks the protocol.
fn give(sim: &mut Sim, at: usize, bytes: &[u8]) -> bool {
    let packet = Packet::parse(bytes).expect("it parses");
    let end = &mut sim.ends[at];
    let known = packet.header.tag == end.tag;
    let state =
        |channel: &Channel| (channel.events.len(), channel.lent, channel.reserved, channel.tokens.len());
    let before = state(&end.channel);
    let flow = end.flow.as_mut().expect("there is a flow");
    let out = flow.on_packet(sim.now, &packet, &mut end.channel);
    let speaks_of_tags =
        packet.header.kind == Kind::Syn || packet.header.kind == Kind::Rst && packet.header.tag == 0;
    if !known && !speaks_of_tags {
        assert!(
            matches!(out, Err(FlowError::Tag | FlowError::Malformed(_))),
            "taken from a stranger: {out:?}"
        );
        assert_eq!(state(&end.channel), before, "a stranger's packet changed something");
    }
    sim.pump(at);
    matches!(out, Err(FlowError::Protocol(_)))
}

/// What holds at any moment.
fn check(sim: &Sim, at: usize) {
    let end = &sim.ends[at];
    // What is promised and what is unread are bounded together, whatever the peer does.
    assert!(end.channel.reserved + end.channel.lent <= end.config.credit_max, "{:?}", end.channel);
    if let Some(flow) = &end.flow {
        assert!(flow.in_flight() <= machnet_flow::REACH && flow.queued() <= machnet_flow::QUEUE_MAX);
    }
    assert!(end.channel.told(Event::Established) <= 1);
}

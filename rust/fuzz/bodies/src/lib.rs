//! What the fuzz targets do with their bytes: each is a function that panics where something is wrong. libFuzzer calls it
//! with bytes of its own making (`make fuzz`), and `tests/replay.rs` with those that are kept (`make test`).
//!
//! The simulators are those of the crates' own tests. Everything runs in virtual time and one thread, so one input gives
//! one run: each body returns a trail of it, and the replay test holds two runs of an input against each other.
#![forbid(unsafe_code)]

mod forge;
mod frame;
mod wiretap;

#[path = "../../../flow/tests/common/mod.rs"]
mod flow_sim;
#[path = "../../../wire/tests/common/take_apart.rs"]
mod take_apart;

use std::borrow::Cow;

use machnet_wire::frame::Frame;
use machnet_wire::{Flags, Packet};

use flow_sim::{Choices, Sim, hostile, ops};

/// What a run came to, by name: tells two runs apart, and whether inputs reach what they are meant to.
pub type Trail = Vec<(Cow<'static, str>, u64)>;

/// A body: takes any bytes.
pub type Body = fn(&[u8]) -> Trail;

/// The body of the target with this name.
pub fn body(target: &str) -> Option<Body> {
    let body: Body = match target {
        "frame" => frame::frame,
        "flow_ops" => flow_ops,
        "packet" => packet,
        "wire" => wire,
        _ => return None,
    };
    Some(body)
}

/// Operations on two flows over a faulty link: what one application sends is what the other gets.
fn flow_ops(data: &[u8]) -> Trail {
    let (choices, faults) = Choices::split(data);
    trail(&ops::run(0, choices, faults))
}

/// A hostile peer against one flow whose tag it knows.
fn packet(data: &[u8]) -> Trail {
    let outcome = hostile::run(0, Choices::read(data));
    let mut trail = trail(&outcome.sim);
    trail.extend([("taken".into(), outcome.taken.into()), ("broken".into(), outcome.broken.into())]);
    trail
}

/// Parsers: what parses is written with the same bytes again. The first byte says whether lengths and checksums are repaired.
fn wire(data: &[u8]) -> Trail {
    let Some((first, rest)) = data.split_first() else { return Trail::new() };
    let mut bytes = rest.to_vec();
    if first & 1 != 0 {
        forge::repair(&mut bytes);
    }
    let mut trail = vec![("formats".into(), take_apart::take_apart(&bytes).into())];
    trail.extend(uncommon(&bytes));
    trail
}

/// What few packets have, if the bytes are one or carry one.
fn uncommon(bytes: &[u8]) -> Trail {
    let inner = match machnet_wire::frame::parse(bytes) {
        Ok(Frame::Udp { payload, .. }) => payload,
        _ => bytes,
    };
    let Ok(packet) = Packet::parse(inner) else { return Trail::new() };
    let flags = [
        ("report", Flags::REPORT),
        ("hit", Flags::HIT),
        ("ranges", Flags::RANGES),
        ("sealed", Flags::SEALED),
        ("part", Flags::PART),
        ("hello", Flags::HELLO),
    ];
    let mut trail: Trail =
        flags.into_iter().map(|(name, flag)| (name.into(), packet.header.flags.has(flag).into())).collect();
    trail.push(("lane".into(), packet.header.lane.into()));
    trail
}

fn trail(sim: &Sim) -> Trail {
    let kinds = ["", "syn", "syn_ack", "data", "ack", "ping", "rst", "paths"];
    let mut trail: Trail = kinds.into_iter().map(Cow::Borrowed).zip(sim.sent).collect();
    trail.extend([("time".into(), sim.now.0), ("dropped".into(), sim.dropped)]);
    for end in &sim.ends {
        let channel = end.talk();
        trail.extend([
            ("messages".into(), channel.messages.len() as u64),
            ("aborted".into(), channel.aborted.into()),
            ("errors".into(), end.errors.len() as u64),
        ]);
    }
    trail
}

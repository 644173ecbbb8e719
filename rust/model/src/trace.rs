//! A run that broke a rule, to read.

use machnet_wire::{Flags, Hello, Kind, Packet, Reset};

use crate::action::Action;
use crate::continuation::{self, Continuation};
use crate::scenario::Scenario;
use crate::seen::Seen;
use crate::world::World;

/// The steps one by one, with the packets that each sent, and the continuation where that is what went wrong.
pub fn print(scenario: &Scenario, steps: &[(World, Option<Action>)]) {
    println!(
        "    {}",
        if scenario.open { "A has called B, and both are established" } else { "nothing has happened" }
    );
    let mut last = None;
    for (world, action) in steps {
        if let Some(action) = action {
            let (next, out) = world.apply(scenario, action);
            line(&next, action, &out);
            last = Some(next);
        }
    }
    let Some(world) = last else { return };
    if let Some(fault) = &world.fault {
        return println!("    BROKEN: {}: {}", fault.rule.name(), fault.what);
    }
    if let Some(fault) = [0, 1].into_iter().find_map(|i| crate::blind::check(scenario, world.end(i))) {
        return println!("    BROKEN: {}: {}", fault.rule.name(), fault.what);
    }
    let good = Seen::default();
    let ends_badly = |left: &Vec<_>| continuation::follow(scenario, &world, left.clone(), &good).is_some();
    let Some(left) = continuation::losses(&world).find(ends_badly) else { return };
    for lost in world.packets.iter().filter(|packet| !left.contains(packet)) {
        println!("    lost on the way to {}: {}", NAMES[lost.to], packet(&lost.bytes));
    }
    let start = World { packets: left, ..world };
    println!("    from here without faults:");
    let mut run = Continuation::new(scenario, &start);
    for _ in 0..SHOWN {
        match run.step() {
            Some(Ok((action, out))) => {
                line(&run.world, &action, &out);
                if let Some(fault) = &run.world.fault {
                    return println!("    BROKEN: {}: {}", fault.rule.name(), fault.what);
                }
            }
            Some(Err(fault)) => return println!("    BROKEN: {}: {}", fault.rule.name(), fault.what),
            None => return println!("    the end"),
        }
    }
    println!("    ... and so on");
}

fn line(world: &World, action: &Action, out: &[Vec<u8>]) {
    let ends = [0, 1].map(|i| {
        let end = world.end(i);
        let record = &end.channel.record;
        let state = match (&end.flow, record.closed) {
            (_, Some(closed)) => format!("{closed:?}"),
            (Some(flow), None) if flow.is_established() => "open".to_owned(),
            (Some(_), None) => "opening".to_owned(),
            (None, None) => "-".to_owned(),
        };
        format!("{} {:x}->{:x} {state}", NAMES[i], record.tag, record.peer())
    });
    println!("    {:<86} [{}]", describe(action), ends.join(", "));
    for bytes in out {
        println!("        sends {}", packet(bytes));
    }
}

fn describe(action: &Action) -> String {
    let of = |what: &str, i: usize| format!("{} {what}", NAMES[i]);
    match action {
        Action::Deliver(p) => of(&format!("gets {}", packet(&p.bytes)), p.to),
        Action::Copy(p) => of(&format!("gets a copy of {}", packet(&p.bytes)), p.to),
        Action::Timeout(i) => of("lets time go on to its next timeout", *i),
        Action::Transmit(i) => of("sends what waits", *i),
        Action::Connect(i) => of("connects", *i),
        Action::Send(i) => of("sends a message", *i),
        Action::Fin(i) => of("half-closes", *i),
        Action::Close(i) => of("closes", *i),
        Action::Reset(i) => of("resets", *i),
        Action::Leave(i) => of("leaves", *i),
        Action::Restart(i) => of("restarts and forgets", *i),
        Action::Accept(i) => of("takes a connection", *i),
        Action::Probe(i) => of("asks where a packet leads", *i),
        Action::Unlisten(i) => of("closes one of its listeners", *i),
    }
}

fn packet(bytes: &[u8]) -> String {
    let Ok(p) = Packet::parse(bytes) else { return "bytes that do not parse".to_owned() };
    let h = &p.header;
    let mut text = format!("{:?} tag {:x} unit {} tx {} ack {}", h.kind, h.tag, h.unit.0, h.tx.0, h.ack.0);
    for (flag, name) in [
        (Flags::FIN, " FIN"),
        (Flags::PROBE, " PROBE"),
        (Flags::REFUSED, " REFUSED"),
        (Flags::REPORT, " REPORT"),
        (Flags::HIT, " HIT"),
    ] {
        if h.flags.has(flag) {
            text += name;
        }
    }
    match h.kind {
        Kind::Syn | Kind::SynAck => {
            text += &Hello::parse(p.payload).map_or(String::new(), |hello| format!(" of {:x}", hello.tag));
        }
        Kind::Rst => {
            text += &Reset::parse(p.payload)
                .map_or(String::new(), |reset| format!(" {:?} echo {:x}", reset.reason, reset.echo));
        }
        _ => {}
    }
    text
}

const NAMES: [&str; 2] = ["A", "B"];
/// Steps of a continuation that are printed.
const SHOWN: usize = 200;

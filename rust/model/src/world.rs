//! The state that is walked through: two ends, the packets under way, and what may still happen.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use machnet_wire::Nanos;

use crate::action::{Action, Flying};
use crate::end::End;
use crate::rule::{Fault, Rule};
use crate::rules;
use crate::scenario::{Bounds, Scenario};

/// An end and the digest of all its state.
#[derive(Debug)]
pub struct Sealed {
    pub end: End,
    pub digest: u64,
}

impl Sealed {
    pub fn new(end: End) -> Arc<Sealed> {
        let digest = digest(&end);
        Arc::new(Sealed { end, digest })
    }
}

/// One state.
#[derive(Clone, Debug)]
pub struct World {
    pub ends: [Arc<Sealed>; 2],
    pub packets: Vec<Flying>,
    pub left: Bounds,
    /// A rule that the last step broke: nothing goes on from here.
    pub fault: Option<Fault>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, h: &mut H) {
        for end in &self.ends {
            end.digest.hash(h);
        }
        self.packets.hash(h);
        self.left.hash(h);
        self.fault.hash(h);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        digest(self) == digest(other)
    }
}

/// A hash with fixed keys. Two of ten million states share one with a chance of one in 300 000.
pub fn digest<T: Hash>(value: &T) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(value)
}

impl World {
    pub fn new(scenario: &Scenario) -> World {
        World {
            ends: [0, 1].map(|side| Sealed::new(End::new(side, scenario))),
            packets: Vec::new(),
            left: scenario.bounds,
            fault: None,
        }
    }

    /// Lets time pass at end `i` in which nothing happens there.
    pub fn advance(&mut self, i: usize, pause: Nanos) {
        let mut end = self.end(i).clone();
        end.now += pause;
        self.ends[i] = Sealed::new(end);
    }

    pub fn end(&self, i: usize) -> &End {
        &self.ends[i].end
    }

    /// What can happen next.
    pub fn actions(&self, out: &mut Vec<Action>) {
        if self.fault.is_some() {
            return;
        }
        for (n, packet) in self.packets.iter().enumerate() {
            if n > 0 && *packet == self.packets[n - 1] {
                continue;
            }
            out.push(Action::Deliver(packet.clone()));
            if self.left.copies > 0 {
                out.push(Action::Copy(packet.clone()));
            }
        }
        for i in [0, 1] {
            let (end, left) = (self.end(i), &self.left);
            for (may, action) in [
                (end.due, Action::Transmit(i)),
                (left.timeouts[i] > 0 && end.next_timeout().is_some(), Action::Timeout(i)),
                (left.connects[i] > 0 && end.may_connect(), Action::Connect(i)),
                (left.sends[i] > 0 && end.may_send(), Action::Send(i)),
                (left.fins[i] > 0 && end.may_send(), Action::Fin(i)),
                (left.closes[i] > 0 && end.may_close(), Action::Close(i)),
                (left.resets[i] > 0 && end.may_reset(), Action::Reset(i)),
                (left.leaves[i] > 0 && end.may_leave(), Action::Leave(i)),
                (left.restarts[i] > 0 && end.flow.is_some(), Action::Restart(i)),
                (left.accepts[i] > 0 && end.may_accept(), Action::Accept(i)),
                (left.probes[i] > 0 && end.is_established(), Action::Probe(i)),
                (left.unlistens[i] > 0 && end.may_unlisten(), Action::Unlisten(i)),
            ] {
                if may {
                    out.push(action);
                }
            }
        }
    }

    /// The state after a step, and the packets that the acting end sent.
    pub fn apply(&self, scenario: &Scenario, action: &Action) -> (World, Vec<Vec<u8>>) {
        let mut world = self.clone();
        world.spend(action);
        let i = action.actor();
        let mut end = self.end(i).clone();
        let mut out = Vec::new();
        if let Err(fault) = unless_panics(|| run(&mut end, scenario, action, &mut out)) {
            world.fault = Some(fault);
            return (world, out);
        }
        world.fault = end.channel.faults.drain(..).next();
        for bytes in &out {
            world.put(Flying { to: 1 - i, bytes: bytes.as_slice().into() });
        }
        world.ends[i] = Sealed::new(end);
        if world.fault.is_none() {
            world.fault = rules::after(self.end(i), [world.end(0), world.end(1)], i, action, &out);
        }
        (world, out)
    }

    fn spend(&mut self, action: &Action) {
        let left = &mut self.left;
        match action {
            Action::Deliver(packet) => self.take(packet),
            Action::Copy(_) => left.copies = left.copies.saturating_sub(1),
            Action::Transmit(_) => {}
            Action::Timeout(i) => less(&mut left.timeouts[*i]),
            Action::Connect(i) => less(&mut left.connects[*i]),
            Action::Send(i) => less(&mut left.sends[*i]),
            Action::Fin(i) => less(&mut left.fins[*i]),
            Action::Close(i) => less(&mut left.closes[*i]),
            Action::Reset(i) => less(&mut left.resets[*i]),
            Action::Leave(i) => less(&mut left.leaves[*i]),
            Action::Restart(i) => less(&mut left.restarts[*i]),
            Action::Accept(i) => less(&mut left.accepts[*i]),
            Action::Probe(i) => less(&mut left.probes[*i]),
            Action::Unlisten(i) => less(&mut left.unlistens[*i]),
        }
    }

    fn put(&mut self, packet: Flying) {
        let at = self.packets.partition_point(|other| *other < packet);
        self.packets.insert(at, packet);
    }

    fn take(&mut self, packet: &Flying) {
        if let Ok(at) = self.packets.binary_search(packet) {
            self.packets.remove(at);
        }
    }
}

/// Runs the code under test. A panic leaves a broken end behind, and the run ends there.
pub fn unless_panics<T>(run: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Fault::new(Rule::NoPanic, what.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// What the acting end does.
fn run(end: &mut End, scenario: &Scenario, action: &Action, out: &mut Vec<Vec<u8>>) {
    match action {
        Action::Deliver(packet) | Action::Copy(packet) => end.give(scenario, &packet.bytes, out),
        Action::Timeout(_) => end.time_out(),
        Action::Transmit(_) => {}
        Action::Connect(_) => end.connect(scenario),
        Action::Send(_) => end.send(),
        Action::Fin(_) => end.fin(),
        Action::Close(_) => end.close(),
        Action::Reset(_) => end.reset(),
        Action::Leave(_) => end.leave(),
        Action::Restart(_) => end.restart(),
        Action::Accept(_) => end.accept(),
        Action::Probe(_) => end.probe(),
        Action::Unlisten(_) => end.unlisten(),
    }
    end.note_call();
    if scenario.bursts && !matches!(action, Action::Transmit(_)) {
        end.due = end.flow.is_some();
    } else {
        end.transmit(out);
    }
}

fn less(n: &mut u8) {
    *n = n.saturating_sub(1);
}

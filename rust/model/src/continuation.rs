//! The continuation without further faults: everything under way arrives, timers fire in their order, and an
//! established connection that is left to itself is closed by both applications. It must come to one verdict.
//!
//! It is deterministic, so a state that was seen to come to a good end is good wherever it is met again.

use machnet_flow::{Closed, Flow};
use machnet_wire::Nanos;

use crate::action::{Action, Flying};
use crate::rule::{Fault, Rule};
use crate::scenario::{Bounds, Scenario};
use crate::seen::Seen;
use crate::world::{self, World};

/// A step taken, and the packets that it sent.
type Step = (Action, Vec<Vec<u8>>);

/// A continuation, one step at a time.
pub struct Continuation<'a> {
    scenario: &'a Scenario,
    pub world: World,
    /// Both ends were established and nothing was under way: from there they close, and all is clean.
    clean: bool,
}

impl<'a> Continuation<'a> {
    pub fn new(scenario: &'a Scenario, world: &World) -> Self {
        let mut world = world.clone();
        world.left = Bounds::default();
        Continuation { scenario, world, clean: false }
    }

    /// The next step; `None` at the end. A rule that the step broke is in `world.fault`.
    pub fn step(&mut self) -> Option<Result<Step, Fault>> {
        let action = self.choose()?;
        Some(action.map(|action| {
            let (world, out) = self.world.apply(self.scenario, &action);
            self.world = world;
            (action, out)
        }))
    }

    fn choose(&mut self) -> Option<Result<Action, Fault>> {
        let world = &self.world;
        if let Some(i) = [0, 1].into_iter().find(|i| world.end(*i).due) {
            return Some(Ok(Action::Transmit(i)));
        }
        if let Some(packet) = world.packets.first() {
            return Some(Ok(Action::Deliver(packet.clone())));
        }
        if let Some(i) = [0, 1].into_iter().find(|i| world.end(*i).may_accept()) {
            return Some(Ok(Action::Accept(i)));
        }
        if world.ends.iter().all(|sealed| sealed.end.flow.is_none()) {
            return self.verdict().map(Err);
        }
        if self.is_quiet() {
            self.clean = true;
            // Both are established, so at least one has not finished, or this would not be quiet.
            if let Some(i) = [0, 1].into_iter().find(|i| self.world.end(*i).may_send()) {
                return Some(Ok(Action::Fin(i)));
            }
        }
        self.pass_time()
    }

    /// Both ends are established with each other, and nothing is on its way from either.
    fn is_quiet(&self) -> bool {
        let [a, b] = [0, 1].map(|i| self.world.end(i));
        let with = |x: &Flow<u64, Vec<u8>>, y: &Flow<u64, Vec<u8>>| {
            x.is_established() && x.queued() == 0 && x.peer().is_some_and(|peer| peer.tag == y.tag())
        };
        match (&a.flow, &b.flow) {
            (Some(x), Some(y)) => with(x, y) && with(y, x),
            _ => false,
        }
    }

    /// Both clocks go on together, to the first timeout of either.
    fn pass_time(&mut self) -> Option<Result<Action, Fault>> {
        let wait = |i: usize| self.world.end(i).next_timeout().map(|at| at - self.world.end(i).now);
        let first = [0, 1].into_iter().filter_map(|i| Some((wait(i)?, i))).min();
        let Some((pause, i)) = first else {
            let what = "a flow is left that waits for nothing";
            return Some(Err(Fault::new(Rule::Terminates, what)));
        };
        if pause > Nanos::ZERO {
            self.world.advance(1 - i, pause);
        }
        Some(Ok(Action::Timeout(i)))
    }

    fn verdict(&self) -> Option<Fault> {
        let records = [0, 1].map(|i| &self.world.end(i).channel.record);
        if self.clean {
            let what = match records {
                [a, b] if a.closed != Some(Closed::Clean) || b.closed != Some(Closed::Clean) => {
                    format!(
                        "both closed and nothing was under way, yet they were told {:?} and {:?}",
                        a.closed, b.closed
                    )
                }
                [a, b] if a.delivered < b.sent && !a.stopped || b.delivered < a.sent && !b.stopped => {
                    "both closed clean, and a message is missing".to_owned()
                }
                _ => return None,
            };
            return Some(Fault::new(Rule::Terminates, what));
        }
        None
    }
}

/// The state that a scenario begins with.
pub fn start(scenario: &Scenario) -> Result<World, Fault> {
    let nothing = World::new(scenario);
    if !scenario.open {
        return Ok(nothing);
    }
    let (called, _) = nothing.apply(scenario, &Action::Connect(0));
    let mut run = Continuation::new(scenario, &called);
    while !(run.world.packets.is_empty() && run.is_quiet()) {
        run.step().unwrap_or_else(|| Err(Fault::new(Rule::Terminates, "a call came to nothing")))?;
        if let Some(fault) = run.world.fault.take() {
            return Err(fault);
        }
    }
    Ok(World { left: scenario.bounds, ..run.world })
}

/// What may have been lost of the packets under way: nothing, any one of them, or all. Given as what is left.
pub fn losses(world: &World) -> impl Iterator<Item = Vec<Flying>> {
    let n = world.packets.len();
    let without = |lost: usize| [&world.packets[..lost], &world.packets[lost + 1..]].concat();
    std::iter::once(world.packets.clone()).chain((0..n).map(without)).chain((n > 1).then(Vec::new))
}

/// Whether `world` comes to a good end, whatever was lost.
pub fn check(scenario: &Scenario, world: &World, good: &Seen) -> Option<Fault> {
    losses(world).find_map(|packets| follow(scenario, world, packets, good))
}

/// Whether it does with these packets under way.
pub fn follow(scenario: &Scenario, world: &World, packets: Vec<Flying>, good: &Seen) -> Option<Fault> {
    if good.has(digest(world, &packets, false)) {
        return None;
    }
    let mut run = Continuation::new(scenario, &World { packets, ..world.clone() });
    let mut way = Vec::new();
    loop {
        let digest = digest(&run.world, &run.world.packets, run.clean);
        if good.has(digest) {
            break;
        }
        way.push(digest);
        if way.len() > STEPS {
            let what = format!("no verdict after {STEPS} steps without faults");
            return Some(Fault::new(Rule::Terminates, what));
        }
        match run.step() {
            None => break,
            Some(Ok(_)) if run.world.fault.is_none() => {}
            Some(Ok(_)) => return run.world.fault.take(),
            Some(Err(fault)) => return Some(fault),
        }
    }
    way.into_iter().for_each(|digest| good.add(digest));
    None
}

/// All that decides how a continuation goes on.
fn digest(world: &World, packets: &[Flying], clean: bool) -> u64 {
    world::digest(&(world.ends[0].digest, world.ends[1].digest, packets, clean))
}

/// More than any continuation takes that ends: a call that nobody answers, and a minute of keep-alive.
const STEPS: usize = 5000;

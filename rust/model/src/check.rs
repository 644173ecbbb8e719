//! The walk itself: stateright over [`World`], and what is printed of it.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::action::Action;
use crate::blind;
use crate::continuation;
use crate::reached::is_met;
use crate::rule::{Fault, Rule};
use crate::scenario::{Bounds, Scenario};
use crate::seen::Seen;
use crate::trace;
use crate::world::World;

/// A scenario, with what need not be checked twice.
struct Walk {
    scenario: Scenario,
    start: World,
    /// States that come to a good end.
    good: Seen,
    /// Ends that forged packets do not move.
    unmoved: Seen,
    /// Which of the scenario's goals were met.
    met: Vec<AtomicBool>,
}

impl Walk {
    fn new(scenario: &Scenario, start: World) -> Walk {
        Walk {
            scenario: scenario.clone(),
            start,
            good: Seen::default(),
            unmoved: Seen::default(),
            met: scenario.goals.iter().map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn note_goals(&self, world: &World) {
        for (goal, met) in self.scenario.goals.iter().zip(&self.met) {
            if !met.load(Relaxed) && is_met(*goal, world) {
                met.store(true, Relaxed);
            }
        }
    }

    fn blind(&self, world: &World) -> Option<Fault> {
        world.ends.iter().find_map(|sealed| {
            if self.unmoved.has(sealed.digest) {
                return None;
            }
            let fault = blind::check(&self.scenario, &sealed.end);
            if fault.is_none() {
                self.unmoved.add(sealed.digest);
            }
            fault
        })
    }
}

impl Model for Walk {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let (mut next, _) = world.apply(&self.scenario, &action);
        next.fault = next.fault.take().or_else(|| self.blind(&next));
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Walk>> {
        vec![
            Property::always("every rule of a step", |walk: &Walk, world: &World| {
                walk.note_goals(world);
                world.fault.is_none()
            }),
            Property::always(Rule::Terminates.name(), |walk: &Walk, world: &World| {
                world.fault.is_some() || continuation::check(&walk.scenario, world, &walk.good).is_none()
            }),
        ]
    }
}

/// Walks through a scenario and prints what came of it. Whether every rule held and every goal was met.
pub fn run(scenario: &Scenario) -> bool {
    print!("{:<26} {:<70} ", scenario.name, bounds(scenario));
    let _ = std::io::stdout().flush();
    let began = Instant::now();
    let start = match continuation::start(scenario) {
        Ok(start) => start,
        Err(fault) => {
            println!("BROKEN before it began: {}: {}", fault.rule.name(), fault.what);
            return false;
        }
    };
    // Breadth first, so that what is found wrong is found on a short way.
    let checker = Walk::new(scenario, start)
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let goals = scenario.goals.iter().zip(&checker.model().met);
    let missed: Vec<_> = goals.filter(|(_, met)| !met.load(Relaxed)).map(|(goal, _)| goal.name()).collect();
    let verdict = match (found.is_empty(), missed.is_empty()) {
        (true, true) => "holds".to_owned(),
        (true, false) => format!("proves little: never {}", missed.join(", never ")),
        (false, _) => "BROKEN".to_owned(),
    };
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{states:>9} states, depth {depth:>2}, {:>6.1} s: {verdict}", began.elapsed().as_secs_f64());
    let holds = found.is_empty() && missed.is_empty();
    if let Some((_, path)) = found.into_iter().next() {
        trace::print(scenario, &path.into_vec());
    }
    holds
}

/// The bounds in words; what cannot happen is left out.
fn bounds(scenario: &Scenario) -> String {
    let Bounds {
        copies,
        timeouts,
        connects,
        sends,
        fins,
        closes,
        resets,
        leaves,
        restarts,
        accepts,
        probes,
        unlistens,
    } = scenario.bounds;
    let mut text = String::new();
    if scenario.open {
        text += "open, ";
    }
    if scenario.syns > 1 {
        text += &format!("SYNs {}, ", scenario.syns);
    }
    text += &format!("copies {copies}");
    for (name, n) in [
        ("timeouts", timeouts),
        ("calls", connects),
        ("sends", sends),
        ("fins", fins),
        ("closes", closes),
        ("resets", resets),
        ("leaves", leaves),
        ("restarts", restarts),
        ("accepts", accepts),
        ("probes", probes),
        ("unlistens", unlistens),
    ] {
        if n != [0, 0] {
            text += &format!(", {name} {}+{}", n[0], n[1]);
        }
    }
    text
}

const THREADS: usize = 2;

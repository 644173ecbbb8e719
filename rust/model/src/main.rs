//! Walks through every state of two Machnet flows within small bounds. The flows are the real code of rust/flow, the
//! packets are real bytes, and around each flow stands what an engine does; so model and code cannot diverge.
//!
//! `make model` runs all scenarios; docs/wire.md, "What is proven", says what follows from it.
#![forbid(unsafe_code)]

mod action;
mod blind;
mod channel;
mod check;
mod continuation;
mod end;
mod goal;
mod reached;
mod rule;
mod rules;
mod scenario;
mod seen;
mod trace;
mod world;

use std::process::ExitCode;

use scenario::Scenario;

fn main() -> ExitCode {
    let mut more = 0;
    let mut names = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--more" {
            let value = args.next().unwrap_or_default();
            let Ok(n) = value.parse() else {
                eprintln!("machnet-model: --more {value:?}: a number of further faults is needed, 0 to 255");
                return ExitCode::from(2);
            };
            more = n;
        } else {
            names.push(arg);
        }
    }
    let all = Scenario::all(more);
    if let Some(name) = names.iter().find(|name| !all.iter().any(|s| s.name == **name)) {
        let known: Vec<_> = all.iter().map(|s| s.name).collect();
        eprintln!("machnet-model: no scenario {name:?}; there are: {}", known.join(", "));
        return ExitCode::from(2);
    }
    // A panic of the code under test is one of the things looked for, and is told with its trace.
    std::panic::set_hook(Box::new(|_| {}));
    let mut held = true;
    for scenario in all.iter().filter(|s| names.is_empty() || names.iter().any(|name| name == s.name)) {
        held &= check::run(scenario);
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

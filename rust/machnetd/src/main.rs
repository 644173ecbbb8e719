//! The Machnet sidecar: settings, DPDK, one thread per engine, and the control thread (this one), in that order; the
//! same backwards at the end.
#![allow(clippy::result_large_err, reason = "attach errors carry their sentence; once per application")]

mod announcer;
mod client;
mod clients;
mod config;
mod control;
mod facts;
mod limits;
mod logger;
mod memory;
mod metrics;
mod notify;
mod output;
mod pins;
mod pulse;
mod queries;
mod repeats;
mod scheduling;
mod signals;
mod socket;
mod start;
mod stats;
mod threads;

use std::process::ExitCode;

use config::args::{self, Command};
use config::{Mistake, machine};
use output::complain;

fn main() -> ExitCode {
    let mut args = Vec::new();
    for arg in std::env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => return fail(SETTINGS, &format!("{}: not valid UTF-8", arg.display())),
        }
    }
    let (loaded, check) = match args::read(args.clone()) {
        Err(mistakes) if args::wants_json(&args) => {
            return tell(&facts::checked(None, &mistakes, &[]), &mistakes);
        }
        Err(mistakes) => return refuse(&mistakes),
        Ok(Command::Print(text)) => return output::print(&text),
        Ok(Command::Check(loaded, file)) => (loaded, Some(file)),
        Ok(Command::Run(loaded)) => (loaded, None),
    };
    let found = machine::look(&loaded);
    if check.is_some() && args::wants_json(&args) {
        return tell(&found.json(&loaded.config), &found.mistakes);
    }
    if !found.mistakes.is_empty() {
        return refuse(&found.mistakes);
    }
    if let Some(file) = check {
        found.doubts.iter().for_each(|doubt| complain(&format!("warning: {doubt}")));
        let what = file.map_or("the flags".to_owned(), |file| file.display().to_string());
        let verdict =
            if found.doubts.is_empty() { "nothing wrong" } else { "can start, with the warnings above" };
        return output::print(&format!("{}\nmachnetd: {what}: {verdict}\n", start::back_ends()));
    }
    end_on_panic();
    logger::start(loaded.config.log);
    found.doubts.iter().for_each(|doubt| log::warn!("{doubt}"));
    match start::run(loaded.config, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => fail(refusal.code, &refusal.text),
    }
}

/// Whoever starts the sidecar reads this line, whatever the log's level.
fn fail(code: u8, text: &str) -> ExitCode {
    complain(text);
    ExitCode::from(code)
}

/// All mistakes, a line each; the first decides the exit code.
fn refuse(mistakes: &[Mistake]) -> ExitCode {
    mistakes.iter().for_each(|mistake| complain(&mistake.text));
    code_of(mistakes)
}

/// The same for a program that reads: the document holds all of them.
fn tell(document: &str, mistakes: &[Mistake]) -> ExitCode {
    let printed = output::print(document);
    if printed == ExitCode::SUCCESS && !mistakes.is_empty() { code_of(mistakes) } else { printed }
}

fn code_of(mistakes: &[Mistake]) -> ExitCode {
    ExitCode::from(mistakes.first().map_or(SETTINGS, |mistake| mistake.code))
}

/// A panic in any thread ends the process: half a sidecar would leave applications waiting for ever, while a dead one
/// tells them at once.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        complain(&format!("fault in thread {}: {panic}", thread.name().unwrap_or("without a name")));
        // Not `exit`: that would run DPDK's clean-up under threads that still move packets.
        // SAFETY: ends the process; nothing runs after it.
        unsafe { libc::_exit(FAULT) }
    }));
}

/// Exit code: a setting is wrong.
const SETTINGS: u8 = 2;
/// Exit code: DPDK or the NIC was refused.
const NIC: u8 = 3;
/// Exit code: the control socket, or the listener of `[metrics]`, was refused.
const CONTROL: u8 = 4;
/// Exit code: an engine could not start.
const ENGINE: u8 = 5;
/// Exit code: a panic, the same that Rust gives.
const FAULT: i32 = 101;

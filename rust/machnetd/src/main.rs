//! The Machnet sidecar: settings, DPDK, one thread per engine, and the control thread (this one), in that order; the
//! same backwards at the end.
#![allow(clippy::result_large_err, reason = "attach errors carry their sentence; once per application")]

mod clients;
mod config;
mod control;
mod limits;
mod logger;
mod memory;
mod pins;
mod repeats;
mod signals;
mod socket;
mod start;
mod stats;
mod threads;

use std::process::ExitCode;

use config::args::{self, Wish};

fn main() -> ExitCode {
    let mut args = Vec::new();
    for arg in std::env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => return fail(SETTINGS, &format!("{}: not valid UTF-8", arg.display())),
        }
    }
    let config = match args::read(args) {
        Err(mistake) => return fail(SETTINGS, &mistake),
        Ok(Wish::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Wish::Check(file)) => {
            let what = file.map_or("the flags".to_owned(), |file| file.display().to_string());
            println!("machnetd: {what}: nothing wrong");
            return ExitCode::SUCCESS;
        }
        Ok(Wish::Run(config)) => config,
    };
    end_on_panic();
    logger::start(config.log);
    match start::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => fail(refusal.code, &refusal.text),
    }
}

/// Whoever starts the sidecar reads this line, whatever the log's level.
fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("machnetd: {text}");
    ExitCode::from(code)
}

/// A panic in any thread ends the process: half a sidecar would leave applications waiting for ever, while a dead one
/// tells them at once.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        eprintln!("machnetd: fault in thread {}: {panic}", thread.name().unwrap_or("without a name"));
        // Not `exit`: that would run DPDK's clean-up under threads that still move packets.
        // SAFETY: ends the process; nothing runs after it.
        unsafe { libc::_exit(FAULT) }
    }));
}

/// Exit code: a setting is wrong.
const SETTINGS: u8 = 2;
/// Exit code: DPDK or the NIC was refused.
const NIC: u8 = 3;
/// Exit code: the control socket was refused.
const CONTROL: u8 = 4;
/// Exit code: an engine could not start.
const ENGINE: u8 = 5;
/// Exit code: a panic, the same that Rust gives.
const FAULT: i32 = 101;

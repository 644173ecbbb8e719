//! `machnet-sim`: figures taken in virtual time, the same on every machine for the same seed.
#![forbid(unsafe_code)]

mod args;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use args::Command;
use machnet_sim::figures::{isolation, path, scaling, setup};
use serde::Serialize;

fn main() -> ExitCode {
    let result = match args::read(std::env::args().skip(1)) {
        Ok(Command::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Ok(Command::Setup(each, json)) => {
            let rows: Vec<_> = each.iter().flat_map(setup::run).collect();
            show(setup::HEADING, &rows, json.as_deref())
        }
        Ok(Command::Isolation(isolation, json)) => {
            show(isolation::HEADING, &isolation::run(&isolation), json.as_deref())
        }
        Ok(Command::Scaling(seed, engines, time, json)) => {
            show(scaling::HEADING, &scaling::run(seed, &engines, time), json.as_deref())
        }
        Ok(Command::Path(path, json)) => show(path::HEADING, &[path::run(&path)], json.as_deref()),
        Err(mistake) => {
            eprintln!("machnet-sim: {mistake}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machnet-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the rows as a table, and writes them to a file if one was named: a JSON array of objects.
fn show<R: Display + Serialize>(heading: &str, rows: &[R], json: Option<&Path>) -> Result<(), String> {
    println!("{heading}");
    rows.iter().for_each(|row| println!("{row}"));
    let Some(path) = json else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(rows).map_err(|e| format!("rows as JSON: {e}"))?;
    text.push('\n');
    std::fs::write(path, text)
        .map_err(|e| format!("write {}: {e}; name a file that can be written", path.display()))
}

//! The command line: every setting has a flag, and a few flags are no settings.

use std::path::PathBuf;

use serde::Serialize;

use super::settings::{KEYS, Key, Settings};
use super::{Config, Mistake, Source};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run with this.
    Run(Box<Loaded>),
    /// Say whether the configuration is good, and end. Which file, if any.
    Check(Box<Loaded>, Option<PathBuf>),
    /// Print this and end.
    Print(String),
}

/// A configuration, and what it was made from.
#[derive(Debug)]
pub struct Loaded {
    /// What was meant.
    pub config: Config,
    /// What was written.
    pub settings: Settings,
    /// Where.
    pub source: Source,
}

/// Reads the arguments (without the program's name), and the file that they name.
///
/// # Errors
/// Every mistake of the file and of the flags' values, or the first of the command line: what was written, and what is
/// allowed.
pub fn read(args: impl IntoIterator<Item = String>) -> Result<Command, Vec<Mistake>> {
    let one = |text: String| vec![Mistake::somewhere(text)];
    let mut args = args.into_iter();
    let mut file = None;
    let (mut check, mut json) = (false, false);
    let mut flags: Vec<(&'static Key, String)> = Vec::new();
    while let Some(arg) = args.next() {
        let (name, glued) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (arg, None),
        };
        let bare = match name.as_str() {
            "--help" | "-h" => Some(Command::Print(help())),
            "--version" | "-V" => Some(Command::Print(version())),
            "--describe" => Some(Command::Print(describe())),
            CHECK | JSON => None,
            _ => {
                let key = Settings::flag(&name);
                if key.is_none() && name != "--config" {
                    return Err(one(unknown(&name)));
                }
                let form = key.map_or("FILE", |key| key.form);
                let Some(value) = glued.or_else(|| args.next()) else {
                    return Err(one(format!("{name}: has no value; use {name} {form}")));
                };
                match key {
                    Some(key) => flags.push((key, value)),
                    None => file = Some(PathBuf::from(value)),
                }
                continue;
            }
        };
        if let Some(value) = glued {
            return Err(one(format!("{name}={value}: takes no value; use {name} alone")));
        }
        match bare {
            Some(command) => return Ok(command),
            None if name == JSON => json = true,
            None => check = true,
        }
    }
    if json && !check {
        return Err(one(format!("{JSON}: of use with {CHECK} only; give both")));
    }
    let source = match &file {
        Some(path) => Source::read(path).map_err(one)?,
        None => Source::default(),
    };
    let (mut settings, mistakes) = source.parse();
    for (key, value) in flags {
        settings.set(key, &value);
    }
    let config = Config::resolve(&settings, &source, mistakes)?;
    let loaded = Box::new(Loaded { config, settings, source });
    Ok(if check { Command::Check(loaded, file) } else { Command::Run(loaded) })
}

/// Whether what came of `--check` is for a program to read; the arguments may be wrong otherwise.
pub fn wants_json(args: &[String]) -> bool {
    [CHECK, JSON].iter().all(|flag| args.iter().any(|arg| arg == flag))
}

const CHECK: &str = "--check";
const JSON: &str = "--json";

fn unknown(name: &str) -> String {
    if !name.starts_with('-') {
        return format!("{name}: unknown argument; a configuration file is given with --config {name}");
    }
    let others = OTHERS.iter().map(|other| other.flag);
    let near = KEYS.iter().map(|key| key.flag).chain(others).map(|flag| (distance(name, flag), flag)).min();
    match near {
        Some((1..=2, flag)) => format!("{name}: unknown flag; did you mean {flag}? --help lists them"),
        _ => format!("{name}: unknown flag; --help lists them"),
    }
}

/// Letters to change, add or leave out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Ours, and that of the DPDK which this process is linked with.
fn version() -> String {
    format!("machnetd {} ({})\n", env!("CARGO_PKG_VERSION"), machnet_nic::dpdk::version())
}

/// A flag that is no setting.
#[derive(Serialize)]
struct Other {
    flag: &'static str,
    /// What stands for its value; empty where it has none.
    form: &'static str,
    help: &'static str,
}

const OTHERS: &[Other] = &[
    Other { flag: "--config", form: "FILE", help: "read settings from this TOML file; flags win over it" },
    Other {
        flag: CHECK,
        form: "",
        help: "check the settings and whether this machine can do it, start nothing",
    },
    Other {
        flag: JSON,
        form: "",
        help: "with --check: the same as a JSON document, with the settings in force (docs/control.md)",
    },
    Other { flag: "--describe", form: "", help: "print all flags and settings as JSON, for tools" },
    Other { flag: "--version", form: "", help: "print the version, and which DPDK it runs with" },
    Other { flag: "--help", form: "", help: "print this" },
];

/// What `--describe` prints: manual pages and completions are made of it.
fn describe() -> String {
    #[derive(Serialize)]
    struct Description {
        version: &'static str,
        flags: &'static [Other],
        settings: &'static [Key],
    }
    let all = Description { version: env!("CARGO_PKG_VERSION"), flags: OTHERS, settings: KEYS };
    let text = serde_json::to_string_pretty(&all);
    text.unwrap_or_else(|error| unreachable!("texts alone: {error}")) + "\n"
}

/// The whole of `--help`, at most 110 columns.
fn help() -> String {
    let mut text = String::from(
        "machnetd: the Machnet sidecar. Owns a NIC and serves the applications of this host over shared memory.

usage: machnetd [--config FILE] [flags]

Two hosts on one machine, in one folder, without root, huge pages or a NIC:
  machnetd --ip 10.0.0.1/24 --memif server:link.sock --socket a.sock
  machnetd --ip 10.0.0.2/24 --memif client:link.sock --socket b.sock

",
    );
    for Other { flag, form, help } in OTHERS {
        text.push_str(&format!("  {:<29} {help}\n", format!("{flag} {form}").trim_end()));
    }
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let flag = format!("{} {}", key.flag, key.form);
        text.push_str(&format!(
            "  {flag:<29} {}\n{:32}{}, default {}\n",
            key.help, "", key.name, key.default
        ));
    }
    text.push_str(
        "
In the file a setting stands under its section, by the name on the second line.
SIGINT and SIGTERM end the sidecar in good order; SIGHUP reads the settings again; SIGUSR1 logs the counters.
Exit codes: 0 ended when told to, 1 standard output was refused, 2 bad settings, 3 the NIC was refused,
4 the control socket was refused, 5 an engine could not start, 101 a fault of machnetd itself.
",
    );
    text
}

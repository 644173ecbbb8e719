//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use machnet_sim::figures::isolation::Isolation;
use machnet_sim::figures::setup::Setup;
use machnet_wire::Nanos;

/// What the command line asks for; each figure with the file that its rows go to, if any.
#[derive(Debug)]
pub enum Command {
    /// Print this and end.
    Print(String),
    Setup(Vec<Setup>, Option<PathBuf>),
    Isolation(Isolation, Option<PathBuf>),
    /// Seed, numbers of engines, and the time of each.
    Scaling(u64, Vec<u16>, Nanos, Option<PathBuf>),
}

const HELP: &str = "\
Figures of Machnet taken in virtual time: the same on every machine for the same seed.

usage: machnet-sim FIGURE [OPTION...]

  setup        how long connections take to be set up, and how many packets
    --engines SxC[,...]    engines of the server and of the client, 1x1 to 64x64 (1x1,2x2,4x4,8x8)
    --connections N        first contacts, and later connections (10000)
    --paper                as the paper does it: no hand-over, no pool, 300 ms until a set-up is tried again

  isolation    what a quiet application feels of three noisy ones: alone, on an engine of its own, on theirs, and with random port pairs
    --runs N               runs of each, with seeds of their own (8)
    --duration MS          virtual time of each run (50)
    --ring N               descriptors of a receive ring, 64 to 32768 (4096)

  scaling      requests a second of a server with more and more engines, with RSS-- and without
    --engines N[,...]      its engines, 1 to 64 (1,2,4,8)
    --duration MS          virtual time of each (10)

of every figure
    --seed N               another run (1)
    --json FILE            the rows as a JSON array, beside the table
    --help
";

/// Reads the arguments, without the program's name.
///
/// # Errors
/// The first mistake: what was written, and what is allowed.
pub fn read(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut args = args.into_iter();
    let figure = args.next().ok_or("names no figure; use setup, isolation or scaling, or --help")?;
    let mut options = Options { seed: 1, ..Options::default() };
    while let Some(arg) = args.next() {
        let (name, glued) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        if name == "--help" || name == "-h" {
            return Ok(Command::Print(HELP.to_owned()));
        }
        let mut value = |form: &str| {
            glued.clone().or_else(|| args.next()).ok_or(format!("{name}: has no value; use {name} {form}"))
        };
        match (figure.as_str(), name.as_str()) {
            (_, "--seed") => options.seed = number(&name, &value("N")?, 0, u64::MAX)?,
            (_, "--json") => options.json = Some(PathBuf::from(value("FILE")?)),
            ("setup", "--engines") => options.pairs = Some(pairs(&value("SxC[,...]")?)?),
            ("scaling", "--engines") => options.engines = Some(engines(&value("N[,...]")?)?),
            ("setup", "--paper") if glued.is_none() => options.paper = true,
            ("isolation", "--ring") => options.ring = Some(number(&name, &value("N")?, 64, 32_768)?),
            ("isolation", "--runs") => options.runs = Some(number(&name, &value("N")?, 1, 1000)?),
            ("isolation" | "scaling", "--duration") => {
                options.duration = Some(Nanos::millis(number(&name, &value("MS")?, 1, 10_000)?));
            }
            ("setup", "--connections") => {
                options.connections = Some(number(&name, &value("N")?, 1, 10_000_000)?)
            }
            _ => return Err(format!("{name}: no option of {figure}; see machnet-sim --help")),
        }
    }
    let Options { seed, json, .. } = options;
    match figure.as_str() {
        "setup" => {
            let each = options.pairs.unwrap_or_else(|| [1, 2, 4, 8].map(|n| (n, n)).to_vec());
            let connections = options.connections.unwrap_or(10_000);
            let each = each
                .into_iter()
                .map(|engines| Setup { engines, connections, paper: options.paper, seed })
                .collect();
            Ok(Command::Setup(each, json))
        }
        "isolation" => {
            let time = options.duration.unwrap_or(Nanos::millis(50));
            let (runs, ring) = (options.runs.unwrap_or(8), options.ring.unwrap_or(4096));
            Ok(Command::Isolation(Isolation { runs, time, ring, seed }, json))
        }
        "scaling" => {
            let time = options.duration.unwrap_or(Nanos::millis(10));
            Ok(Command::Scaling(seed, options.engines.unwrap_or_else(|| vec![1, 2, 4, 8]), time, json))
        }
        "--help" | "-h" => Ok(Command::Print(HELP.to_owned())),
        "--version" | "-V" => Ok(Command::Print(format!("machnet-sim {}\n", env!("CARGO_PKG_VERSION")))),
        _ => Err(format!("{figure}: no figure; use setup, isolation or scaling, or --help")),
    }
}

#[derive(Default)]
struct Options {
    seed: u64,
    json: Option<PathBuf>,
    pairs: Option<Vec<(u16, u16)>>,
    connections: Option<u32>,
    engines: Option<Vec<u16>>,
    runs: Option<u32>,
    ring: Option<u16>,
    paper: bool,
    duration: Option<Nanos>,
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    match text.parse() {
        Ok(number) if (&least..=&most).contains(&&number) => Ok(number),
        _ => Err(format!("{name} {text}: no number of {least} to {most}")),
    }
}

/// "4x4,3x5".
fn pairs(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let one =
        |pair: &str| pair.split_once('x').and_then(|(server, client)| Some((count(server)?, count(client)?)));
    let mistake =
        || format!("--engines {text}: use engines of server and client, as in 4x4 or 1x1,3x5, each 1 to 64");
    text.split(',').map(one).collect::<Option<_>>().ok_or_else(mistake)
}

/// "1,2,4".
fn engines(text: &str) -> Result<Vec<u16>, String> {
    let mistake = || format!("--engines {text}: use numbers of engines, as in 4 or 1,2,4, each 1 to 64");
    text.split(',').map(count).collect::<Option<_>>().ok_or_else(mistake)
}

fn count(text: &str) -> Option<u16> {
    text.parse().ok().filter(|n| (1..=64).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Command, String> {
        read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_asked_is_understood() {
        let Ok(Command::Setup(each, json)) =
            asked("setup --engines 4x4,3x5 --connections=7 --seed 9 --json rows.json")
        else {
            panic!("another command")
        };
        assert_eq!(each.iter().map(|one| one.engines).collect::<Vec<_>>(), [(4, 4), (3, 5)]);
        assert!(each.iter().all(|one| (one.connections, one.seed, one.paper) == (7, 9, false)));
        assert!(
            matches!(asked("setup --paper"), Ok(Command::Setup(each, None)) if each.iter().all(|one| one.paper))
        );
        assert_eq!(json, Some(PathBuf::from("rows.json")));
        let Ok(Command::Isolation(asked_for, None)) = asked("isolation --runs 3 --duration 7 --seed 2")
        else {
            panic!("another command")
        };
        assert_eq!((asked_for.runs, asked_for.time, asked_for.seed), (3, Nanos::millis(7), 2));
        let Ok(Command::Scaling(1, engines, ..)) = asked("scaling --engines 1,3") else {
            panic!("another command")
        };
        assert_eq!(engines, [1, 3]);
        for line in ["--help", "setup -h", "setup --seed 1 --help"] {
            assert!(matches!(asked(line), Ok(Command::Print(text)) if text == HELP), "{line}");
        }
    }

    #[test]
    fn a_mistake_is_said_with_what_is_allowed() {
        for (line, said) in [
            ("", "names no figure; use setup, isolation or scaling, or --help"),
            ("frob", "frob: no figure; use setup, isolation or scaling, or --help"),
            ("isolation --engines 2", "--engines: no option of isolation; see machnet-sim --help"),
            (
                "scaling --engines 4x4",
                "--engines 4x4: use numbers of engines, as in 4 or 1,2,4, each 1 to 64",
            ),
            ("setup --frob", "--frob: no option of setup; see machnet-sim --help"),
            ("setup --seed", "--seed: has no value; use --seed N"),
            ("setup --connections 0", "--connections 0: no number of 1 to 10000000"),
            (
                "setup --engines 4x",
                "--engines 4x: use engines of server and client, as in 4x4 or 1x1,3x5, each 1 to 64",
            ),
        ] {
            assert_eq!(asked(line).err().as_deref(), Some(said), "{line}");
        }
    }
}

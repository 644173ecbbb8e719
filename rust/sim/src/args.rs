//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use machnet_nic::sim::{Duty, Shaper, Tail};
use machnet_sim::figures::isolation::Isolation;
use machnet_sim::figures::path::{Cores, Path};
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
    Path(Box<Path>, Option<PathBuf>),
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

  path         what streams from one host to another get through a path that is not clean, in frames of af_packet on veth
    --relay US[,US]        a relay in user space: its time for a frame, and to wake, mean (7,20); 0: the kernel forwards
    --delay US             of each frame, each way (0)
    --jitter US            up to this much more, in order (0)
    --tail PART,US,SHAPE   this part of the frames (0 to 1) takes at least US longer, by a Pareto distribution of this shape
    --tick US              frames arrive at multiples of this only (0: at any time)
    --loss PCT             of the frames, each way (0)
    --copies PCT           that come twice (0)
    --reorder PCT          that are held back by up to 50 us (0)
    --rate MBIT            of the line, with 1 MiB of buffer (none)
    --shaper MBIT,BYTES    a token bucket with so many bytes of burst, and 1 MiB of buffer (none)
    --duty RUN_US,PAUSE_US both hosts run and pause by turns (they run)
    --host-cores own|shared  each host has a core and the relay runs on either (own), or both hosts share one and the relay has the other
    --mtu N                576 to 9000 (1500)
    --units N              of a channel: a power of two, 16 to 65536 (1024)
    --ring N               descriptors of a receive ring, 64 to 32768 (256)
    --streams N            1 to 8 (1)
    --bytes N              that all streams carry together (33554432)
    --message N            bytes of each message (65536)
    --echo                 64 B to and fro beside, by another application

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
    let figure = args.next().ok_or("names no figure; use setup, isolation, scaling or path, or --help")?;
    let mut options = Options { seed: 1, ..Options::default() };
    let mut path = Path::default();
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
            ("path", _) => path_option(&mut path, &name, &mut value, glued.is_none())?,
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
        "path" => Ok(Command::Path(Box::new(Path { seed, ..path }), json)),
        "--help" | "-h" => Ok(Command::Print(HELP.to_owned())),
        "--version" | "-V" => Ok(Command::Print(format!("machnet-sim {}\n", env!("CARGO_PKG_VERSION")))),
        _ => Err(format!("{figure}: no figure; use setup, isolation, scaling or path, or --help")),
    }
}

/// Reads one option of `path`; `value` gives what follows it, and `bare` says that nothing is glued to it.
fn path_option(
    path: &mut Path,
    name: &str,
    value: &mut impl FnMut(&str) -> Result<String, String>,
    bare: bool,
) -> Result<(), String> {
    let mut one = |form: &str, least: f64, most: f64| real(name, &value(form)?, least, most);
    let link = &mut path.link;
    match name {
        "--relay" => {
            let text = value("US[,US]")?;
            let mut each = text.split(',');
            let service = real(name, each.next().unwrap_or(""), 0.0, 1000.0)?;
            let wake = each.next().map_or(Ok(20.0), |wake| real(name, wake, 0.0, 100_000.0))?;
            if each.next().is_some() {
                return Err(format!("{name} {text}: use the time for a frame and that to wake, as in 3,20"));
            }
            path.relay = (service > 0.0).then(|| (time(service), time(wake)));
        }
        "--delay" => link.delay = time(one("US", 0.0, MOST_US)?),
        "--jitter" => link.jitter = time(one("US", 0.0, MOST_US)?),
        "--tick" => link.tick = time(one("US", 0.0, MOST_US)?),
        "--loss" => link.loss = one("PCT", 0.0, 100.0)? / 100.0,
        "--copies" => link.duplication = one("PCT", 0.0, 100.0)? / 100.0,
        "--reorder" => link.reorder = one("PCT", 0.0, 100.0)? / 100.0,
        "--rate" => {
            (link.rate, link.buffer) = (Some(bits(one("MBIT", 1.0, MOST_MBIT)?)), BUFFER);
        }
        "--tail" => {
            let [part, scale, shape] = reals(
                name,
                &value("PART,US,SHAPE")?,
                "the part of the frames, the least time and the shape, as in 0.01,100,1.5",
            )?;
            if !(0.0..=1.0).contains(&part)
                || !(0.0..=MOST_US).contains(&scale)
                || !(0.1..=100.0).contains(&shape)
            {
                return Err(format!(
                    "{name}: a part of 0 to 1, 0 to {MOST_US} us, and a shape of 0.1 to 100"
                ));
            }
            link.tail = Some(Tail { part, scale: time(scale), shape });
        }
        "--shaper" => {
            let [rate, burst] =
                reals(name, &value("MBIT,BYTES")?, "the rate and the burst, as in 5000,200000")?;
            if !(1.0..=MOST_MBIT).contains(&rate) || !(0.0..=1e9).contains(&burst) {
                return Err(format!("{name}: 1 to {MOST_MBIT} Mb/s, and a burst of 0 to 1000000000 bytes"));
            }
            link.shaper = Some(Shaper { rate: bits(rate), burst: burst as u64, buffer: BUFFER });
        }
        "--duty" => {
            let [run, pause] = reals(name, &value("RUN_US,PAUSE_US")?, "both times, as in 4000,4000")?;
            if !(1.0..=MOST_US).contains(&run) || !(0.0..=MOST_US).contains(&pause) {
                return Err(format!("{name}: a run of 1 to {MOST_US} us, and a pause of 0 to as many"));
            }
            path.duty = Some(Duty { run: time(run), pause: time(pause) });
        }
        "--host-cores" => {
            path.cores = match value("own|shared")?.as_str() {
                "own" => Cores::Own,
                "shared" => Cores::Shared,
                other => return Err(format!("{name} {other}: use own or shared")),
            }
        }
        "--mtu" => path.mtu = number(name, &value("N")?, 576, 9000)?,
        "--units" => {
            path.units = number(name, &value("N")?, 16, 65_536)?;
            if !path.units.is_power_of_two() {
                return Err(format!("{name} {}: no power of two", path.units));
            }
        }
        "--ring" => path.ring = number(name, &value("N")?, 64, 32_768)?,
        "--streams" => path.streams = number(name, &value("N")?, 1, 8)?,
        "--bytes" => path.bytes = number(name, &value("N")?, 1, 1 << 40)?,
        "--message" => path.message = number(name, &value("N")?, 1, 1 << 30)?,
        "--echo" if bare => path.echo = true,
        _ => return Err(format!("{name}: no option of path; see machnet-sim --help")),
    }
    Ok(())
}

/// Bytes that may wait for a rate.
const BUFFER: u64 = 1 << 20;
const MOST_US: f64 = 10_000_000.0;
const MOST_MBIT: f64 = 1_000_000.0;

fn time(us: f64) -> Nanos {
    Nanos((us * 1000.0).round() as u64)
}

fn bits(mbit: f64) -> u64 {
    (mbit * 1e6).round() as u64
}

fn real(name: &str, text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} {text}: no number of {least} to {most}")),
    }
}

/// "5000,200000".
fn reals<const N: usize>(name: &str, text: &str, form: &str) -> Result<[f64; N], String> {
    let each: Option<Vec<f64>> = text.split(',').map(|one| one.parse().ok()).collect();
    let mistake = || format!("{name} {text}: use {form}");
    each.ok_or_else(mistake)?.try_into().map_err(|_| mistake())
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
    use machnet_nic::sim::Link;

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
        let line = "path --relay 5,40 --delay 100 --jitter 200 --tick=0.5 --tail 0.01,100,1.5 --loss 3 --copies 1 --reorder 0.1 \
                    --rate 1000 --shaper 5000,200000 --duty 4000,2000 --host-cores shared --mtu 9000 --units 4096 --ring 512 \
                    --streams 2 --bytes 16777216 --message 8388608 --echo --seed 3 --json row.json";
        let Ok(Command::Path(path, json)) = asked(line) else { panic!("another command") };
        let us = Nanos::micros;
        assert_eq!(path.relay, Some((us(5), us(40))));
        let expected = Link {
            delay: us(100),
            jitter: us(200),
            tick: Nanos(500),
            tail: Some(Tail { part: 0.01, scale: us(100), shape: 1.5 }),
            loss: 0.03,
            duplication: 0.01,
            reorder: 0.001,
            rate: Some(1_000_000_000),
            buffer: BUFFER,
            shaper: Some(Shaper { rate: 5_000_000_000, burst: 200_000, buffer: BUFFER }),
            ..Link::instant()
        };
        assert_eq!(path.link, expected);
        assert_eq!(path.duty, Some(Duty { run: us(4000), pause: us(2000) }));
        let Path { cores, mtu, units, ring, streams, bytes, message, echo, seed, .. } = *path;
        assert_eq!((cores, mtu, units, ring, streams), (Cores::Shared, 9000, 4096, 512, 2));
        assert_eq!((bytes, message, echo, seed), (16 << 20, 8 << 20, true, 3));
        assert_eq!(json, Some(PathBuf::from("row.json")));
        let Ok(Command::Path(path, None)) = asked("path --relay 0") else { panic!("another command") };
        assert_eq!(*path, Path { relay: None, ..Path::default() });
        for line in ["--help", "setup -h", "setup --seed 1 --help"] {
            assert!(matches!(asked(line), Ok(Command::Print(text)) if text == HELP), "{line}");
        }
    }

    #[test]
    fn a_mistake_is_said_with_what_is_allowed() {
        for (line, said) in [
            ("", "names no figure; use setup, isolation, scaling or path, or --help"),
            ("frob", "frob: no figure; use setup, isolation, scaling or path, or --help"),
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
            ("path --frob", "--frob: no option of path; see machnet-sim --help"),
            ("path --loss 101", "--loss 101: no number of 0 to 100"),
            ("path --delay x", "--delay x: no number of 0 to 10000000"),
            ("path --relay 1,2,3", "--relay 1,2,3: use the time for a frame and that to wake, as in 3,20"),
            (
                "path --tail 1,2",
                "--tail 1,2: use the part of the frames, the least time and the shape, as in 0.01,100,1.5",
            ),
            ("path --tail 2,1,1", "--tail: a part of 0 to 1, 0 to 10000000 us, and a shape of 0.1 to 100"),
            ("path --shaper 0,1", "--shaper: 1 to 1000000 Mb/s, and a burst of 0 to 1000000000 bytes"),
            ("path --duty 0,0", "--duty: a run of 1 to 10000000 us, and a pause of 0 to as many"),
            ("path --host-cores none", "--host-cores none: use own or shared"),
            ("path --units 1000", "--units 1000: no power of two"),
            ("path --echo=1", "--echo: no option of path; see machnet-sim --help"),
        ] {
            assert_eq!(asked(line).err().as_deref(), Some(said), "{line}");
        }
    }
}

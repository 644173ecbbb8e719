//! What is walked through: who may do what, and how often.

use machnet_flow::Config;
use machnet_wire::Nanos;

use crate::goal::{Goal, Goal::*};

/// What may still happen. Each step spends some of it, so that there is an end. Packets are lost without bound: one that
/// never arrives is lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bounds {
    /// Packets that may arrive once more.
    pub copies: u8,
    /// Timeouts of each end.
    pub timeouts: [u8; 2],
    /// Calls of each end.
    pub connects: [u8; 2],
    /// Messages of each end, over all its connections.
    pub sends: [u8; 2],
    /// Half closes of each end.
    pub fins: [u8; 2],
    /// Closes (half close, and reading no more) of each end.
    pub closes: [u8; 2],
    /// Resets by each application.
    pub resets: [u8; 2],
    /// Departures of each application, without a word.
    pub leaves: [u8; 2],
    /// Restarts of each sidecar.
    pub restarts: [u8; 2],
    /// Connections that each application takes from its listener, where that has a backlog.
    pub accepts: [u8; 2],
    /// Probes of each engine: PINGs that ask where they lead.
    pub probes: [u8; 2],
    /// Listeners that close while others of their port go on.
    pub unlistens: [u8; 2],
}

/// One run of the checker.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Who accepts calls.
    pub listens: [bool; 2],
    /// How many connections a listener begins or keeps for its application at a time. None: the application takes each as it
    /// comes.
    pub backlog: Option<usize>,
    /// A listener remembers nobody who has proved nothing: it gives cookies.
    pub cookies: bool,
    /// Listeners that share the port.
    pub listeners: u8,
    /// Copies of a call's first SYN. More than one: each goes by a pair of its own, and both ends tell each other where packets led.
    pub syns: u16,
    /// It begins with a connection that was established without faults; otherwise with nothing.
    pub open: bool,
    /// Packets are taken together before anything is sent; otherwise each is answered at once.
    pub bursts: bool,
    pub config: Config,
    pub connect_timeout: Nanos,
    pub bounds: Bounds,
    /// What must be reached somewhere, or the run proves little.
    pub goals: &'static [Goal],
}

impl Scenario {
    fn new(name: &'static str, bounds: Bounds, goals: &'static [Goal]) -> Scenario {
        Scenario {
            name,
            listens: [false, true],
            backlog: None,
            cookies: false,
            listeners: 1,
            syns: 1,
            open: false,
            bursts: false,
            config: Config::default(),
            // One repetition of the SYN, and the end of patience.
            connect_timeout: Nanos::millis(15),
            bounds,
            goals,
        }
    }

    /// From an open connection on.
    fn open(name: &'static str, bounds: Bounds, goals: &'static [Goal]) -> Scenario {
        Scenario { open: true, ..Scenario::new(name, bounds, goals) }
    }

    fn listens(self, listens: [bool; 2]) -> Scenario {
        Scenario { listens, ..self }
    }

    /// With several pairs, which the first SYN tries together.
    fn sprayed(self, syns: u16) -> Scenario {
        Scenario { syns, ..self }
    }

    /// With cookies for all callers.
    fn wary(self) -> Scenario {
        Scenario { cookies: true, ..self }
    }

    /// Times so short that silence and orphans come to their end within a few timeouts.
    fn impatient(mut self) -> Scenario {
        self.config.keep_alive = Nanos::millis(1);
        self.config.dead_after = Nanos::millis(1);
        self.config.orphan = Nanos::millis(3);
        self
    }

    /// Larger by `more` in every kind of fault that the scenario has at all.
    fn larger(mut self, more: u8) -> Scenario {
        let b = &mut self.bounds;
        for n in std::iter::once(&mut b.copies).chain(&mut b.timeouts) {
            *n = if *n > 0 { n.saturating_add(more) } else { 0 };
        }
        self
    }

    /// All scenarios, larger by `more` than those that `make model` runs.
    pub fn all(more: u8) -> Vec<Scenario> {
        let faults = |copies, timeouts| Bounds { copies, timeouts, ..Bounds::default() };
        let call = |copies, timeouts| Bounds { connects: [1, 0], ..faults(copies, timeouts) };
        let both = |copies, timeouts| Bounds { connects: [1, 1], ..faults(copies, timeouts) };
        let twice = |copies, timeouts| Bounds { connects: [2, 0], ..faults(copies, timeouts) };
        // What is done in open connections meets copies in one scenario and timeouts in another, "late": both together
        // are millions of states.
        let half_close = |faults| Bounds { sends: [1, 1], fins: [1, 1], ..faults };
        let against_data = |faults| Bounds { closes: [1, 0], sends: [0, 2], fins: [0, 1], ..faults };
        let reset = |faults| Bounds { resets: [1, 1], sends: [1, 1], fins: [1, 0], ..faults };
        let closing = |faults| Bounds { connects: [1, 0], fins: [1, 1], ..faults };
        let scenarios = [
            Scenario::new("call", call(1, [2, 2]), &[Established, TimedOut]),
            Scenario::new(
                "call-and-send",
                Bounds { sends: [1, 0], ..call(1, [1, 1]) },
                &[Established, Delivered],
            ),
            Scenario::new("refused", twice(2, [2, 2]), &[Refused]).listens([false; 2]),
            Scenario::new("both-call", both(1, [1, 1]), &[Established, Refused]).listens([false; 2]),
            Scenario::new("both-call-and-listen", both(1, [1, 1]), &[Established]).listens([true; 2]),
            Scenario::new(
                "both-call-restart",
                Bounds { connects: [1, 2], restarts: [0, 1], sends: [0, 1], ..faults(1, [0, 0]) },
                &[Established, Again, Delivered],
            )
            .listens([true; 2]),
            Scenario::new(
                "both-call-again",
                Bounds { connects: [1, 2], resets: [0, 1], sends: [0, 1], ..faults(1, [0, 0]) },
                &[Established, Again, Reset, Delivered],
            )
            .listens([true; 2]),
            Scenario::open("half-close", half_close(faults(1, [0, 0])), &[Clean, Delivered]),
            Scenario::open("half-close-late", half_close(faults(0, [1, 0])), &[Clean, Delivered]),
            Scenario::open("close", Bounds { closes: [1, 1], ..faults(1, [1, 1]) }, &[Clean]),
            Scenario::open("close-against-data", against_data(faults(1, [0, 0])), &[Clean, Cut]),
            Scenario::open("close-against-data-late", against_data(faults(0, [1, 0])), &[Clean, Cut]),
            Scenario::new(
                "close-from-start",
                Bounds { closes: [1, 0], fins: [0, 1], ..call(1, [1, 0]) },
                &[Clean],
            ),
            Scenario::open("reset", reset(faults(1, [0, 0])), &[Reset]),
            Scenario::open("reset-late", reset(faults(0, [1, 0])), &[Reset]),
            Scenario::open(
                "leave",
                Bounds { leaves: [1, 1], sends: [2, 1], fins: [1, 0], ..faults(1, [0, 0]) },
                &[Left],
            ),
            Scenario::open(
                "leave-late",
                Bounds { leaves: [1, 0], sends: [1, 1], fins: [1, 0], ..faults(0, [1, 0]) },
                &[Left],
            ),
            Scenario::new(
                "leave-and-reuse",
                Bounds { leaves: [1, 1], sends: [1, 0], ..twice(1, [0, 0]) },
                &[Left, Again, Delivered],
            ),
            Scenario::new(
                "reset-and-reuse",
                Bounds { resets: [1, 1], sends: [1, 0], ..twice(1, [0, 0]) },
                &[Reset, Again, Delivered],
            ),
            Scenario::new("close-and-reuse", Bounds { fins: [2, 2], ..twice(1, [0, 0]) }, &[Clean, Again]),
            Scenario::new(
                "caller-restarts",
                Bounds { restarts: [1, 0], sends: [1, 1], ..twice(1, [0, 0]) },
                &[Established, Again, Delivered],
            ),
            Scenario::new(
                "listener-restarts",
                Bounds { restarts: [0, 1], sends: [2, 1], ..twice(1, [0, 0]) },
                &[Established, Again, Delivered],
            ),
            Scenario::open(
                "caller-restarts-closing",
                Bounds { restarts: [1, 0], ..closing(faults(0, [1, 1])) },
                &[Clean, Again],
            ),
            Scenario::open(
                "listener-restarts-closing",
                Bounds { restarts: [0, 1], ..closing(faults(0, [1, 1])) },
                &[Clean, Again],
            ),
            Scenario::open(
                "silence",
                Bounds { closes: [1, 0], sends: [1, 0], ..faults(0, [4, 0]) },
                &[TimedOut, Cut],
            )
            .impatient(),
            // The second call meets a backlog that the first has filled, though its caller has left.
            Scenario {
                backlog: Some(1),
                ..Scenario::new(
                    "backlog",
                    Bounds { resets: [1, 0], sends: [1, 0], accepts: [0, 2], ..twice(0, [1, 1]) },
                    &[Waited, Again, Delivered],
                )
            },
            Scenario::new("spray", call(1, [1, 0]), &[Established, Reported]).sprayed(2),
            Scenario::new("spray-three", call(0, [1, 0]), &[Established, Reported]).sprayed(3),
            Scenario::new(
                "spray-and-send",
                Bounds { sends: [1, 0], ..call(0, [1, 0]) },
                &[Reported, Delivered],
            )
            .sprayed(2),
            Scenario::new(
                "spray-and-reuse",
                Bounds { resets: [1, 0], ..twice(0, [0, 0]) },
                &[Again, Reported, Reset],
            )
            .sprayed(2),
            Scenario::new(
                "spray-and-restart",
                Bounds { restarts: [0, 1], ..twice(1, [0, 0]) },
                &[Again, Reported],
            )
            .sprayed(2),
            Scenario::open(
                "probe",
                Bounds { probes: [1, 1], sends: [1, 0], ..faults(1, [1, 0]) },
                &[Reported, Delivered],
            ),
            Scenario::open(
                "probe-and-close",
                Bounds { probes: [1, 1], fins: [1, 1], ..faults(0, [0, 0]) },
                &[Reported, Clean],
            ),
            // Two listeners share a port, each with one place. One closes while it has answered a SYN.
            Scenario {
                backlog: Some(1),
                listeners: 2,
                ..Scenario::new(
                    "listeners",
                    Bounds { unlistens: [0, 1], accepts: [0, 1], ..call(1, [1, 0]) },
                    &[Established, TookOver],
                )
                .sprayed(2)
            },
            Scenario {
                backlog: Some(1),
                listeners: 2,
                ..Scenario::new(
                    "listeners-full",
                    Bounds { resets: [1, 0], accepts: [0, 1], ..twice(0, [0, 0]) },
                    &[Again, Reset],
                )
                .sprayed(2)
            },
            Scenario::new("cookie", call(1, [2, 2]), &[Established, Proven, TimedOut]).wary(),
            Scenario::new(
                "cookie-and-send",
                Bounds { sends: [1, 1], ..call(1, [1, 0]) },
                &[Proven, Delivered],
            )
            .wary(),
            Scenario::new(
                "cookie-and-reuse",
                Bounds { resets: [1, 0], ..twice(1, [1, 0]) },
                &[Proven, Again, Reset],
            )
            .wary(),
            Scenario::new(
                "cookie-and-restart",
                Bounds { restarts: [0, 1], ..twice(1, [1, 0]) },
                &[Proven, Again, Forgotten],
            )
            .wary(),
            Scenario::new("cookie-and-spray", call(0, [1, 0]), &[Proven, Reported]).sprayed(2).wary(),
            // Two calls, and one place.
            Scenario {
                backlog: Some(1),
                ..Scenario::new(
                    "cookie-and-backlog",
                    Bounds { resets: [1, 0], accepts: [0, 2], ..twice(0, [1, 1]) },
                    &[Waited, Again, Proven],
                )
                .wary()
            },
            Scenario::new("both-call-cookie", both(0, [1, 1]), &[Established, Proven])
                .listens([true; 2])
                .wary(),
            Scenario {
                bursts: true,
                ..Scenario::new(
                    "bursts",
                    Bounds { fins: [1, 1], resets: [1, 0], ..call(0, [1, 0]) },
                    &[Clean, Reset],
                )
            },
        ];
        scenarios.into_iter().map(|scenario| scenario.larger(more)).collect()
    }
}

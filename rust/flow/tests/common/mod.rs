//! Two flows, a link with faults between them, and applications at both ends, in virtual time. Everything goes through
//! real bytes, and the channel at each end keeps book of every token and every reservation.
#![allow(dead_code)]

mod channel;
mod choices;
mod end;
pub mod hostile;
mod link;
pub mod ops;
mod trace;

pub use channel::Channel;
pub use choices::{Choices, Rng};
pub use end::End;
pub use link::Link;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use machnet_flow::{Config, Event, Flow, Setup, Syns};
use machnet_wire::{Hello, Nanos, Seq};
use trace::Line;

/// When a packet arrives, which one of those that arrive then, at which end, and its bytes.
type Flying = (u64, u64, usize, Vec<u8>);

pub struct Sim {
    pub seed: u64,
    pub rng: Choices,
    pub now: Nanos,
    pub ends: [End; 2],
    pub links: [Link; 2],
    queue: BinaryHeap<Reverse<Flying>>,
    order: u64,
    pub sent: [u64; 8],
    pub sent_by: [u64; 2],
    pub dropped: u64,
    /// A link loses nothing, and is up, for an end that has heard nothing for so long: faults that last, and no peer that is
    /// taken for dead.
    pub mercy: Option<Nanos>,
    /// Steps since time last moved.
    standing: u32,
    trace: VecDeque<Line>,
    /// Every packet put on the link, if there is to be a record.
    pub record: Option<Vec<(usize, Vec<u8>)>>,
}

pub const A: usize = 0;
pub const B: usize = 1;

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.trace {
                eprintln!("{line}");
            }
            for (name, end) in ["A", "B"].iter().zip(&self.ends) {
                let Some(flow) = &end.flow else { continue };
                eprintln!("{name}: {:?} {:?}", flow.stats(), end.channel.events);
                eprintln!(
                    "   queued {} in flight {} window {} next timer {:?}",
                    flow.queued(),
                    flow.in_flight(),
                    flow.window(self.now),
                    flow.next_timeout()
                );
            }
            match self.rng {
                Choices::Seeded(_) => eprintln!("seed {} at {:?}", self.seed, self.now),
                Choices::Read { .. } => eprintln!("choices read from bytes, at {:?}", self.now),
            }
        }
    }
}

impl Sim {
    /// A calls B, who listens; nothing has been sent.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Config::default(), 1500, Seq(1000))
    }

    pub fn with(seed: u64, config: Config, mtu: u16, first: Seq) -> Self {
        let end = |accepts, tag| End {
            flow: None,
            channel: Channel::new(1024),
            past: Vec::new(),
            outbox: VecDeque::new(),
            sent: 0,
            tokens_max: 256,
            reading: true,
            finish: false,
            unit: machnet_wire::unit_size(mtu, 0),
            received: [0; 8],
            errors: Vec::new(),
            config,
            accepts,
            mtu,
            tag,
            first,
            stalled_until: Nanos::ZERO,
            waiting: Vec::new(),
            heard_at: Nanos::ZERO,
            newest: None,
        };
        Sim {
            seed,
            rng: Choices::seeded(seed),
            now: Nanos::micros(5),
            ends: [end(false, 0xa1), end(true, 0xb2)],
            links: [Link::default(), Link::default()],
            queue: BinaryHeap::new(),
            order: 0,
            sent: [0; 8],
            sent_by: [0; 2],
            dropped: 0,
            mercy: None,
            standing: 0,
            trace: VecDeque::new(),
            record: None,
        }
    }

    pub fn setup(&self, i: usize) -> Setup {
        let end = &self.ends[i];
        let (local_port, remote_port) = if i == A { (40_000, 80) } else { (80, 40_000) };
        Setup {
            local_port,
            remote_port,
            hello: Hello::new(end.tag, 7, end.mtu),
            first: end.first,
            syns: Syns::ONE,
        }
    }

    /// Connects and waits until both ends know.
    pub fn establish(&mut self) {
        self.connect();
        self.run_until(Nanos::secs(10), |sim| sim.both(|end| end.channel.told(Event::Established) == 1));
    }

    pub fn both(&self, f: impl Fn(&End) -> bool) -> bool {
        f(&self.ends[A]) && f(&self.ends[B])
    }

    pub fn flow(&mut self, i: usize) -> &mut Flow<u64, Vec<u8>> {
        self.ends[i].flow.as_mut().expect("a flow")
    }

    /// The next moment when something happens.
    fn next_event(&self) -> Option<Nanos> {
        let mut next = self.queue.peek().map(|Reverse((at, ..))| Nanos(*at));
        for end in &self.ends {
            let timer = end.flow.as_ref().and_then(Flow::next_timeout).map(|at| at.max(end.stalled_until));
            let wakes = (end.stalled_until > self.now).then_some(end.stalled_until);
            for at in [timer, wakes].into_iter().flatten() {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        }
        next
    }

    /// Runs one event; false when nothing is left to happen before `until`.
    pub fn step(&mut self, until: Nanos) -> bool {
        let Some(next) = self.next_event() else { return false };
        if next > until {
            self.now = until;
            return false;
        }
        self.standing = if next > self.now { 0 } else { self.standing + 1 };
        assert!(
            self.standing < STORM as u32,
            "time stands still: a timer fires again and again, or packets answer each other"
        );
        self.now = self.now.max(next);
        for i in [A, B] {
            if self.ends[i].stalled_until <= self.now {
                for bytes in std::mem::take(&mut self.ends[i].waiting) {
                    self.give(i, bytes);
                }
            }
        }
        if self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.0) {
            let Reverse((_, _, to, bytes)) = self.queue.pop().unwrap();
            self.give(to, bytes);
            return true;
        }
        for i in [A, B] {
            let end = &mut self.ends[i];
            if end.stalled_until > self.now {
                continue;
            }
            if let Some(flow) = &mut end.flow
                && flow.next_timeout().is_some_and(|at| at <= self.now)
            {
                flow.on_timeout(self.now, &mut end.channel);
                self.pump(i);
            }
        }
        true
    }

    pub fn run_for(&mut self, time: Nanos) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until `done`, which must happen within `time`.
    pub fn run_until(&mut self, time: Nanos, done: impl Fn(&Sim) -> bool) {
        let until = self.now + time;
        while !done(self) {
            assert!(self.step(until), "not done within {time:?}");
        }
    }

    /// All units back where they belong, except those that the flows have promised.
    pub fn check_books(&self) {
        for end in &self.ends {
            assert!(end.channel.tokens.is_empty(), "{} tokens out", end.channel.tokens.len());
            assert_eq!(end.channel.lent, 0);
            assert_eq!(end.channel.held, 0);
            assert_eq!(end.channel.rx_free + end.channel.reserved, end.channel.rx_units);
        }
    }
}

/// More than any flow has to send at one moment, or any moment has events.
const STORM: u64 = 100_000;

/// A message that says which one it is in every byte.
pub fn message(n: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(n);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&rng.next().to_le_bytes());
    }
    out.truncate(len);
    out
}

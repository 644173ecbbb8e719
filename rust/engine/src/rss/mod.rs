//! RSS--, as one connection of an engine sees it: by which UDP ports its packets go, so that they reach the queue that the peer wants,
//! and what each end tells the other so that both find out. docs/rss.md has the whole; the maths, the pool and the schedule of a search are
//! `machnet_rss`'s.
//!
//! `begin` says how a connection begins, `depart` which ports its packets have, `arrive` what packets that came say about ports, and `search`
//! what follows from that. An ordinary packet on its path meets none of it.

mod arrive;
mod begin;
mod depart;
mod search;
mod warning;

use std::collections::VecDeque;

use machnet_rss::{Pair, Search};
use machnet_wire::{Nanos, PathEntry};

use crate::path::Form;

pub(crate) use arrive::is_about_pairs;
pub(crate) use begin::Contact;
pub(crate) use depart::{Detour, PairSource, is_plain};
pub(crate) use search::REPATHS;
pub(crate) use warning::GivenUp;

/// [`machnet_rss::Reach::home`] of a pair whose mirror comes to the queue `own`: it says something where the peer mirrors our pairs.
fn home(form: Form, own: u16) -> u16 {
    if form == Form::Mirrored { own } else { 0 }
}

/// What RSS-- has to do for a connection, for as long as there is something to do.
#[derive(Debug)]
pub(crate) struct Rss {
    /// The search for a pair of ours that the peer's wanted queue is reached by.
    search: Option<Search>,
    /// A report came since the search began: the peer hears our probes.
    heard: bool,
    /// The search is counted.
    counted: bool,
    /// A search found nothing.
    given_up: bool,
    /// How the SYNs came that have no SYN-ACK yet, the oldest first.
    syns: VecDeque<PathEntry>,
    /// When the connection began.
    began: Nanos,
    /// SYN-ACKs ask which of the peer's queues they reached, unless their pair is verified.
    asks: bool,
    /// A pair that was known, by which packets seem not to have arrived: the next probe goes by it.
    doubted: Option<Pair>,
    /// Nothing is known to get through: the first pair that is reported to hit becomes the path.
    feels: bool,
    /// What the peer is to be told of its pairs.
    owed: Vec<PathEntry>,
    /// When it is told at the latest; `Nanos::MAX`: nothing waits.
    tell_at: Nanos,
    /// The peer was told of a pair of its own that reached our queue.
    told_hit: bool,
    /// The peer was told of a pair at all.
    told: bool,
    /// Packets that came on another queue than ours since they should know better.
    misdirected: u64,
    /// The pair of the last one that the peer was told of.
    misdirected_by: Pair,
    /// The peer is told of the next one not before that.
    complain_at: Nanos,
    /// Time between the last two times that it was told.
    pause: Nanos,
}

/// How far a connection is with the pair that it sends by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// It reaches the wanted queue: the peer said so, or every pair does.
    Verified,
    /// It does not, or nobody knows; another is searched for.
    Searching,
    /// The same, and nothing is done about it just now.
    Unverified,
    /// No pair was found that does: the peer hands packets over between its engines.
    GivenUp,
}

/// When the engine of the paper looks at its applications' requests again: every 50 us (docs/rss.md).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paper {
    pub look_at: Nanos,
}

impl Paper {
    /// It has looked at `now`.
    pub fn at(now: Nanos) -> Self {
        Self { look_at: Nanos((now.0 / LOOK.0 + 1) * LOOK.0) }
    }
}

impl Rss {
    /// Of a connection that begins, or that something happens to for the first time.
    pub fn new(now: Nanos) -> Self {
        Self {
            search: None,
            heard: false,
            counted: false,
            given_up: false,
            syns: VecDeque::new(),
            began: now,
            asks: false,
            doubted: None,
            feels: false,
            owed: Vec::new(),
            tell_at: Nanos::MAX,
            told_hit: false,
            told: false,
            misdirected: 0,
            misdirected_by: Pair::NONE,
            complain_at: now + COMPLAINT,
            pause: COMPLAINT,
        }
    }

    /// Both ends know of each other: no SYN is answered any more. The pair, if there is one, that is to be doubted.
    fn begin(&mut self) -> Option<Pair> {
        self.syns = VecDeque::new();
        self.doubted.take()
    }

    /// Begins a search.
    fn seek(&mut self, search: Search) -> &mut Search {
        (self.heard, self.counted, self.given_up) = (false, false, false);
        self.search.insert(search)
    }

    /// When something is to be done; `Nanos::MAX`: nothing.
    pub fn due(&self) -> Nanos {
        self.search.as_ref().map_or(Nanos::MAX, Search::due).min(self.tell_at)
    }

    /// How far a connection is whose pair is not verified.
    pub fn pairing(&self) -> Pairing {
        match self.search {
            Some(_) => Pairing::Searching,
            None if self.given_up => Pairing::GivenUp,
            None => Pairing::Unverified,
        }
    }

    /// A report came since the search began.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// No other pair is searched for any more.
    pub fn end_search(&mut self) {
        self.search = None;
        self.given_up = false;
    }

    /// Packets that came on another queue than ours, though their sender could have been told.
    pub fn misdirected(&self) -> u64 {
        self.misdirected
    }

    /// Whether there is nothing to do, and nothing to remember.
    pub fn is_idle(&self) -> bool {
        self.search.is_none()
            && !self.given_up
            && self.syns.is_empty()
            && self.owed.is_empty()
            && self.doubted.is_none()
            && !self.feels
            && self.misdirected == 0
    }

    /// The peer is to be told where a pair of its own led; `hit`: to our queue. True: now.
    fn owe(&mut self, entry: PathEntry, hit: bool, now: Nanos) -> bool {
        if self.owed.len() < OWED && !self.owed.contains(&entry) {
            self.owed.push(entry);
        }
        if !self.told || hit && !self.told_hit || self.owed.len() >= machnet_wire::Paths::MAX {
            self.told_hit |= hit;
            return true;
        }
        // What came with it is told with it.
        self.tell_at = self.tell_at.min(now + TOGETHER);
        false
    }
}

/// Reports that may wait, as many as a batch has probes.
const OWED: usize = machnet_rss::spray::BATCH_MAX as usize;
/// How long a report that is not urgent waits for others.
const TOGETHER: Nanos = Nanos::micros(25);
/// How long after it was told, or after the connection began, a peer has to send to the right queue before it is told again; doubles up
/// to `COMPLAINT_MAX` while it does not.
const COMPLAINT: Nanos = Nanos::millis(1);
const COMPLAINT_MAX: Nanos = Nanos::secs(1);
/// How often the engine of the paper looks at requests.
const LOOK: Nanos = Nanos::micros(50);

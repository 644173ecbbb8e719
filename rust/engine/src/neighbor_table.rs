//! The entries of the table of neighbours, by address and by when something happens to them next, so that it costs no more to ask for
//! one than to find it, however many wait.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Bound;

use machnet_wire::{Mac, Nanos};

/// What is known about a next hop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its MAC, where it is known.
    pub mac: Option<Mac>,
    pub state: State,
    /// When something happens to the entry next.
    pub due: Nanos,
    /// Connections that go there.
    pub users: u32,
    /// When the MAC last answered.
    pub verified: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It was configured.
    Fixed,
    /// The MAC has answered.
    Fresh,
    /// Asked this many times without an answer.
    Asking(u8),
    Unreachable,
}

impl Entry {
    /// Of an address that is to be asked for at once.
    pub fn unknown(now: Nanos, users: u32) -> Self {
        Self { mac: None, state: State::Asking(0), due: now, users, verified: Nanos::ZERO }
    }

    /// Whether nobody would miss it.
    fn is_spare(&self) -> bool {
        self.users == 0 && self.state != State::Fixed
    }

    /// What goes first where there are too many spare ones: who does not answer, who has not answered yet, and of the others who did so
    /// longest ago.
    fn worth(&self) -> (u8, Nanos) {
        match (self.state, self.mac) {
            (State::Unreachable, _) => (0, self.due),
            (_, None) => (1, self.due),
            (_, Some(_)) => (2, self.verified),
        }
    }
}

/// All entries. Those that connections use are as many as the connections make them; of others there are [`SPARE`] at most.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// In order, so that the same seed asks in the same order.
    all: BTreeMap<Ipv4Addr, Entry>,
    /// All that are due at some time.
    dues: BTreeSet<(Nanos, Ipv4Addr)>,
    spare: usize,
    /// Spare ones that had to go since somebody counted them.
    evicted: usize,
}

impl Entries {
    pub fn get(&self, ip: Ipv4Addr) -> Option<Entry> {
        self.all.get(&ip).copied()
    }

    /// Puts an entry in the place of what was known of the address.
    pub fn insert(&mut self, ip: Ipv4Addr, entry: Entry) {
        self.remove(ip);
        self.file(ip, &entry);
        self.all.insert(ip, entry);
        if self.spare > SPARE {
            self.evict();
        }
    }

    /// Changes an entry; `None`: there is none.
    pub fn change<R>(&mut self, ip: Ipv4Addr, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut entry = self.get(ip)?;
        let before = entry;
        let out = change(&mut entry);
        self.unfile(ip, &before);
        self.file(ip, &entry);
        self.all.insert(ip, entry);
        if self.spare > SPARE {
            self.evict();
        }
        Some(out)
    }

    pub fn remove(&mut self, ip: Ipv4Addr) {
        if let Some(entry) = self.all.remove(&ip) {
            self.unfile(ip, &entry);
        }
    }

    /// The entry that is due first, and when.
    pub fn first_due(&self) -> Option<(Nanos, Ipv4Addr)> {
        self.dues.first().copied()
    }

    /// The addresses of all entries.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.all.keys().copied().collect()
    }

    /// Entries from an address on, in order.
    pub fn from(&self, from: Bound<Ipv4Addr>) -> impl Iterator<Item = (Ipv4Addr, &Entry)> {
        self.all.range((from, Bound::Unbounded)).map(|(ip, entry)| (*ip, entry))
    }

    /// Entries that had to go since the last call.
    pub fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    /// Whether there are such.
    pub fn has_evicted(&self) -> bool {
        self.evicted > 0
    }

    fn file(&mut self, ip: Ipv4Addr, entry: &Entry) {
        self.spare += usize::from(entry.is_spare());
        if entry.due != Nanos::MAX {
            self.dues.insert((entry.due, ip));
        }
    }

    fn unfile(&mut self, ip: Ipv4Addr, entry: &Entry) {
        self.spare -= usize::from(entry.is_spare());
        self.dues.remove(&(entry.due, ip));
    }

    /// Makes room for some time, since all have to be looked at.
    fn evict(&mut self) {
        let spare = self.all.iter().filter(|(_, entry)| entry.is_spare());
        let mut spare: Vec<_> = spare.map(|(ip, entry)| (entry.worth(), *ip)).collect();
        spare.sort_unstable();
        for (_, ip) in spare.into_iter().take(AT_ONCE) {
            self.remove(ip);
            self.evicted += 1;
        }
    }
}

/// The most entries that no connection uses: a scan of a /16 from outside must not fill the memory.
pub(crate) const SPARE: usize = 4096;
/// Those of them that go together.
const AT_ONCE: usize = SPARE / 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n as u32)
    }

    fn known(n: usize) -> Entry {
        let at = Nanos(n as u64);
        Entry { mac: Some(Mac([2; 6])), state: State::Fresh, due: at, users: 0, verified: at }
    }

    #[test]
    fn the_first_due_is_found_whatever_happened_to_the_others() {
        let mut entries = Entries::default();
        (1..=5).for_each(|n| entries.insert(ip(n), known(10 * n)));
        assert_eq!(entries.first_due(), Some((Nanos(10), ip(1))));
        entries.change(ip(1), |entry| entry.due = Nanos::MAX);
        entries.change(ip(4), |entry| entry.due = Nanos(3));
        assert_eq!(entries.first_due(), Some((Nanos(3), ip(4))));
        entries.remove(ip(4));
        assert_eq!(entries.first_due(), Some((Nanos(20), ip(2))));
        (1..=5).for_each(|n| entries.remove(ip(n)));
        assert_eq!((entries.first_due(), entries.spare), (None, 0));
    }

    #[test]
    fn of_too_many_those_go_that_do_not_answer_and_never_one_in_use() {
        let mut entries = Entries::default();
        let silent = |state| Entry { state, ..Entry::unknown(Nanos::secs(9), 0) };
        (0..100).for_each(|n| entries.insert(ip(n), silent(State::Unreachable)));
        (100..200).for_each(|n| entries.insert(ip(n), silent(State::Asking(2))));
        // In use, among them some that do not answer either.
        (200..10_000).for_each(|n| entries.insert(ip(n), Entry { users: 1, ..known(0) }));
        (10_000..15_000).for_each(|n| entries.insert(ip(n), Entry::unknown(Nanos::ZERO, 1)));
        let live = 20_000..20_000 + SPARE - 200;
        live.clone().for_each(|n| entries.insert(ip(n), known(n)));
        assert_eq!(entries.take_evicted(), 0);
        entries.insert(ip(1), known(1_000_000));
        assert!(!entries.has_evicted(), "one more is known, and none more there");
        entries.insert(ip(90_000), known(90_000));
        assert_eq!(entries.take_evicted(), AT_ONCE);
        let left = |of: std::ops::Range<usize>| of.filter(|&n| entries.get(ip(n)).is_some()).count();
        assert_eq!((left(0..1), left(1..2), left(2..200)), (0, 1, 0));
        assert_eq!(left(200..15_000), 14_800);
        // Those of the others that answered longest ago.
        let gone = AT_ONCE - 199;
        assert_eq!((left(20_000..20_000 + gone), left(20_000 + gone..live.end)), (0, live.len() - gone));
    }
}

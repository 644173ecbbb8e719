//! Which next hop has which MAC: one table for all engines, since a reply to ARP may arrive on any queue. An engine keeps the
//! answer with each connection and asks the table again only when [`Neighbors::version`] has changed, so the lock is never on the
//! hot path.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use machnet_wire::{Mac, Nanos, Suppressed, WarningLimit};

/// Our address, the way out, and the times of ARP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our address.
    pub ip: Ipv4Addr,
    /// Bits of the subnet, 0..=32. With 32 nobody is on the link and everything goes to the gateway (GCP).
    pub prefix: u8,
    /// Where packets for other subnets go; its address may lie outside of our subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Fixed entries at the start: no ARP is sent for them. See [`Neighbors::set_fixed`].
    pub fixed: Vec<(Ipv4Addr, Mac)>,
    /// Time between two requests for one address.
    pub interval: Nanos,
    /// Requests without an answer before an address is unreachable.
    pub tries: u8,
    /// Age at which an entry in use is verified by a unicast request.
    pub fresh: Nanos,
    /// How long an unreachable address is refused without another request.
    pub refuse: Nanos,
}

impl Config {
    /// The usual times for this address.
    pub fn new(ip: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) -> Self {
        Self {
            ip,
            prefix,
            gateway,
            fixed: Vec::new(),
            interval: Nanos::millis(250),
            tries: 4,
            fresh: Nanos::secs(60),
            refuse: Nanos::secs(1),
        }
    }

    fn is_on_link(&self, ip: Ipv4Addr) -> bool {
        (ip.to_bits() ^ self.ip.to_bits()) & mask(self.prefix) == 0
    }
}

/// What is known about a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Send here.
    Known(Mac),
    /// A request is out. The version changes when the answer comes, or when the address is given up.
    Asking,
    /// No request was answered.
    Unreachable,
}

/// An ARP request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whose MAC is wanted.
    pub ip: Ipv4Addr,
    /// The MAC that had it last: the request goes there alone, not to everybody.
    pub last: Option<Mac>,
}

/// An entry of the table, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighborRow {
    /// The next hop's address.
    pub ip: Ipv4Addr,
    /// Its MAC, where it is known.
    pub mac: Option<Mac>,
    /// What is known.
    pub state: NeighborState,
}

/// What is known about a next hop, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighborState {
    /// It was configured.
    Fixed,
    /// It answered.
    Known,
    /// It is being asked and has not answered yet.
    Asking,
    /// It was asked in vain.
    Unreachable,
}

/// The table.
#[derive(Debug)]
pub struct Neighbors {
    config: Config,
    version: AtomicU32,
    /// When [`Neighbors::poll`] has something to do, nanoseconds.
    due: AtomicU64,
    /// In order, so that the same seed asks in the same order.
    table: Mutex<BTreeMap<Ipv4Addr, Entry>>,
    /// Addresses with fixed entries.
    fixed: RwLock<Vec<(Ipv4Addr, Mac)>>,
    /// Warnings that another station claims our address.
    claims: Mutex<WarningLimit>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    mac: Option<Mac>,
    state: State,
    /// When something happens to the entry next.
    due: Nanos,
    users: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fixed,
    Fresh,
    /// Asked this many times without an answer.
    Asking(u8),
    Unreachable,
}

impl Neighbors {
    /// A table that knows only the fixed entries.
    pub fn new(config: Config) -> Self {
        let fixed =
            |&(ip, mac)| (ip, Entry { mac: Some(mac), state: State::Fixed, due: Nanos::MAX, users: 0 });
        let table = config.fixed.iter().map(fixed).collect();
        Self {
            version: AtomicU32::new(1),
            due: AtomicU64::new(u64::MAX),
            table: Mutex::new(table),
            fixed: RwLock::new(config.fixed.clone()),
            config,
            claims: Mutex::default(),
        }
    }

    /// Whether one more claim of another station to our address is to be logged, and how many were left out since the last line.
    /// It counts for all engines together: there may be thousands of claims a second.
    pub fn may_warn(&self, now: Nanos) -> Option<Suppressed> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).allow(now)
    }

    /// Our address and the rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The address that a packet for `ip` goes to next; `None` when there is no way out.
    pub fn next_hop(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let is_fixed = || self.fixed().iter().any(|(known, _)| *known == ip);
        if self.config.is_on_link(ip) || is_fixed() { Some(ip) } else { self.config.gateway }
    }

    /// Replaces the fixed entries. Addresses that are no longer among them are asked for by ARP, like all others.
    pub fn set_fixed(&self, fixed: Vec<(Ipv4Addr, Mac)>, now: Nanos) {
        let mut table = self.lock();
        table.retain(|ip, entry| {
            if entry.state == State::Fixed && !fixed.iter().any(|(known, _)| known == ip) {
                // Connections go on with the old MAC until somebody answers.
                (entry.state, entry.due) = (State::Fresh, now);
                return entry.users > 0;
            }
            true
        });
        for &(ip, mac) in &fixed {
            let users = table.get(&ip).map_or(0, |entry| entry.users);
            table.insert(ip, Entry { mac: Some(mac), state: State::Fixed, due: Nanos::MAX, users });
        }
        *self.fixed.write().unwrap_or_else(PoisonError::into_inner) = fixed;
        self.due.store(now.0, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn fixed(&self) -> RwLockReadGuard<'_, Vec<(Ipv4Addr, Mac)>> {
        self.fixed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_learn(&self, ip: Ipv4Addr) -> bool {
        !ip.is_unspecified()
            && !ip.is_multicast()
            && !ip.is_broadcast()
            && ip != self.config.ip
            && (self.next_hop(ip) == Some(ip) || self.config.gateway == Some(ip))
    }

    /// Changes with every answer, and when an address is given up.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// When [`Neighbors::poll`] has something to do.
    #[inline]
    pub fn due(&self) -> Nanos {
        Nanos(self.due.load(Ordering::Relaxed))
    }

    /// The MAC of the next hop `ip`. If it is not known, a request is due at once.
    pub fn lookup(&self, ip: Ipv4Addr, now: Nanos) -> Lookup {
        let mut table = self.lock();
        if table.len() >= LARGEST && !table.contains_key(&ip) {
            table.retain(|_, e| e.users > 0 || e.state == State::Fixed);
            if table.len() >= LARGEST {
                return Lookup::Unreachable;
            }
        }
        let unknown = Entry { mac: None, state: State::Asking(0), due: now, users: 0 };
        let entry = table.entry(ip).or_insert(unknown);
        if entry.state == State::Unreachable && entry.due <= now {
            *entry = Entry { users: entry.users, ..unknown };
        }
        let found = match (entry.state, entry.mac) {
            (State::Unreachable, _) => Lookup::Unreachable,
            (_, Some(mac)) => Lookup::Known(mac),
            (_, None) => Lookup::Asking,
        };
        self.due.fetch_min(entry.due.0, Ordering::Relaxed);
        found
    }

    /// A connection begins to use the next hop `ip`: its entry is kept fresh.
    pub fn acquire(&self, ip: Ipv4Addr) {
        if let Some(entry) = self.lock().get_mut(&ip) {
            entry.users += 1;
        }
    }

    /// A connection that had called [`Neighbors::acquire`] is gone.
    pub fn release(&self, ip: Ipv4Addr) {
        if let Some(entry) = self.lock().get_mut(&ip) {
            entry.users = entry.users.saturating_sub(1);
        }
    }

    /// An ARP packet said that `ip` is at `mac`. A new entry is made only for a sender who asked for our address (`for_us`); otherwise
    /// the packet is believed only about addresses that are in the table already. True if that changed anything.
    pub fn learn(&self, ip: Ipv4Addr, mac: Mac, for_us: bool, now: Nanos) -> bool {
        if !self.may_learn(ip) || mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
            return false;
        }
        let mut table = self.lock();
        if !table.contains_key(&ip) && (!for_us || table.len() >= LARGEST) {
            return false;
        }
        let entry = table.entry(ip).or_insert(Entry { mac: None, state: State::Fresh, due: now, users: 0 });
        if entry.state == State::Fixed {
            return false;
        }
        let news = entry.mac != Some(mac) || entry.state == State::Unreachable;
        *entry =
            Entry { mac: Some(mac), state: State::Fresh, due: now + self.config.fresh, users: entry.users };
        self.due.fetch_min(entry.due.0, Ordering::Relaxed);
        if news {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        news
    }

    /// Shows the requests that are due. Any engine may call it; each request is shown to one engine only. Returns how many
    /// addresses were given up.
    pub fn poll(&self, now: Nanos, mut ask: impl FnMut(Ask)) -> usize {
        if self.due() > now {
            return 0;
        }
        let config = &self.config;
        let mut given_up = 0;
        let mut table = self.lock();
        table.retain(|&ip, entry| {
            if entry.due > now {
                return true;
            }
            match entry.state {
                State::Fixed => {}
                State::Unreachable | State::Fresh if entry.users == 0 => return false,
                // Connections still use it: the host may come back before they time out.
                State::Unreachable => *entry = Entry { state: State::Asking(0), due: now, ..*entry },
                State::Asking(tries) if tries >= config.tries => {
                    given_up += 1;
                    *entry =
                        Entry { mac: None, state: State::Unreachable, due: now + config.refuse, ..*entry };
                }
                State::Asking(tries) => {
                    // The first requests for an entry that became stale go to its last MAC, later ones to everybody.
                    ask(Ask { ip, last: entry.mac.filter(|_| tries < config.tries / 2) });
                    entry.state = State::Asking(tries + 1);
                    entry.due = now + config.interval;
                }
                State::Fresh => {
                    ask(Ask { ip, last: entry.mac });
                    entry.state = State::Asking(1);
                    entry.due = now + config.interval;
                }
            }
            true
        });
        let next = table.values().map(|e| e.due.0).min().unwrap_or(u64::MAX);
        self.due.store(next, Ordering::Relaxed);
        if given_up > 0 {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        given_up
    }

    /// At most `most` entries from `from` on, in the order of their addresses. A few at a time: engines wait for the same lock.
    pub fn page(&self, from: Bound<Ipv4Addr>, most: usize) -> Vec<NeighborRow> {
        let table = self.lock();
        let row = |(&ip, entry): (&Ipv4Addr, &Entry)| {
            let state = match (entry.state, entry.mac) {
                (State::Fixed, _) => NeighborState::Fixed,
                (State::Unreachable, _) => NeighborState::Unreachable,
                (_, Some(_)) => NeighborState::Known,
                (_, None) => NeighborState::Asking,
            };
            NeighborRow { ip, mac: entry.mac, state }
        };
        table.range((from, Bound::Unbounded)).take(most).map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, Entry>> {
        // No code under the lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// The most entries: a scan of a /16 from outside must not fill the memory.
const LARGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 7);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn asks(n: &Neighbors, now: Nanos) -> Vec<Ask> {
        let mut out = Vec::new();
        n.poll(now, |a| out.push(a));
        out
    }

    #[test]
    fn next_hops() {
        let table = |prefix, gateway| Neighbors::new(Config::new(ME, prefix, gateway));
        for (prefix, gateway, to, hop) in [
            (24, None, PEER, Some(PEER)),
            (24, None, FAR, None),
            (24, Some(GATEWAY), FAR, Some(GATEWAY)),
            (24, Some(GATEWAY), PEER, Some(PEER)),
            (32, Some(GATEWAY), PEER, Some(GATEWAY)),
            (32, None, PEER, None),
            (0, None, FAR, Some(FAR)),
        ] {
            assert_eq!(table(prefix, gateway).next_hop(to), hop, "/{prefix} {gateway:?} {to}");
        }
    }

    #[test]
    fn an_address_that_never_answers_is_unreachable_after_the_tries_and_asked_again_later() {
        let n = Neighbors::new(Config::new(ME, 24, None));
        let mut now = Nanos::millis(5);
        assert_eq!(n.lookup(PEER, now), Lookup::Asking);
        for _ in 0..4 {
            assert_eq!(asks(&n, now), [Ask { ip: PEER, last: None }]);
            assert!(asks(&n, now).is_empty());
            now += Nanos::millis(250);
        }
        let before = n.version();
        assert_eq!(n.poll(now, |_| panic!("asked a fifth time")), 1);
        assert!(n.version() > before);
        assert_eq!(n.lookup(PEER, now), Lookup::Unreachable);
        assert_eq!(n.lookup(PEER, now + Nanos::secs(1)), Lookup::Asking);
    }

    #[test]
    fn addresses_due_at_once_are_asked_for_in_order() {
        let n = Neighbors::new(Config::new(ME, 24, None));
        let all: Vec<_> = (2..100).map(|i| Ipv4Addr::new(10, 0, 0, i)).collect();
        all.iter().rev().for_each(|ip| assert_eq!(n.lookup(*ip, Nanos::ZERO), Lookup::Asking));
        assert_eq!(asks(&n, Nanos::ZERO).iter().map(|ask| ask.ip).collect::<Vec<_>>(), all);
    }

    #[test]
    fn entries_in_use_are_refreshed_by_unicast_and_others_forgotten() {
        let n = Neighbors::new(Config::new(ME, 24, None));
        assert!(n.learn(PEER, MAC, true, Nanos::ZERO));
        assert_eq!(n.lookup(PEER, Nanos::ZERO), Lookup::Known(MAC));
        n.acquire(PEER);
        assert!(asks(&n, Nanos::secs(59)).is_empty());
        assert_eq!(asks(&n, Nanos::secs(60)), [Ask { ip: PEER, last: Some(MAC) }]);
        assert_eq!(n.lookup(PEER, Nanos::secs(60)), Lookup::Known(MAC), "in use while it is asked for");
        assert!(!n.learn(PEER, MAC, false, Nanos::secs(60)), "the same answer is no news");
        n.release(PEER);
        assert!(asks(&n, Nanos::secs(120)).is_empty());
        assert!(n.page(Bound::Unbounded, 9).is_empty());
    }

    #[test]
    fn entries_are_listed_a_page_at_a_time_with_what_is_known() {
        let mut config = Config::new(ME, 24, None);
        config.fixed.push((GATEWAY, MAC));
        let n = Neighbors::new(config);
        assert!(n.learn(PEER, MAC, true, Nanos::ZERO));
        let silent = Ipv4Addr::new(10, 0, 0, 3);
        assert_eq!(n.lookup(silent, Nanos::ZERO), Lookup::Asking);
        let row = |ip, mac, state| NeighborRow { ip, mac, state };
        let asking = row(silent, None, NeighborState::Asking);
        let all = [
            row(PEER, Some(MAC), NeighborState::Known),
            asking,
            row(GATEWAY, Some(MAC), NeighborState::Fixed),
        ];
        assert_eq!(n.page(Bound::Unbounded, 9), all);
        assert_eq!(n.page(Bound::Unbounded, 2), all[..2]);
        assert_eq!(n.page(Bound::Excluded(silent), 2), all[2..]);
        assert!(n.page(Bound::Excluded(GATEWAY), 2).is_empty());
        (0..5).for_each(|i| drop(asks(&n, Nanos::secs(i))));
        assert_eq!(n.page(Bound::Unbounded, 2)[1], row(silent, None, NeighborState::Unreachable));
    }

    #[test]
    fn only_those_we_asked_for_or_who_asked_us_are_believed() {
        let mut config = Config::new(ME, 24, None);
        config.fixed.push((GATEWAY, MAC));
        let n = Neighbors::new(config);
        let other = Mac([2, 9, 9, 9, 9, 9]);
        assert!(!n.learn(PEER, MAC, false, Nanos::ZERO), "gratuitous, about a stranger");
        assert!(!n.learn(FAR, MAC, true, Nanos::ZERO), "not on the link");
        assert!(!n.learn(ME, MAC, true, Nanos::ZERO), "our own address");
        assert!(!n.learn(PEER, Mac([0xff; 6]), true, Nanos::ZERO), "a group address");
        assert!(!n.learn(GATEWAY, other, true, Nanos::ZERO), "a fixed entry");
        assert_eq!(n.lookup(GATEWAY, Nanos::ZERO), Lookup::Known(MAC));
        assert_eq!(n.lookup(PEER, Nanos::ZERO), Lookup::Asking);
        assert!(n.learn(PEER, MAC, false, Nanos::ZERO));
        assert!(n.learn(PEER, other, false, Nanos::ZERO), "it moved");
        assert_eq!(n.lookup(PEER, Nanos::ZERO), Lookup::Known(other));
    }

    #[test]
    fn fixed_addresses_come_and_go() {
        let mut config = Config::new(ME, 24, None);
        config.fixed.push((FAR, MAC));
        let n = Neighbors::new(config);
        assert_eq!((n.next_hop(FAR), n.lookup(FAR, Nanos::ZERO)), (Some(FAR), Lookup::Known(MAC)));
        n.acquire(FAR);

        let (before, other) = (n.version(), Mac([2, 9, 9, 9, 9, 9]));
        n.set_fixed(vec![(PEER, other)], Nanos::secs(1));
        assert!(n.version() > before, "flows look again");
        assert_eq!((n.next_hop(PEER), n.lookup(PEER, Nanos::secs(1))), (Some(PEER), Lookup::Known(other)));
        assert!(!n.learn(PEER, MAC, true, Nanos::secs(1)), "known for good");
        // What is no longer fixed is off the link for those who come; who uses it asks, and goes on meanwhile.
        assert_eq!((n.next_hop(FAR), n.lookup(FAR, Nanos::secs(1))), (None, Lookup::Known(MAC)));
        assert_eq!(asks(&n, Nanos::secs(1)), [Ask { ip: FAR, last: Some(MAC) }]);

        n.set_fixed(Vec::new(), Nanos::secs(2));
        assert_eq!(n.lookup(PEER, Nanos::secs(2)), Lookup::Asking, "nobody used it: it is forgotten");
    }
}

//! Which next hop has which MAC: one table for all engines, since a reply to ARP may arrive on any queue. An engine keeps the
//! answer with each connection and asks the table again only when [`Neighbors::version`] has changed, so the lock is never on the
//! hot path.
//!
//! Anybody on the link can say by ARP that he has an address. So a MAC that has answered is given up only when it does not answer any
//! more: whoever claims its address, and every silence of a connection that goes there, has the MAC itself asked, and only where that stays
//! unanswered everybody is, and the first who answers is believed (docs/wire.md, Neighbours).

use std::net::Ipv4Addr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use machnet_wire::{Mac, Nanos, Suppressed, WarningLimit};

use crate::neighbor_table::{Entries, Entry, State};

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
    /// Time between two requests to everybody for one address.
    pub interval: Nanos,
    /// Requests to everybody without an answer before an address is unreachable.
    pub tries: u8,
    /// Time between two requests to the MAC that had an address last.
    pub quick: Nanos,
    /// Requests to it before everybody is asked.
    pub unicasts: u8,
    /// Age at which an entry in use is verified.
    pub fresh: Nanos,
    /// How long an entry that was verified is not verified again, whoever doubts it.
    pub trust: Nanos,
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
            // A host whose core is another's for some ten milliseconds has time to answer.
            quick: Nanos::millis(50),
            unicasts: 3,
            fresh: Nanos::secs(60),
            trust: Nanos::millis(400),
            // So that one that is back is reached within a second though nothing was heard of it.
            refuse: Nanos::millis(700),
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

/// What an ARP packet that came was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It says nothing new, or nothing that is believed.
    Nothing,
    /// Another station has an address than the one that has answered for it, says the packet: that one is asked first.
    Disputed,
    /// Packets go to another MAC from now on, or to one at all.
    News,
}

/// An ARP request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whose MAC is wanted. Our own: it announces us (RFC 5227 section 2.3).
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

/// What [`Neighbors::poll`] did beside asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Polled {
    /// Addresses that were given up.
    pub failed: usize,
    /// Entries that had to make room for others.
    pub evicted: usize,
}

/// The table.
#[derive(Debug)]
pub struct Neighbors {
    config: Config,
    version: AtomicU32,
    /// When [`Neighbors::poll`] has something to do, nanoseconds.
    due: AtomicU64,
    table: Mutex<Table>,
    /// Addresses with fixed entries.
    fixed: RwLock<Vec<(Ipv4Addr, Mac)>>,
    /// Warnings that another station claims our address.
    claims: Mutex<WarningLimit>,
}

#[derive(Debug)]
struct Table {
    entries: Entries,
    /// Times that we announce ourselves still, and when the next is.
    announcements: u8,
    announce_at: Nanos,
}

impl Neighbors {
    /// A table that knows only the fixed entries, of a host that has yet to announce itself.
    pub fn new(config: Config) -> Self {
        let mut entries = Entries::default();
        config.fixed.iter().for_each(|&(ip, mac)| entries.insert(ip, fixed_entry(mac, 0)));
        Self {
            version: AtomicU32::new(1),
            due: AtomicU64::new(0),
            table: Mutex::new(Table { entries, announcements: ANNOUNCEMENTS, announce_at: Nanos::ZERO }),
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
        let entries = &mut table.entries;
        for ip in entries.addresses() {
            let Some(entry) = entries.get(ip).filter(|entry| entry.state == State::Fixed) else { continue };
            if fixed.iter().any(|(known, _)| *known == ip) {
                continue;
            }
            if entry.users == 0 {
                entries.remove(ip);
            } else {
                // Connections go on with the old MAC until somebody answers.
                entries.insert(ip, Entry { state: State::Fresh, due: now, ..entry });
            }
        }
        for &(ip, mac) in &fixed {
            let users = entries.get(ip).map_or(0, |entry| entry.users);
            entries.insert(ip, fixed_entry(mac, users));
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

    /// The MAC of the next hop `ip` where it was configured: it holds though packets come from there by another one.
    pub fn fixed_mac(&self, ip: Ipv4Addr) -> Option<Mac> {
        self.fixed().iter().find(|(known, _)| *known == ip).map(|&(_, mac)| mac)
    }

    /// The MAC of the next hop `ip`. If it is not known, a request is due at once.
    pub fn lookup(&self, ip: Ipv4Addr, now: Nanos) -> Lookup {
        let mut table = self.lock();
        let mut entry = table.entries.get(ip).unwrap_or_else(|| {
            table.entries.insert(ip, Entry::unknown(now, 0));
            Entry::unknown(now, 0)
        });
        if entry.state == State::Unreachable && entry.due <= now {
            entry = Entry::unknown(now, entry.users);
            table.entries.insert(ip, entry);
        }
        self.due.fetch_min(entry.due.0, Ordering::Relaxed);
        match (entry.state, entry.mac) {
            (State::Unreachable, _) => Lookup::Unreachable,
            (_, Some(mac)) => Lookup::Known(mac),
            (_, None) => Lookup::Asking,
        }
    }

    /// A connection begins to use the next hop `ip`: its entry stays, and is kept fresh. If it is not known, a request is due at once.
    pub fn acquire(&self, ip: Ipv4Addr, now: Nanos) {
        let mut table = self.lock();
        if table.entries.change(ip, |entry| entry.users += 1).is_none() {
            table.entries.insert(ip, Entry::unknown(now, 1));
            self.due.fetch_min(now.0, Ordering::Relaxed);
        }
    }

    /// A connection that had called [`Neighbors::acquire`] is gone.
    pub fn release(&self, ip: Ipv4Addr) {
        let mut table = self.lock();
        table.entries.change(ip, |entry| entry.users = entry.users.saturating_sub(1));
        if table.entries.has_evicted() {
            self.due.store(0, Ordering::Relaxed);
        }
    }

    /// What goes to the next hop `ip` seems to meet silence: whoever has it is asked again, soon after he last answered at the earliest. What
    /// is known goes on to be used until then.
    ///
    /// False: that is being done already, or there is nothing to doubt.
    pub fn doubt(&self, ip: Ipv4Addr, now: Nanos) -> bool {
        self.verify(&mut self.lock(), ip, now)
    }

    /// We announce ourselves, to those who have known this address by another MAC, or by another port of a switch.
    pub fn announce(&self, now: Nanos) {
        let mut table = self.lock();
        (table.announcements, table.announce_at) = (ANNOUNCEMENTS, now);
        self.due.fetch_min(now.0, Ordering::Relaxed);
    }

    fn verify(&self, table: &mut Table, ip: Ipv4Addr, now: Nanos) -> bool {
        let Some(entry) = table.entries.get(ip).filter(|entry| entry.state == State::Fresh) else {
            return false;
        };
        let due = now.max(entry.verified + self.config.trust);
        if due >= entry.due {
            return false;
        }
        table.entries.insert(ip, Entry { due, ..entry });
        self.due.fetch_min(due.0, Ordering::Relaxed);
        true
    }

    /// An ARP packet said that `ip` is at `mac`. A new entry is made only for a sender who asked for our address, or answered us (`for_us`);
    /// otherwise the packet is believed only about addresses that are in the table already. A MAC that has answered is not replaced: it is
    /// asked, and somebody else believed when it does not answer.
    pub fn learn(&self, ip: Ipv4Addr, mac: Mac, for_us: bool, now: Nanos) -> Learned {
        if !self.may_learn(ip) || mac.is_multicast() || mac == Mac::default() {
            return Learned::Nothing;
        }
        let mut table = self.lock();
        let known = table.entries.get(ip);
        match known.map(|entry| (entry.state, entry.mac)) {
            None if !for_us => return Learned::Nothing,
            Some((State::Fixed, _)) => return Learned::Nothing,
            Some((State::Fresh | State::Asking(_), Some(known))) if known == mac => {}
            Some((State::Fresh, Some(_))) => {
                self.verify(&mut table, ip, now);
                return Learned::Disputed;
            }
            // The one who had it is being asked.
            Some((State::Asking(asked), Some(_))) if asked <= self.config.unicasts || !for_us => {
                return Learned::Disputed;
            }
            _ => {}
        }
        let news = known.is_none_or(|entry| entry.mac != Some(mac) || entry.state == State::Unreachable);
        let due = now + self.config.fresh;
        let users = known.map_or(0, |entry| entry.users);
        table.entries.insert(ip, Entry { mac: Some(mac), state: State::Fresh, due, users, verified: now });
        let due = if table.entries.has_evicted() { now } else { due };
        self.due.fetch_min(due.0, Ordering::Relaxed);
        if !news {
            return Learned::Nothing;
        }
        self.version.fetch_add(1, Ordering::AcqRel);
        Learned::News
    }

    /// Shows at most `most` requests that are due, in the order in which they became so. Any engine may call it; each request is shown to
    /// one engine only.
    pub fn poll(&self, now: Nanos, most: usize, mut ask: impl FnMut(Ask)) -> Polled {
        if self.due() > now {
            return Polled::default();
        }
        let mut table = self.lock();
        let mut left = most;
        if left > 0 && table.announcements > 0 && table.announce_at <= now {
            left -= 1;
            ask(Ask { ip: self.config.ip, last: None });
            table.announcements -= 1;
            table.announce_at = now + ANNOUNCE_AGAIN;
        }
        let mut failed = 0;
        while left > 0
            && let Some((_, ip)) = table.entries.first_due().filter(|(due, _)| *due <= now)
            && let Some(entry) = table.entries.get(ip)
        {
            match self.next_step(entry, now) {
                Step::Forget => table.entries.remove(ip),
                Step::GiveUp(entry) => {
                    failed += 1;
                    table.entries.insert(ip, entry);
                }
                Step::Ask(entry, last) => {
                    left -= 1;
                    ask(Ask { ip, last });
                    table.entries.insert(ip, entry);
                }
            }
        }
        let announce = if table.announcements > 0 { table.announce_at } else { Nanos::MAX };
        let next = table.entries.first_due().map_or(Nanos::MAX, |(due, _)| due).min(announce);
        self.due.store(next.0, Ordering::Relaxed);
        if failed > 0 {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        Polled { failed, evicted: table.entries.take_evicted() }
    }

    /// What happens to an entry that is due.
    fn next_step(&self, entry: Entry, now: Nanos) -> Step {
        let config = &self.config;
        let asked = match entry.state {
            State::Unreachable | State::Fresh if entry.users == 0 => return Step::Forget,
            // Connections still use it, and one that does not answer may come back before they time out. (Fixed ones are never due.)
            State::Unreachable | State::Fresh | State::Fixed => 0,
            State::Asking(asked) => asked,
        };
        let unicasts = if entry.mac.is_some() { config.unicasts } else { 0 };
        if asked >= unicasts.saturating_add(config.tries) {
            let due = now + config.refuse;
            return Step::GiveUp(Entry { mac: None, state: State::Unreachable, due, ..entry });
        }
        let pause = if asked < unicasts { config.quick } else { config.interval };
        let last = entry.mac.filter(|_| asked < unicasts);
        Step::Ask(Entry { state: State::Asking(asked + 1), due: now + pause, ..entry }, last)
    }

    /// At most `most` entries from `from` on, in the order of their addresses. A few at a time: engines wait for the same lock.
    pub fn page(&self, from: Bound<Ipv4Addr>, most: usize) -> Vec<NeighborRow> {
        let table = self.lock();
        let row = |(ip, entry): (Ipv4Addr, &Entry)| {
            let state = match (entry.state, entry.mac) {
                (State::Fixed, _) => NeighborState::Fixed,
                (State::Unreachable, _) => NeighborState::Unreachable,
                (_, Some(_)) => NeighborState::Known,
                (_, None) => NeighborState::Asking,
            };
            NeighborRow { ip, mac: entry.mac, state }
        };
        table.entries.from(from).take(most).map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under the lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// What happens to an entry that is due.
enum Step {
    /// Nobody needs it.
    Forget,
    /// Nobody has answered.
    GiveUp(Entry),
    /// He is asked who had this MAC last, or everybody.
    Ask(Entry, Option<Mac>),
}

fn fixed_entry(mac: Mac, users: u32) -> Entry {
    Entry { mac: Some(mac), state: State::Fixed, due: Nanos::MAX, users, verified: Nanos::ZERO }
}

/// How often a host announces itself, and the time between (RFC 5227 section 1.1).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_AGAIN: Nanos = Nanos::secs(2);

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
        n.poll(now, 99, |a| out.extend((a.ip != ME).then_some(a)));
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
        assert_eq!(n.poll(now, 99, |_| panic!("asked a fifth time")), Polled { failed: 1, evicted: 0 });
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
        assert_eq!(n.learn(PEER, MAC, true, Nanos::ZERO), Learned::News);
        assert_eq!(n.lookup(PEER, Nanos::ZERO), Lookup::Known(MAC));
        n.acquire(PEER, Nanos::ZERO);
        assert!(asks(&n, Nanos::secs(59)).is_empty());
        assert_eq!(asks(&n, Nanos::secs(60)), [Ask { ip: PEER, last: Some(MAC) }]);
        assert_eq!(n.lookup(PEER, Nanos::secs(60)), Lookup::Known(MAC), "in use while it is asked for");
        assert_eq!(
            n.learn(PEER, MAC, false, Nanos::secs(60)),
            Learned::Nothing,
            "the same answer is no news"
        );
        n.release(PEER);
        assert!(asks(&n, Nanos::secs(120)).is_empty());
        assert!(n.page(Bound::Unbounded, 9).is_empty());
    }

    #[test]
    fn entries_are_listed_a_page_at_a_time_with_what_is_known() {
        let mut config = Config::new(ME, 24, None);
        config.fixed.push((GATEWAY, MAC));
        let n = Neighbors::new(config);
        assert_eq!(n.learn(PEER, MAC, true, Nanos::ZERO), Learned::News);
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
        assert_eq!(n.learn(PEER, MAC, false, Nanos::ZERO), Learned::Nothing, "gratuitous, about a stranger");
        assert_eq!(n.learn(FAR, MAC, true, Nanos::ZERO), Learned::Nothing, "not on the link");
        assert_eq!(n.learn(ME, MAC, true, Nanos::ZERO), Learned::Nothing, "our own address");
        for nobody in [Mac([0xff; 6]), Mac([3, 0, 0, 0, 0, 1]), Mac([0; 6])] {
            assert_eq!(n.learn(PEER, nobody, true, Nanos::ZERO), Learned::Nothing, "{nobody}");
        }
        assert_eq!(n.learn(GATEWAY, other, true, Nanos::ZERO), Learned::Nothing, "a fixed entry");
        assert_eq!(n.lookup(GATEWAY, Nanos::ZERO), Lookup::Known(MAC));
        assert_eq!(n.lookup(PEER, Nanos::ZERO), Lookup::Asking);
        assert_eq!(n.learn(PEER, MAC, false, Nanos::ZERO), Learned::News);
        assert_eq!(n.lookup(PEER, Nanos::ZERO), Lookup::Known(MAC));
    }

    const MOVED: Mac = Mac([2, 9, 9, 9, 9, 9]);

    /// A table with a neighbour that has answered at time zero and is in use, and how it asks after `at`, until somebody answers.
    fn known() -> Neighbors {
        let n = Neighbors::new(Config::new(ME, 24, None));
        assert_eq!(n.learn(PEER, MAC, true, Nanos::ZERO), Learned::News);
        n.acquire(PEER, Nanos::ZERO);
        n
    }

    #[test]
    fn a_host_announces_itself_twice_and_once_more_when_it_is_told_to() {
        let n = Neighbors::new(Config::new(ME, 24, None));
        let told = |now| {
            let mut out = Vec::new();
            n.poll(now, 99, |ask| out.push(ask));
            out
        };
        let all = [Ask { ip: ME, last: None }];
        for from in [Nanos::ZERO, Nanos::secs(100)] {
            assert!(n.due() <= from);
            assert_eq!(told(from), all);
            assert_eq!(n.due(), from + Nanos::secs(2));
            assert!(told(from + Nanos::millis(1999)).is_empty());
            assert_eq!(told(from + Nanos::secs(2)), all);
            assert_eq!(n.due(), Nanos::MAX);
            n.announce(Nanos::secs(100));
        }
    }

    #[test]
    fn who_claims_a_neighbours_address_is_believed_only_when_that_one_does_not_answer_any_more() {
        let to_him = [Ask { ip: PEER, last: Some(MAC) }];
        let to_all = [Ask { ip: PEER, last: None }];
        let n = known();
        let mut now = Nanos::secs(5);
        let seven = |n: &Neighbors, now| {
            (0..7).for_each(|k| assert_eq!(n.learn(PEER, MOVED, k % 2 == 0, now), Learned::Disputed));
        };
        seven(&n, now);
        assert_eq!(asks(&n, now), to_him, "once for all of them");
        seven(&n, now);
        assert_eq!(n.learn(PEER, MAC, true, now), Learned::Nothing, "he is still there");
        // Whoever goes on has him asked no more than twice a second.
        let mut asked = 0;
        for _ in 0..100 {
            now += Nanos::millis(10);
            seven(&n, now);
            for ask in asks(&n, now) {
                assert_eq!([ask], to_him);
                assert_eq!(n.learn(PEER, MAC, true, now), Learned::Nothing);
                asked += 1;
            }
        }
        assert_eq!((asked, n.lookup(PEER, now)), (2, Lookup::Known(MAC)));
        // He is silent: then everybody is asked, and who answers is believed.
        now += Nanos::millis(400);
        seven(&n, now);
        for _ in 0..3 {
            assert_eq!(asks(&n, now), to_him);
            seven(&n, now);
            now += Nanos::millis(50);
        }
        assert_eq!(asks(&n, now), to_all);
        assert_eq!(n.learn(PEER, MOVED, false, now), Learned::Disputed, "this is no answer");
        assert_eq!(n.lookup(PEER, now), Lookup::Known(MAC));
        let version = n.version();
        assert_eq!(n.learn(PEER, MOVED, true, now), Learned::News);
        assert!(n.version() > version && n.lookup(PEER, now) == Lookup::Known(MOVED));
        assert!(asks(&n, now + Nanos::secs(59)).is_empty());
    }

    #[test]
    fn a_neighbour_that_is_doubted_is_asked_soon_but_not_again_and_again() {
        let n = known();
        let mut asked = 0;
        for ms in 0..4000 {
            let now = Nanos::millis(ms);
            n.doubt(PEER, now);
            for ask in asks(&n, now) {
                assert_eq!(ask, Ask { ip: PEER, last: Some(MAC) });
                n.learn(PEER, MAC, true, now);
                asked += 1;
            }
        }
        assert_eq!(asked, 9);
        assert!(!n.doubt(FAR, Nanos::secs(9)) && !n.doubt(GATEWAY, Nanos::secs(9)), "nobody knows them");
        assert_eq!(n.page(Bound::Unbounded, 9).len(), 1);
    }

    #[test]
    fn an_entry_that_nobody_uses_is_forgotten_when_somebody_else_claims_its_address() {
        let n = known();
        n.release(PEER);
        assert_eq!(n.learn(PEER, MOVED, false, Nanos::secs(1)), Learned::Disputed);
        assert!(asks(&n, Nanos::secs(1)).is_empty());
        assert!(n.page(Bound::Unbounded, 9).is_empty());
    }

    #[test]
    fn one_that_was_given_up_is_believed_as_soon_as_it_announces_itself() {
        let n = known();
        let mut now = Nanos::secs(60);
        while n.lookup(PEER, now) != Lookup::Unreachable {
            asks(&n, now);
            now += Nanos::millis(50);
        }
        assert_eq!(n.learn(PEER, MOVED, false, now), Learned::News);
        assert_eq!(n.lookup(PEER, now), Lookup::Known(MOVED));
    }

    #[test]
    fn of_many_that_are_due_at_once_no_more_are_asked_than_there_is_room_for_and_all_in_turn() {
        let n = Neighbors::new(Config::new(ME, 16, None));
        let ip = |k: u32| Ipv4Addr::from_bits(ME.to_bits() + 1 + k);
        (0..5000).for_each(|k| n.acquire(ip(k), Nanos::ZERO));
        let mut turns = Vec::new();
        while n.due() == Nanos::ZERO {
            let before = turns.len();
            n.poll(Nanos::ZERO, 32, |ask| turns.push(ask.ip));
            assert!(turns.len() - before <= 32);
        }
        turns.retain(|ip| *ip != ME);
        assert_eq!(turns, (0..5000).map(ip).collect::<Vec<_>>());
        // Those that nobody waits for any more make room, and a host that somebody asks for then is asked like all others.
        (0..5000).for_each(|k| n.release(ip(k)));
        n.acquire(ip(6000), Nanos::ZERO);
        let mut asked = Vec::new();
        let polled = n.poll(Nanos::ZERO, 32, |ask| asked.push(ask.ip));
        assert_eq!((asked, polled), (vec![ip(6000)], Polled { failed: 0, evicted: 1024 }));
    }

    #[test]
    fn fixed_addresses_come_and_go() {
        let mut config = Config::new(ME, 24, None);
        config.fixed.push((FAR, MAC));
        let n = Neighbors::new(config);
        assert_eq!((n.next_hop(FAR), n.lookup(FAR, Nanos::ZERO)), (Some(FAR), Lookup::Known(MAC)));
        n.acquire(FAR, Nanos::ZERO);

        let (before, other) = (n.version(), Mac([2, 9, 9, 9, 9, 9]));
        n.set_fixed(vec![(PEER, other)], Nanos::secs(1));
        assert!(n.version() > before, "flows look again");
        assert_eq!((n.next_hop(PEER), n.lookup(PEER, Nanos::secs(1))), (Some(PEER), Lookup::Known(other)));
        assert_eq!(n.learn(PEER, MAC, true, Nanos::secs(1)), Learned::Nothing, "known for good");
        // What is no longer fixed is off the link for those who come; who uses it asks, and goes on meanwhile.
        assert_eq!((n.next_hop(FAR), n.lookup(FAR, Nanos::secs(1))), (None, Lookup::Known(MAC)));
        assert_eq!(asks(&n, Nanos::secs(1)), [Ask { ip: FAR, last: Some(MAC) }]);

        n.set_fixed(Vec::new(), Nanos::secs(2));
        assert_eq!(n.lookup(PEER, Nanos::secs(2)), Lookup::Asking, "nobody used it: it is forgotten");
    }
}

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
mod tests;

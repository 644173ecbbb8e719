//! What is known of paths that take shorter packets than both ends do: by peer, so that one connection's loss is enough, and what routers say.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machnet_wire::icmp::{Quoted, TooLong};
use machnet_wire::{Nanos, ipv4};

use crate::conn::Conn;
use crate::ids::ConnKey;
use crate::random::RateLimit;
use crate::shared::Note;
use crate::state::Core;

/// What the connections of all engines have found out, by peer. Asked when a connection begins and when one is in doubt, never at an ordinary packet.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    /// Whether there is anything to ask.
    some: AtomicBool,
    found: Mutex<HashMap<Ipv4Addr, Found>>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    mtu: u16,
    at: Nanos,
}

impl PathMtus {
    /// The largest IP packet that goes to `peer`, where that is known.
    #[inline]
    pub fn of(&self, peer: Ipv4Addr, now: Nanos) -> Option<u16> {
        if self.some.load(Relaxed) { self.look_up(peer, now) } else { None }
    }

    #[cold]
    fn look_up(&self, peer: Ipv4Addr, now: Nanos) -> Option<u16> {
        let found = *self.lock().get(&peer)?;
        (now - found.at < KEPT).then_some(found.mtu)
    }

    /// A connection has found that so large a packet goes to `peer`, and no larger one.
    #[cold]
    pub fn learn(&self, peer: Ipv4Addr, mtu: u16, now: Nanos) {
        let mut all = self.lock();
        if all.len() >= PEERS && !all.contains_key(&peer) {
            all.retain(|_, found| now - found.at < KEPT);
            if all.len() >= PEERS {
                // Its connections find out for themselves.
                return;
            }
        }
        all.insert(peer, Found { mtu, at: now });
        self.some.store(true, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Found>> {
        // Whatever state it is in, it holds hints.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a router said of a packet of this host, on its way to the engine that sent it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hint {
    mtu: u16,
    /// Our connection with the peer, and the peer's tag.
    key: ConnKey,
    tag: u32,
    /// Engines that have not seen it.
    left: u16,
}

/// How many such messages are looked at.
#[derive(Debug)]
pub(crate) struct HintLimits {
    all: RateLimit,
    /// Those that quote so little that all connections are looked through.
    short: RateLimit,
}

impl HintLimits {
    pub fn new(now: Nanos) -> Self {
        Self { all: RateLimit::new(HINTS, now), short: RateLimit::new(SHORT_HINTS, now) }
    }
}

impl Core {
    /// A router, or somebody in its name, says that a packet was too long for the next link. Anybody may forge that, so all that it does is to
    /// have a connection ask by probes, and only if it quotes a packet of one: its addresses and UDP ports, and its ports and tag, where the
    /// router quotes that much (RFC 1812 section 4.3.2.3 wants 576 bytes, RFC 792 had 8 behind the IP header).
    #[cold]
    pub(crate) fn on_too_long(&mut self, ip: &ipv4::Header, said: &TooLong<'_>) {
        if ip.dst != self.router.station.ip {
            return self.counters().rx_other_address.add(1);
        }
        let now = self.clock.now;
        let quoted = Quoted::parse(said.quoted).filter(|quoted| quoted.src == ip.dst);
        let Some(quoted) = quoted.filter(|_| self.hints.all.allow(now)) else {
            return self.counters().icmp_hints_ignored.add(1);
        };
        if let Some((local, remote, tag)) = quoted.machnet {
            let (key, left) = (ConnKey::new(quoted.dst, remote, local), self.shared().engines());
            return self.on_hint(Hint { mtu: said.mtu, key, tag, left });
        }
        let found = self.hints.short.allow(now).then(|| {
            self.conns.indices().into_iter().find(|&index| {
                self.conns.get(index).is_some_and(|conn| {
                    let pair = conn.path.pair();
                    conn.path.peer() == quoted.dst && (pair.src, pair.dst) == quoted.ports
                })
            })
        });
        match found.flatten().and_then(|index| self.conns.get(index)) {
            Some(conn) => {
                let tag = conn.flow.peer().map_or(0, |peer| peer.tag);
                let hint = Hint { mtu: said.mtu, key: conn.who.key, tag, left: 1 };
                self.on_hint(hint);
            }
            None => self.counters().icmp_hints_ignored.add(1),
        }
    }

    /// Gives a hint to the connection whose packet was quoted, which may be another engine's: routers' messages come to any queue.
    pub(crate) fn on_hint(&mut self, hint: Hint) {
        let is_its = |conn: &Conn| conn.flow.peer().is_some_and(|peer| peer.tag == hint.tag);
        let index = self.conns.find(hint.key).filter(|&index| self.conns.get(index).is_some_and(is_its));
        let news = index.and_then(|index| self.with(index, |flow, _| flow.on_too_long(hint.mtu)));
        let counters = self.counters();
        match news {
            Some(true) => counters.icmp_hints.add(1),
            None if hint.left > 1 && self.pass_hint(hint) => {}
            Some(false) | None => counters.icmp_hints_ignored.add(1),
        }
    }

    /// Gives it to the next engine. False: that one has too much to read.
    fn pass_hint(&self, hint: Hint) -> bool {
        let shared = self.shared();
        let next = (self.own.index().place() + 1) % usize::from(shared.engines());
        let inbox = &shared.inboxes[next];
        // What the control thread has to say is worth more.
        let passed = inbox.notes.len() < inbox.notes.capacity() / 2
            && inbox.notes.push(Note::TooLong(Hint { left: hint.left - 1, ..hint })).is_ok();
        if passed {
            inbox.bell.ring();
        }
        passed
    }
}

/// How long what one connection found is believed by those that begin.
const KEPT: Nanos = Nanos::secs(600);
/// Peers of which something is known.
const PEERS: usize = 4096;
/// Messages a second that are looked at, and of them those that quote too little to find the connection at once.
const HINTS: u32 = 1000;
const SHORT_HINTS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_path_is_bounded_in_number_and_in_time() {
        let known = PathMtus::default();
        let peer = |n: u32| Ipv4Addr::from_bits(n);
        assert_eq!(known.of(peer(0), Nanos(1)), None);
        for n in 0..PEERS as u32 + 10 {
            known.learn(peer(n), 1400, Nanos(1));
        }
        assert_eq!(known.lock().len(), PEERS);
        known.learn(peer(1), 1300, Nanos::secs(300));
        let of = |n, secs| known.of(peer(n), Nanos::secs(secs));
        assert_eq!([of(0, 500), of(1, 500), of(PEERS as u32, 500)], [Some(1400), Some(1300), None]);
        assert_eq!([of(0, 601), of(1, 601)], [None, Some(1300)]);
        known.learn(peer(PEERS as u32), 1200, Nanos::secs(700));
        assert_eq!(of(PEERS as u32, 700), Some(1200));
        assert_eq!(known.lock().len(), 2);
    }
}

//! What all connections of a sidecar know of the queues of its peers.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use machnet_wire::Nanos;

use crate::{Config, Draw, Pair};

/// Verified pairs by peer and queue. Every engine of a sidecar asks the same one, at set-up and at reports, never per packet.
///
/// Nothing in it is more than a hint: a wrong entry costs a hand-over for each packet, until the peer says so. A peer can only spoil
/// what is known of itself, and the size is bounded whatever peers say: [`Config::peers_max`] times [`Config::pairs_per_peer`].
#[derive(Debug)]
pub struct Pool {
    config: Config,
    peers: BTreeMap<Ipv4Addr, Peer>,
    /// Peers by their last use, the longest ago first.
    by_use: BTreeMap<u64, Ipv4Addr>,
    uses: u64,
    /// Who sprayed to a peer last, and when, for as long as that keeps others from it. Apart from `peers`, so that an application which
    /// calls addresses that never answer pushes nobody out of the pool.
    sprays: BTreeMap<Ipv4Addr, Spray>,
}

/// Where a pair leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The queue of the peer that packets on it reach.
    pub queue: u16,
    /// Mirrored pairs: the own queue that the peer's packets on its mirror reach; 0 for all others.
    pub home: u16,
}

/// What a report was worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// The pair was not known.
    New,
    /// The pair was known to lead there.
    Known,
    /// The pair was known to lead elsewhere: the peer's key or table has changed, and all else that was known of it is forgotten.
    Remapped,
    /// The same once too often: its pairs keep to no queue, and searching at it is given up from now on.
    Wanders,
    /// Nothing: the peer has no such queue, was never met, or was met with another epoch since.
    Ignored,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: Config) -> Pool {
        Pool { config, peers: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, sprays: BTreeMap::new() }
    }

    /// A hello of a peer that has shown that it knows our tag (a forged one must not come here): it runs as `epoch`, with `queues`
    /// receive queues. True: what was known of it is forgotten, since that was another epoch or another number of queues.
    pub fn meet(&mut self, peer: Ipv4Addr, epoch: u64, queues: u16, now: Nanos) -> bool {
        if let Some(known) = self.peers.get(&peer) {
            if known.epoch == epoch && known.queues == queues {
                self.touch(peer);
                return false;
            }
            self.drop_peer(peer);
            self.add(peer, epoch, queues, now);
            return true;
        }
        while self.peers.len() >= self.config.peers_max.max(1) {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            self.drop_peer(*oldest);
        }
        self.add(peer, epoch, queues, now);
        false
    }

    /// The receive queues of a peer that was met.
    pub fn queues(&self, peer: Ipv4Addr) -> Option<u16> {
        self.peers.get(&peer).map(|known| known.queues)
    }

    /// A peer that runs as `epoch` said where `pair` leads.
    pub fn learn(&mut self, peer: Ipv4Addr, epoch: u64, pair: Pair, reach: Reach, now: Nanos) -> Learned {
        let config = &self.config;
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.epoch == epoch) else {
            return Learned::Ignored;
        };
        if reach.queue >= known.queues || !pair.is_some() {
            return Learned::Ignored;
        }
        let learned = known.learn(config, pair, reach, now);
        self.touch(peer);
        learned
    }

    /// A verified pair that leads there, one of several by chance.
    pub fn pick(
        &mut self,
        peer: Ipv4Addr,
        epoch: u64,
        reach: Reach,
        now: Nanos,
        random: &mut impl Draw,
    ) -> Option<Pair> {
        self.choose(peer, now, random, |known, verified| known.epoch == epoch && verified.reach == reach)
    }

    /// A connection to a port of a peer lives on this queue of it, as the next one to that port probably will.
    pub fn lives(&mut self, peer: Ipv4Addr, port: u16, queue: u16) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.ports.retain(|&(other, _)| other != port);
        known.ports.truncate(PORTS_MAX - 1);
        known.ports.insert(0, (port, queue));
    }

    /// For a SYN to a port: a verified pair that leads to the queue on which the last connection to that port lives, else one that
    /// leads to any, whatever epoch the peer may run as. `home` as in [`Reach`].
    pub fn pick_for(
        &mut self,
        peer: Ipv4Addr,
        port: u16,
        home: u16,
        now: Nanos,
        random: &mut impl Draw,
    ) -> Option<Pair> {
        let lived = self.peers.get(&peer)?.ports.iter().find(|&&(other, _)| other == port);
        let direct = lived.map(|&(_, queue)| Reach { queue, home });
        direct
            .and_then(|reach| self.choose(peer, now, random, |_, verified| verified.reach == reach))
            .or_else(|| self.choose(peer, now, random, |_, verified| verified.reach.home == home))
    }

    /// Packets on a pair seem not to arrive: it is not chosen until a report confirms it, and forgotten where none does. True: it was
    /// known, and nobody had doubted it so far.
    pub fn doubt(&mut self, peer: Ipv4Addr, pair: Pair, now: Nanos) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else { return false };
        let doubted = known.verified.iter_mut().find(|known| known.pair == pair && known.is_certain());
        doubted.map(|known| known.doubted_at = now).is_some()
    }

    /// Whether the connection `who` (its own tag) may send a batch, or the rest of one, to a peer now; then it counts as sent. Not while
    /// another connection has one out that may bring what this one would, not where a search was given up, not to more peers at
    /// once than the pool has room for, and not again and again because a peer says now this and now that.
    pub fn may_spray(&mut self, peer: Ipv4Addr, who: u32, now: Nanos) -> bool {
        let retry = self.config.retry;
        let last = self.sprays.get(&peer);
        let recent = last.filter(|last| now < last.at + retry);
        if self.has_given_up(peer, now)
            || recent.is_some_and(|last| last.who != who || last.times >= BATCHES_AT_ONCE)
        {
            return false;
        }
        let times = recent.map_or(1, |last| last.times + 1);
        if last.is_none() && self.sprays.len() >= SPRAYS_MAX {
            self.sprays.retain(|_, last| now < last.at + retry);
            if self.sprays.len() >= SPRAYS_MAX {
                return false;
            }
        }
        self.sprays.insert(peer, Spray { who, at: now, times });
        true
    }

    /// A search went through all its batches without a hit. True: that is news.
    pub fn give_up(&mut self, peer: Ipv4Addr, now: Nanos) -> bool {
        let until = now + self.config.give_up_for;
        match self.peers.get_mut(&peer) {
            Some(known) if now >= known.given_up_until => {
                known.given_up_until = until;
                true
            }
            _ => false,
        }
    }

    /// Whether nobody searches at this peer just now, because a search was given up or because its pairs keep to no queue.
    pub fn has_given_up(&self, peer: Ipv4Addr, now: Nanos) -> bool {
        self.peers.get(&peer).is_some_and(|known| now < known.given_up_until)
    }

    /// The queues of a peer that pairs were seen to reach lately, in their order: what to tell whoever asks why a search was given up.
    pub fn reached(&self, peer: Ipv4Addr) -> Vec<u16> {
        let verified = self.peers.get(&peer).map_or(&[][..], |known| &known.verified);
        let mut queues: Vec<u16> = verified.iter().map(|verified| verified.reach.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    /// Pairs in the pool.
    pub fn pairs(&self) -> usize {
        self.peers.values().map(|known| known.verified.len()).sum()
    }

    /// Peers in the pool.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    fn choose(
        &mut self,
        peer: Ipv4Addr,
        now: Nanos,
        random: &mut impl Draw,
        fits: impl Fn(&Peer, &Verified) -> bool,
    ) -> Option<Pair> {
        let max_age = self.config.max_age;
        let known = self.peers.get_mut(&peer)?;
        known.verified.retain(|verified| {
            now < verified.at + max_age && (verified.is_certain() || now < verified.doubted_at + CONFIRMED)
        });
        let fitting = known.verified.iter().filter(|verified| verified.is_certain() && fits(known, verified));
        let count = fitting.clone().count();
        if count == 0 {
            return None;
        }
        let pair = fitting.skip((random.draw() % count as u64) as usize).map(|verified| verified.pair).next();
        self.touch(peer);
        pair
    }

    fn add(&mut self, peer: Ipv4Addr, epoch: u64, queues: u16, now: Nanos) {
        let used = self.next_use();
        self.by_use.insert(used, peer);
        let known = Peer {
            epoch,
            queues: queues.max(1),
            verified: Vec::new(),
            ports: Vec::new(),
            used,
            given_up_until: Nanos::ZERO,
            remaps: 0,
            remaps_since: now,
        };
        self.peers.insert(peer, known);
    }

    fn drop_peer(&mut self, peer: Ipv4Addr) {
        if let Some(known) = self.peers.remove(&peer) {
            self.by_use.remove(&known.used);
        }
    }

    fn touch(&mut self, peer: Ipv4Addr) {
        let used = self.next_use();
        if let Some(known) = self.peers.get_mut(&peer) {
            self.by_use.remove(&known.used);
            known.used = used;
            self.by_use.insert(used, peer);
        }
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

#[derive(Debug)]
struct Spray {
    who: u32,
    at: Nanos,
    /// Batches and rests of batches that followed each other within the retry time.
    times: u8,
}

#[derive(Debug)]
struct Peer {
    epoch: u64,
    queues: u16,
    verified: Vec<Verified>,
    /// Ports, and the queues on which the last connections to them live; the latest first.
    ports: Vec<(u16, u16)>,
    used: u64,
    given_up_until: Nanos,
    /// Remaps since `remaps_since`.
    remaps: u8,
    remaps_since: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Verified {
    pair: Pair,
    reach: Reach,
    /// When the peer last said so.
    at: Nanos,
    /// Since when it seems not to work; `Nanos::MAX`: it does.
    doubted_at: Nanos,
}

impl Verified {
    fn is_certain(&self) -> bool {
        self.doubted_at == Nanos::MAX
    }
}

impl Peer {
    fn learn(&mut self, config: &Config, pair: Pair, reach: Reach, now: Nanos) -> Learned {
        let verified = Verified { pair, reach, at: now, doubted_at: Nanos::MAX };
        if let Some(known) = self.verified.iter_mut().find(|known| known.pair == pair) {
            if known.reach == reach {
                *known = verified;
                return Learned::Known;
            }
            self.verified.clear();
            self.verified.push(verified);
            return if self.on_remap(config, now) { Learned::Wanders } else { Learned::Remapped };
        }
        let alike = self.verified.iter().filter(|known| known.reach == reach).count();
        let full = self.verified.len() >= config.pairs_per_peer.max(1);
        if alike >= config.pairs_per_queue.max(1) {
            self.replace_oldest(verified, |known| known.reach == reach);
        } else if full {
            self.replace_oldest(verified, |_| true);
        } else {
            self.verified.push(verified);
        }
        Learned::New
    }

    /// A NIC whose pairs change their queue again and again keeps no promise: searching at it is given up for a while. True: from now on.
    fn on_remap(&mut self, config: &Config, now: Nanos) -> bool {
        if now >= self.remaps_since + config.give_up_for {
            (self.remaps, self.remaps_since) = (0, now);
        }
        self.remaps = self.remaps.saturating_add(1);
        let wanders = self.remaps >= config.remaps_max;
        let news = wanders && now >= self.given_up_until;
        if wanders {
            self.given_up_until = self.given_up_until.max(now + config.give_up_for);
        }
        news
    }

    fn replace_oldest(&mut self, by: Verified, among: impl Fn(&Verified) -> bool) {
        if let Some(oldest) =
            self.verified.iter_mut().filter(|known| among(known)).min_by_key(|known| known.at)
        {
            *oldest = by;
        }
    }
}

/// Ports of a peer whose queues are remembered.
const PORTS_MAX: usize = 16;
/// Times that one connection may spray to a peer within the retry time: SYNs, the rest of their batch, and that of a search after them.
const BATCHES_AT_ONCE: u8 = 3;
/// How long a pair that is doubted may take to be confirmed.
const CONFIRMED: Nanos = Nanos::secs(1);
/// Peers that are sprayed to at once.
const SPRAYS_MAX: usize = 1024;

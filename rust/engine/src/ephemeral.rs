//! The search for a free local port of an engine's share, where the application names none.

use std::net::Ipv4Addr;

use machnet_wire::Nanos;

use crate::ids::EngineIndex;
use crate::random::Random;

/// The ports that one engine gives towards one port of a peer. Engine `i` of `n` has those that leave `i` when divided by `n`, counted
/// from the first of each range, so that engines need not agree on each one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    engine: u16,
    engines: u16,
}

impl Ports {
    /// Those of one of so many engines.
    pub fn of(engine: EngineIndex, engines: u16) -> Self {
        Self { engine: engine.0, engines: engines.max(1) }
    }

    /// How many there are of the ephemeral range, which are given first.
    fn ephemeral(self) -> u16 {
        (u16::MAX - EPHEMERAL) / self.engines
    }

    /// How many there are in all.
    pub fn count(self) -> u16 {
        self.ephemeral() + (EPHEMERAL - RESERVED) / self.engines
    }

    /// The port of a number below their count.
    fn port(self, number: u16) -> u16 {
        match number.checked_sub(self.ephemeral()) {
            None => EPHEMERAL + number * self.engines + self.engine,
            Some(number) => RESERVED + number * self.engines + self.engine,
        }
    }
}

/// How far the search has come.
///
/// Ports are given in turn, so that one is given again as late as can be. Where the next is in use, others are tried at random: a
/// program that has opened ten thousand connections leaves a run of ports in use, and to pass it step by step would hold up the
/// engine for most of a millisecond. Those below the ephemeral range come into it where that is full or nearly so.
#[derive(Debug)]
pub(crate) struct Ephemeral {
    last: u16,
    random: Random,
    /// The last port of a peer towards which none was free, and until when that is taken to be so, and not all are tried towards others
    /// either: it takes milliseconds, and an application could ask for that again and again.
    none_free: Option<((Ipv4Addr, u16), Nanos)>,
}

impl Ephemeral {
    /// Begins somewhere.
    pub fn new(mut random: Random) -> Self {
        Self { last: random.draw() as u16 & 0x3fff, random, none_free: None }
    }

    /// A port towards a peer's that is free; `None` if none is.
    pub fn find(
        &mut self,
        ports: Ports,
        peer: (Ipv4Addr, u16),
        now: Nanos,
        mut is_free: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.none_free = self.none_free.filter(|(_, until)| *until > now);
        if self.none_free.is_some_and(|(other, _)| other == peer) {
            return None;
        }
        let (first, all) = (ports.ephemeral().max(1), ports.count().max(1));
        let in_turn = if self.none_free.is_some() { 0 } else { all };
        for tried in 0..=2 * JUMPS + u32::from(in_turn) {
            self.last = match tried {
                0 => (self.last + 1) % first,
                1..=JUMPS => (self.random.draw() % u64::from(first)) as u16,
                _ if tried <= 2 * JUMPS => (self.random.draw() % u64::from(all)) as u16,
                _ => (self.last + 1) % all,
            };
            let port = ports.port(self.last);
            if is_free(port) {
                return Some(port);
            }
        }
        self.none_free.get_or_insert((peer, now.saturating_add(NONE_FREE_FOR)));
        None
    }
}

/// Ports tried at random of each range before all are tried in turn: with two thirds of them in use, one search in 600 gets as far.
const JUMPS: u32 = 16;
/// How long after a search that found nothing there is no other of all ports.
const NONE_FREE_FOR: Nanos = Nanos::millis(100);
/// The first port of the ephemeral range.
pub const EPHEMERAL: u16 = 32768;
/// Ports below are given to nobody who does not name them.
const RESERVED: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const PEER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 80);
    const ALL: Ports = Ports { engine: 0, engines: 1 };

    fn search() -> Ephemeral {
        Ephemeral::new(Random::new([1, 2], 3))
    }

    #[test]
    fn ports_are_given_in_turn() {
        let ports = Ports { engine: 3, engines: 8000 };
        let mut search = Ephemeral { last: 2, ..search() };
        let given: Vec<_> = (0..5).filter_map(|_| search.find(ports, PEER, Nanos::ZERO, |_| true)).collect();
        assert_eq!(given, [3, 0, 1, 2, 3].map(|n| EPHEMERAL + n * 8000 + 3));
    }

    #[test]
    fn a_run_of_ports_in_use_is_passed_in_a_few_steps() {
        let mut search = search();
        let mut tried = 0;
        let mut check = |used: fn(u16) -> bool| {
            for _ in 0..1000 {
                search.last = 0;
                let found = search.find(ALL, PEER, Nanos::ZERO, |port| {
                    tried += 1;
                    !used(port)
                });
                assert!(found.is_some_and(|port| !used(port)));
            }
            std::mem::take(&mut tried)
        };
        let tries = check(|port| (EPHEMERAL..EPHEMERAL + 20_000).contains(&port));
        assert!(tries < 20_000, "{tries} tries of 1000 searches; step by step it would be twenty million");
        let tries = check(|port| port >= EPHEMERAL);
        assert!(tries < 40_000, "{tries} tries of 1000 searches, where the first range is full");
    }

    #[test]
    fn engines_share_all_ports_and_each_finds_its_last_free_one_and_then_none() {
        let mut seen = HashSet::new();
        for engine in 0..64 {
            let (mut search, ports) = (search(), Ports { engine, engines: 64 });
            for n in 0..ports.count() {
                let is_free = |port: u16| !seen.contains(&port);
                let port = search.find(ports, PEER, Nanos::ZERO, is_free).expect("one is free");
                assert!(port >= RESERVED && seen.insert(port));
                // Those of the first range come first, but for a few.
                let early = n < ports.ephemeral() - 100;
                assert!(port >= EPHEMERAL || !early, "{port} is the {n}th");
            }
            assert_eq!(search.find(ports, PEER, Nanos::ZERO, |port| !seen.contains(&port)), None);
        }
        assert_eq!(seen.len(), 64 * ((32767 / 64) + (31744 / 64)));
        assert_eq!(ALL.count(), 64_511);
    }

    #[test]
    fn where_none_is_free_nobody_searches_again_at_once() {
        let (mut search, mut tried) = (search(), 0);
        let mut none = |search: &mut Ephemeral, peer, now| {
            let none = |_| {
                tried += 1;
                false
            };
            assert_eq!(search.find(ALL, peer, now, none), None);
            std::mem::take(&mut tried)
        };
        assert!(none(&mut search, PEER, Nanos::ZERO) > 64_511);
        assert_eq!(none(&mut search, PEER, Nanos::millis(99)), 0);
        // An application that listens on every port could else name a peer after the other.
        let others =
            (0..1000).map(|port| none(&mut search, (Ipv4Addr::LOCALHOST, 1000 + port), Nanos::millis(99)));
        assert_eq!(others.max(), Some(2 * JUMPS + 1));
        assert_eq!(none(&mut search, PEER, Nanos::millis(99)), 0);
        assert!(none(&mut search, (Ipv4Addr::LOCALHOST, 81), Nanos::millis(100)) > 64_511);
        assert_eq!(none(&mut search, (Ipv4Addr::LOCALHOST, 81), Nanos::millis(199)), 0);
        assert!(none(&mut search, PEER, Nanos::millis(200)) > 64_511);
    }
}

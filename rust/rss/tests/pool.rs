//! The pool against a plain list that does the same slowly, and against peers that lie.

mod common;

use std::net::Ipv4Addr;

use common::Dice;
use machnet_rss::{Config, Draw, Learned, Pair, Pool, Reach};
use machnet_wire::Nanos;

/// What the pool is, without its bookkeeping: peers in the order of their last use.
struct Naive {
    config: Config,
    peers: Vec<NaivePeer>,
    sprays: Vec<(Ipv4Addr, u32, Nanos, u32)>,
}

struct NaivePeer {
    ip: Ipv4Addr,
    epoch: u64,
    queues: u16,
    verified: Vec<(Pair, Reach, Nanos)>,
    /// Pairs that seem not to work, and since when.
    doubted: Vec<(Pair, Nanos)>,
    given_up: Option<Nanos>,
    remaps: Vec<Nanos>,
    window: Nanos,
}

impl Naive {
    fn find(&mut self, ip: Ipv4Addr) -> Option<&mut NaivePeer> {
        self.peers.iter_mut().find(|peer| peer.ip == ip)
    }

    fn use_it(&mut self, ip: Ipv4Addr) {
        if let Some(at) = self.peers.iter().position(|peer| peer.ip == ip) {
            let peer = self.peers.remove(at);
            self.peers.push(peer);
        }
    }

    fn meet(&mut self, ip: Ipv4Addr, epoch: u64, queues: u16, now: Nanos) -> bool {
        if self.find(ip).is_some_and(|peer| peer.epoch == epoch && peer.queues == queues) {
            self.use_it(ip);
            return false;
        }
        let before = self.peers.len();
        self.peers.retain(|peer| peer.ip != ip);
        let other = self.peers.len() < before;
        if self.peers.len() == self.config.peers_max {
            self.peers.remove(0);
        }
        let peer = NaivePeer {
            ip,
            epoch,
            queues,
            verified: vec![],
            doubted: vec![],
            given_up: None,
            remaps: vec![],
            window: now,
        };
        self.peers.push(peer);
        other
    }

    fn learn(&mut self, ip: Ipv4Addr, epoch: u64, pair: Pair, reach: Reach, now: Nanos) -> Learned {
        let config = self.config.clone();
        let Some(peer) = self.find(ip).filter(|peer| peer.epoch == epoch && reach.queue < peer.queues) else {
            return Learned::Ignored;
        };
        peer.doubted.retain(|doubted| doubted.0 != pair);
        let learned = match peer.verified.iter().position(|known| known.0 == pair) {
            Some(at) if peer.verified[at].1 == reach => {
                peer.verified[at].2 = now;
                Learned::Known
            }
            Some(_) => {
                peer.verified = vec![(pair, reach, now)];
                if now >= peer.window + config.give_up_for {
                    (peer.window, peer.remaps) = (now, vec![]);
                }
                peer.remaps.push(now);
                let news = peer.given_up.is_none_or(|until| now >= until);
                if peer.remaps.len() >= usize::from(config.remaps_max) {
                    peer.given_up = Some(now + config.give_up_for);
                    if news { Learned::Wanders } else { Learned::Remapped }
                } else {
                    Learned::Remapped
                }
            }
            None => {
                let alike: Vec<Nanos> = peer.verified.iter().filter(|k| k.1 == reach).map(|k| k.2).collect();
                let oldest = if alike.len() == config.pairs_per_queue {
                    alike.iter().min().copied()
                } else if peer.verified.len() == config.pairs_per_peer {
                    peer.verified.iter().map(|k| k.2).min()
                } else {
                    None
                };
                peer.verified.retain(|known| Some(known.2) != oldest);
                peer.verified.push((pair, reach, now));
                Learned::New
            }
        };
        self.use_it(ip);
        learned
    }

    fn fitting(&mut self, ip: Ipv4Addr, now: Nanos, fits: impl Fn(&NaivePeer, Reach) -> bool) -> Vec<Pair> {
        let max_age = self.config.max_age;
        let Some(peer) = self.find(ip) else { return vec![] };
        let gone = |pair| peer.doubted.iter().any(|d| d.0 == pair && now >= d.1 + Nanos::secs(1));
        peer.verified.retain(|known| now < known.2 + max_age && !gone(known.0));
        let certain = |pair| !peer.doubted.iter().any(|doubted| doubted.0 == pair);
        let fitting: Vec<Pair> =
            peer.verified.iter().filter(|k| certain(k.0) && fits(peer, k.1)).map(|k| k.0).collect();
        if !fitting.is_empty() {
            self.use_it(ip);
        }
        fitting
    }

    fn has_given_up(&mut self, ip: Ipv4Addr, now: Nanos) -> bool {
        self.find(ip).is_some_and(|peer| peer.given_up.is_some_and(|until| now < until))
    }

    fn may_spray(&mut self, ip: Ipv4Addr, who: u32, now: Nanos) -> bool {
        let retry = self.config.retry;
        let recent = self.sprays.iter().find(|last| last.0 == ip && now < last.2 + retry).copied();
        if recent.is_some_and(|last| last.1 != who || last.3 == 3) || self.has_given_up(ip, now) {
            return false;
        }
        self.sprays.retain(|last| last.0 != ip);
        self.sprays.push((ip, who, now, recent.map_or(1, |last| last.3 + 1)));
        true
    }

    fn pairs(&self) -> usize {
        self.peers.iter().map(|peer| peer.verified.len()).sum()
    }
}

/// Times move on by at least a nanosecond with each step, so that no two entries are of one age.
#[test]
fn random_use_of_the_pool_is_that_of_a_plain_list() {
    let mut seen = [0; 5];
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let config = Config {
            peers_max: 2 + dice.below(4) as usize,
            pairs_per_queue: 1 + dice.below(3) as usize,
            pairs_per_peer: 3 + dice.below(6) as usize,
            remaps_max: 1 + dice.below(4) as u8,
            give_up_for: Nanos::millis(1 + dice.below(100)),
            max_age: Nanos::millis(20 + dice.below(200)),
            ..Config::default()
        };
        let mut naive = Naive { config: config.clone(), peers: vec![], sprays: vec![] };
        let mut pool = Pool::new(config);
        let mut now = Nanos::ZERO;
        for step in 0..1500 {
            now += Nanos(1 + dice.below(2_000_000));
            let ip = Ipv4Addr::new(10, 0, 0, dice.below(5) as u8);
            let epoch = u64::from(dice.one_in(60));
            let pair = Pair { src: 1 + dice.below(6) as u16, dst: 1 + dice.below(4) as u16 };
            // Mostly where the pair led before, so that remaps are not the rule.
            let queue =
                if dice.one_in(10) { dice.below(6) } else { u64::from(pair.src + pair.dst) % 3 } as u16;
            let reach = Reach { queue, home: u16::from(dice.one_in(20)) };
            let place = format!("seed {seed}, step {step}");
            match dice.below(10) {
                0 => {
                    let queues = if dice.one_in(30) { 2 } else { 4 };
                    let (met, expected) =
                        (pool.meet(ip, epoch, queues, now), naive.meet(ip, epoch, queues, now));
                    assert_eq!(met, expected, "{place}");
                }
                1..=4 => {
                    let learned = pool.learn(ip, epoch, pair, reach, now);
                    assert_eq!(learned, naive.learn(ip, epoch, pair, reach, now), "{place}");
                    seen[learned as usize] += 1;
                }
                5 => {
                    let picked = pool.pick(ip, epoch, reach, now, &mut dice);
                    let fitting = naive.fitting(ip, now, |peer, r| peer.epoch == epoch && r == reach);
                    assert_eq!(picked.is_some(), !fitting.is_empty(), "{place}");
                    assert!(picked.is_none_or(|pair| fitting.contains(&pair)), "{place}");
                }
                6 => {
                    let picked = pool.pick_for(ip, 7000, reach.home, now, &mut dice);
                    let fitting = naive.fitting(ip, now, |_, r| r.home == reach.home);
                    assert_eq!(picked.is_some(), !fitting.is_empty(), "{place}");
                    assert!(picked.is_none_or(|pair| fitting.contains(&pair)), "{place}");
                }
                7 => {
                    let news = naive.find(ip).is_some_and(|peer| {
                        let news = peer.verified.iter().any(|known| known.0 == pair)
                            && !peer.doubted.iter().any(|doubted| doubted.0 == pair);
                        peer.doubted.extend(news.then_some((pair, now)));
                        news
                    });
                    assert_eq!(pool.doubt(ip, pair, now), news, "{place}");
                }
                8 => {
                    let who = dice.below(3) as u32;
                    assert_eq!(pool.may_spray(ip, who, now), naive.may_spray(ip, who, now), "{place}");
                }
                _ => {
                    let until = now + naive.config.give_up_for;
                    let news = naive.find(ip).is_some() && !naive.has_given_up(ip, now);
                    if news && let Some(peer) = naive.find(ip) {
                        peer.given_up = Some(until);
                    }
                    assert_eq!(pool.give_up(ip, now), news, "{place}");
                }
            }
            assert_eq!(pool.has_given_up(ip, now), naive.has_given_up(ip, now), "{place}");
            assert_eq!(pool.queues(ip), naive.find(ip).map(|peer| peer.queues), "{place}");
            assert_eq!((pool.peers(), pool.pairs()), (naive.peers.len(), naive.pairs()), "{place}");
        }
    }
    assert!(seen.iter().all(|count| *count > 300), "too little of something: {seen:?}");
}

#[test]
fn a_peer_that_lies_harms_what_is_known_of_itself_alone() {
    let (mut pool, mut dice) = (Pool::new(Config::default()), Dice(1));
    let (honest, liar) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let now = Nanos::secs(1);
    pool.meet(honest, 1, 4, now);
    for queue in 0..4 {
        let pair = Pair { src: 1 + queue, dst: 9 };
        assert_eq!(pool.learn(honest, 1, pair, Reach { queue, home: 0 }, now), Learned::New);
    }
    pool.meet(liar, 2, u16::MAX, now);
    for _ in 0..100_000 {
        let pair = Pair { src: dice.draw() as u16, dst: dice.draw() as u16 | 1 };
        pool.learn(liar, 2, pair, Reach { queue: dice.draw() as u16, home: 0 }, now);
    }
    assert!(pool.pairs() <= 4 + Config::default().pairs_per_peer, "{}", pool.pairs());
    // It cannot speak for another epoch or for queues that it does not have.
    let (pair, reach) = (Pair { src: 1, dst: 1 }, Reach { queue: 4, home: 0 });
    assert_eq!(pool.learn(honest, 1, pair, reach, now), Learned::Ignored);
    assert_eq!(pool.learn(honest, 2, pair, Reach { queue: 0, home: 0 }, now), Learned::Ignored);
    assert_eq!(pool.learn(honest, 1, Pair::NONE, Reach { queue: 0, home: 0 }, now), Learned::Ignored);
    assert_eq!((pool.reached(honest), pool.reached(Ipv4Addr::LOCALHOST)), (vec![0, 1, 2, 3], vec![]));
    for queue in 0..4 {
        let picked = pool.pick(honest, 1, Reach { queue, home: 0 }, now, &mut dice);
        assert_eq!(picked, Some(Pair { src: 1 + queue, dst: 9 }));
    }
}

#[test]
fn the_pool_is_bounded_whoever_comes() {
    let config = Config { peers_max: 100, ..Config::default() };
    let (mut pool, mut dice) = (Pool::new(config), Dice(2));
    for n in 0..10_000u32 {
        let peer = Ipv4Addr::from(0x0a00_0000 + n);
        let now = Nanos::millis(u64::from(n));
        pool.meet(peer, u64::from(n), 64, now);
        for _ in 0..10 {
            let pair = Pair::draw(&mut dice, &(1..=1000));
            pool.learn(peer, u64::from(n), pair, Reach { queue: dice.below(64) as u16, home: 0 }, now);
        }
        assert!(pool.peers() <= 100 && pool.pairs() <= 1000, "{} {}", pool.peers(), pool.pairs());
    }
}

/// The 1024 that may be sprayed to at once make room when their time is over; nobody sprays beyond them.
#[test]
fn calls_to_many_silent_addresses_are_bounded_and_push_nobody_out() {
    let mut pool = Pool::new(Config { peers_max: 1, ..Config::default() });
    let known = Ipv4Addr::new(10, 1, 0, 0);
    pool.meet(known, 1, 4, Nanos::ZERO);
    let all = |pool: &mut Pool, now| (0..5000u32).filter(|n| pool.may_spray((*n).into(), 1, now)).count();
    assert_eq!(all(&mut pool, Nanos::millis(1)), 1024);
    assert_eq!((0..5000u32).filter(|n| pool.may_spray((*n).into(), 2, Nanos::millis(10))).count(), 0);
    assert_eq!(all(&mut pool, Nanos::millis(11)), 1024);
    assert_eq!(pool.queues(known), Some(4));
}

/// A NIC that puts packets on any queue keeps no pair on one. The search is given up, and tried again a minute later.
#[test]
fn pairs_that_wander_are_given_up() {
    let mut pool = Pool::new(Config::default());
    let peer = Ipv4Addr::new(10, 0, 0, 1);
    let pair = Pair { src: 1, dst: 2 };
    pool.meet(peer, 1, 4, Nanos::ZERO);
    let mut remaps = 0;
    while !pool.has_given_up(peer, Nanos::millis(remaps)) {
        let reach = Reach { queue: (remaps % 4) as u16, home: 0 };
        let learned = pool.learn(peer, 1, pair, reach, Nanos::millis(remaps));
        let expected = [(0, Learned::New), (8, Learned::Wanders)].into_iter().find(|(n, _)| *n == remaps);
        assert_eq!(learned, expected.map_or(Learned::Remapped, |(_, learned)| learned));
        remaps += 1;
        assert!(remaps < 20, "never");
    }
    assert_eq!(remaps, 1 + 8);
    assert!(!pool.may_spray(peer, 1, Nanos::secs(60)));
    assert!(pool.may_spray(peer, 1, Nanos::secs(61)));
    // That a search is given up is news once, and again as soon as its time is over.
    let news = [61, 62, 121].map(|at| pool.give_up(peer, Nanos::secs(at)));
    assert_eq!(news, [true, false, true]);
}

#[test]
fn a_syn_goes_to_the_queue_on_which_the_last_connection_to_its_port_lives() {
    let mut dice = Dice(5);
    let mut pool = Pool::new(Config::default());
    let peer = Ipv4Addr::new(10, 0, 0, 1);
    let pair_of = |queue: u16| Pair { src: 1000 + queue, dst: 2000 };
    assert_eq!(pool.pick_for(peer, 7000, 0, Nanos::ZERO, &mut dice), None, "nobody was met");
    pool.meet(peer, 1, 4, Nanos::ZERO);
    for queue in 0..4 {
        pool.learn(peer, 1, pair_of(queue), Reach { queue, home: 0 }, Nanos::ZERO);
    }
    pool.lives(peer, 7000, 2);
    pool.lives(peer, 7001, 3);
    let mut elsewhere = 0;
    for _ in 0..50 {
        assert_eq!(pool.pick_for(peer, 7000, 0, Nanos::ZERO, &mut dice), Some(pair_of(2)));
        assert_eq!(pool.pick_for(peer, 7001, 0, Nanos::ZERO, &mut dice), Some(pair_of(3)));
        elsewhere += u32::from(pool.pick_for(peer, 7002, 0, Nanos::ZERO, &mut dice) != Some(pair_of(0)));
    }
    assert!(elsewhere > 0, "a port that nobody called goes anywhere");
    pool.lives(peer, 7000, 1);
    assert_eq!(pool.pick_for(peer, 7000, 0, Nanos::ZERO, &mut dice), Some(pair_of(1)), "it has moved");
    assert!(pool.doubt(peer, pair_of(1), Nanos::ZERO));
    assert!(
        pool.pick_for(peer, 7000, 0, Nanos::ZERO, &mut dice).is_some(),
        "no pair leads there: any will do"
    );
    // Many other ports push it out.
    pool.learn(peer, 1, pair_of(1), Reach { queue: 1, home: 0 }, Nanos::ZERO);
    (8000..9000).for_each(|port| pool.lives(peer, port, 0));
    let others = (0..50).filter(|_| pool.pick_for(peer, 7000, 0, Nanos::ZERO, &mut dice) != Some(pair_of(1)));
    assert!(others.count() > 0, "only so many ports are remembered");
}

/// A pair that seems dead is not chosen any more, and gone a second later, unless somebody hears of it.
#[test]
fn a_pair_that_is_doubted_is_chosen_again_when_it_is_confirmed() {
    let mut dice = Dice(6);
    for confirmed in [true, false] {
        let mut pool = Pool::new(Config::default());
        let (peer, pair, reach) =
            (Ipv4Addr::new(10, 0, 0, 1), Pair { src: 1, dst: 2 }, Reach { queue: 1, home: 0 });
        assert!(!pool.doubt(peer, pair, Nanos::ZERO), "nobody was met");
        pool.meet(peer, 1, 4, Nanos::ZERO);
        assert!(!pool.doubt(peer, pair, Nanos::ZERO), "it is not known");
        pool.learn(peer, 1, pair, reach, Nanos::ZERO);
        assert!(pool.doubt(peer, pair, Nanos::millis(1)));
        assert!(!pool.doubt(peer, pair, Nanos::millis(2)), "it is no news");
        assert_eq!(pool.pick(peer, 1, reach, Nanos::millis(3), &mut dice), None);
        assert_eq!(pool.pairs(), 1);
        if confirmed {
            assert_eq!(pool.learn(peer, 1, pair, reach, Nanos::millis(4)), Learned::Known);
            assert_eq!(pool.pick(peer, 1, reach, Nanos::millis(5), &mut dice), Some(pair));
        }
        let later = pool.pick(peer, 1, reach, Nanos::millis(1001), &mut dice);
        assert_eq!((later, pool.pairs()), if confirmed { (Some(pair), 1) } else { (None, 0) });
    }
}

/// A peer whose reports contradict each other has a connection search again and again; others must not pay for that.
#[test]
fn one_connection_sprays_three_times_at_once() {
    let (mut pool, peer) = (Pool::new(Config::default()), Ipv4Addr::new(10, 0, 0, 1));
    let sprays = |pool: &mut Pool, from| {
        (0..1000u64).filter(|n| pool.may_spray(peer, 1, from + Nanos::micros(*n))).count()
    };
    assert_eq!([0, 20, 40].map(|at| sprays(&mut pool, Nanos::millis(at))), [3, 3, 3]);
}

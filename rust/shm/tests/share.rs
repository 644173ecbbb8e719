//! Who may hold how many units, in both directions, against a book that adds everything up anew each time: what connections
//! have for their own is free for them whatever others hold, and the rest goes by the threshold of docs/channel.md. A failure
//! prints its seed.

use machnet_shm::{
    AppEnd, Delivery, EngineEnd, FlowId, Fragment, Geometry, RxToken, Submission, TxUnit, pair,
};

/// Units and connections: the default, own parts of many units and of one, too few for all, and the smallest of everything.
const SIZES: [(u32, u32); 10] =
    [(1024, 256), (1024, 10), (64, 5), (64, 32), (32, 33), (16, 64), (16, 1), (16, 2), (16, 8), (16, 65_536)];

#[test]
fn every_share_is_that_of_the_book_and_own_units_are_never_taken() {
    for seed in 0..3 {
        for sizes in SIZES {
            for side in [rx as fn(_, _) -> _, tx] {
                let run = std::panic::catch_unwind(|| random_walk(seed, sizes, side));
                if let Err(cause) = run {
                    eprintln!("seed {seed}, (units, flows) = {sizes:?}");
                    std::panic::resume_unwind(cause);
                }
            }
        }
    }
}

fn random_walk(seed: u64, sizes: (u32, u32), side: fn((u32, u32), usize) -> Box<dyn Side>) {
    let conns = sizes.1.min(70) as usize;
    let (mut book, mut side, mut random) = (Book::new(sizes, conns), side(sizes, conns), Random::new(seed));
    for _ in 0..2000 {
        let who = random.below(conns);
        let n = [1, 1, 2, 8, sizes.0][random.below(5)];
        if random.below(5) < 3 {
            let room = book.room(who);
            assert_eq!(side.take(who, n), room.min(n), "connection {who} holds {} units", book.held[who]);
            book.held[who] += room.min(n);
        } else {
            let n = n.min(book.held[who]);
            side.give(who, n, &mut random);
            book.held[who] -= n;
        }
        book.check();
        side.check(&mut book, random.below(conns));
    }
}

/// Three ways to fill a channel with connections that give nothing back, and one that does, to the end of time.
#[test]
fn the_65th_connection_has_its_own_units_at_once_and_for_ever() {
    for order in [one_after_the_other, in_turn, at_random] {
        for side in [rx as fn(_, _) -> _, tx] {
            let sizes = (1024, 256);
            let (mut book, mut side) = (Book::new(sizes, 65), side(sizes, 65));
            order(&mut book, &mut |who| side.take(who, 1) == 1);
            let mut random = Random::new(1);
            for _ in 0..500 {
                assert_eq!(side.take(64, 1), 1);
                assert_eq!(side.take(64, 1), 1);
                let more = side.take(64, 1024);
                side.give(64, 2 + more, &mut random);
            }
        }
    }
}

fn one_after_the_other(book: &mut Book, take: &mut dyn FnMut(usize) -> bool) {
    for who in 0..64 {
        while take(who) {
            book.held[who] += 1;
        }
    }
    // 254 beyond its own, which is a quarter in all; then half of what is left, again and again, until nothing is.
    assert_eq!(book.held[..12], [256, 131, 67, 34, 18, 10, 6, 4, 3, 3, 2, 2]);
    assert_eq!(book.shared(), 0);
}

fn in_turn(book: &mut Book, take: &mut dyn FnMut(usize) -> bool) {
    let mut taken = true;
    while taken {
        taken = false;
        for who in 0..64 {
            let took = take(who);
            book.held[who] += u32::from(took);
            taken |= took;
        }
    }
    assert!(book.held[..64].iter().all(|held| (9..=10).contains(held)), "{:?}", book.held);
}

fn at_random(book: &mut Book, take: &mut dyn FnMut(usize) -> bool) {
    let mut random = Random::new(65);
    for _ in 0..20_000 {
        let who = random.below(64);
        book.held[who] += u32::from(take(who));
    }
    assert!((0..64).all(|who| !book.may_take(who)), "{:?}", book.held);
}

#[test]
fn one_busy_connection_gets_a_quarter_and_two_a_sixth_each() {
    for (busy, each) in [(1, 256), (2, 173), (3, 130), (64, 10)] {
        let mut side = tx((1024, 256), busy);
        let mut held = vec![0; busy];
        while (0..busy).fold(false, |any, who| {
            let took = side.take(who, 1);
            held[who] += took;
            took == 1 || any
        }) {}
        assert!(held.iter().all(|n| (each - 1..=each).contains(n)), "{held:?}, not {each} each");
    }
}

/// With more connections than half of the units there is one each for the first half, and the rest go by the threshold.
#[test]
fn where_connections_are_more_than_the_units_a_few_that_hold_much_leave_one_to_many() {
    for side in [rx as fn(_, _) -> _, tx] {
        let mut side = side((64, 100), 40);
        for who in 0..8 {
            while side.take(who, 64) > 0 {}
        }
        for who in 8..32 {
            assert_eq!(side.take(who, 64), 1, "connection {who}");
        }
        assert_eq!(
            side.take(32, 64),
            0,
            "half of the units are with half as many connections, and the rest elsewhere"
        );
        side.give(0, 4, &mut Random::new(0));
        assert_eq!(
            side.take(32, 64),
            3,
            "it comes too late for a unit of its own: all of it counts as shared"
        );
    }
}

/// The rule in the words of docs/channel.md.
struct Book {
    units: u32,
    own: u32,
    most: u32,
    reserve: u32,
    held: Vec<u32>,
}

impl Book {
    fn new((units, flows): (u32, u32), conns: usize) -> Book {
        let most = units / 4;
        let own = (units / 2 / flows).clamp(1, most);
        Book { units, own, most, reserve: (own * flows).min(units / 2), held: vec![0; conns] }
    }

    fn own_held(&self) -> u32 {
        self.held.iter().map(|held| (*held).min(self.own)).sum()
    }

    fn shared(&self) -> u32 {
        let beyond: u32 = self.held.iter().map(|held| held.saturating_sub(self.own)).sum();
        self.units
            .checked_sub(beyond + self.own_held().max(self.reserve))
            .expect("more is held than there is")
    }

    fn may_take(&self, who: usize) -> bool {
        let held = self.held[who];
        if held < self.own {
            return self.own_held() < self.reserve || self.shared() > 0;
        }
        held < self.most && held - self.own < self.shared()
    }

    fn room(&mut self, who: usize) -> u32 {
        let before = self.held[who];
        while self.may_take(who) {
            self.held[who] += 1;
        }
        std::mem::replace(&mut self.held[who], before) - before
    }

    fn reach(&mut self, who: usize) -> u32 {
        let before = std::mem::replace(&mut self.held[who], 0);
        let room = self.room(who);
        self.held[who] = before;
        room
    }

    /// The invariant: what connections lack of their own is free, as far as the reserve goes.
    fn check(&self) {
        let free = self.units - self.held.iter().sum::<u32>();
        let lacking = self.reserve.saturating_sub(self.own_held());
        assert!(free >= lacking, "{free} units are free, {lacking} are needed: {:?}", self.held);
    }
}

/// One direction of a channel, with connections that only take and give back.
trait Side {
    /// Takes up to `n` units; how many it got.
    fn take(&mut self, who: usize, n: u32) -> u32;
    /// Gives back `n` of those held.
    fn give(&mut self, who: usize, n: u32, random: &mut Random);
    /// Compares what the channel tells, of `who` and of all.
    fn check(&mut self, book: &mut Book, who: usize);
}

const WHOLE: Fragment = Fragment { begin: true, end: true, message_len: 1 };

fn both((units, flows): (u32, u32), conns: usize) -> (AppEnd, EngineEnd, Vec<FlowId>) {
    let (app, mut engine) = pair(Geometry { units, flows, unit_size: 100 }).unwrap();
    let flows = (0..conns).map(|_| engine.open_flow().unwrap()).collect();
    (app, engine, flows)
}

/// Units that a connection received or may receive.
struct Receiving {
    app: AppEnd,
    engine: EngineEnd,
    flows: Vec<FlowId>,
    granted: Vec<u32>,
    delivered: Vec<Vec<RxToken>>,
}

fn rx(sizes: (u32, u32), conns: usize) -> Box<dyn Side> {
    let (app, engine, flows) = both(sizes, conns);
    Box::new(Receiving { app, engine, flows, granted: vec![0; conns], delivered: vec![Vec::new(); conns] })
}

impl Side for Receiving {
    fn take(&mut self, who: usize, n: u32) -> u32 {
        let got = self.engine.grant(self.flows[who], n);
        self.granted[who] += got;
        // Half of what is reserved arrives.
        for i in 0..self.granted[who].div_ceil(2) {
            let payload = [7; 100];
            assert!(self.engine.deliver(
                self.flows[who],
                WHOLE,
                &payload[..if i % 2 == 0 { 1 } else { 100 }]
            ));
            self.granted[who] -= 1;
            let Some(Delivery::Data(data)) = self.app.rx.delivery().unwrap() else { panic!("not delivered") };
            self.delivered[who].push(data.token);
        }
        got
    }

    fn give(&mut self, who: usize, n: u32, random: &mut Random) {
        for _ in 0..n {
            let delivered = &mut self.delivered[who];
            if delivered.is_empty() || self.granted[who] > 0 && random.below(2) == 0 {
                self.engine.ungrant(self.flows[who], 1);
                self.granted[who] -= 1;
            } else {
                self.app.rx.give_back(delivered.swap_remove(random.below(delivered.len())));
            }
        }
        self.app.rx.flush_returns();
        self.engine.returns(|_| ()).unwrap();
    }

    fn check(&mut self, book: &mut Book, _: usize) {
        let (_, delivered, granted) = self.engine.usage();
        assert_eq!(delivered + granted, book.held.iter().sum());
        assert_eq!(granted, self.granted.iter().sum::<u32>());
        assert_eq!(self.engine.free_units(), book.shared());
    }
}

/// Units that a connection has under way.
struct Sending {
    app: AppEnd,
    engine: EngineEnd,
    flows: Vec<FlowId>,
    under_way: Vec<Vec<TxUnit>>,
}

fn tx(sizes: (u32, u32), conns: usize) -> Box<dyn Side> {
    let (app, engine, flows) = both(sizes, conns);
    Box::new(Sending { app, engine, flows, under_way: vec![Vec::new(); conns] })
}

impl Side for Sending {
    fn take(&mut self, who: usize, n: u32) -> u32 {
        let mut got = 0;
        while got < n && self.app.tx.data(self.flows[who], WHOLE, &[7]).is_ok() {
            let Some(Submission::Data { unit, .. }) = self.engine.submission().unwrap() else {
                panic!("no unit")
            };
            self.under_way[who].push(unit);
            got += 1;
        }
        assert!(got == n || self.app.tx.tokens(self.flows[who]) == 0);
        got
    }

    fn give(&mut self, who: usize, n: u32, random: &mut Random) {
        for _ in 0..n {
            let under_way = &mut self.under_way[who];
            self.engine.complete(under_way.swap_remove(random.below(under_way.len())));
        }
        self.engine.flush();
        assert_eq!(self.app.tx.reclaim(|_| ()).unwrap(), n);
    }

    fn check(&mut self, book: &mut Book, who: usize) {
        let flow = self.flows[who];
        assert_eq!(self.app.tx.tokens(flow), book.room(who), "connection {who}: {:?}", book.held);
        assert_eq!(self.app.tx.reach(flow), book.reach(who), "connection {who}: {:?}", book.held);
        assert_eq!(self.app.tx.under_way(flow), book.held[who]);
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

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
    assert_eq!(n.learn(PEER, MAC, false, Nanos::secs(60)), Learned::Nothing, "the same answer is no news");
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
    let all =
        [row(PEER, Some(MAC), NeighborState::Known), asking, row(GATEWAY, Some(MAC), NeighborState::Fixed)];
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

//! Paths that are not clean: ticks, tails, rates with bursts, hosts that pause, and relays in user space.

mod hosts;

use hosts::{arrivals, mac, numbers, pair, send};
use machnet_nic::Queue;
use machnet_nic::sim::{Duty, Link, Relay, Shaper, Tail};
use machnet_wire::Nanos;

#[test]
fn frames_of_one_tick_arrive_together_and_in_order() {
    let (net, mut a, mut b) =
        pair(5, Link { jitter: Nanos::micros(40), tick: Nanos::micros(100), ..Link::default() });
    let mut got = Vec::new();
    for i in 0..50 {
        let now = Nanos::micros(20) * u64::from(i);
        while net.next_event().is_some_and(|at| at <= now) {
            net.set_now(net.next_event().unwrap());
            got.extend(numbers(&mut b).into_iter().map(|n| (net.now(), n)));
        }
        net.set_now(now);
        send(&mut a, mac(2), i, 60).unwrap();
        a.flush();
    }
    got.extend(arrivals(&net, &mut b));
    assert_eq!(got.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    for (at, n) in got {
        assert_eq!(at.0 % 100_000, 0, "frame {n} at {at:?}");
        let took = at - Nanos::micros(20) * u64::from(n);
        assert!((Nanos::micros(10)..Nanos::micros(150)).contains(&took), "frame {n} took {took:?}");
    }
}

#[test]
fn a_tail_is_as_heavy_as_asked_and_bounded() {
    let tail = Tail { part: 0.1, scale: Nanos::micros(50), shape: 1.5 };
    let (net, mut a, mut b) = pair(5, Link { tail: Some(tail), ..Link::instant() });
    let mut delays = Vec::new();
    for i in 0..60_000 {
        let now = net.now() + Nanos::millis(10);
        net.set_now(now);
        send(&mut a, mac(2), i, 60).unwrap();
        a.flush();
        // Without a delay some are there at once.
        let at_once = numbers(&mut b).len();
        delays.extend((0..at_once).map(|_| Nanos::ZERO));
        delays.extend(arrivals(&net, &mut b).into_iter().map(|(at, _)| at - now));
    }
    let beyond = |scales: f64| {
        let bound = Nanos((tail.scale.0 as f64 * scales) as u64);
        delays.iter().filter(|delay| **delay >= bound).count() as f64 / delays.len() as f64
    };
    // Of a Pareto distribution x.powf(-1.5) are beyond x scales.
    for (scales, part) in [(1.0, 0.1), (4.0, 0.0125), (16.0, 0.0015625)] {
        let seen = beyond(scales);
        assert!((0.7 * part..1.3 * part).contains(&seen), "{seen} beyond {scales} scales");
    }
    assert_eq!(
        delays.iter().filter(|delay| **delay == Nanos::ZERO).count(),
        delays.len() - (beyond(1.0) * delays.len() as f64).round() as usize
    );
    assert!(*delays.iter().max().unwrap() <= Nanos::millis(5), "100 scales at most");
}

#[test]
fn a_shaper_passes_a_burst_and_then_its_rate() {
    // 1000 bytes are 1 us of tokens.
    let shaper = Shaper { rate: 8_000_000_000, burst: 4_000, buffer: 3_000 };
    let (net, mut a, mut b) =
        pair(1, Link { shaper: Some(shaper), delay: Nanos::micros(5), ..Link::default() });
    (0..10).for_each(|i| send(&mut a, mac(2), i, 1000).unwrap());
    a.flush();
    let us = |(us, number)| (Nanos::micros(us), number);
    let burst = [(5, 0), (5, 1), (5, 2), (5, 3), (6, 4), (7, 5)].map(us);
    assert_eq!(arrivals(&net, &mut b), burst, "four at once, and two of those that wait");
    assert_eq!(
        net.counts().queue_full,
        4,
        "the third that waits is beyond the buffer, and so are those behind it"
    );
    // After 2 us there are tokens for two frames, after a long time for a burst.
    net.set_now(Nanos::micros(9));
    (0..3).for_each(|i| send(&mut a, mac(2), i, 1000).unwrap());
    a.flush();
    assert_eq!(arrivals(&net, &mut b), [(14, 0), (14, 1), (14, 2)].map(us));
    net.set_now(Nanos::millis(1));
    (0..5).for_each(|i| send(&mut a, mac(2), i, 1000).unwrap());
    a.flush();
    assert_eq!(arrivals(&net, &mut b), [(1005, 0), (1005, 1), (1005, 2), (1005, 3), (1006, 4)].map(us));
}

#[test]
fn a_shaper_without_a_buffer_drops_and_one_without_a_burst_still_passes() {
    let policer = Shaper { rate: 8_000_000_000, burst: 2_000, buffer: 0 };
    let (net, mut a, mut b) = pair(1, Link { shaper: Some(policer), ..Link::default() });
    (0..5).for_each(|i| send(&mut a, mac(2), i, 1000).unwrap());
    a.flush();
    assert_eq!(arrivals(&net, &mut b).len(), 2);
    assert_eq!(net.counts().queue_full, 3);
    let slow = Shaper { rate: 8_000_000_000, burst: 0, buffer: 100_000 };
    let (net, mut a, mut b) = pair(1, Link { shaper: Some(slow), ..Link::default() });
    (0..3).for_each(|i| send(&mut a, mac(2), i, 1000).unwrap());
    a.flush();
    let at: Vec<Nanos> = arrivals(&net, &mut b).into_iter().map(|(at, _)| at).collect();
    assert_eq!(at, [10, 11, 12].map(Nanos::micros));
}

#[test]
fn a_relay_takes_one_frame_after_the_other_from_both_sides() {
    let (net, mut a, mut b) = pair(1, Link::default());
    let relay =
        net.add_relay(Relay { take: Nanos::micros(1), send: Nanos::micros(2), wake: Nanos::ZERO, cores: 0 });
    net.set_links(Link { relay: Some(relay), ..Link::default() });
    (0..3).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
    send(&mut b, mac(1), 3, 60).unwrap();
    a.flush();
    b.flush();
    let us = |(us, number)| (Nanos::micros(us), number);
    let mut got = Vec::new();
    while let Some(at) = net.next_event() {
        net.set_now(at);
        got.extend(numbers(&mut b).into_iter().chain(numbers(&mut a)).map(|n| (at, n)));
    }
    assert_eq!(
        got,
        [(13, 0), (15, 1), (17, 2), (19, 3)].map(us),
        "1 us to take each, 10 us of delay, 2 us to send each"
    );
}

#[test]
fn a_relay_that_sleeps_wakes_late_and_then_works_through() {
    let (net, mut a, mut b) = pair(1, Link::instant());
    let relay = Relay { take: Nanos::ZERO, send: Nanos::micros(1), wake: Nanos::micros(20), cores: 0 };
    let relay = net.add_relay(relay);
    net.set_links(Link { relay: Some(relay), ..Link::instant() });
    let mut waits = Vec::new();
    for _ in 0..200 {
        let now = net.now() + Nanos::millis(1);
        net.set_now(now);
        (0..3).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
        a.flush();
        let at: Vec<Nanos> = arrivals(&net, &mut b).into_iter().map(|(at, _)| at - now).collect();
        assert_eq!(
            [at[1] - at[0], at[2] - at[1]],
            [Nanos::micros(1); 2],
            "it is awake for those behind the first"
        );
        waits.push(at[0] - Nanos::micros(1));
    }
    waits.sort_unstable();
    assert!(waits[10] < Nanos::micros(5) && waits[190] > Nanos::micros(35), "{waits:?}");
    assert!(waits[199] <= Nanos::micros(40), "{waits:?}");
}

#[test]
fn a_relay_waits_for_its_core_and_others_for_it() {
    let (net, mut a, mut b) = pair(1, Link::instant());
    let (first, second) = (net.add_core(), net.add_core());
    let relay =
        |cores| net.add_relay(Relay { take: Nanos::ZERO, send: Nanos::micros(3), wake: Nanos::ZERO, cores });
    let (bound, free) = (relay(1 << second), relay(1 << first | 1 << second));
    let us = Nanos::micros;
    net.occupy(second, us(50));
    net.occupy(second, us(40));
    assert_eq!([net.core_busy(first), net.core_busy(second)], [us(0), us(50)]);
    let mut one = |relay| {
        net.set_links(Link { relay: Some(relay), ..Link::instant() });
        send(&mut a, mac(2), 7, 60).unwrap();
        a.flush();
        arrivals(&net, &mut b)
    };
    assert_eq!(one(free), [(us(3), 7)], "the other core is free");
    assert_eq!(one(bound), [(us(53), 7)]);
    assert_eq!([net.core_busy(first), net.core_busy(second)], [us(3), us(53)]);
}

#[test]
fn a_host_runs_and_pauses_by_turns() {
    let duty = Duty { run: Nanos::millis(4), pause: Nanos::millis(2) };
    let mut phases = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let (net, _a, _b) = pair(seed, Link::default());
        net.set_duty(1, Some(duty));
        let mut away = Vec::new();
        for us in 0..60_000 {
            net.set_now(Nanos::micros(us));
            away.push(net.stolen_until(1).is_some());
        }
        assert_eq!(net.stolen_until(0), None);
        let share = away.iter().filter(|away| **away).count();
        assert!((19_900..20_100).contains(&share), "{share} of 60000 us, a third is asked");
        let begins: Vec<usize> = (1..away.len()).filter(|&us| away[us] && !away[us - 1]).collect();
        assert!(begins.windows(2).all(|pair| pair[1] - pair[0] == 6_000), "{begins:?}");
        phases.insert(begins[0]);
        net.set_duty(1, None);
        net.set_now(Nanos::millis(100));
        assert_eq!(net.stolen_until(1), None, "no more");
    }
    assert_eq!(phases.len(), 8, "each seed begins elsewhere in a turn");
}

//! One search: when it sprays how much, and that it ends whatever it is told.

mod common;

use common::Dice;
use machnet_rss::{Config, Search, Step, spray};
use machnet_wire::Nanos;

fn at(ms: u64) -> Nanos {
    Nanos::millis(ms)
}

#[test]
fn a_search_that_never_hits_doubles_its_batches_and_gives_up() {
    let mut search = Search::new(&Config::default(), spray::batch(4), at(0));
    let mut sprayed = vec![];
    let mut now = search.due();
    loop {
        match search.on_time(now) {
            Step::Spray(probes) => {
                sprayed.push((now, probes));
                search.on_sent(probes, now);
                for _ in 0..probes {
                    assert_eq!(search.on_report(false), Step::Wait);
                }
            }
            Step::GiveUp => break,
            step => panic!("{step:?} at {now:?}"),
        }
        assert_eq!(search.on_time(search.due() - Nanos(1)), Step::Wait);
        now = search.due();
    }
    assert_eq!(sprayed, [(at(0), 13), (at(10), 26), (at(20), 52), (at(30), 104)]);
    assert_eq!((now, search.batch()), (at(40), 4));
}

#[test]
fn no_batch_is_larger_than_the_largest() {
    let mut search = Search::new(&Config::default(), spray::batch(64), at(0));
    for ms in [0, 10, 20, 30] {
        assert_eq!(search.on_time(at(ms)), Step::Spray(128));
        search.on_sent(128, at(ms));
    }
    assert_eq!(search.on_time(at(40)), Step::GiveUp);
}

/// A client with one queue sends one SYN; when it hears that the server has eight, and that the SYN missed, the rest goes at once.
#[test]
fn the_rest_of_a_batch_goes_when_all_before_it_missed() {
    let mut search = Search::new(&Config::default(), spray::batch(8), at(0));
    search.on_sent(3, at(0));
    assert_eq!([search.on_report(false), search.on_report(false)], [Step::Wait; 2]);
    assert_eq!(search.on_report(false), Step::Spray(25));
    // Room for a part of it: what is left is asked for by the next report of a miss.
    search.on_sent(20, at(1));
    for _ in 0..19 {
        assert_eq!(search.on_report(false), Step::Wait);
    }
    assert_eq!(search.on_report(false), Step::Spray(5));
    search.on_sent(5, at(2));
    assert_eq!((search.due(), search.on_report(true)), (at(12), Step::Hit));
}

/// What was said of an earlier batch says nothing of this one.
#[test]
fn each_batch_waits_for_reports_of_its_own() {
    let mut search = Search::new(&Config::default(), 3, at(0));
    search.on_sent(3, at(0));
    for _ in 0..3 {
        assert_eq!(search.on_report(false), Step::Wait);
    }
    assert_eq!(search.on_time(at(10)), Step::Spray(6));
    search.on_sent(2, at(10));
    assert_eq!([search.on_report(false), search.on_report(false)], [Step::Wait, Step::Spray(4)]);
}

#[test]
fn a_search_that_is_put_off_asks_again_for_the_same() {
    let mut search = Search::new(&Config::default(), 13, at(0));
    assert_eq!(search.on_time(at(0)), Step::Spray(13));
    search.put_off(at(0));
    assert_eq!((search.on_time(at(9)), search.on_time(at(10))), (Step::Wait, Step::Spray(13)));
    assert_eq!(search.batch(), 1);
}

/// Whatever is reported, as often as it may be: no more probes than the batches allow, and an end.
#[test]
fn no_lie_makes_a_search_send_more_than_its_batches() {
    for seed in 0..2000 {
        let mut dice = Dice(seed);
        let config = Config { batches: 1 + dice.below(4) as u8, ..Config::default() };
        let first = 1 + dice.below(140) as u16;
        let mut search = Search::new(&config, first, at(0));
        let (mut now, mut sent, mut steps) = (at(0), 0u32, 0);
        let most: u32 = (0..config.batches).map(|n| (u32::from(first.min(128)) << n).min(128)).sum();
        loop {
            let step = if dice.one_in(4) { search.on_time(now) } else { search.on_report(false) };
            match step {
                Step::Spray(asked) => {
                    assert!(asked > 0, "seed {seed}");
                    let probes = if dice.one_in(3) { dice.below(u64::from(asked) + 1) as u16 } else { asked };
                    if probes > 0 {
                        search.on_sent(probes, now);
                        sent += u32::from(probes);
                    } else {
                        search.put_off(now);
                    }
                }
                Step::GiveUp => break,
                Step::Wait => now += Nanos::millis(dice.below(5)),
                Step::Hit => panic!("seed {seed}: nobody said so"),
            }
            steps += 1;
            assert!(sent <= most, "seed {seed}: {sent} of {most}");
            assert!(steps < 100_000, "seed {seed}: no end");
        }
        assert!(search.batch() <= config.batches, "seed {seed}");
    }
}

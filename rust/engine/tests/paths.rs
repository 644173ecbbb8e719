//! Streams over paths that are not clean: relays in user space, ticks, delay, jitter, loss, tails, token buckets, hosts that pause, long ways. What is
//! promised of each is here, and `cargo test -p machnet-engine --test paths -- --nocapture` prints the table of docs/transport.md. Virtual
//! time: the figures are the same on every machine.

use machnet_nic::sim::{Duty, Link, Shaper, Tail};
use machnet_sim::figures::path::{self, Cores, Path, Row};
use machnet_wire::Nanos;

/// Runs a path and prints its row; panics if it is less than promised, MB/s, or if something found a ring full.
fn keeps(name: &str, at_least: f64, path: Path) -> Row {
    let row = path::run(&path);
    println!("{name:<28} {row}");
    let said =
        || format!("{name}, seed {}: {at_least} MB/s are promised\n{}\n{row}", path.seed, path::HEADING);
    assert!(row.goodput_mb_s >= at_least, "{}", said());
    assert_eq!(row.ring_missed, 0, "{}", said());
    row
}

/// What a relay makes of a clean path is no queue of ours: a stream gets what the relay's 7 us a frame allow, some 160 MB/s, and nothing is sent
/// again.
#[test]
fn noise_that_does_not_grow_with_the_window_costs_little() {
    heading();
    let each = [
        ("relay", Link { ..clean() }, 130.0),
        ("ticks of 100 us", Link { tick: US(100), ..clean() }, 125.0),
        ("ticks of 500 us", Link { tick: US(500), ..clean() }, 110.0),
        ("200 us each way", Link { delay: US(200), ..clean() }, 120.0),
        ("1 ms each way", Link { delay: US(1000), ..clean() }, 75.0),
    ];
    for cores in [Cores::Own, Cores::Shared] {
        println!("{cores:?} cores");
        for (name, link, at_least) in each {
            let row = keeps(name, at_least, Path { link, cores, ..Path::default() });
            assert!(row.retransmitted <= 10, "{name}, {cores:?} cores: nothing is lost\n{row}");
        }
    }
}

#[test]
fn loss_with_jitter_is_answered_by_repetition_and_not_by_silence() {
    heading();
    let link = |loss| Link { delay: US(100), jitter: US(200), loss, ..clean() };
    for (name, loss, at_least) in [
        ("0.1 % loss, 200 +- 100 us", 0.001, 100.0),
        ("1 %", 0.01, 90.0),
        ("3 %", 0.03, 70.0),
        ("5 %", 0.05, 50.0),
    ] {
        let row = keeps(name, at_least, Path { link: link(loss), echo: true, ..Path::default() });
        assert!(
            row.retransmitted as f64 <= 1.2 * row.path_lost as f64,
            "{name}: needless repetitions\n{row}"
        );
        assert!(row.timeouts <= 10, "{name}: losses are found without timeouts\n{row}");
        assert!(row.echo_p99_us.is_some_and(|us| us < 10_000.0), "{name}: the echo beside\n{row}");
    }
    let link = Link { duplication: 0.01, ..link(0.03) };
    let path = Path { link, streams: 2, bytes: 16 << 20, message: 8 << 20, echo: true, ..Path::default() };
    keeps("2 of 8 MiB, 3 %, 1 % twice", 80.0, path);
}

#[test]
fn few_frames_that_take_very_long_do_not_stop_the_others() {
    heading();
    let tail = Tail { part: 0.01, scale: US(100), shape: 1.5 };
    keeps(
        "1 % take 100 us to 10 ms more",
        110.0,
        Path { link: Link { tail: Some(tail), ..clean() }, ..Path::default() },
    );
}

/// The bucket's rate is reached, and shared evenly.
#[test]
fn a_token_bucket_is_filled_and_not_overrun() {
    heading();
    let shaper = Shaper { rate: 5_000_000_000, burst: 1_000_000, buffer: 1 << 20 };
    let link = Link { delay: US(100), shaper: Some(shaper), ..clean() };
    let path = Path { link, relay: None, mtu: 9000, streams: 2, bytes: 200_000_000, ..Path::default() };
    let row = keeps("5 Gb/s with 1 MB of burst", 560.0, path);
    assert!(row.jain >= 0.95 && row.queue_full <= 50, "{row}");
}

/// Where the turns of the two hosts meet is chance, and while they do not, a ring is all that there is to send.
#[test]
fn hosts_that_pause_for_as_long_as_they_run_go_on_where_they_were() {
    heading();
    let duty = Some(Duty { run: US(4000), pause: US(4000) });
    let row = keeps("4 ms on, 4 ms off", 30.0, Path { duty, ..Path::default() });
    assert!(row.retransmitted <= 100, "what waits is not lost\n{row}");
}

#[test]
fn two_streams_through_noise_share_it() {
    heading();
    for (name, tick) in [("two streams, relay", US(0)), ("two streams, ticks of 100 us", US(100))] {
        let path = Path { link: Link { tick, ..clean() }, streams: 2, echo: true, ..Path::default() };
        let row = keeps(name, 120.0, path);
        assert!(row.jain >= 0.95, "{name}\n{row}");
        assert!(row.echo_p99_us.is_some_and(|us| us < 6_000.0), "{name}: the echo beside\n{row}");
    }
}

#[test]
fn a_long_way_is_filled() {
    heading();
    let link = Link { delay: Nanos::millis(10), ..clean() };
    keeps("10 ms each way", 40.0, Path { link, units: 16_384, bytes: 100_000_000, ..Path::default() });
}

fn heading() {
    println!("{:<28} {}", "", path::HEADING);
}

/// What is between a relay and the hosts beside it.
fn clean() -> Link {
    Path::default().link
}

const US: fn(u64) -> Nanos = Nanos::micros;

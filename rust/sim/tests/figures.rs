//! What was promised of the figures in virtual time, with room for other seeds and for changes that make everything cheaper or dearer.

use machnet_nic::sim::{Duty, Link};
use machnet_sim::figures::isolation::{self, Arm, Isolation};
use machnet_sim::figures::path::{self, Cores, Path};
use machnet_sim::figures::scaling;
use machnet_sim::figures::setup::{self, Setup};
use machnet_wire::Nanos;

/// With an engine of its own the quiet application feels nothing of its neighbours; on theirs, or where packets reach either engine, it does.
#[test]
fn an_engine_of_its_own_keeps_the_neighbours_away() {
    let seed = 11;
    let figure = Isolation { runs: 4, time: Nanos::millis(10), ring: 4096, seed };
    let [unloaded, dedicated, shared, random] = Arm::ALL.map(|arm| isolation::measure(arm, &figure));
    let said = format!("seed {seed}:\n{unloaded}\n{dedicated}\n{shared}\n{random}");
    assert!(dedicated.noisy_per_s > 1e6, "nobody is noisy; {said}");
    assert!(dedicated.p99_us <= 1.2 * unloaded.p99_us, "{said}");
    assert!(dedicated.handed_over < 0.001 && random.handed_over > 0.3, "{said}");
    for worse in [&shared, &random] {
        assert!(worse.p99_us >= 1.5 * dedicated.p99_us, "{said}");
    }
}

/// Twice the engines answer twice as much, because no packet meets two of them; where packets reach any of them they do not.
#[test]
fn each_engine_answers_as_much_as_the_first() {
    let seed = 12;
    let rows = scaling::run(seed, &[1, 2, 4, 8], Nanos::millis(1));
    let said = || rows.iter().fold(format!("seed {seed}:"), |said, row| format!("{said}\n{row}"));
    for row in &rows {
        match row.rss {
            "on" => assert!(row.efficiency >= 0.9 && row.handed_over < 0.001, "{}", said()),
            _ if row.engines > 1 => assert!(row.efficiency < 0.8 && row.handed_over > 0.3, "{}", said()),
            _ => {}
        }
    }
}

/// A first contact takes a round trip and little work, whatever the hashes do; a later connection is two packets.
#[test]
fn a_set_up_waits_for_no_timer() {
    let seed = 13;
    let [first, pooled] = setup::run(&Setup { engines: (4, 4), connections: 200, paper: false, seed });
    let said = format!("seed {seed}:\n{first}\n{pooled}");
    assert!(first.p999_us <= 160.0 && first.first_batch >= 0.9, "{said}");
    assert!(pooled.packets == 2.0 && pooled.first_batch == 1.0 && pooled.p999_us <= 60.0, "{said}");
    let [paper, _] = setup::run(&Setup { engines: (4, 4), connections: 200, paper: true, seed });
    assert!(paper.p999_us >= 10.0 * first.p999_us, "none had to be tried again; {said}\n{paper}");
}

/// A relay and cores bound a rate by their time for each frame, whatever else is right or wrong with it.
#[test]
fn a_path_is_as_fast_as_its_relay_and_its_cores() {
    let direct = Path { relay: None, bytes: 4 << 20, seed: 14, ..Path::default() };
    let own = path::run(&direct);
    // Half of the frames are acknowledgements at worst; a frame of data is 1424 bytes.
    let slow = Path { relay: Some((Nanos::micros(20), Nanos::ZERO)), ..direct };
    let relayed = path::run(&slow);
    let (least, most) = (0.5 * 1424.0 / 20.0, 1424.0 / 20.0);
    assert!(
        (least..=most).contains(&relayed.goodput_mb_s) && own.goodput_mb_s > 2.0 * most,
        "{own}\n{relayed}"
    );
    let shared = path::run(&Path { cores: Cores::Shared, ..direct });
    assert!(shared.goodput_mb_s < 0.8 * own.goodput_mb_s, "two hosts on one core: {own}\n{shared}");
    let half = Duty { run: Nanos::millis(4), pause: Nanos::millis(4) };
    let paused = path::run(&Path { duty: Some(half), ..direct });
    assert!(paused.goodput_mb_s < 0.6 * own.goodput_mb_s, "hosts that run half of the time: {own}\n{paused}");
    for row in [own, relayed, shared, paused] {
        assert_eq!(row.ring_missed, 0, "{row}");
    }
}

/// What the path did is in the row, and the same seed does it again.
#[test]
fn a_paths_row_says_what_happened() {
    let link = Link { delay: Nanos::micros(50), loss: 0.02, ..Link::instant() };
    let path = Path { link, streams: 2, bytes: 2 << 20, echo: true, seed: 15, ..Path::default() };
    let row = path::run(&path);
    assert!(row.path_lost > 30 && row.lost > 10 && row.retransmitted >= row.lost, "{row}");
    let [p50, p99] = [row.echo_p50_us, row.echo_p99_us].map(|us| us.expect("an echo beside"));
    assert!(p50 > 100.0 && p99 >= p50, "{row}");
    assert!(row.jain > 0.5 && row.jain <= 1.0, "{row}");
    assert_eq!(row, path::run(&path));
    assert_ne!(row, path::run(&Path { seed: 16, ..path }));
    assert_eq!(path::run(&Path { echo: false, ..path }).echo_p50_us, None);
}

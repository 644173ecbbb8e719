//! What was promised of the figures in virtual time, with room for other seeds and for changes that make everything cheaper or dearer.

use machnet_sim::figures::isolation::{self, Arm, Isolation};
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

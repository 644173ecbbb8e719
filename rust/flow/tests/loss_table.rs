//! Loss by message size, as a committed table: a change of behaviour shows as a change of the table.
//!
//! One direction of a 10 Gb/s link with 15 us of delay and a queue of 256 packets; eight messages outstanding. Then the same with 100 to
//! 300 us of delay (`j`), and with arrivals at multiples of 100 us alone (`t`). After a
//! change that is meant, `MACHNET_WRITE=1 cargo test -p machnet-flow --test loss_table` writes it anew.

mod common;

use common::{A, B, Sim, message};
use machnet_wire::Nanos;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loss_table.txt");

/// What the link does beside losing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Clean,
    Jitter,
    Ticks,
}

fn cell(path: Path, loss: u64, size: usize) -> String {
    let mut sim = Sim::new(42);
    for link in &mut sim.links {
        link.delay = if path == Path::Jitter { Nanos::micros(100) } else { Nanos::micros(15) };
        link.wobble = if path == Path::Jitter { Nanos::micros(200) } else { Nanos::ZERO };
        link.tick = if path == Path::Ticks { Nanos::micros(100) } else { Nanos::ZERO };
        link.ps_per_byte = 800;
        link.loss_ppm = loss;
    }
    sim.ends[B].channel = common::Channel::new(4096);
    sim.establish();
    let count = (4_000_000 / size.max(1)).clamp(8, 2_000);
    let bytes = message(1, size);
    let start = sim.now;
    let mut sent = 0;
    while sim.ends[B].channel.messages.len() < count {
        while sent < count && sent < sim.ends[B].channel.messages.len() + 8 {
            sim.send(A, &bytes);
            sent += 1;
        }
        let so_far = sim.ends[B].channel.messages.len();
        sim.run_until(Nanos::secs(30), |sim| sim.ends[B].channel.messages.len() > so_far);
    }
    let took = sim.now - start;
    let stats = sim.flow(A).stats();
    let mbps = (count * size) as u64 * 8_000 / took.0.max(1);
    format!("{:>6} {:>5} {:>4}", mbps, stats.retransmitted, stats.rtos)
}

#[test]
fn the_table_is_as_committed() {
    let sizes = [64, 1_000, 32_768, 1 << 20, 8 << 20];
    let mut table = String::from("goodput in Mb/s, units sent again, timeouts\n");
    table += &format!("{:>7}", "loss %");
    for size in sizes {
        table += &format!(" | {size:>17}");
    }
    table.push('\n');
    let rows = [
        ("0", Path::Clean, 0),
        ("0.1", Path::Clean, 1_000),
        ("1", Path::Clean, 10_000),
        ("5", Path::Clean, 50_000),
        ("30", Path::Clean, 300_000),
        ("0 j", Path::Jitter, 0),
        ("0.1 j", Path::Jitter, 1_000),
        ("1 j", Path::Jitter, 10_000),
        ("3 j", Path::Jitter, 30_000),
        ("5 j", Path::Jitter, 50_000),
        ("0 t", Path::Ticks, 0),
        ("1 t", Path::Ticks, 10_000),
    ];
    for (name, path, ppm) in rows {
        table += &format!("{name:>7}");
        for size in sizes {
            table += &format!(" | {}", cell(path, ppm, size));
        }
        table.push('\n');
    }
    if std::env::var_os("MACHNET_WRITE").is_some() {
        std::fs::write(TABLE, &table).expect("the table can be written");
    }
    let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
    assert!(
        table == committed,
        "the table changed; if that is meant, run with MACHNET_WRITE=1\n{committed}\nis now\n{table}"
    );
}

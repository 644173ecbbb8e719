//! The figures that are taken in virtual time, each a function from its arguments and a seed to rows: the program `machnet-sim` prints
//! them, and tests hold what was promised of them.

pub mod isolation;
pub mod path;
pub mod scaling;
pub mod setup;

use machnet_engine::EngineConfig;
use machnet_nic::sim::Link;
use machnet_shm::Geometry;
use machnet_wire::{Mac, Nanos};
use std::net::Ipv4Addr;

use crate::{Cost, Parts, World};

/// Time of a frame on its way between two hosts, each direction: two of them are a round trip of 30 us, as between two virtual machines
/// of a cloud in one zone.
pub const ONE_WAY: Nanos = Nanos::micros(15);

/// A world whose engines cost what was measured and whose hosts know each other's MAC addresses.
fn world(seed: u64, link: Link) -> World {
    let mut world = World::seeded(seed);
    world.cost = Cost::Parts(Parts::MEASURED);
    world.descriptors = 1024;
    world.net.set_links(link);
    world
}

/// Adds hosts 10.0.0.1, 10.0.0.2 and so on with so many engines each, numbered from 0, and with other settings.
fn add_hosts(world: &mut World, engines: &[u16], change: impl Fn(&mut EngineConfig)) {
    let count = engines.len() as u8;
    for (n, &engines) in (1..=count).zip(engines) {
        world.add_with(n, engines, |config| {
            config.neighbor.fixed =
                (1..=count).filter(|other| *other != n).map(|n| (ip(n), mac(n))).collect();
            change(config);
        });
    }
}

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// A channel for a few connections of small messages: a world of thousands of set-ups maps one for each.
const SMALL: Geometry = Geometry { units: 64, flows: 16, unit_size: 1424 };

/// The value that a share `part` (0.0 to 1.0) of `sorted` do not exceed.
fn quantile(sorted: &[Nanos], part: f64) -> Nanos {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(Nanos::ZERO)
}

/// Jain's fairness index: 1 when all are equal, 1/n when one has it all.
pub fn jain(x: &[u64]) -> f64 {
    let sum: f64 = x.iter().map(|&x| x as f64).sum();
    let squares: f64 = x.iter().map(|&x| (x as f64).powi(2)).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (x.len() as f64 * squares) }
}

/// Microseconds, to the nearest nanosecond.
fn micros(time: Nanos) -> f64 {
    time.0 as f64 / 1000.0
}

//! A host on a simulated network that nobody else is on, in virtual time.
#![allow(dead_code, reason = "each test uses a part")]

use std::net::Ipv4Addr;

use machnet_engine::{EngineConfig, neighbor};
use machnet_host::{ChannelConfig, Host, HostError, Owner};
use machnet_nic::sim::{self, Net, SimQueue};
use machnet_shm::{AppEnd, ClientHello};
use machnet_wire::{Mac, Nanos};

pub const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

pub struct Rig {
    pub host: Host<SimQueue>,
    pub now: Nanos,
}

/// A host 10.0.0.1/24 with these fixed neighbours.
pub fn open(
    engines: u16,
    channels: ChannelConfig,
    fixed: Vec<(Ipv4Addr, Mac)>,
) -> Result<Host<SimQueue>, HostError> {
    let queues = Net::new(1).add_host(sim::Host::new(1).queues(engines));
    let neighbor = neighbor::Config { fixed, ..neighbor::Config::new(IP, 24, None) };
    Host::new(EngineConfig::new(neighbor, 1, [1, 2]), channels, queues, Nanos::ZERO)
}

impl Rig {
    pub fn of(host: Result<Host<SimQueue>, HostError>) -> Rig {
        Rig { host: host.unwrap_or_else(|error| panic!("{error}")), now: Nanos::ZERO }
    }

    /// An application attaches, to this engine if it names one.
    pub fn attach(&mut self, engine: Option<u32>, owner: Owner) -> (AppEnd, u64) {
        self.attach_in(0, engine, owner)
    }

    /// The same as one of the channels of a group.
    pub fn attach_in(&mut self, group: u32, engine: Option<u32>, owner: Owner) -> (AppEnd, u64) {
        let offer = self.host.offer(ClientHello { engine, group }, owner.uid).expect("room");
        let (app, end) = machnet_shm::pair(offer.welcome.geometry).expect("memory");
        let number =
            self.host.attach(offer.place, owner, end).unwrap_or_else(|_| panic!("the engine has no room"));
        (app, number)
    }

    /// Rounds of all engines for a millisecond.
    pub fn run(&mut self) {
        for _ in 0..1000 {
            self.now += Nanos::micros(1);
            for engine in self.host.engines_mut() {
                engine.run_once(self.now);
            }
        }
    }
}

//! What each part of the sidecar is told of the settings.

use machnet_engine::{EngineConfig, idle, neighbor};
use machnet_host::{ChannelConfig, Descriptors};
use machnet_nic::{EalConfig, PortConfig};
use machnet_wire::Nanos;

use super::Config;
use crate::socket::Access;

impl Config {
    /// Who may attach.
    pub fn access(&self) -> Access {
        Access { mode: self.mode, owner: self.owner, group: self.group }
    }

    /// What DPDK is told.
    pub fn eal(&self) -> EalConfig {
        EalConfig {
            memory: self.memory.clone(),
            file_prefix: self.file_prefix.clone(),
            extra_args: self.extra_args.clone(),
        }
    }

    /// What the NIC is asked for.
    pub fn port(&self) -> PortConfig {
        PortConfig {
            queues: self.engines,
            descriptors: self.descriptors,
            mtu: self.mtu,
            mac: self.set_mac,
            burst: self.burst,
            checksum_offload: self.checksum_offload,
            interrupts: self.interrupts && self.idle != idle::Policy::Spin,
        }
    }

    /// What engines are told. The first of the random words is this start's epoch.
    pub fn engine(&self, [epoch, secret @ ..]: [u64; 3]) -> EngineConfig {
        let neighbor = neighbor::Config {
            fixed: self.neighbors.clone(),
            ..neighbor::Config::new(self.ip, self.prefix, self.gateway)
        };
        let mut engine = EngineConfig::new(neighbor, epoch, secret);
        engine.burst = usize::from(self.burst);
        engine.udp_ports = self.udp_ports.clone();
        engine.rss.search.retry = self.rss_retry;
        engine.flow.syn_retry = self.rss_retry;
        engine.rss.mirrored = self.mirrored;
        engine.rss.paper = self.paper;
        engine.connect_timeout = self.connect;
        engine.linger = self.linger;
        engine.flow.dead_after = self.dead_peer;
        engine.flow.no_progress = self.no_progress;
        engine.flow.keep_alive = self.keepalive.unwrap_or(Nanos::MAX);
        engine
    }

    /// What channels are to be like, where the descriptors last for so many.
    pub fn channels(&self, descriptors: Option<Descriptors>) -> ChannelConfig {
        ChannelConfig {
            applications: self.max_channels,
            per_application: self.per_application,
            descriptors,
            units: self.units,
            flows: self.flows,
        }
    }

    /// How engines' threads wait.
    pub fn waiting(&self) -> idle::Config {
        idle::Config { policy: self.idle, shared_core: !self.exclusive, ..idle::Config::default() }
    }
}

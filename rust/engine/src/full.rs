//! Refusals because there are already as many of something as there may be. Each is counted by its limit, and the log warns
//! whoever runs the sidecar. The one that is refused learns why from the [`Reason`].

use core::fmt;
use core::net::Ipv4Addr;

use machnet_shm::{Limit, Reason};
use machnet_wire::{Nanos, WarningLimit};

use crate::ids::ChannelNumber;
use crate::shared::EngineHandle;

/// Warnings about each limit of this host.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    connections: WarningLimit,
    engine: WarningLimit,
    listeners: WarningLimit,
    ports: WarningLimit,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// An application, by its channel's number, dials.
    Dial { channel: ChannelNumber, ip: Ipv4Addr, port: u16 },
    /// A peer connects to an application's listener.
    Connection { channel: ChannelNumber, ip: Ipv4Addr, port: u16 },
    /// An application listens; port 0: any.
    Listener { channel: ChannelNumber, port: u16 },
}

impl Warnings {
    /// Counts a refusal of the engine and warns of it; returns the reason for the application that asked.
    #[cold]
    pub fn refuse(
        &mut self,
        engine: &EngineHandle,
        limit: Limit,
        bound: u32,
        asked: Asked,
        now: Nanos,
    ) -> Reason {
        let counters = engine.counters();
        let (counter, warnings, sentence) = match limit {
            Limit::Connections => (
                &counters.full_connections,
                &mut self.connections,
                "connections, as many as its channels hold; it should close some, or attach more channels (--channels-per-application), or larger ones (--flows)",
            ),
            Limit::EngineConnections => (
                &counters.full_engine,
                &mut self.engine,
                "connections, as many as it can have; run more engines (--engines)",
            ),
            Limit::Listeners => (
                &counters.full_listeners,
                &mut self.listeners,
                "listeners, as many as one may have; it should close some, or attach once more for others",
            ),
            Limit::Ports => (
                &counters.full_ports,
                &mut self.ports,
                "ports, all that are given where none is named, are in use; close some, or name a port that is free",
            ),
            // The peer's own sidecar warns of its limits.
            Limit::PeerConnections | Limit::PeerEngineConnections => return Reason::Full(limit, bound),
        };
        counter.add(1);
        if let Some(suppressed) = warnings.allow(now) {
            let whose = match limit {
                Limit::EngineConnections => "this engine has ",
                Limit::Ports => "",
                _ => "its application has ",
            };
            log::warn!("engine {}: {asked} refused: {whose}{bound} {sentence}{suppressed}", engine.index());
        }
        Reason::Full(limit, bound)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Dial { channel, ip, port } => write!(f, "channel {channel}: a dial to {ip}:{port}"),
            Asked::Connection { channel, ip, port } => {
                write!(f, "channel {channel}: a connection from {ip} to port {port}")
            }
            Asked::Listener { channel, port: 0 } => write!(f, "channel {channel}: a listener on any port"),
            Asked::Listener { channel, port } => write!(f, "channel {channel}: a listener on port {port}"),
        }
    }
}

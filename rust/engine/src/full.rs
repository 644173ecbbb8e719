//! What is refused because there are as many of something as there may be: counted by what that is, and told to whoever runs the
//! sidecar. The one refused is told by the [`Reason`].

use core::fmt;
use core::net::Ipv4Addr;

use machnet_shm::{Limit, Reason};
use machnet_wire::Seldom;

use crate::state::Core;

/// Warnings about each limit of this host.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    connections: Seldom,
    engine: Seldom,
    listeners: Seldom,
    ports: Seldom,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// An application, by its channel's number, dials.
    Dial { channel: u64, ip: Ipv4Addr, port: u16 },
    /// A peer connects to an application's listener.
    Connection { channel: u64, ip: Ipv4Addr, port: u16 },
    /// An application listens; port 0: any.
    Listener { channel: u64, port: u16 },
}

impl Core {
    /// Counts and tells a refusal, and gives the reason for the application that asked.
    #[cold]
    pub fn full(&mut self, limit: Limit, bound: u32, asked: Asked) -> Reason {
        let counters = &self.shared.inboxes[usize::from(self.index)].counts.engine;
        let warnings = &mut self.warnings;
        let (counter, seldom, sentence) = match limit {
            Limit::Connections => (
                &counters.full_connections,
                &mut warnings.connections,
                "connections, as many as one may have; it should close some, or raise flows (--flows)",
            ),
            Limit::EngineConnections => (
                &counters.full_engine,
                &mut warnings.engine,
                "connections, as many as it can have; run more engines (--engines)",
            ),
            Limit::Listeners => (
                &counters.full_listeners,
                &mut warnings.listeners,
                "listeners, as many as one may have; it should close some, or attach once more for others",
            ),
            Limit::Ports => (
                &counters.full_ports,
                &mut warnings.ports,
                "ports, all that are given where none is named, are in use; close some, or name a port below 32768",
            ),
            // A peer's limits are the peer's to warn of.
            Limit::PeerConnections | Limit::PeerEngineConnections => return Reason::Full(limit, bound),
        };
        counter.add(1);
        if let Some(left_out) = seldom.say(self.now) {
            let whose = match limit {
                Limit::EngineConnections => "this engine has ",
                Limit::Ports => "",
                _ => "its application has ",
            };
            log::warn!("engine {}: {asked} refused: {whose}{bound} {sentence}{left_out}", self.index);
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

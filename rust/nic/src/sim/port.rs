//! The NIC of a simulated host as a whole.

use super::Net;
use crate::{Port, PortCounters, PortState};

/// A simulated host's NIC, beside its queues.
#[derive(Debug)]
pub(super) struct SimPort {
    pub net: Net,
    pub host: usize,
}

impl Port for SimPort {
    fn driver(&self) -> &str {
        "sim"
    }

    fn counters(&self) -> PortCounters {
        self.net.port_counters(self.host)
    }

    fn state(&self) -> PortState {
        self.net.lock().state(self.host)
    }
}

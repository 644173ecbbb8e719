//! Every NIC that DPDK drives.
//!
//! ```no_run
//! use machnet_nic::dpdk::{Device, Eal, EalConfig, Memif, MemifRole, PortConfig};
//! let eal = Eal::start(&EalConfig::unprivileged("demo"))?;
//! let link = Memif::new("/run/machnet/link.sock", MemifRole::Server);
//! let queues = eal.open(&PortConfig::new(Device::Memif(link)))?; // one per engine: give each to its thread
//! # Ok::<(), machnet_nic::dpdk::DpdkError>(())
//! ```

mod config;
mod error;

pub use config::{Device, EalConfig, Memif, MemifRole, Memory, PortConfig};
pub use error::DpdkError;

/// DPDK's environment, running. Ports keep it alive; dropping the last of all stops it.
pub struct Eal {
    _private: (),
}

/// One queue pair of one port.
pub struct DpdkQueue {
    _private: (),
}

impl Eal {
    /// Starts EAL and takes over its log (target `dpdk` of `log`). The calling thread's CPU affinity stays as it was.
    pub fn start(config: &EalConfig) -> Result<Eal, DpdkError> {
        let _ = config;
        todo!()
    }

    /// Opens one port and returns its queues, number 0 first. The port closes when the last queue is dropped.
    pub fn open(&self, config: &PortConfig) -> Result<Vec<DpdkQueue>, DpdkError> {
        let _ = config;
        todo!()
    }
}

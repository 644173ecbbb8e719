//! Every NIC that DPDK drives.
//!
//! ```no_run
//! use machnet_nic::dpdk::{Device, Eal, EalConfig, Memif, MemifRole, PortConfig};
//! let eal = Eal::start(&EalConfig::unprivileged("demo"))?;
//! let link = Memif::new("/run/machnet/link.sock", MemifRole::Server);
//! let queues = eal.open(&PortConfig::new(Device::Memif(link)))?; // one per engine: give each to its thread
//! # Ok::<(), machnet_nic::dpdk::DpdkError>(())
//! ```
//!
//! Frames wait in the driver's rings only: a burst is given back to its pool before `receive` returns. A thread that
//! uses a queue registers itself with EAL at its first burst.

mod config;
mod eal;
mod error;
mod examine;
mod find;
mod gate;
mod log;
mod memif;
mod packet;
mod port;
mod queue;
mod relay;
mod words;

pub use config::{Device, EalConfig, Memif, MemifRole, Memory, PortConfig};
pub use eal::Eal;
pub use error::DpdkError;
pub use examine::examine;
pub use port::{Port, PortStats};
pub use queue::{DpdkQueue, Drops};

//! Every NIC that DPDK drives.
//!
//! ```no_run
//! use machnet_nic::{Device, EalConfig, Memif, MemifRole, PortConfig, dpdk};
//! let link = Memif::new("/run/machnet/link.sock", MemifRole::Server);
//! let nic = dpdk::open(&Device::Memif(link), &PortConfig::default(), &EalConfig::unprivileged("demo"))?;
//! let queues = nic.queues; // one per engine: give each to its thread
//! # Ok::<(), dpdk::DpdkError>(())
//! ```
//!
//! Frames wait in the driver's rings only: a burst is given back to its pool before `receive` returns. A thread that
//! uses a queue registers itself with EAL at its first burst.

mod bell;
mod buffers;
mod counted;
mod descriptors;
mod devargs;
mod device;
mod drivers;
mod eal;
mod error;
mod ethdev;
mod examine;
mod find;
mod gate;
mod keeper;
mod kept;
mod line;
mod link;
mod log;
mod memif;
mod open;
mod packet;
mod port;
mod queue;
mod random;
mod relay;
mod seat;
mod slots;

pub use drivers::{drivers, version};
pub use eal::Eal;
pub use error::DpdkError;
pub use examine::examine;
pub use open::open;
pub use port::DpdkPort;
pub use queue::DpdkQueue;

//! Why a device could not be reached by AF_XDP.

use std::fmt;
use std::io;

/// A refusal, with the value, the bound and the next step.
#[derive(Debug)]
pub enum XdpError {
    /// The kernel has no such device in this network namespace.
    NoSuchDevice(String),
    /// What was asked for, or the device as it is set up, does not fit.
    Config(String),
    /// This process may not do it.
    NeedsCapability {
        /// The device.
        device: String,
        /// What is missing, such as `CAP_BPF`.
        capability: String,
    },
    /// The kernel or the device's driver said no.
    Refused {
        /// The device.
        device: String,
        /// What was attempted.
        step: String,
        /// What the kernel said.
        error: io::Error,
        /// What that means here, and the next step; may be empty.
        hint: String,
    },
}

impl fmt::Display for XdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            XdpError::NoSuchDevice(name) => {
                write!(
                    f,
                    "find the device {name} for AF_XDP: this network namespace has none of that name; see `ip link`"
                )
            }
            XdpError::Config(text) => f.write_str(text),
            XdpError::NeedsCapability { device, capability } => write!(
                f,
                "AF_XDP on {device}: this process lacks {capability}; start it as root, or give it CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF (setcap, AmbientCapabilities=, --cap-add; in a container those of the host's user namespace)"
            ),
            XdpError::Refused { device, step, error, hint } => {
                write!(f, "AF_XDP on {device}: {step}: {error}")?;
                if hint.is_empty() { Ok(()) } else { write!(f, "; {hint}") }
            }
        }
    }
}

impl std::error::Error for XdpError {}

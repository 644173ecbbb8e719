//! Puts the program on a device and a socket on each of its queues: the fastest way that device and settings allow, and why no
//! faster one.

use super::error::XdpError;
use super::program;
use super::socket::{self, Socket};
use super::sys;
use super::{Way, XdpMode};
use crate::kernel::KernelDevice;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

/// What serves any device of so many queues: the program, and the map that it looks sockets up in.
pub(super) struct Filter {
    program: OwnedFd,
    map: OwnedFd,
}

/// A device with our program and our sockets on it.
pub(super) struct Attached {
    /// The program is on the device as long as this lives.
    pub link: OwnedFd,
    pub sockets: Vec<Socket>,
    pub way: Way,
    /// Why it is no faster one, a sentence each.
    pub reasons: Vec<String>,
}

impl Filter {
    /// The program for a host with this address.
    pub(super) fn load(device: &str, ip: Ipv4Addr, queues: u16) -> Result<Filter, XdpError> {
        let map = sys::socket_map(queues.into())
            .map_err(|error| refused(device, "make a map of sockets (bpf)", error, String::new()))?;
        let program = sys::load(&program::assemble(ip, map.as_raw_fd()))
            .map_err(|(error, said)| refused(device, "load the XDP program (bpf)", error, said))?;
        Ok(Filter { program, map })
    }

    #[cfg(test)]
    pub(super) fn program(&self) -> &OwnedFd {
        &self.program
    }

    /// Attaches the program and opens the sockets.
    pub(super) fn attach(
        &self,
        name: &str,
        device: &KernelDevice,
        (queues, descriptors): (u16, u16),
        mode: XdpMode,
    ) -> Result<Attached, XdpError> {
        let mut reasons = Vec::new();
        let (link, native) = match sys::attach(&self.program, device.index, sys::NATIVE) {
            Ok(link) => (link, true),
            Err(error) if is_taken(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(refused(name, ATTACH, error, taken(name)));
            }
            Err(error) if mode == XdpMode::ZeroCopy => {
                let hint =
                    format!("{}; zero-copy takes it: use xdp_mode = \"auto\" or \"copy\"", native_hint(name));
                return Err(refused(name, ATTACH_NATIVE, error, hint));
            }
            Err(error) => {
                reasons.push(format!("{ATTACH_NATIVE}: {error}; {}", native_hint(name)));
                let link = sys::attach(&self.program, device.index, sys::GENERIC)
                    .map_err(|error| refused(name, ATTACH, error, taken(name)))?;
                (link, false)
            }
        };
        let open = |flags| self.sockets(device.index, queues, descriptors, flags);
        let zero_copy = match mode {
            XdpMode::Copy => None,
            _ if !native => None,
            _ => match open(libc::XDP_ZEROCOPY) {
                Ok(sockets) => Some(sockets),
                Err((step, error)) if mode == XdpMode::ZeroCopy => {
                    let hint =
                        "the device's driver has no zero-copy for it; use xdp_mode = \"auto\" or \"copy\"";
                    return Err(refused(name, step, error, hint.to_owned()));
                }
                Err((socket::BIND, error)) => {
                    reasons.push(format!("zero-copy: {}: {error}", socket::BIND));
                    None
                }
                Err((step, error)) => return Err(refused(name, step, error, hint(step))),
            },
        };
        let (sockets, zero_copy) = match zero_copy {
            Some(sockets) => (sockets, true),
            None => {
                (open(libc::XDP_COPY).map_err(|(step, error)| refused(name, step, error, hint(step)))?, false)
            }
        };
        let way = match (zero_copy, native) {
            (true, _) => Way::ZeroCopy,
            (false, true) => Way::CopyNative,
            (false, false) => Way::CopyGeneric,
        };
        Ok(Attached { link, sockets, way, reasons })
    }

    fn sockets(
        &self,
        device: u32,
        queues: u16,
        descriptors: u16,
        flags: u16,
    ) -> Result<Vec<Socket>, (&'static str, io::Error)> {
        (0..u32::from(queues))
            .map(|queue| {
                let socket = Socket::open(device, queue, descriptors.into(), flags)?;
                sys::map_socket(&self.map, queue, socket.fd())
                    .map_err(|error| ("put it into the map of sockets", error))?;
                Ok(socket)
            })
            .collect()
    }
}

fn refused(device: &str, step: &str, error: io::Error, hint: String) -> XdpError {
    if error.raw_os_error() == Some(libc::EPERM) {
        return XdpError::NeedsCapability {
            device: device.to_owned(),
            capability: format!("what it takes to {step}"),
        };
    }
    XdpError::Refused { device: device.to_owned(), step: step.to_owned(), error, hint }
}

/// What a refusal of this step means.
fn hint(step: &str) -> String {
    match step {
        socket::REGISTER => {
            "every queue takes 8 KiB of locked memory for each of its descriptors; raise the limit (ulimit -l, LimitMEMLOCK=, --ulimit memlock), give CAP_IPC_LOCK, or use fewer descriptors".to_owned()
        }
        socket::BIND => "if it is busy another program's AF_XDP socket has it".to_owned(),
        socket::OPEN => "this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS); 5.10 and newer have them".to_owned(),
        _ => String::new(),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

fn taken(name: &str) -> String {
    format!(
        "if it is busy another XDP program is there, which `ip link show dev {name}` tells by its number; end the program that put it there, or take it away (ip link set dev {name} xdp off)"
    )
}

fn native_hint(name: &str) -> String {
    format!(
        "its driver has none, or its MTU is too large for it (ip link set dev {name} mtu 3498), or of a veth the other end sends on more queues than this one receives on"
    )
}

const ATTACH: &str = "put the XDP program on it";
const ATTACH_NATIVE: &str = "have its driver run the XDP program";

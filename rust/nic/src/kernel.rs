//! What the kernel says of its own network devices in this process's network namespace, for the back ends that work over one.

use machnet_wire::Mac;
use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A device of the kernel's at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelDevice {
    /// Its number. Another device of the same name has another one.
    pub index: u32,
    pub mac: Mac,
    /// The largest packet it carries, bytes.
    pub mtu: u32,
    /// It was set up (`ip link set dev NAME up`).
    pub up: bool,
    /// It is up, and so is its link.
    pub running: bool,
}

/// Asks about a device.
///
/// # Errors
/// ENODEV: there is none of this name.
pub(crate) fn look(device: &str) -> io::Result<KernelDevice> {
    let mut asked = Asked::about(device)?;
    let mtu = asked.ask(libc::SIOCGIFMTU as _)?;
    let flags = asked.ask(libc::SIOCGIFFLAGS as _)?;
    let address = asked.ask(libc::SIOCGIFHWADDR as _)?;
    let index = asked.ask(libc::SIOCGIFINDEX as _)?;
    // SAFETY: the kernel wrote these members.
    let (mtu, flags, address, index) =
        unsafe { (mtu.ifru_mtu, flags.ifru_flags, address.ifru_hwaddr.sa_data, index.ifru_ifindex) };
    let up = c_int::from(flags) & libc::IFF_UP != 0;
    let mut mac = Mac([0; 6]);
    mac.0.iter_mut().zip(address).for_each(|(to, from)| *to = from as u8);
    Ok(KernelDevice { index: index as u32, mac, mtu: mtu.max(0) as u32, up, running: up && asked.has_link() })
}

/// Sets the device's flags to what they are: whether that is allowed.
#[cfg(feature = "dpdk")]
pub(crate) fn keep_flags(device: &str) -> io::Result<()> {
    let mut asked = Asked::about(device)?;
    asked.ask(libc::SIOCGIFFLAGS as _)?; // they stay in the request
    asked.ask(libc::SIOCSIFFLAGS as _).map(|_| ())
}

/// The IPv4 addresses that the kernel has on a device.
pub(crate) fn addresses(device: &str) -> Vec<Ipv4Addr> {
    let mut first = std::ptr::null_mut();
    // SAFETY: `first` is writable; a list that comes back is freed below.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut next = first;
    // SAFETY: entries of the list live until it is freed; names are C strings, and an address of the family AF_INET is a
    // whole `sockaddr_in`.
    unsafe {
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            let named = CStr::from_ptr(entry.ifa_name).to_bytes() == device.as_bytes();
            let ipv4 = entry.ifa_addr.as_ref().is_some_and(|a| c_int::from(a.sa_family) == libc::AF_INET);
            if named && ipv4 {
                let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                all.push(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)));
            }
        }
        libc::freeifaddrs(first);
    }
    all
}

/// How many receive queues a device has now: as ethtool tells, else as many as there are folders of them, else one.
#[cfg(feature = "xdp")]
pub(crate) fn receive_queues(device: &str) -> io::Result<u32> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    let mut asked = Asked::about(device)?;
    asked.request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    match asked.ask(SIOCETHTOOL) {
        Ok(_) if channels.receive + channels.combined > 0 => return Ok(channels.receive + channels.combined),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(error),
        _ => {}
    }
    let folders =
        std::fs::read_dir(format!("/sys/class/net/{device}/queues")).into_iter().flatten().flatten();
    let count = folders.filter(|f| f.file_name().as_encoded_bytes().starts_with(b"rx-")).count();
    Ok(count.max(1) as u32)
}

/// What `ethtool -l` shows; linux/ethtool.h: `ethtool_channels`.
#[cfg(feature = "xdp")]
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// Whether there is a carrier; linux/ethtool.h: `ethtool_value`.
#[repr(C)]
struct Link {
    command: u32,
    up: u32,
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GLINK: u32 = 0x0a;
#[cfg(feature = "xdp")]
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A question to the kernel about one device.
struct Asked {
    request: libc::ifreq,
    socket: OwnedFd,
}

impl Asked {
    fn about(device: &str) -> io::Result<Asked> {
        // SAFETY: all bits zero is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if device.is_empty() || device.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = from as c_char;
        }
        // SAFETY: no pointers; a descriptor that comes back is ours alone.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Asked { request, socket })
    }

    /// Whether it has a carrier, as far as its driver tells. The flag IFF_RUNNING follows that by up to a second.
    fn has_link(&mut self) -> bool {
        let mut link = Link { command: ETHTOOL_GLINK, up: 1 };
        self.request.ifr_ifru.ifru_data = (&raw mut link).cast();
        let told = self.ask(SIOCETHTOOL);
        told.is_err() || link.up != 0
    }

    fn ask(&mut self, what: libc::Ioctl) -> io::Result<libc::__c_anonymous_ifr_ifru> {
        // SAFETY: the request is writable and its name ends with a zero; each question reads or fills in no more than the request, and
        // what a member of it points to, which lives until the call is over.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut self.request) } {
            0 => Ok(self.request.ifr_ifru),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

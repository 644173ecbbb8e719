//! The system calls of AF_XDP sockets and of bpf(2), each behind a function that cannot be misused from safe code.

use super::program::Instruction;
use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What a socket's rings look like in its memory, as the kernel tells.
pub(super) type Offsets = libc::xdp_mmap_offsets;

/// An AF_XDP socket with nothing on it.
pub(super) fn xdp_socket() -> io::Result<OwnedFd> {
    socket(libc::AF_XDP, libc::SOCK_RAW, 0)
}

/// A socket that hears of every change of a network device in this namespace.
pub(super) fn link_events() -> io::Result<OwnedFd> {
    let events = socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::NETLINK_ROUTE)?;
    // SAFETY: all bits zero is a valid address.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = libc::RTMGRP_LINK as u32;
    bind(&events, &address)?;
    Ok(events)
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    owned(fd.into())
}

fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    // SAFETY: `address` is readable for its size.
    done(unsafe {
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), size_of::<T>() as libc::socklen_t)
    })
}

/// Binds an AF_XDP socket to a queue of a device.
pub(super) fn bind_queue(socket: &OwnedFd, device: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: device,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    bind(socket, &address)
}

/// Sets an option of a socket to a number.
pub(super) fn set(socket: &OwnedFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    set_to(socket, level, option, &value)
}

fn set_to<T>(socket: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let (at, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: `value` is readable for its size; no option used here makes the kernel keep the pointer.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, at, len) })
}

/// Registers memory for the frames of a socket.
///
/// # Safety
/// `memory` is mapped, writable, used for nothing else, and outlives the socket.
pub(super) unsafe fn register_frames(
    socket: &OwnedFd,
    memory: *mut u8,
    len: usize,
    frame: u32,
) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: memory as u64,
        len: len as u64,
        chunk_size: frame,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_to(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// Where a socket's rings are in their mappings.
pub(super) fn offsets(socket: &OwnedFd) -> io::Result<Offsets> {
    // SAFETY: offsets are numbers: all bits zero is valid.
    let mut offsets: Offsets = unsafe { std::mem::zeroed() };
    let told = get(socket, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    if told < size_of::<Offsets>() {
        // Before 5.4 rings had no flags, by which the kernel asks to be woken.
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(offsets)
}

/// What the kernel counts of a socket.
pub(super) fn statistics(socket: &OwnedFd) -> io::Result<libc::xdp_statistics> {
    // SAFETY: numbers: all bits zero is valid. An older kernel fills in the first of them.
    let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
    get(socket, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

fn get<T>(socket: &OwnedFd, option: c_int, value: &mut T) -> io::Result<usize> {
    let mut len = size_of::<T>() as libc::socklen_t;
    let at = std::ptr::from_mut(value).cast();
    // SAFETY: `value` is writable for `len` bytes; every type asked for here is numbers alone.
    done(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, at, &mut len) })?;
    Ok(len as usize)
}

/// Has the kernel send what is in the transmit ring.
#[inline]
pub(super) fn kick_transmit(socket: &OwnedFd) -> io::Result<()> {
    let (fd, nothing) = (socket.as_raw_fd(), std::ptr::null::<c_void>());
    // SAFETY: nothing is read from a null pointer with length 0.
    let sent = unsafe { libc::sendto(fd, nothing, 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel look at the fill ring again.
#[inline]
pub(super) fn kick_receive(socket: &OwnedFd) {
    let (fd, nothing) = (socket.as_raw_fd(), std::ptr::null_mut::<c_void>());
    // SAFETY: nothing is written to a null pointer with length 0. A refusal is asked for again in the next round.
    unsafe { libc::recvfrom(fd, nothing, 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut()) };
}

/// Forgets what a socket of [`link_events`] has to tell: its arrival is the news.
pub(super) fn drain(events: &OwnedFd) {
    let mut news = [0u8; 8192];
    // SAFETY: `news` is writable for its length; the socket does not block.
    while unsafe { libc::recv(events.as_raw_fd(), news.as_mut_ptr().cast(), news.len(), 0) } > 0 {}
}

/// Waits until one of them can be read, or for so many milliseconds; -1: without end.
pub(super) fn wait(fds: [BorrowedFd<'_>; 2], milliseconds: c_int) -> [bool; 2] {
    let mut polls = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: `polls` has two entries. After an error (a signal) they say nothing.
    unsafe { libc::poll(polls.as_mut_ptr(), 2, milliseconds) };
    polls.map(|poll| poll.revents != 0)
}

/// A map from receive queues to sockets.
pub(super) fn socket_map(queues: u32) -> io::Result<OwnedFd> {
    let asked = MapCreate { kind: BPF_MAP_TYPE_XSKMAP, key: 4, value: 4, entries: queues, flags: 0 };
    // SAFETY: the attributes hold no pointers.
    owned(unsafe { bpf(BPF_MAP_CREATE, &asked) })
}

/// Has frames of a receive queue go to a socket.
pub(super) fn map_socket(map: &OwnedFd, queue: u32, socket: &OwnedFd) -> io::Result<()> {
    let value = socket.as_raw_fd();
    let asked = MapUpdate {
        map: map.as_raw_fd(),
        pad: 0,
        key: (&raw const queue) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: key and value are readable for the four bytes that each has in such a map.
    done(unsafe { bpf(BPF_MAP_UPDATE_ELEM, &asked) } as c_int)
}

/// Loads an XDP program. With a refusal comes what the kernel's verifier says of it, if it says something.
pub(super) fn load(program: &[Instruction]) -> Result<OwnedFd, (io::Error, String)> {
    // Without a log first: that takes the kernel's memory, and is of use when something is wrong.
    load_with(program, &mut []).or_else(|_| {
        let mut log = vec![0u8; 64 << 10];
        load_with(program, &mut log).map_err(|error| {
            let said = log.split(|&byte| byte == 0).next().unwrap_or_default();
            (error, String::from_utf8_lossy(said).trim().replace('\n', "; "))
        })
    })
}

fn load_with(program: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME);
    let license = CString::from(c"MIT");
    let asked = ProgramLoad {
        kind: BPF_PROG_TYPE_XDP,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name,
        device: 0,
        attach: BPF_XDP,
    };
    // SAFETY: instructions and licence are readable, the log is writable, for as long as told; all live until the call is over.
    owned(unsafe { bpf(BPF_PROG_LOAD, &asked) })
}

/// Puts a program on a device for as long as what is returned lives; so it is gone with the process, however that ends.
pub(super) fn attach(program: &OwnedFd, device: u32, flags: u32) -> io::Result<OwnedFd> {
    let asked = LinkCreate { program: program.as_raw_fd(), device, attach: BPF_XDP, flags };
    // SAFETY: the attributes hold no pointers.
    owned(unsafe { bpf(BPF_LINK_CREATE, &asked) })
}

/// What a program does with a frame that came in on a queue of a device: its verdict.
#[cfg(test)]
pub(super) fn try_out(program: &OwnedFd, frame: &[u8], device: u32) -> io::Result<u32> {
    let context = [0u32, frame.len() as u32, 0, device, 0, 0];
    let mut asked = TestRun {
        program: program.as_raw_fd(),
        verdict: 0,
        frame_len: frame.len() as u32,
        out_len: 0,
        frame: frame.as_ptr() as u64,
        out: 0,
        repeat: 1,
        duration: 0,
        context_len: size_of_val(&context) as u32,
        context_out_len: 0,
        context: context.as_ptr() as u64,
        context_out: 0,
    };
    // SAFETY: frame and context are readable for their lengths; the kernel writes its answer into the attributes, which are ours.
    done(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut asked, size_of::<TestRun>()) }
        as c_int)?;
    Ok(asked.verdict)
}

/// Moves the calling thread to a network of its own, with nothing but a loopback device that is down.
#[cfg(test)]
pub(super) fn leave_network() -> io::Result<()> {
    // SAFETY: no pointers.
    done(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// # Safety
/// Pointers among the attributes are what the command wants.
unsafe fn bpf<T>(command: c_int, attributes: &T) -> i64 {
    // SAFETY: the attributes are readable for their size; the kernel takes what is missing as zero. The rest is the caller's.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) }
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every caller passes what a call that makes a descriptor returned: it is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn done(ret: c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// linux/bpf.h, `union bpf_attr`, the members that are used.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: RawFd,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach: u32,
}

#[repr(C)]
struct LinkCreate {
    program: RawFd,
    device: u32,
    attach: u32,
    flags: u32,
}

#[cfg(test)]
#[repr(C)]
struct TestRun {
    program: RawFd,
    verdict: u32,
    frame_len: u32,
    out_len: u32,
    frame: u64,
    out: u64,
    repeat: u32,
    duration: u32,
    context_len: u32,
    context_out_len: u32,
    context: u64,
    context_out: u64,
}

const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_PROG_LOAD: c_int = 5;
#[cfg(test)]
const BPF_PROG_TEST_RUN: c_int = 10;
const BPF_LINK_CREATE: c_int = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// What `bpftool prog` and `ip link` call our program.
const NAME: &[u8] = b"machnet";

/// Flag of [`attach`]: the kernel runs the program, behind its own receive path.
pub(super) const GENERIC: u32 = 1 << 1;
/// Flag of [`attach`]: the driver runs the program.
pub(super) const NATIVE: u32 = 1 << 2;

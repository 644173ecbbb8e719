//! Whole Machnet hosts inside a test process: engines, transport and shared memory as in machnetd, on the simulated NIC.
//! Applications attach with the ordinary client (machnet.h) over the socket that machnet_host_connect gives.
//!
//! A static library of its own, so that no program but a test carries the stack.
#![allow(non_camel_case_types, reason = "these are the names that C and Go see")]
#![allow(clippy::missing_safety_doc, reason = "the contract is the same for all and stands below")]

mod run;
mod system;
#[cfg(panic = "abort")]
mod unwind;
mod world;

use std::ffi::{CStr, c_char, c_int};
use std::net::Ipv4Addr;

use machnet_nic::sim::Link;
use machnet_wire::Nanos;

use run::Runner;
use world::{Plan, World};

/// A network of hosts. Its functions may be called from any thread, machnet_host_free alone at the end.
pub struct machnet_host_net(Runner);

/// How the links between hosts treat packets. Probabilities per packet are 0.0 to 1.0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct machnet_host_link {
    /// Lost.
    pub loss: f64,
    /// Arriving twice.
    pub duplication: f64,
    /// Held back, so that later ones overtake it.
    pub reorder: f64,
    /// With bits flipped.
    pub corruption: f64,
    /// Nanoseconds from departure to arrival.
    pub delay_ns: u64,
    /// Up to so many nanoseconds longer.
    pub jitter_ns: u64,
    /// Bits per second; 0: no limit.
    pub rate: u64,
}

/// A host.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct machnet_host_plan {
    /// IPv4 address, first byte on top; every host has its own.
    pub ip: u32,
    /// Engines, 1 to 128; each has a NIC queue.
    pub engines: u32,
    /// Bytes of an IP packet; 0: 1500.
    pub mtu: u32,
    /// Units under way per direction of a channel, a power of two; 0: the usual 1024.
    pub units: u32,
    /// Connections of a channel; 0: the usual 256.
    pub conns: u32,
}

/// Link-time witness of this API.
#[unsafe(no_mangle)]
pub extern "C" fn machnet_host_abi_2() {}

/// A network without hosts, standing still at time 0. `seed` decides every fault; `link` null: 10 us and faultless.
/// Null when the system refuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_new(
    seed: u64,
    link: *const machnet_host_link,
) -> *mut machnet_host_net {
    // SAFETY: null or readable, by the caller's contract.
    let link = unsafe { link.as_ref() }.map_or_else(Link::default, links);
    let runner = Runner::new(World::new(seed, link));
    runner.map_or(std::ptr::null_mut(), |runner| Box::into_raw(Box::new(machnet_host_net(runner))))
}

/// Ends the thread if there is one, and all hosts as by machnet_host_kill. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_free(net: *mut machnet_host_net) {
    if !net.is_null() {
        // SAFETY: `machnet_host_new` made it by `Box::into_raw`; the caller gives it back once and is alone.
        drop(unsafe { Box::from_raw(net) });
    }
}

/// Adds a host; returns its number, from 0, or -1 where the plan is out of bounds or its address taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_add(
    net: *mut machnet_host_net,
    plan: *const machnet_host_plan,
) -> c_int {
    // SAFETY: null or live, null or readable, by the caller's contract.
    let (Some(net), Some(plan)) = (unsafe { (net.as_ref(), plan.as_ref()) }) else { return FAILED };
    let (Ok(engines), Ok(mtu)) = (u16::try_from(plan.engines), u16::try_from(plan.mtu)) else {
        return FAILED;
    };
    let plan = Plan {
        ip: Ipv4Addr::from_bits(plan.ip),
        engines,
        mtu: if mtu == 0 { 1500 } else { mtu },
        units: plan.units,
        flows: plan.conns,
    };
    net.0.with(|world| world.add(plan)).map_or(FAILED, |number| number as c_int)
}

/// Starts a thread that runs the hosts in real time. 0, or -1 if one runs already or none is to be had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_start(net: *mut machnet_host_net) -> c_int {
    // SAFETY: null or live, by the caller's contract.
    let started = unsafe { net.as_ref() }.is_some_and(|net| net.0.start());
    if started { 0 } else { FAILED }
}

/// Without a thread: runs the hosts for so many nanoseconds of virtual time, and returns. 0, or -1 if a thread runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_step(net: *mut machnet_host_net, nanoseconds: u64) -> c_int {
    // SAFETY: null or live, by the caller's contract.
    let Some(net) = (unsafe { net.as_ref() }) else { return FAILED };
    if net.0.runs() {
        return FAILED;
    }
    net.0.with(|world| world.step(Nanos(nanoseconds)));
    0
}

/// Attaches whatever speaks over this connected SOCK_SEQPACKET socket, whose other end may be another process's. The host works on a
/// copy: the caller closes its own. 0, or -1 when the host is not there (any more), or this is no descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_serve(net: *mut machnet_host_net, host: c_int, socket: c_int) -> c_int {
    // SAFETY: null or live, by the caller's contract.
    let Some(net) = (unsafe { net.as_ref() }) else { return FAILED };
    let (Ok(host), Some(socket)) = (usize::try_from(host), system::copy(socket)) else { return FAILED };
    if net.0.with(|world| world.serve(host, socket)) { 0 } else { FAILED }
}

/// A connected socket for machnet_attach_fd, which owns it from then on; -1 when the host is not there (any more).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_connect(net: *mut machnet_host_net, host: c_int) -> c_int {
    // SAFETY: null or live, by the caller's contract.
    let Some(net) = (unsafe { net.as_ref() }) else { return FAILED };
    let (Ok(host), Ok((app, sidecar))) = (usize::try_from(host), system::socketpair()) else { return FAILED };
    if net.0.with(|world| world.serve(host, sidecar)) { app.into_raw() } else { FAILED }
}

/// The host dies as a process does: its applications find their channels down, its peers hear nothing more. 0, or -1 when
/// there is no such host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_kill(net: *mut machnet_host_net, host: c_int) -> c_int {
    // SAFETY: null or live, by the caller's contract.
    let Some(net) = (unsafe { net.as_ref() }) else { return FAILED };
    let killed = usize::try_from(host).is_ok_and(|host| net.0.with(|world| world.kill(host)));
    if killed { 0 } else { FAILED }
}

/// A host starts anew under its address and with its plan, as a process does after another has died: it knows nothing of what was. If
/// it lives, it dies first. 0, or -1 when there is no such host, or the system refuses a descriptor; then it is dead.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_restart(net: *mut machnet_host_net, host: c_int) -> c_int {
    // SAFETY: null or live, by the caller's contract.
    let Some(net) = (unsafe { net.as_ref() }) else { return FAILED };
    let started = usize::try_from(host).is_ok_and(|host| net.0.with(|world| world.restart(host)));
    if started { 0 } else { FAILED }
}

/// Changes how all links treat packets from now on; null: 10 us and faultless. 0, or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_set_links(
    net: *mut machnet_host_net,
    link: *const machnet_host_link,
) -> c_int {
    // SAFETY: null or live, null or readable, by the caller's contract.
    let (Some(net), link) = (unsafe { (net.as_ref(), link.as_ref()) }) else { return FAILED };
    net.0.with(|world| world.set_links(link.map_or_else(Link::default, links)));
    0
}

/// Changes how the link from one host to another treats packets from now on, in this direction alone; null: 10 us and faultless. 0, or
/// -1 when there are no two such hosts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_set_link(
    net: *mut machnet_host_net,
    from: c_int,
    to: c_int,
    link: *const machnet_host_link,
) -> c_int {
    // SAFETY: null or live, null or readable, by the caller's contract.
    let (Some(net), link) = (unsafe { (net.as_ref(), link.as_ref()) }) else { return FAILED };
    let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { return FAILED };
    let link = link.map_or_else(Link::default, links);
    if net.0.with(|world| world.set_link(from, to, link)) { 0 } else { FAILED }
}

/// A counter of a host, summed over its engines; -1 when there is no such host or counter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_counter(
    net: *mut machnet_host_net,
    host: c_int,
    name: *const c_char,
) -> i64 {
    // SAFETY: null or live, by the caller's contract.
    let (Some(net), false) = (unsafe { net.as_ref() }, name.is_null()) else { return FAILED.into() };
    // SAFETY: not null, and a C string by the caller's contract.
    let (Ok(name), Ok(host)) = (unsafe { CStr::from_ptr(name) }.to_str(), usize::try_from(host)) else {
        return FAILED.into();
    };
    let value = net.0.with(|world| world.counter(host, name));
    value.map_or(FAILED.into(), |value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// Copies the last packets and their fates, a line each, with a final zero, as far as they fit; returns the length of all of them
/// without it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn machnet_host_trace(
    net: *mut machnet_host_net,
    buf: *mut c_char,
    cap: usize,
) -> usize {
    // SAFETY: null or live, by the caller's contract.
    let Some(net) = (unsafe { net.as_ref() }) else { return 0 };
    let trace = net.0.with(|world| world.trace());
    if let (Some(room), false) = (cap.checked_sub(1), buf.is_null()) {
        let len = trace.len().min(room);
        // SAFETY: `buf` is writable for `cap` bytes and `len < cap`; a string of ours does not overlap the caller's buffer.
        unsafe {
            buf.copy_from_nonoverlapping(trace.as_ptr().cast(), len);
            buf.add(len).write(0);
        }
    }
    trace.len()
}

fn links(link: &machnet_host_link) -> Link {
    Link {
        loss: link.loss,
        duplication: link.duplication,
        reorder: link.reorder,
        corruption: link.corruption,
        delay: Nanos(link.delay_ns),
        jitter: Nanos(link.jitter_ns),
        rate: (link.rate > 0).then_some(link.rate),
        ..Link::default()
    }
}

const FAILED: c_int = -1;

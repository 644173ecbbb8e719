//! Two simulated hosts and frames with numbers between them.
#![allow(dead_code, reason = "each test uses a part of it")]

use machnet_nic::sim::{Host, Link, Net, SimQueue};
use machnet_nic::{Full, Mac, Offload, Queue};
use machnet_wire::Nanos;

/// Hosts 0 and 1, one queue each.
pub fn pair(seed: u64, link: Link) -> (Net, SimQueue, SimQueue) {
    let net = Net::new(seed);
    net.set_links(link);
    let a = net.add_host(Host::new(1)).remove(0);
    let b = net.add_host(Host::new(2)).remove(0);
    (net, a, b)
}

pub fn mac(n: u8) -> Mac {
    Host::new(n).mac
}

/// A frame of `len` bytes that begins with its addresses and a number.
pub fn send(queue: &mut SimQueue, to: Mac, number: u32, len: usize) -> Result<(), Full> {
    let from = queue.info().mac;
    queue.transmit(len, Offload::None, |b| {
        b.fill(0);
        b[..6].copy_from_slice(&to.0);
        b[6..12].copy_from_slice(&from.0);
        b[14..18].copy_from_slice(&number.to_be_bytes());
    })
}

/// Numbers of the frames that wait, in order.
pub fn numbers(queue: &mut SimQueue) -> Vec<u32> {
    let mut got = Vec::new();
    queue.receive(usize::MAX, &mut |b, _| got.push(u32::from_be_bytes([b[14], b[15], b[16], b[17]])));
    got
}

/// Steps from event to event; times at which frames came to `queue`, with their numbers.
pub fn arrivals(net: &Net, queue: &mut SimQueue) -> Vec<(Nanos, u32)> {
    let mut got = Vec::new();
    while let Some(at) = net.next_event() {
        net.set_now(at);
        got.extend(numbers(queue).into_iter().map(|n| (at, n)));
    }
    got
}

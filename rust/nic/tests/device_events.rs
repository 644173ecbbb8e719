//! A port of DPDK's that is started again, taken away and found again while its queue is in use. The device is `net_ring`, whose only queue gives
//! back what it was given. Unlike a NIC's driver, it does not give back the buffers that are in it when it is closed: the port needs others.
#![cfg(feature = "dpdk")]

use machnet_nic::dpdk::{DpdkPort, DpdkQueue, open};
use machnet_nic::{Device, EalConfig, Memory, Offload, Port, PortConfig, PortState, Queue};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One test, since EAL starts once in a process.
#[test]
fn a_port_goes_on_after_resets_and_removals() {
    let eal = EalConfig { memory: Memory::NoHuge { mib: 64 }, ..EalConfig::unprivileged("machnet-events") };
    let mut opened = open(&Device::Vdev("net_ring0".into()), &PortConfig::default(), &eal).unwrap();
    let mut queue = opened.queues.pop().unwrap();
    let port = queue.port().clone();
    until("it has its link", &mut queue, |_| {
        port.state() == PortState::Up && port.counters().link_ups == Some(1)
    });
    pass(&mut queue, 100);
    let level = free(&port);
    assert_eq!(port.counters().rx_frames, Some(queue.counters().rx_frames));

    // A hundred resets under traffic.
    for n in 1..=100 {
        port.reset();
        until("it is started again", &mut queue, |queue| {
            exchange(queue);
            port.counters().resets == Some(n)
        });
        pass(&mut queue, 1);
    }
    until("nothing is on its way", &mut queue, |queue| queue.receive(32, &mut |_, _| {}) == 0);
    assert!(free(&port) + HELD >= level, "{} of {level} buffers are left", free(&port));
    assert!(port.counters().tx_frames >= Some(queue.counters().tx_frames), "counters never go back");

    // Six removals, each of which takes 200 of the pool's 1024 buffers.
    let pool_before = free(&port);
    for n in 1..=6 {
        for _ in 0..200 / 8 {
            (0..8).for_each(|_| send(&mut queue).unwrap());
            queue.flush();
        }
        let dropped = queue.counters().link_down.unwrap();
        port.remove();
        until("it is gone", &mut queue, |_| port.state() == PortState::Gone);
        send(&mut queue).unwrap();
        queue.flush();
        assert_eq!(queue.counters().link_down, Some(dropped + 1));
        assert_eq!(queue.receive(32, &mut |_, _| {}), 0);
        until("it is back", &mut queue, |queue| {
            exchange(queue);
            port.counters().returns == Some(n) && port.counters().link_ups == Some(n + 1)
        });
        pass(&mut queue, 100);
    }
    until("nothing is on its way", &mut queue, |queue| queue.receive(32, &mut |_, _| {}) == 0);
    assert!(free(&port) + 200 + HELD >= pool_before, "{} buffers are left of {pool_before}", free(&port));
    let counters = port.counters();
    assert_eq!((counters.removals, counters.resets), (Some(6), Some(100)));
    assert_eq!((counters.link_ups, counters.link_downs), (Some(7), Some(6)));

    // The end waits for nobody, also while the device is gone.
    port.remove();
    until("it is gone", &mut queue, |_| port.state() == PortState::Gone);
    let begun = Instant::now();
    drop((queue, port, opened));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// Sends until so many frames have come back.
fn pass(queue: &mut DpdkQueue, frames: usize) {
    let mut left = frames;
    until("frames pass", queue, |queue| {
        left = left.saturating_sub(exchange(queue));
        left == 0
    });
}

/// Sends a frame and takes what has come, which is what was sent.
fn exchange(queue: &mut DpdkQueue) -> usize {
    let _ = send(queue);
    queue.flush();
    queue.receive(32, &mut |frame, _| assert_eq!(frame, [7; 60]))
}

fn send(queue: &mut DpdkQueue) -> Result<(), machnet_nic::Full> {
    queue.transmit(60, Offload::None, |frame| frame.fill(7))
}

fn until(what: &str, queue: &mut DpdkQueue, mut done: impl FnMut(&mut DpdkQueue) -> bool) {
    let begun = Instant::now();
    while !done(queue) {
        assert!(begun.elapsed() < Duration::from_secs(30), "for 30 s not: {what}");
        queue.idle();
        std::thread::yield_now();
    }
}

fn free(port: &Arc<DpdkPort>) -> u32 {
    // Nothing is told while the keeper works on the port.
    let begun = Instant::now();
    loop {
        match port.free_buffers(0) {
            0 if begun.elapsed() < Duration::from_secs(30) => std::thread::yield_now(),
            free => return free,
        }
    }
}

/// What the queue holds: a burst to be sent, and one to be filled.
const HELD: u32 = 32;

//! The program and the sockets against this machine's kernel. They need root, and networks of their own; without they say so.

use super::attach::Filter;
use super::{Way, Xdp, XdpMode, XdpQueue, open, sys};
use crate::{Offload, Opened, PortConfig, PortState, Queue, RxChecksum, kernel};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Command;

/// Runs a test in a network of its own; not at all, with a line that says so, where this process may not.
fn in_own_network(name: &str, test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || match sys::leave_network() {
        Ok(()) => {
            test();
            None
        }
        Err(error) => Some(error),
    });
    match thread.join() {
        Ok(None) => {}
        // Not by `eprintln!`, which shows nothing of a test that passes.
        Ok(Some(error)) => {
            let line = format!("{name}: skipped: a network of its own: {error}; it takes root\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status().expect("ip, of iproute2");
    assert!(done.success(), "ip {words}");
}

/// Waits for something. What is closed here may live a moment longer in a child that another test has just started.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 20, "not within 20 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 6);

/// An Ethernet frame of this type, padded as on the wire.
fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

fn ipv4(to: Ipv4Addr, protocol: u8, fragment: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 40];
    header.extend([0, 1]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(OTHER.octets());
    header.extend(to.octets());
    header.extend([0; 20]);
    header
}

fn arp(kind: [u8; 6], operation: u8, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = kind.to_vec();
    packet.extend([0, operation, 2, 2, 2, 2, 2, 2]);
    packet.extend(OTHER.octets());
    packet.extend([0; 6]);
    packet.extend(to.octets());
    packet
}

#[test]
fn the_program_takes_what_is_for_our_address_and_leaves_all_else_to_the_kernel() {
    in_own_network("the XDP program", || {
        ip("link set dev lo up");
        let lo = kernel::look("lo").unwrap();
        let filter = Filter::load("lo", OURS, 1).unwrap();
        let try_out = |frame: &[u8]| match sys::try_out(filter.program(), frame, lo.index).unwrap() {
            2 => "pass",
            4 => "ours",
            verdict => panic!("verdict {verdict} on {frame:x?}"),
        };
        let udp = frame(0x0800, &ipv4(OURS, 17, 0));
        // Without a socket frames that would be ours are the kernel's.
        assert_eq!(try_out(&udp), "pass");

        let attached = filter.attach("lo", &lo, (1, 64), XdpMode::Auto).unwrap();
        assert_eq!(attached.way, Way::CopyGeneric);
        let usual = [0, 1, 8, 0, 6, 4];
        let tagged = [&[0, 5, 8, 0][..], &ipv4(OURS, 17, 0)].concat();
        for (what, frame, verdict) in [
            ("UDP for us", udp.clone(), "ours"),
            ("UDP for another", frame(0x0800, &ipv4(OTHER, 17, 0)), "pass"),
            ("ICMP for us", frame(0x0800, &ipv4(OURS, 1, 0)), "ours"),
            (
                "TCP for us, which is refused by us and not by the kernel",
                frame(0x0800, &ipv4(OURS, 6, 0)),
                "ours",
            ),
            ("TCP for the kernel", frame(0x0800, &ipv4(OTHER, 6, 0)), "pass"),
            ("a first fragment for us", frame(0x0800, &ipv4(OURS, 17, 0x2000)), "ours"),
            ("a later fragment for us", frame(0x0800, &ipv4(OURS, 17, 0x00b9)), "ours"),
            ("a fragment for the kernel", frame(0x0800, &ipv4(OTHER, 17, 0x00b9)), "pass"),
            ("a request of ARP for us", frame(0x0806, &arp(usual, 1, OURS)), "ours"),
            ("an answer of ARP to us", frame(0x0806, &arp(usual, 2, OURS)), "ours"),
            ("ARP for another", frame(0x0806, &arp(usual, 1, OTHER)), "pass"),
            ("ARP of another kind", frame(0x0806, &arp([0, 1, 0x86, 0xdd, 6, 16], 1, OURS)), "pass"),
            ("a VLAN tag before what would be ours", frame(0x8100, &tagged), "pass"),
            ("IPv6", frame(0x86dd, &ipv4(OURS, 17, 0)), "pass"),
            ("an IPv4 header cut short", udp[..33].to_vec(), "pass"),
            ("an IPv4 header alone", udp[..34].to_vec(), "ours"),
            ("ARP cut short", frame(0x0806, &arp(usual, 1, OURS))[..41].to_vec(), "pass"),
            ("ARP alone", frame(0x0806, &arp(usual, 1, OURS))[..42].to_vec(), "ours"),
            ("an Ethernet header alone", udp[..14].to_vec(), "pass"),
        ] {
            assert_eq!(try_out(&frame), verdict, "{what}");
        }
        drop(attached);
        until("a socket that is closed gets no frames", || try_out(&udp) == "pass");
    });
}

#[test]
fn another_program_on_the_device_and_a_way_that_it_does_not_have_are_refused_with_the_next_step() {
    in_own_network("refusals of AF_XDP", || {
        ip("link set dev lo up");
        let lo = kernel::look("lo").unwrap();
        let filter = Filter::load("lo", OURS, 1).unwrap();
        let refused = |filter: &Filter, mode| {
            filter.attach("lo", &lo, (1, 64), mode).err().expect("a refusal").to_string()
        };
        let said = refused(&filter, XdpMode::ZeroCopy);
        assert!(
            said.starts_with("AF_XDP on lo: have its driver run the XDP program: ")
                && said.contains("xdp_mode"),
            "{said}"
        );
        let first = filter.attach("lo", &lo, (1, 64), XdpMode::Copy).unwrap();
        let second = Filter::load("lo", OTHER, 1).unwrap();
        let said = refused(&second, XdpMode::Copy);
        assert!(said.contains("busy") && said.contains("ip link show dev lo"), "{said}");
        drop(first);
        until("the device is free", || second.attach("lo", &lo, (1, 64), XdpMode::Copy).is_ok());
    });
}

/// Two devices of a pair, each opened by a host with an address of its own.
fn joined(descriptors: u16) -> [Opened<XdpQueue>; 2] {
    ip("link add left type veth peer name right");
    // Both before either is opened: what is sent before the link is up is dropped.
    for device in ["left", "right"] {
        ip(&format!("link set dev {device} up"));
    }
    [("left", OURS), ("right", OTHER)].map(|(device, address)| {
        let config = PortConfig { descriptors, ..PortConfig::default() };
        open(&Xdp::new(device), &config, address).unwrap()
    })
}

/// Sends a frame for `OTHER` whose last byte is its number.
fn send(queue: &mut XdpQueue, number: u8, len: usize) -> bool {
    let header = frame(0x0800, &ipv4(OTHER, 17, 0));
    let sent = queue.transmit(len, Offload::None, |bytes| {
        bytes.fill(number);
        bytes[..header.len()].copy_from_slice(&header);
        bytes[len - 1] = number;
    });
    queue.flush();
    sent.is_ok()
}

#[test]
fn frames_arrive_once_whole_and_in_order_however_often_the_rings_wrap() {
    in_own_network("frames over AF_XDP", || {
        let [mut a, mut b] = joined(64);
        assert_eq!((a.port.driver(), a.port.state()), ("af_xdp-copy-native", PortState::Up));
        let (from, to) = (&mut a.queues[0], &mut b.queues[0]);
        let (mut next, begun) = (0u64, std::time::Instant::now());
        for round in 0..2000u64 {
            for number in 0..round % 33 {
                let number = (next + number) as u8;
                assert!(send(from, number, 75 + usize::from(number) * 5));
            }
            let expected = next + round % 33;
            while next < expected {
                assert!(begun.elapsed().as_secs() < 60, "{next} of {expected} frames arrived");
                to.receive(7, &mut |bytes, verdict| {
                    let number = next as u8;
                    assert_eq!((bytes.len(), bytes[bytes.len() - 1]), (75 + usize::from(number) * 5, number));
                    assert_eq!(verdict, RxChecksum::MaybePartial);
                    next += 1;
                });
            }
        }
        let (sent, got) = (from.counters(), to.counters());
        assert_eq!((sent.tx_frames, sent.tx_full), (next, 0));
        assert_eq!((got.rx_frames, got.rx_bytes), (next, sent.tx_bytes));
        assert_eq!((b.port.counters().rx_missed, b.port.counters().rx_errors), (Some(0), Some(0)));
    });
}

#[test]
fn frames_that_find_no_buffer_are_counted_and_those_behind_them_arrive() {
    in_own_network("lost frames over AF_XDP", || {
        let [mut a, mut b] = joined(64);
        let (from, to) = (&mut a.queues[0], &mut b.queues[0]);
        for number in 0..200 {
            assert!(send(from, number, 100));
        }
        assert_eq!((to.backlog(), b.port.counters().rx_missed), (64, Some(136)));
        let mut got = Vec::new();
        assert_eq!(to.receive(100, &mut |bytes, _| got.push(bytes[99])), 64);
        assert_eq!(got, (0..64).collect::<Vec<u8>>());
        assert!(send(from, 7, 100));
        assert_eq!((to.backlog(), b.port.counters().rx_missed), (1, Some(136)));
    });
}

#[test]
fn while_the_link_is_down_frames_are_dropped_and_counted() {
    in_own_network("a link that is down", || {
        let [mut a, b] = joined(64);
        ip("link set dev right down");
        until("the link is down", || a.port.state() == PortState::LinkDown);
        for number in 0..200 {
            assert!(send(&mut a.queues[0], number, 100));
        }
        assert_eq!((a.queues[0].counters().link_down, a.queues[0].counters().tx_frames), (Some(200), 0));
        drop(b);
    });
}

//! The program and the sockets against this machine's kernel. They need root, and networks of their own; without they say so.

use super::attach::Filter;
use super::{Way, XdpMode, sys};
use crate::kernel;
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
        Ok(Some(error)) => eprintln!("{name}: skipped: a network of its own: {error}; it takes root"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status().expect("ip, of iproute2");
    assert!(done.success(), "ip {words}");
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
        assert_eq!(try_out(&udp), "pass", "the socket is gone");
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
        second.attach("lo", &lo, (1, 64), XdpMode::Copy).unwrap();
    });
}

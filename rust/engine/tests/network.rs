//! Frames that are no data: ARP, gateways, ping, and what is malformed.

use machnet_sim::{World, pattern};
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{Header, Kind, Mac, Nanos, Packet, Reset, arp, checksum, ether, icmp, ipv4};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

const STRANGER: Mac = Mac([2, 0, 0, 0, 9, 9]);
const STRANGER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
const ME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// One sidecar, and a second host on the link that only records what it is sent.
fn watched(change: impl FnOnce(&mut machnet_engine::EngineConfig)) -> (World, Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut w = World::seeded(1);
    w.add_with(1, 1, change);
    let seen = Arc::new(Mutex::new(Vec::new()));
    w.net.add_host(machnet_nic::sim::Host { mac: STRANGER, ..machnet_nic::sim::Host::new(9) });
    let copy = Arc::clone(&seen);
    w.net.lose_if(0, 1, move |frame| {
        let announces = matches!(frame::parse(frame), Ok(Frame::Arp(arp)) if arp.target_ip == arp.sender_ip);
        if !announces {
            copy.lock().expect("one thread").push(frame.to_vec());
        }
        false
    });
    (w, seen)
}

fn arp(operation: arp::Operation, sender: Ipv4Addr, target: Ipv4Addr, to: Mac) -> Vec<u8> {
    let mut frame = vec![0; 60];
    ether::Header { dst: to, src: STRANGER, kind: ether::kind::ARP }.emit(&mut frame);
    let packet = arp::Packet {
        operation,
        sender_mac: STRANGER,
        sender_ip: sender,
        target_mac: Mac::default(),
        target_ip: target,
    };
    packet.emit(&mut frame[ether::LEN..]);
    frame
}

fn machnet(header: Header, body: &[u8], route: impl FnOnce(&mut Route)) -> Vec<u8> {
    let mut where_to = Route {
        src_mac: STRANGER,
        dst_mac: Mac([2, 0, 0, 0, 0, 1]),
        src_ip: STRANGER_IP,
        dst_ip: ME,
        src_port: 31580,
        dst_port: 31581,
    };
    route(&mut where_to);
    let len = machnet_wire::header::LEN + body.len();
    let mut frame = vec![0; frame::UDP_HEADERS + len];
    let at = frame::emit_udp(&where_to, len, &mut frame);
    let at = at + header.emit(&[], &mut frame[at..]);
    frame[at..].copy_from_slice(body);
    frame::write_udp_checksum(&mut frame);
    frame
}

#[test]
fn arp_requests_for_us_are_answered_and_others_ignored() {
    let (mut w, seen) = watched(|_| {});
    w.net.inject(0, &arp(arp::Operation::Request, STRANGER_IP, Ipv4Addr::new(10, 0, 0, 7), Mac::BROADCAST));
    w.net.inject(0, &arp(arp::Operation::Request, STRANGER_IP, ME, Mac::BROADCAST));
    w.pass(Nanos::millis(1));
    let seen = seen.lock().expect("one thread");
    assert_eq!(seen.len(), 1);
    let Ok(Frame::Arp(reply)) = frame::parse(&seen[0]) else { panic!("{seen:?}") };
    assert_eq!((reply.operation, reply.sender_ip, reply.target_ip), (arp::Operation::Reply, ME, STRANGER_IP));
    assert_eq!((w.counter(0, "arp_received"), w.counter(0, "arp_replies")), (2, 1));
}

#[test]
fn another_station_with_our_address_is_counted_and_our_own_frames_are_not() {
    let (mut w, _seen) = watched(|_| {});
    // A gratuitous announcement, a request from a station with our address, and a reply in our place.
    w.net.inject(0, &arp(arp::Operation::Request, ME, ME, Mac::BROADCAST));
    w.net.inject(0, &arp(arp::Operation::Request, ME, STRANGER_IP, Mac::BROADCAST));
    w.net.inject(0, &arp(arp::Operation::Reply, ME, STRANGER_IP, Mac([2, 0, 0, 0, 0, 1])));
    w.pass(Nanos::millis(1));
    assert_eq!(w.counter(0, "arp_conflicts"), 3);
    // Some links bring a host its own broadcasts.
    let mut own = arp(arp::Operation::Request, ME, STRANGER_IP, Mac::BROADCAST);
    let packet = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: Mac([2, 0, 0, 0, 0, 1]),
        sender_ip: ME,
        target_mac: Mac::default(),
        target_ip: STRANGER_IP,
    };
    packet.emit(&mut own[ether::LEN..]);
    w.net.inject(0, &own);
    w.net.inject(0, &arp(arp::Operation::Request, STRANGER_IP, ME, Mac::BROADCAST));
    w.pass(Nanos::millis(1));
    assert_eq!((w.counter(0, "arp_conflicts"), w.counter(0, "arp_received")), (3, 5));
}

#[test]
fn a_host_with_a_whole_address_to_itself_sends_everything_to_the_gateway() {
    let gateway = Ipv4Addr::new(10, 0, 0, 254);
    let (mut w, seen) = watched(|c| {
        c.neighbor.prefix = 32;
        c.neighbor.gateway = Some(gateway);
    });
    let app = w.app(0, 0);
    w.apps[app].dial(STRANGER_IP, 8000, 0, 0);
    w.pass(Nanos::millis(1));
    let Ok(Frame::Arp(request)) = frame::parse(&seen.lock().expect("one thread")[0]) else {
        panic!("no ARP")
    };
    assert_eq!((request.operation, request.target_ip), (arp::Operation::Request, gateway));
    w.net.inject(0, &arp(arp::Operation::Reply, gateway, ME, Mac([2, 0, 0, 0, 0, 1])));
    w.pass(Nanos::millis(1));
    let seen = seen.lock().expect("one thread");
    let Ok(Frame::Udp { ether, ip, payload, .. }) = frame::parse(&seen[1]) else { panic!("{:?}", seen[1]) };
    assert_eq!((ether.dst, ip.dst), (STRANGER, STRANGER_IP));
    assert_eq!(Packet::parse(payload).map(|p| p.header.kind), Ok(Kind::Syn));
}

#[test]
fn a_fixed_neighbour_needs_no_arp() {
    let (mut w, seen) = watched(|c| c.neighbor.fixed.push((STRANGER_IP, STRANGER)));
    let app = w.app(0, 0);
    w.apps[app].dial(STRANGER_IP, 8000, 0, 0);
    w.pass(Nanos::millis(1));
    assert!(matches!(frame::parse(&seen.lock().expect("one thread")[0]), Ok(Frame::Udp { .. })));
}

#[test]
fn a_neighbour_in_use_is_refreshed_by_unicast_and_the_connection_lives_on() {
    let mut w = World::seeded(3);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    let before = w.counter(a, "arp_requests");
    w.pass(Nanos::secs(200));
    assert!((1..=4).contains(&(w.counter(a, "arp_requests") - before)));
    assert_eq!(w.counter(a, "arp_failed"), 0);
    w.carry((client, near), (server, far), pattern(2000, 1));
    w.assert_nothing_is_lost();
}

#[test]
fn ping_is_answered() {
    let (mut w, seen) = watched(|_| {});
    let echo = icmp::Echo { reply: false, id: 3, seq: 4, data: b"are you there" };
    let mut request = vec![0; ether::LEN + ipv4::LEN + echo.len()];
    ether::Header { dst: Mac([2, 0, 0, 0, 0, 1]), src: STRANGER, kind: ether::kind::IPV4 }.emit(&mut request);
    ipv4::Header { src: STRANGER_IP, dst: ME, protocol: ipv4::protocol::ICMP, ttl: 9 }
        .emit(echo.len(), &mut request[ether::LEN..]);
    echo.emit(&mut request[ether::LEN + ipv4::LEN..]);
    w.net.inject(0, &request);
    w.pass(Nanos::millis(1));
    let seen = seen.lock().expect("one thread");
    let Ok(Frame::Icmp { ip, echo: answer, .. }) = frame::parse(&seen[0]) else { panic!("{seen:?}") };
    assert_eq!((ip.src, ip.dst), (ME, STRANGER_IP));
    assert_eq!(answer, icmp::Echo { reply: true, ..echo });
}

#[test]
fn packets_of_no_connection_are_reset_at_a_limited_rate_and_resets_never() {
    let (mut w, seen) = watched(|c| c.rst_rate = 100);
    w.net.inject(0, &arp(arp::Operation::Request, STRANGER_IP, ME, Mac::BROADCAST));
    w.pass(Nanos::millis(1));
    seen.lock().expect("one thread").clear();
    let stray = Header { src: 5, dst: 6, tag: 77, ..Header::new(Kind::Ack) };
    for _ in 0..50 {
        w.net.inject(0, &machnet(stray, b"", |_| {}));
    }
    w.pass(Nanos::millis(1));
    assert_eq!(w.counter(0, "rst_sent"), 10, "a tenth of a second's worth");
    assert_eq!(w.counter(0, "rst_limited"), 40);
    {
        let seen = seen.lock().expect("one thread");
        let Ok(Frame::Udp { payload, udp, .. }) = frame::parse(&seen[0]) else { panic!("{seen:?}") };
        assert_eq!((udp.src, udp.dst), (31581, 31580), "back by the way it came");
        let packet = Packet::parse(payload).expect("a packet");
        assert_eq!((packet.header.kind, packet.header.src, packet.header.dst), (Kind::Rst, 6, 5));
        assert_eq!(Reset::parse(packet.payload).map(|r| r.echo), Ok(77));
    }
    let body = Reset { epoch: 1, echo: 77, reason: machnet_wire::Reason::Closed }.emit();
    let before = w.counter(0, "rst_sent") + w.counter(0, "rst_limited");
    w.net.inject(0, &machnet(Header { src: 5, dst: 6, ..Header::new(Kind::Rst) }, &body, |_| {}));
    w.pass(Nanos::secs(1));
    assert_eq!(w.counter(0, "rst_sent") + w.counter(0, "rst_limited"), before);
}

#[test]
fn malformed_frames_are_counted_by_reason() {
    let (mut w, _) = watched(|_| {});
    let good = machnet(Header::new(Kind::Ack), b"", |_| {});
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let fix_ip = |mut frame: Vec<u8>| {
        frame[24..26].fill(0);
        let sum = checksum::ones_complement(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("rx_short", good[..10].to_vec()),
        ("rx_short", good[..20].to_vec()),
        ("rx_bad_ip", changed(14, 0x65)),
        ("rx_bad_ip", good[..good.len() - 1].to_vec()),
        ("rx_fragment", fix_ip(changed(20, 0x20))),
        ("rx_bad_checksum", changed(22, 1)),
        ("rx_bad_checksum", changed(60, 1)),
        ("rx_bad_transport", changed(39, 200)),
        ("rx_other_protocol", fix_ip(changed(23, 6))),
        ("rx_other_protocol", changed(12, 0x86)),
        ("rx_other_address", machnet(Header::new(Kind::Ack), b"", |r| r.dst_ip = Ipv4Addr::new(10, 0, 0, 3))),
        ("rx_bad_ip", machnet(Header::new(Kind::Ack), b"", |r| r.src_ip = ME)),
        ("rx_bad_machnet", {
            let mut frame = changed(42, 9);
            frame[40..42].fill(0);
            frame::write_udp_checksum(&mut frame);
            frame
        }),
    ];
    for (name, frame) in cases {
        let before = w.counter(0, name);
        w.net.inject(0, &frame);
        w.pass(Nanos::micros(10));
        assert_eq!(w.counter(0, name), before + 1, "{name}: {:?}", w.counters(0));
    }
}

#[test]
fn no_frame_brings_the_engine_down() {
    let mut w = World::seeded(5);
    let (a, b) = (w.add(1, 2), w.add(2, 2));
    let (client, server) = (w.app(a, 0), w.app(b, 1));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    let mut state = 88172645463325252u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let header = Header {
            src: [8000, 40_000][(random() % 2) as usize],
            dst: [8000, 5][(random() % 2) as usize],
            tag: (random() % 4) as u32,
            credit: random() as u16,
            ..Header::new(
                [Kind::Syn, Kind::SynAck, Kind::Data, Kind::Ack, Kind::Rst, Kind::Ping, Kind::Paths]
                    [(random() % 7) as usize],
            )
        };
        let body = pattern((random() % 60) as usize, random());
        let from = Ipv4Addr::new(10, 0, 0, (random() % 4 + 1) as u8);
        let mut frame = machnet(header, &body, |r| {
            r.dst_ip = ip;
            r.src_ip = from;
        });
        for _ in 0..random() % 4 {
            let at = random() as usize % frame.len();
            frame[at] = random() as u8;
        }
        if random() % 2 == 0 {
            frame[40..42].fill(0);
            frame::write_udp_checksum(&mut frame);
        }
        frame.truncate(frame.len() - (random() % 3) as usize);
        w.net.inject(b, &frame);
        w.pass(Nanos(200));
    }
    w.carry((client, near), (server, far), pattern(100_000, 1));
    w.pass(Nanos::secs(10));
    w.assert_nothing_is_lost();
}

#[test]
fn an_engine_sleeps_only_without_work_and_is_woken_by_each_kind() {
    let mut w = World::seeded(6);
    let a = w.add(1, 2);
    let app = w.app(a, 0);
    w.pass(Nanos::millis(1));
    let readable = |w: &World| {
        let mut fds = Vec::new();
        w.sidecars[0].engines[0].fds(&mut fds);
        fds.len()
    };
    assert!(w.sidecars[0].engines[0].prepare_sleep());
    assert_eq!(readable(&w), 2, "bell and doorbell");
    w.sidecars[0].engines[0].wake();
    w.apps[app].listen(80);
    assert!(!w.sidecars[0].engines[0].prepare_sleep(), "a request waits");
    w.pass(Nanos::millis(1));
    assert!(w.sidecars[0].engines[0].prepare_sleep());
    w.sidecars[0].engines[0].wake();
    let handle = w.sidecars[0].shared.handle(0).expect("engine");
    handle.detach(12345);
    assert!(!w.sidecars[0].engines[0].prepare_sleep(), "a note waits");
}

#[test]
fn a_sleeper_is_not_woken_for_deadlines_that_have_moved_and_an_acknowledgement_may_wait_for_company() {
    let mut w = World::seeded(7);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 80);
    let (near, _) = w.connect(client, server, Ipv4Addr::new(10, 0, 0, 2), 80);
    w.pass(Nanos::millis(100));
    let due = |w: &World, at: usize, patience| {
        w.sidecars[at].engines[0].sleep_deadline(patience).expect("a deadline")
    };
    let (mut waited, mut moved) = (false, false);
    for us in 0..2000 {
        if us % 100 == 0 {
            w.apps[client].send(near, vec![7; 64]);
        }
        w.pass(Nanos::micros(1));
        let (alone, late) = (due(&w, b, Nanos::ZERO), due(&w, b, Nanos::micros(100)));
        assert!(alone <= late && late <= alone + Nanos::micros(100), "{alone:?} or {late:?}");
        waited |= late > alone && alone <= w.now + Nanos::micros(25);
        // The wheel still has the time at which a unit would have been sent again that is acknowledged.
        let filed = w.sidecars[a].engines[0].next_deadline().expect("a deadline");
        assert!(filed <= due(&w, a, Nanos::ZERO), "{filed:?}");
        moved |= filed + Nanos::micros(20) < due(&w, a, Nanos::ZERO);
    }
    assert!(waited && moved, "an acknowledgement waited: {waited}; a deadline moved: {moved}");
}

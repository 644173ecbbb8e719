//! Paths that take shorter packets than both hosts do: what one connection finds out serves the others, and a router's word is believed only
//! where it quotes a packet of ours, and then only enough to ask.

use std::sync::{Arc, Mutex};

use machnet_shm::FlowId;
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Kind, Mac, Nanos, Packet, ether, icmp, ipv4};

type End = (AppNo, FlowId);

/// Two hosts between which IP packets of more than `mtu` bytes vanish, the first with `engines`, and a connection from each of these.
fn rig(seed: u64, engines: u16, mtu: usize) -> (World, Vec<(End, End)>) {
    let mut w = World::seeded(seed);
    let (a, b) = (w.add(1, engines), w.add(2, 1));
    for (from, to) in [(0, 1), (1, 0)] {
        w.net.lose_if(from, to, move |frame| frame.len() > mtu + ether::LEN);
    }
    let server = w.app(b, 0);
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let ends = (0..engines)
        .map(|engine| {
            let client = w.app(a, engine);
            let (near, far) = w.connect(client, server, ip, 8000);
            ((client, near), (server, far))
        })
        .collect();
    (w, ends)
}

fn carry(w: &mut World, (near, far): (End, End), len: usize) {
    w.carry(near, far, pattern(len, w.now.0));
}

#[test]
fn what_one_connection_finds_out_serves_those_that_begin_and_those_of_other_engines() {
    let (mut w, ends) = rig(1, 2, 1400);
    carry(&mut w, ends[0], 100_000);
    w.pass(Nanos::secs(2));
    let (shrunk, probes) = (w.counter(0, "flow_pmtu_shrunk"), w.counter(0, "flow_pmtu_probes"));
    assert_eq!(
        (shrunk, w.counter(1, "flow_pmtu_shrunk")),
        (1, 0),
        "the other direction has had nothing to send"
    );
    assert!(w.counter(0, "flow_parts_sent") > 0 && w.counter(1, "flow_parts_received") > 0);
    // One that lives learns it from its first losses, without a probe; one that begins loses nothing.
    carry(&mut w, ends[1], 100_000);
    let (client, ip) = (ends[0].0.0, w.sidecars[1].ip);
    let lost = w.net.counts().lost;
    let (near, far) = w.connect(client, ends[0].1.0, ip, 8000);
    carry(&mut w, ((client, near), (ends[0].1.0, far)), 100_000);
    assert_eq!(w.net.counts().lost, lost);
    // The way back is another path.
    carry(&mut w, (ends[0].1, ends[0].0), 100_000);
    w.pass(Nanos::secs(2));
    assert_eq!((w.counter(0, "flow_pmtu_probes"), w.counter(1, "flow_pmtu_shrunk")), (probes, 1));
    w.assert_nothing_is_lost();
}

#[test]
fn where_nothing_passes_the_connection_ends_and_says_why() {
    let (mut w, ends) = rig(2, 1, 500);
    let ((client, near), (server, far)) = ends[0];
    w.apps[client].send(near, pattern(5000, 1));
    let begun = w.now;
    while w.apps[client].peek(near).over.is_none() {
        assert!(w.now - begun < Nanos::secs(6));
        w.apps[server].send(far, pattern(64, 2));
        w.pass(Nanos::millis(100));
    }
    assert_eq!(w.apps[client].peek(near).over, Some(machnet_shm::Reason::Timeout));
    assert_eq!((w.counter(0, "no_progress"), w.counter(0, "flow_timeouts")), (1, 0));
}

/// A router's message about the frame, which quotes `len` bytes of it from its IP header on.
fn too_long(frame: &[u8], len: usize, mtu: u16) -> Vec<u8> {
    let quoted = &frame[ether::LEN..][..len];
    let said = icmp::TooLong { mtu, quoted };
    let mut out = vec![0; ether::LEN + ipv4::LEN + icmp::LEN + len];
    ether::Header { dst: Mac([2, 0, 0, 0, 0, 1]), src: Mac([2, 0, 0, 0, 0, 2]), kind: ether::kind::IPV4 }
        .emit(&mut out);
    ipv4::Header {
        src: [10, 0, 0, 254].into(),
        dst: [10, 0, 0, 1].into(),
        protocol: ipv4::protocol::ICMP,
        ttl: 9,
    }
    .emit(icmp::LEN + len, &mut out[ether::LEN..]);
    said.emit(&mut out[ether::LEN + ipv4::LEN..]);
    out
}

#[test]
fn a_routers_word_counts_where_it_quotes_a_packet_of_ours() {
    let (mut w, ends) = rig(3, 2, 1500);
    let last = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&last);
    w.net.lose_if(0, 1, move |frame| {
        let data = match frame::parse(frame) {
            Ok(Frame::Udp { payload, .. }) => {
                Packet::parse(payload).is_ok_and(|p| p.header.kind == Kind::Data)
            }
            _ => false,
        };
        if data {
            *copy.lock().expect("one thread") = frame.to_vec();
        }
        frame.len() > 1400 + ether::LEN
    });
    let count = |w: &World| (w.counter(0, "icmp_hints"), w.counter(0, "icmp_hints_ignored"));
    // Of the connection of the second engine, while the messages come to whatever queue they hash to.
    carry(&mut w, ends[1], 100);
    let frame = last.lock().expect("one thread").clone();
    let wrong = |at: usize| {
        let mut frame = frame.clone();
        frame[at] ^= 1;
        too_long(&frame, 60, 1400)
    };
    // Another tag, another port of Machnet's, another peer; a link that takes less than the least, or more than is sent.
    let machnet = frame::UDP_HEADERS;
    let lies = [
        wrong(machnet + 8),
        wrong(machnet + 5),
        wrong(ether::LEN + 19),
        too_long(&frame, 60, 575),
        too_long(&frame, 60, 1500),
    ];
    for (n, lie) in lies.iter().enumerate() {
        w.net.inject(0, lie);
        w.pass(Nanos::millis(1));
        assert_eq!(count(&w), (0, n as u64 + 1));
    }
    w.net.inject(0, &too_long(&frame, 60, 1400));
    w.pass(Nanos::secs(2));
    assert_eq!((count(&w).0, w.counter(0, "flow_pmtu_shrunk")), (1, 1), "the probes say so, too");
    // Nothing that is longer is sent any more.
    let lost = w.net.counts().lost;
    carry(&mut w, ends[1], 100_000);
    assert_eq!(w.net.counts().lost, lost);
}

/// Routers have to quote no more than 8 bytes behind the IP header: addresses and UDP ports.
#[test]
fn a_short_quotation_is_enough_on_the_engine_that_sent_the_packet() {
    let (mut w, ends) = rig(4, 1, 1500);
    let last = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&last);
    w.net.lose_if(0, 1, move |frame| {
        *copy.lock().expect("one thread") = frame.to_vec();
        frame.len() > 1400 + ether::LEN
    });
    w.apps[ends[0].0.0].send(ends[0].0.1, pattern(64, 1));
    w.pass(Nanos::micros(20));
    let frame = last.lock().expect("one thread").clone();
    w.net.inject(0, &too_long(&frame, 28, 1400));
    w.pass(Nanos::secs(2));
    assert_eq!((w.counter(0, "icmp_hints"), w.counter(0, "flow_pmtu_shrunk")), (1, 1));
    w.net.inject(0, &too_long(&frame, 20, 1300));
    w.pass(Nanos::millis(1));
    assert_eq!(w.counter(0, "icmp_hints_ignored"), 1);
}

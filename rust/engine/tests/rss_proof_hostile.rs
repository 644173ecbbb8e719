//! Peers that lie about queues, strangers that flood and replay: whoever lies harms itself, nobody is sent more than it sent, and all others
//! are served as before.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use machnet_nic::sim::Host;
use machnet_shm::{FlowId, Geometry};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{Flags, Header, Hello, Kind, Mac, Nanos, Packet, PathEntry, Seq};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const ENGINES: u16 = 4;
const CONNS: usize = 16;
/// Where a Machnet packet begins in its frame.
const AT: usize = frame::UDP_HEADERS;

/// A's connections to B, who is up to something or talked about, and to C, who is not.
struct Scene {
    w: World,
    client: AppNo,
    to_b: Vec<Conn>,
    to_c: Vec<Conn>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Clone, Copy)]
struct Conn {
    near: FlowId,
    far: (AppNo, FlowId),
}

/// What B sent to A.
#[derive(Default)]
struct Heard {
    /// Frames whose reports are to be told otherwise, held back.
    held: Vec<Vec<u8>>,
    /// Everything but data.
    kept: Vec<Vec<u8>>,
    bytes: usize,
    lying: bool,
    /// Nothing arrives.
    deaf: bool,
}

/// How a queue is told.
type Lie = fn(u16, usize) -> u16;

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut w = World::seeded(seed);
        (1..=3).for_each(|n| {
            w.add(n, ENGINES);
        });
        let geometry = Geometry { flows: 64, ..Geometry::DEFAULT };
        let client = w.app_with(A, 0, geometry);
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let hearing = Arc::clone(&heard);
        w.net.lose_if(B, A, move |bytes| hearing.lock().expect("one thread").hear(bytes));
        Scene { w, client, to_b: Vec::new(), to_c: Vec::new(), heard }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("one thread")
    }

    /// Connects to B and to C, to an application on each of their engines in turn.
    fn connect(&mut self, lie: Option<Lie>) {
        self.heard().lying = lie.is_some();
        let geometry = Geometry { flows: 64, ..Geometry::DEFAULT };
        for host in [B, C] {
            let servers: Vec<AppNo> = (0..ENGINES).map(|e| self.w.app_with(host, e, geometry)).collect();
            for (port, &server) in (8000..).zip(&servers) {
                self.w.listen(server, port);
            }
            for i in 0..CONNS {
                let (at, ip) = (i % servers.len(), self.w.sidecars[host].ip);
                let id = self.w.apps[self.client].dial(ip, 8000 + at as u16, 0, 0);
                let before = self.w.apps[servers[at]].accepted.len();
                let client = self.client;
                self.run("connecting", lie, |w| {
                    w.apps[client].dialled(id).is_some() && w.apps[servers[at]].accepted.len() > before
                });
                let near = self.w.apps[client].dialled(id).expect("dialled").flow;
                let far = self.w.apps[servers[at]].accepted[before].flow;
                let conns = if host == B { &mut self.to_b } else { &mut self.to_c };
                conns.push(Conn { near, far: (servers[at], far) });
            }
        }
    }

    /// Runs until `done`, with B's reports told otherwise.
    fn run(&mut self, what: &str, lie: Option<Lie>, mut done: impl FnMut(&mut World) -> bool) {
        let heard = Arc::clone(&self.heard);
        let mut lies = 0;
        self.w.run(what, |w| {
            let held = std::mem::take(&mut heard.lock().expect("one thread").held);
            for mut bytes in held {
                lie.into_iter().for_each(|lie| tell(&mut bytes, lie, &mut lies));
                w.net.inject(A, &bytes);
            }
            done(w)
        });
    }

    fn pass(&mut self, time: Nanos, lie: Option<Lie>) {
        let until = self.w.now + time;
        // Something is due at least that often, or what is held back would wait for it.
        while self.w.now < until {
            let step = self.w.now + Nanos::micros(50);
            self.w.pass(Nanos::micros(50));
            self.run("passing", lie, |w| w.now >= step);
        }
    }

    /// Carries a message each way on connections, and checks both.
    fn carry(&mut self, conns: &[Conn], lie: Option<Lie>) {
        let client = self.client;
        for (i, conn) in conns.iter().enumerate() {
            self.w.apps[client].send(conn.near, pattern(9000, i as u64));
            self.w.apps[conn.far.0].send(conn.far.1, pattern(9000, 100 + i as u64));
        }
        self.run("carrying", lie, |w| {
            conns.iter().all(|conn| {
                !w.apps[client].peek(conn.near).received.is_empty()
                    && !w.apps[conn.far.0].peek(conn.far.1).received.is_empty()
            })
        });
        for (i, conn) in conns.iter().enumerate() {
            let (near, far) =
                (self.w.apps[client].peek(conn.near).received.pop_front(), pattern(9000, 100 + i as u64));
            assert!(near == Some(far), "seed {}: A got something else", self.w.seed);
            let far = self.w.apps[conn.far.0].peek(conn.far.1).received.pop_front();
            assert!(
                far == Some(pattern(9000, i as u64)),
                "seed {}: the other end got something else",
                self.w.seed
            );
        }
    }

    /// Nothing that C receives comes in on a wrong queue.
    fn c_is_served(&mut self, lie: Option<Lie>) {
        let before = ["misdirected", "handover_in"].map(|name| self.w.counter(C, name));
        let conns = self.to_c.clone();
        self.carry(&conns, lie);
        let after = ["misdirected", "handover_in"].map(|name| self.w.counter(C, name));
        assert_eq!(after, before, "seed {}: packets to C on a wrong queue, and handed over", self.w.seed);
    }
}

impl Heard {
    /// Whether a frame is held back.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len();
        if self.deaf {
            return true;
        }
        let Ok(Frame::Udp { payload, .. }) = frame::parse(bytes) else { return false };
        let Ok(packet) = Packet::parse(payload) else { return false };
        if packet.header.kind != Kind::Data {
            self.kept.push(bytes.to_vec());
        }
        let reports = matches!(packet.header.kind, Kind::Paths | Kind::SynAck) || packet.hit.is_some();
        if reports && self.lying {
            self.held.push(bytes.to_vec());
        }
        reports && self.lying
    }
}

/// Changes every queue that a frame tells.
fn tell(bytes: &mut [u8], lie: Lie, lies: &mut usize) {
    let Ok(packet) = Packet::parse(&bytes[AT..]) else { return };
    let behind = AT + machnet_wire::header::LEN;
    let hit = packet.hit.is_some();
    let mut queues = Vec::new();
    if hit {
        queues.push(behind + 4);
    }
    match packet.header.kind {
        Kind::SynAck if Hello::parse(packet.payload).is_ok_and(|hello| hello.hit.is_some()) => {
            queues.push(behind + 22);
        }
        Kind::Paths => {
            let entries = behind + 8 * (packet.sack.words() + usize::from(hit));
            queues.extend((entries..bytes.len()).step_by(6).map(|entry| entry + 4));
        }
        _ => {}
    }
    for at in queues {
        let queue = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        *lies += 1;
        bytes[at..at + 2].copy_from_slice(&lie(queue, *lies).to_be_bytes());
    }
    frame::write_udp_checksum(bytes);
}

#[test]
fn a_peer_that_lies_about_its_queues_is_served_by_hand_over_and_nobody_else_notices() {
    let lies: [(&str, Lie); 4] = [
        ("all reach queue 0", |_, _| 0),
        ("the next queue", |queue, _| (queue + 1) % ENGINES),
        ("another each time", |_, n| n as u16 % ENGINES),
        ("by turns right and wrong", |queue, n| (queue + (n / 3) as u16 % 2) % ENGINES),
    ];
    for (seed, (name, lie)) in (60..).zip(lies) {
        let mut s = Scene::new(seed);
        s.connect(Some(lie));
        s.pass(Nanos::millis(500), Some(lie));
        let conns = s.to_b.clone();
        for _ in 0..20 {
            s.carry(&conns, Some(lie));
            s.pass(Nanos::millis(5), Some(lie));
        }
        s.c_is_served(Some(lie));
        let sent = |s: &Scene| ["probes_sent", "paths_sent", "rss_remapped"].map(|name| s.w.counter(A, name));
        let before = sent(&s);
        s.pass(Nanos::millis(500), Some(lie));
        for _ in 0..20 {
            s.carry(&conns, Some(lie));
            s.pass(Nanos::millis(5), Some(lie));
        }
        let after = sent(&s);
        println!(
            "{name:<26} probes, PATHS sent, remaps: {before:?} in the first second, {after:?} after the second"
        );
        assert!(after[0] <= 6000, "seed {seed}, {name}: {after:?}");
        assert!(
            after[0] - before[0] <= 500,
            "seed {seed}, {name}: A goes on searching: {before:?}, {after:?}"
        );
        s.c_is_served(Some(lie));
        s.heard().lying = false;
        s.w.assert_nothing_is_lost();
    }
}

#[test]
fn a_flood_of_questions_is_answered_with_fewer_bytes_and_others_are_served_meanwhile() {
    let mut s = Scene::new(70);
    s.connect(None);
    s.pass(Nanos::millis(100), None);
    // What A itself sends, by which the flood goes on.
    let last: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let hearing = Arc::clone(&last);
    s.w.net.lose_if(A, B, move |bytes| {
        *hearing.lock().expect("one thread") = Some(bytes.to_vec());
        false
    });
    let conns = s.to_b[..1].to_vec();
    s.carry(&conns, None);
    let bytes = last.lock().expect("one thread").clone().expect("A sent something");
    let (route, said) = read(&bytes);
    // It would see answers to what it never asked.
    s.heard().deaf = true;
    let (mut flooded, before) = (0, s.heard().bytes);
    for round in 0..200u32 {
        for i in 0..100 {
            let tx = said.tx + (1 + round * 100 + i);
            let header = Header { kind: Kind::Ping, flags: Flags::REPORT, tx, message_len: 0, ..said };
            let route = Route { src_port: 31_580 + (i % 512) as u16, ..route };
            let frame = emit(&route, &header, None, &[]);
            flooded += frame.len();
            s.w.net.inject(B, &frame);
        }
        s.w.pass(Nanos::micros(20));
    }
    let answered = s.heard().bytes - before;
    assert!(
        s.w.counter(B, "rx_over") + s.w.counter(B, "rx_no_flow") == 0,
        "seed {}: the connection ended",
        s.w.seed
    );
    println!("{flooded} bytes of questions, {answered} bytes of answers");
    assert!(answered <= flooded, "seed {}: {answered} bytes for {flooded}", s.w.seed);
    s.c_is_served(None);
    s.heard().deaf = false;
    let conns = s.to_b[1..].to_vec();
    s.carry(&conns, None);
}

#[test]
fn replayed_answers_change_nothing_that_lasts() {
    let mut s = Scene::new(71);
    s.connect(None);
    s.pass(Nanos::millis(100), None);
    let old = std::mem::take(&mut s.heard().kept);
    assert!(old.len() > 20, "SYN-ACKs and reports were heard");
    let counted = ["searches", "probes_sent", "pairs_verified", "rss_remapped", "flows"];
    let counts = |s: &Scene| counted.map(|name| s.w.counter(A, name));
    let before = counts(&s);
    let conns = s.to_b.clone();
    for _ in 0..20 {
        old.iter().for_each(|frame| s.w.net.inject(A, frame));
        s.carry(&conns, None);
    }
    assert_eq!(counts(&s), before, "seed {}: {counted:?}", s.w.seed);
    // They are no longer true, and said all the same: each time A believes them a little, and is put right.
    s.w.net.set_table(B, (0..128).map(|entry| (entry + 1) % ENGINES).collect());
    for _ in 0..20 {
        old.iter().for_each(|frame| s.w.net.inject(A, frame));
        s.carry(&conns, None);
        s.pass(Nanos::millis(2), None);
    }
    s.c_is_served(None);
    s.w.assert_nothing_is_lost();
}

#[test]
fn reports_under_no_tag_of_ours_teach_nothing() {
    let mut s = Scene::new(72);
    s.connect(None);
    s.pass(Nanos::millis(100), None);
    let counted = ["searches", "probes_sent", "paths_sent", "pairs_verified", "rss_remapped"];
    let counts = |s: &Scene| counted.map(|name| s.w.counter(A, name));
    let before = counts(&s);
    let old = std::mem::take(&mut s.heard().kept);
    let (route, said) =
        read(old.iter().rev().find(|frame| read(frame).1.tag != 0).expect("a packet with a tag"));
    for i in 0..2000u32 {
        let tag = said.tag ^ (1 + i);
        let lie = PathEntry { src: 31_580 + (i % 1024) as u16, dst: 31_580, queue: (i % 4) as u16 };
        let (kind, flags, hit) = match i % 4 {
            0 => (Kind::Paths, Flags::NONE, None),
            1 => (Kind::Ack, Flags::HIT, Some(lie)),
            2 => (Kind::Ping, Flags::REPORT, None),
            _ => (Kind::SynAck, Flags::REPORT | Flags::ECHO, None),
        };
        let header = Header { kind, flags, tag, tx: said.tx + 1 + i, message_len: 0, ..said };
        let hello = Hello { queues: ENGINES, hit: Some(lie), ..Hello::new(9, 1, 1500) }.emit();
        let body: Vec<u8> = match kind {
            Kind::Paths => [lie.src, lie.dst, lie.queue].map(u16::to_be_bytes).concat(),
            Kind::SynAck => hello.to_vec(),
            _ => Vec::new(),
        };
        // To the connection's own ports, and to ports of none.
        let header = if i % 8 < 4 { header } else { Header { dst: header.dst ^ 0x55, ..header } };
        s.w.net.inject(A, &emit(&route, &header, hit, &body));
        s.w.pass(Nanos::micros(2));
    }
    assert_eq!(counts(&s), before, "seed {}: {counted:?}", s.w.seed);
    assert!(s.w.counter(A, "rst_sent") <= 1010, "resets are limited");
    let conns = s.to_b.clone();
    s.carry(&conns, None);
    s.c_is_served(None);
    s.w.assert_nothing_is_lost();
}

/// SYNs in the name of a host that never asked, as many and by as many ports as one likes: it gets no more bytes than were sent in its name.
#[test]
fn a_spoofed_source_is_sent_no_more_bytes_than_were_sent_in_its_name() {
    for (seed, queues) in [(73, 1), (74, 4), (75, 64), (76, u16::MAX)] {
        let mut w = World::seeded(seed);
        let victim = Ipv4Addr::new(10, 0, 0, 9);
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        w.add_with(1, ENGINES, |config| config.neighbor.fixed = vec![(victim, mac)]);
        w.net.add_host(Host { mac, ..Host::new(9) });
        let server = w.app(A, 2);
        w.listen(server, 8000);
        let bytes = Arc::new(Mutex::new(0));
        let hearing = Arc::clone(&bytes);
        w.net.lose_if(A, 1, move |frame| {
            // What the host says of itself to all at its start, nobody has bought.
            let announces =
                matches!(frame::parse(frame), Ok(Frame::Arp(arp)) if arp.target_ip == arp.sender_ip);
            *hearing.lock().expect("one thread") += if announces { 0 } else { frame.len() };
            true
        });
        let mut sent = 0;
        for i in 0..400u32 {
            let route = Route {
                src_mac: mac,
                dst_mac: Host::new(1).mac,
                src_ip: victim,
                dst_ip: w.sidecars[A].ip,
                src_port: 31_580 + (i % 97) as u16,
                dst_port: 31_580 + (i % 13) as u16,
            };
            // Copies of one SYN, and many of different connections.
            let copies = i % 20;
            let header = Header {
                src: 1000 + (i / 20) as u16,
                dst: 8000,
                unit: Seq(7),
                tx: Seq(7 + copies),
                ..Header::new(Kind::Syn)
            };
            let body = Hello { queues, queue: queues - 1, ..Hello::new(77 + i / 20, 1, 1500) }.emit();
            let frame = emit(&route, &header, None, &body);
            sent += frame.len();
            w.net.inject(A, &frame);
            // The first of each is alone for a while, so that nothing sent later makes up for what it bought.
            w.pass(Nanos::micros(if copies == 0 { 1000 } else { u64::from(i % 3) * 50 }));
            let so_far = *bytes.lock().expect("one thread");
            assert!(so_far <= sent, "seed {seed}: {so_far} bytes for {sent}");
        }
        w.pass(Nanos::secs(30));
        let got = *bytes.lock().expect("one thread");
        println!("{queues} queues claimed: {sent} bytes in its name, {got} to it");
        assert!(got > 0 && got <= sent, "seed {seed}: {got} bytes for {sent}");
        assert_eq!(w.apps[server].accepted.len(), 0, "nobody was there");
    }
}

/// SYNs in the name of a host that is known, and again as if their answers had not arrived: what is known of its pairs stays known.
#[test]
fn forged_syns_that_come_again_take_nothing_from_the_pool() {
    let mut s = Scene::new(77);
    s.connect(None);
    s.pass(Nanos::millis(100), None);
    // A would answer that it never asked.
    s.w.net.lose_if(B, A, |bytes| {
        matches!(frame::parse(bytes), Ok(Frame::Udp { payload, .. })
            if Packet::parse(payload).is_ok_and(|packet| (1000..1100).contains(&packet.header.dst)))
    });
    let (a, b) = (s.w.sidecars[A].ip, s.w.sidecars[B].ip);
    let epoch = s.w.sidecars[A].shared.config.epoch;
    for i in 0..40u32 {
        let route = Route {
            src_mac: Host::new(1).mac,
            dst_mac: Host::new(2).mac,
            src_ip: a,
            dst_ip: b,
            src_port: 31_580 + i as u16,
            dst_port: 31_600,
        };
        let hello = Hello { queues: ENGINES, ..Hello::new(77 + i, epoch, 1500) };
        for copy in 0..2 {
            let (src, tx) = (1000 + i as u16, Seq(7 + copy));
            let header = Header { src, dst: 8000, unit: Seq(7), tx, ..Header::new(Kind::Syn) };
            s.w.net.inject(B, &emit(&route, &header, None, &hello.emit()));
            s.w.pass(Nanos::millis(7));
        }
    }
    let before = s.w.counter(B, "pool_hits");
    let (client, accepted) = (s.client, s.w.apps.iter().map(|app| app.accepted.len()).sum::<usize>());
    let id = s.w.apps[client].dial(b, 8000, 0, 0);
    s.run("connecting", None, |w| {
        w.apps[client].dialled(id).is_some()
            && w.apps.iter().map(|app| app.accepted.len()).sum::<usize>() > accepted
    });
    assert_eq!(s.w.counter(B, "pool_hits"), before + 1, "seed {}", s.w.seed);
}

fn read(bytes: &[u8]) -> (Route, Header) {
    let Ok(Frame::Udp { ether, ip, udp, payload, .. }) = frame::parse(bytes) else { panic!("{bytes:?}") };
    let route = Route {
        src_mac: ether.src,
        dst_mac: ether.dst,
        src_ip: ip.src,
        dst_ip: ip.dst,
        src_port: udp.src,
        dst_port: udp.dst,
    };
    (route, Packet::parse(payload).expect("a packet").header)
}

fn emit(route: &Route, header: &Header, hit: Option<PathEntry>, body: &[u8]) -> Vec<u8> {
    let len = machnet_wire::header::LEN + 8 * usize::from(hit.is_some()) + body.len();
    let mut bytes = vec![0; frame::UDP_HEADERS + len];
    let at = frame::emit_udp(route, len, &mut bytes);
    let at = at + header.emit_with(hit, None, &[], &mut bytes[at..]);
    bytes[at..].copy_from_slice(body);
    frame::write_udp_checksum(&mut bytes);
    bytes
}

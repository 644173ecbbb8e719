//! Floods of SYNs from addresses that nobody has: whoever is where he says he is reaches the port that is flooded, and the host on which it is
//! remembers little of the others.

use std::net::Ipv4Addr;

use machnet_nic::sim::{Host, Link};
use machnet_shm::{Geometry, Reason, Reply};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{Header, Hello, Kind, Mac, Nanos, Packet, Seq};

const PORT: u16 = 8000;

/// A caller, a server whose application takes what comes, and somebody on the link who floods it.
struct Rig {
    w: World,
    client: AppNo,
    server: AppNo,
    sent: u32,
}

impl Rig {
    fn new(seed: u64, engines: u16, backlog: u32) -> Rig {
        let mut w = World::seeded(seed);
        let wide = |config: &mut machnet_engine::EngineConfig| config.neighbor.prefix = 8;
        let (a, b) = (w.add_with(1, 1, wide), w.add_with(2, engines, wide));
        let (client, server) = (w.app(a, 0), w.app(b, engines - 1));
        let id = w.apps[server].listen_for(PORT, backlog);
        w.run("listening", |w| w.apps[server].take_reply(id).is_some());
        w.net.add_host(Host::new(9));
        Rig { w, client, server, sent: 0 }
    }

    /// One more SYN from an address of its own.
    fn forge(&mut self) {
        self.sent += 1;
        let n = self.sent;
        let header = Header { src: 40_000, dst: PORT, unit: Seq(n), tx: Seq(n), ..Header::new(Kind::Syn) };
        let from = Ipv4Addr::from_bits(0x0a10_0000 + n);
        let frame = packet(
            from,
            header,
            &Hello::new(n | 1 << 31, 5, 1500).emit(),
            (31_580 + n as u16 % 1000, 31_581),
        );
        self.w.net.inject(1, &frame);
    }

    /// The flood goes on for this long, 20 000 SYNs a second.
    fn flood(&mut self, time: Nanos) {
        let until = self.w.now + time;
        while self.w.now < until {
            self.forge();
            self.w.pass(Nanos::micros(50));
        }
    }

    fn dial(&mut self) -> u32 {
        let ip = self.w.sidecars[1].ip;
        self.w.apps[self.client].dial(ip, PORT, 0, 1000)
    }
}

fn packet(from: Ipv4Addr, header: Header, body: &[u8], ports: (u16, u16)) -> Vec<u8> {
    let route = Route {
        src_mac: Mac([2, 0, 0, 0, 0, 9]),
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        src_ip: from,
        dst_ip: Ipv4Addr::new(10, 0, 0, 2),
        src_port: ports.0,
        dst_port: ports.1,
    };
    let len = machnet_wire::header::LEN + body.len();
    let mut frame = vec![0; frame::UDP_HEADERS + len];
    let at = frame::emit_udp(&route, len, &mut frame);
    let at = at + header.emit(&[], &mut frame[at..]);
    frame[at..].copy_from_slice(body);
    frame::write_udp_checksum(&mut frame);
    frame
}

#[test]
fn no_dial_is_lost_in_a_flood_whatever_the_backlog_and_however_many_engines_there_are() {
    for (seed, engines, backlog, loss) in
        [(1, 1, 128, 0.0), (2, 1, 1, 0.0), (3, 1, 2, 0.0), (4, 4, 128, 0.0), (5, 2, 16, 0.05)]
    {
        let mut rig = Rig::new(seed, engines, backlog);
        rig.w.net.set_link(0, 1, Link { loss, ..Link::default() });
        rig.w.net.set_link(1, 0, Link { loss, ..Link::default() });
        rig.flood(Nanos::millis(200));
        let mut slowest = Nanos::ZERO;
        for n in 0..40 {
            let (id, began) = (rig.dial(), rig.w.now);
            while rig.w.apps[rig.client].dialled(id).is_none() {
                let failed = rig.w.apps[rig.client].reply(id);
                assert!(failed.is_none(), "seed {seed}, dial {n}: {failed:?}");
                rig.flood(Nanos::micros(50));
            }
            slowest = slowest.max(rig.w.now - began);
            let near = rig.w.apps[rig.client].dialled(id).expect("connected");
            let (client, server) = (rig.client, rig.server);
            rig.w.run("its other end", |w| w.apps[server].accepted.iter().any(|far| far.peer == near.local));
            let far =
                rig.w.apps[server].accepted.iter().find(|far| far.peer == near.local).expect("accepted").flow;
            rig.w.carry((client, near.flow), (server, far), pattern(3000, n));
            rig.w.apps[client].close(near.flow);
            rig.w.apps[server].close(far);
            rig.flood(Nanos::millis(3));
        }
        if loss == 0.0 {
            assert!(slowest < Nanos::millis(30), "seed {seed}: {slowest:?}");
        }
        let counter = |name| rig.w.counter(1, name);
        assert!(counter("cookies_sent") > u64::from(rig.sent) * 3 / 4, "seed {seed}");
        assert!(
            counter("cookies_accepted") >= 35 && counter("accepts") == 40,
            "seed {seed}: {:?}",
            rig.w.counters(1)
        );
        assert_eq!((counter("cookies_refused"), counter("syn_backlog"), counter("syn_overflow")), (0, 0, 0));
        // Of the forged ones as many as half of the places are remembered, and their addresses.
        let table = rig.w.sidecars[1].shared.neighbors.page(std::ops::Bound::Unbounded, 10_000);
        assert!(table.len() <= backlog as usize / 2 + 200, "seed {seed}: {} next hops", table.len());
        assert!(counter("arp_requests") < 2000, "seed {seed}: {}", counter("arp_requests"));
        // They are forgotten when it is over.
        rig.w.pass(Nanos::secs(7));
        rig.w.assert_nothing_is_lost();
    }
}

#[test]
fn each_syn_of_a_flood_is_answered_by_as_many_bytes_at_most_and_by_its_own_station() {
    let mut rig = Rig::new(6, 1, 1);
    let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let copy = std::sync::Arc::clone(&answers);
    rig.w.net.lose_if(1, 2, move |frame| {
        if let Ok(Frame::Udp { ip, payload, .. }) = frame::parse(frame) {
            let packet = Packet::parse(payload).expect("a packet");
            let hello = Hello::parse(packet.payload).expect("a hello");
            copy.lock().expect("one thread").push((ip.dst, packet.header, hello, frame.len()));
        }
        false
    });
    rig.flood(Nanos::millis(10));
    let answers = std::mem::take(&mut *answers.lock().expect("one thread"));
    assert_eq!(answers.len(), rig.sent as usize);
    for (n, (to, header, hello, len)) in (1..).zip(answers) {
        assert_eq!(
            (to, header.kind, header.tag),
            (Ipv4Addr::from_bits(0x0a10_0000 + n), Kind::SynAck, n | 1 << 31)
        );
        assert_eq!((header.ack, header.ack_tx, len), (Seq(n), Seq(n), frame::UDP_HEADERS + 48 + Hello::LEN));
        assert_ne!(hello.cookie, 0);
    }
    assert_eq!((rig.w.counter(1, "arp_requests"), rig.w.sidecars[1].engines[0].flows()), (0, 0));
}

/// What was given to one caller is of no use to another, and one that is brought twice begins one connection at most.
#[test]
fn cookies_that_are_forged_stolen_or_old_begin_nothing() {
    let mut rig = Rig::new(7, 1, 1);
    let given = std::sync::Arc::new(std::sync::Mutex::new(None));
    let copy = std::sync::Arc::clone(&given);
    rig.w.net.lose_if(1, 2, move |frame| {
        if let Ok(Frame::Udp { payload, .. }) = frame::parse(frame) {
            let packet = Packet::parse(payload).expect("a packet");
            if packet.header.kind == Kind::SynAck {
                let hello = Hello::parse(packet.payload).expect("a hello");
                *copy.lock().expect("one thread") = Some((hello.tag, hello.cookie, packet.header.unit));
            }
        }
        false
    });
    rig.forge();
    rig.w.pass(Nanos::millis(1));
    let (tag, cookie, unit) = given.lock().expect("one thread").take().expect("a cookie");
    let bring = |rig: &mut Rig, from: u32, caller: u32, cookie: u64| {
        let flags = machnet_wire::Flags::HELLO | machnet_wire::Flags::PROBE;
        let header = Header {
            src: 40_000,
            dst: PORT,
            tag,
            unit: Seq(1),
            ack: unit,
            tx: Seq(2),
            flags,
            ..Header::new(Kind::Ack)
        };
        let body = Hello { cookie, ..Hello::new(caller, 5, 1500) }.emit();
        let frame = packet(Ipv4Addr::from_bits(0x0a10_0000 + from), header, &body, (31_581, 31_581));
        rig.w.net.inject(1, &frame);
        rig.w.pass(Nanos::millis(1));
        let engine = &rig.w.sidecars[1].engines[0];
        (engine.flows(), rig.w.counter(1, "cookies_accepted"), rig.w.counter(1, "cookies_refused"))
    };
    let own = 1 | 1 << 31;
    assert_eq!(bring(&mut rig, 2, own, cookie), (0, 0, 1), "from elsewhere");
    assert_eq!(bring(&mut rig, 1, own + 1, cookie), (0, 0, 2), "another caller");
    assert_eq!(bring(&mut rig, 1, own, cookie ^ 4), (0, 0, 3), "forged");
    assert_eq!(bring(&mut rig, 1, own, cookie), (1, 1, 3));
    assert_eq!(bring(&mut rig, 1, own, cookie), (1, 1, 3), "a copy");
    rig.w.pass(Nanos::secs(6));
    assert_eq!(rig.w.sidecars[1].engines[0].flows(), 0, "nobody took the SYN-ACK");
    assert_eq!(bring(&mut rig, 1, own, cookie), (1, 2, 3), "still good, as a copy of the SYN would be");
    rig.w.pass(Nanos::secs(7));
    assert_eq!(bring(&mut rig, 1, own, cookie), (0, 2, 4), "too old");
    assert_eq!((rig.w.counter(1, "accepts"), rig.w.apps[rig.server].accepted.len()), (0, 0));
}

/// A sidecar that starts anew does not know the cookies of the one before; whoever brings one back calls again.
#[test]
fn a_dial_outlives_a_restart_of_the_host_that_gave_it_a_cookie() {
    let mut rig = Rig::new(8, 1, 1);
    let first = rig.dial();
    rig.w.run("a first connection", |w| w.apps[0].dialled(first).is_some());
    rig.flood(Nanos::millis(1));
    let ip = rig.w.sidecars[1].ip;
    let id = rig.w.apps[rig.client].dial(ip, PORT, 0, 3000);
    // The cookie is on its way to the caller, or on its way back.
    rig.w.pass(Nanos::micros(15));
    rig.w.restart(1);
    let server = rig.w.app(1, 0);
    let listener = rig.w.apps[server].listen(PORT);
    rig.w.run("listening", |w| w.apps[server].take_reply(listener).is_some());
    rig.w.run("connecting", |w| w.apps[0].dialled(id).is_some() || w.apps[0].reply(id).is_some());
    assert!(rig.w.apps[rig.client].dialled(id).is_some(), "{:?}", rig.w.apps[rig.client].reply(id));
    assert_eq!(rig.w.counter(1, "cookies_refused"), 1);
}

/// Many honest callers at once: they have places as they come, be it by cookies, and nobody is told that he is connected who is not served.
#[test]
fn whoever_is_connected_by_a_cookie_has_a_place() {
    let mut w = World::seeded(9);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let many = Geometry { units: 512, flows: 512, unit_size: 1424 };
    let (client, server) = (w.app_with(a, 0, many), w.app_with(b, 0, many));
    w.apps[server].accepts = false;
    let id = w.apps[server].listen_for(PORT, 32);
    w.run("listening", |w| w.apps[server].take_reply(id).is_some());
    let ip = w.sidecars[b].ip;
    let dials: Vec<_> = (0..100).map(|_| w.apps[client].dial(ip, PORT, 0, 700)).collect();
    w.pass(Nanos::secs(1));
    let connected = dials.iter().filter(|&&id| w.apps[client].dialled(id).is_some()).count();
    let timed_out =
        |id| matches!(w.apps[client].reply(id), Some(Reply::ConnectFailed { reason: Reason::Timeout, .. }));
    assert_eq!((connected, w.apps[server].accepted.len()), (32, 32));
    assert_eq!(dials.iter().filter(|&&id| timed_out(id)).count(), 68);
    assert!(w.counter(b, "cookies_accepted") >= 16);
    w.apps[server].accepts = true;
    while w.apps[server].accepted.len() > w.apps[server].taken {
        w.apps[server].accept();
    }
    w.assert_nothing_is_lost();
}

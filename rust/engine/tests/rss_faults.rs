//! RSS-- where networks, NICs and peers do not play along: what is lost, what changes, what was never there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use machnet_engine::EngineConfig;
use machnet_nic::sim::{HashOver, Host};
use machnet_rss::{Pair, spray};
use machnet_shm::FlowId;
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{Flags, Header, Hello, Kind, Nanos, Packet, Seq, header};

/// Two sidecars, an application on the last engine of each; the second one listens on port 8000.
struct Two {
    w: World,
    client: AppNo,
    server: AppNo,
}

impl Two {
    fn new(seed: u64, n: u16, m: u16) -> Self {
        Self::with(seed, Host::new(2).queues(n), Host::new(1).queues(m), |_| {})
    }

    fn with(seed: u64, server: Host, client: Host, change: impl Fn(&mut EngineConfig)) -> Self {
        let mut w = World::seeded(seed);
        let (n, m) = (server.queues, client.queues);
        let (a, b) = (w.add_on(1, client, &change), w.add_on(2, server, &change));
        let (client, server) = (w.app(a, m - 1), w.app(b, n - 1));
        w.listen(server, 8000);
        Self { w, client, server }
    }

    fn connect(&mut self) -> (FlowId, FlowId) {
        let ip = self.w.sidecars[1].ip;
        self.w.connect(self.client, self.server, ip, 8000)
    }

    fn both_ways(&mut self, (near, far): (FlowId, FlowId), len: usize) {
        let (client, server) = (self.client, self.server);
        self.w.carry((client, near), (server, far), pattern(len, 1));
        self.w.carry((server, far), (client, near), pattern(len, 2));
    }

    fn count(&self, name: &str) -> [u64; 2] {
        [0, 1].map(|host| self.w.counter(host, name))
    }

    fn all(&self) -> [BTreeMap<String, u64>; 2] {
        [self.w.counters(0), self.w.counters(1)]
    }

    /// Data goes both ways by its engines' queues.
    fn assert_on_course(&mut self, flows: (FlowId, FlowId)) {
        let before = self.count("misdirected");
        self.both_ways(flows, 20_000);
        assert_eq!(self.count("misdirected"), before, "seed {}: {:#?}", self.w.seed, self.all());
    }
}

/// The UDP ports and the Machnet packet of a frame.
fn look<R>(frame: &[u8], each: impl FnOnce(Pair, &Packet<'_>) -> R) -> Option<R> {
    let Ok(Frame::Udp { udp, payload, .. }) = frame::parse(frame) else { return None };
    let packet = Packet::parse(payload).ok()?;
    Some(each(Pair { src: udp.src, dst: udp.dst }, &packet))
}

/// The pair by which the last data went from one host to the other, kept up to date.
fn watch(
    w: &World,
    from: usize,
    to: usize,
    lose: impl Fn(Pair) -> bool + Send + 'static,
) -> Arc<Mutex<Pair>> {
    let last = Arc::new(Mutex::new(Pair::NONE));
    let copy = Arc::clone(&last);
    w.net.lose_if(from, to, move |frame| {
        look(frame, |pair, packet| {
            let plain = matches!(packet.header.kind, Kind::Data | Kind::Ack);
            if plain {
                *copy.lock().expect("one thread") = pair;
            }
            lose(pair)
        })
        .unwrap_or(false)
    });
    last
}

#[test]
fn a_forged_source_is_sent_no_more_than_it_sent() {
    for m in [1, 4, 64] {
        let mut t = Two::new(1, 4, 1);
        // The address is known, and nobody is there.
        t.connect();
        t.w.sidecars[0].running = false;
        let sent = Arc::new(Mutex::new(0usize));
        let copy = Arc::clone(&sent);
        t.w.net.lose_if(1, 0, move |frame| {
            if look(frame, |_, packet| packet.header.dst >= 60_000) == Some(true) {
                *copy.lock().expect("one thread") += frame.len();
            }
            true
        });
        let mut forged = 0;
        for caller in 0..20u16 {
            let hello = Hello { queues: m, queue: m - 1, ..Hello::new(u32::from(caller) + 1, 99, 1500) };
            for copy in 0..30u16 {
                let header = Header {
                    src: 60_000 + caller,
                    dst: 8000,
                    unit: Seq(7),
                    tx: Seq(7 + u32::from(copy)),
                    ..Header::new(Kind::Syn)
                };
                let route = Route {
                    src_mac: machnet_wire::Mac([2, 0, 0, 0, 0, 1]),
                    dst_mac: machnet_wire::Mac([2, 0, 0, 0, 0, 2]),
                    src_ip: t.w.sidecars[0].ip,
                    dst_ip: t.w.sidecars[1].ip,
                    src_port: 31_600 + copy,
                    dst_port: 31_600 + caller,
                };
                let len = header::LEN + Hello::LEN;
                let mut frame = vec![0; frame::UDP_HEADERS + len];
                let at = frame::emit_udp(&route, len, &mut frame);
                let at = at + header.emit(&[], &mut frame[at..]);
                frame[at..].copy_from_slice(&hello.emit());
                frame::write_udp_checksum(&mut frame);
                forged += frame.len();
                t.w.net.inject(1, &frame);
                t.w.pass(Nanos::micros(20));
            }
        }
        t.w.pass(Nanos::secs(6));
        let sent = *sent.lock().expect("one thread");
        assert!(sent > 0 && sent <= forged, "{m} queues: {sent} bytes for {forged}");
    }
}

/// The path word of the packets behind it tells the same.
#[test]
fn a_lost_report_costs_nothing_where_a_hit_is_known() {
    let mut direct = 0;
    for seed in 0..20 {
        let mut t = Two::new(seed, 4, 4);
        let told = Arc::new(Mutex::new(false));
        let copy = Arc::clone(&told);
        t.w.net.lose_if(0, 1, move |frame| {
            look(frame, |_, packet| {
                *copy.lock().expect("one thread") |= packet.hit.is_some();
                packet.header.kind == Kind::Paths
            })
            .unwrap_or(false)
        });
        let flows = t.connect();
        t.both_ways(flows, 100);
        t.w.pass(Nanos::micros(500));
        if *told.lock().expect("one thread") {
            direct += 1;
            assert_eq!(t.count("searches_retried")[1], 0, "seed {seed}: {:#?}", t.all());
            t.assert_on_course(flows);
        }
    }
    assert!(direct >= 15, "{direct} of 20 had a hit to tell");
}

#[test]
fn reports_that_are_lost_are_asked_for_again() {
    for seed in 0..10 {
        let mut t = Two::new(seed, 4, 4);
        let end = t.w.now + Nanos::millis(8);
        let net = t.w.net.clone();
        let clock = Arc::new(Mutex::new(Nanos::ZERO));
        let now = Arc::clone(&clock);
        t.w.net.lose_if(0, 1, move |frame| {
            let early = *now.lock().expect("one thread") < end;
            early
                && look(frame, |_, packet| packet.hit.is_some() || packet.header.kind == Kind::Paths)
                    == Some(true)
        });
        let ip = t.w.sidecars[1].ip;
        let id = t.w.apps[t.client].dial(ip, 8000, 0, 0);
        let server = t.server;
        t.w.run("connecting", |w| {
            *clock.lock().expect("one thread") = net.now();
            w.apps[server].accepted.len() == 1
        });
        let (near, far) =
            (t.w.apps[t.client].dialled(id).expect("dialled").flow, t.w.apps[t.server].accepted[0].flow);
        t.w.run_for(Nanos::millis(100), |_| {
            *clock.lock().expect("one thread") = net.now();
            false
        });
        t.assert_on_course((near, far));
        t.w.assert_nothing_is_lost();
    }
}

/// The NIC sends all that comes from one peer to one queue.
#[test]
fn a_nic_that_hashes_addresses_only_costs_a_search_and_then_hand_overs() {
    for hash in [HashOver::Addresses, HashOver::Nothing] {
        let nic = Host { hash, ..Host::new(2).queues(4) };
        // The server is at the last engine, and a search is needed where another queue gets all.
        let Some(mut t) =
            (0..20).map(|seed| Two::with(seed, nic.clone(), Host::new(1), |_| {})).find_map(|mut t| {
                t.connect();
                t.w.pass(Nanos::millis(200));
                (t.count("searches_given_up")[0] > 0).then_some(t)
            })
        else {
            panic!("{hash:?}: every seed hits");
        };
        let sent = t.count("probes_sent")[0];
        let batch = u64::from(spray::batch(4));
        assert_eq!(sent + 1, batch + 2 * batch + 4 * batch + 8 * batch.min(16), "{hash:?}");
        let flows = t.connect();
        let (over, misdirected) = (t.count("handover_out")[1], t.count("misdirected")[1]);
        t.both_ways(flows, 100_000);
        assert!(t.count("handover_out")[1] > over + 70 && t.count("misdirected")[1] > misdirected + 70);
        t.w.pass(Nanos::millis(200));
        assert_eq!(t.count("probes_sent")[0], sent, "{hash:?}: nobody searches for a while");
        // The connection goes on, and its peer is told less and less often that it is on the wrong queue.
        let told = t.count("paths_sent")[1];
        for _ in 0..100 {
            t.both_ways(flows, 1000);
            t.w.pass(Nanos::millis(10));
        }
        assert!(t.count("paths_sent")[1] - told < 20);
        t.w.assert_nothing_is_lost();
    }
}

#[test]
fn a_hundred_connections_find_their_queues_again_when_the_keys_change() {
    let mut t = Two::new(7, 4, 4);
    let flows: Vec<_> = (0..100).map(|_| t.connect()).collect();
    t.w.pass(Nanos::millis(100));
    let probes = t.count("probes_sent");
    t.w.net.rekey(0);
    t.w.net.rekey(1);
    // Each says something in turn, so each finds out.
    for round in 0..3 {
        for &(near, far) in &flows {
            t.w.apps[t.client].send(near, pattern(2000, round));
            t.w.apps[t.server].send(far, pattern(2000, round));
        }
        t.w.pass(Nanos::millis(30));
    }
    assert!(t.count("rss_remapped").iter().all(|&n| n >= 1), "{:#?}", t.all());
    let before = t.count("misdirected");
    for &pair in &flows {
        for end in [(t.client, pair.0), (t.server, pair.1)] {
            let received = &mut t.w.apps[end.0].conn(end.1).received;
            assert_eq!(received.len(), 3);
            received.clear();
        }
        t.both_ways(pair, 100);
    }
    assert_eq!(t.count("misdirected"), before, "{:#?}", t.all());
    let sent = [0, 1].map(|host| t.count("probes_sent")[host] - probes[host]);
    assert!(sent.iter().all(|&n| n <= 10 * u64::from(spray::batch(4))), "{sent:?} probes");
    t.w.assert_nothing_is_lost();
}

/// A tuple of which nothing arrives any more: another one is taken, whichever direction it is and whether data flows or not.
#[test]
fn a_connection_survives_a_pair_that_goes_silent() {
    for (n, m) in [(1, 1), (4, 4)] {
        for (from, to) in [(0, 1), (1, 0)] {
            for idle in [false, true] {
                let mut t = Two::new(11, n, m);
                let flows = t.connect();
                let last = watch(&t.w, from, to, |_| false);
                t.both_ways(flows, 5000);
                t.w.pass(Nanos::millis(50));
                t.both_ways(flows, 5000);
                let blocked = *last.lock().expect("one thread");
                watch(&t.w, from, to, move |pair| pair == blocked);
                let what = format!("{n} x {m}, from {from}, idle {idle}");
                if idle {
                    t.w.pass(Nanos::secs(8));
                }
                let begun = t.w.now;
                t.both_ways(flows, 50_000);
                let took = t.w.now - begun;
                assert!(took < Nanos::millis(40), "{what}: {took:?} {:#?}", t.all());
                assert!(t.count("repathed")[from] >= 1, "{what}: {:#?}", t.all());
                assert_eq!(t.count("flow_timeouts"), [0, 0], "{what}");
                t.w.pass(Nanos::millis(100));
                t.assert_on_course(flows);
                t.w.assert_nothing_is_lost();
            }
        }
    }
}

/// Nothing comes in to the client but by the mirror of a pair by which something went out.
#[test]
fn the_mirrored_form_passes_a_network_that_lets_only_replies_in() {
    for (seed, n, m) in [(1, 4, 4), (2, 2, 2), (3, 1, 1), (4, 1, 4), (5, 4, 1), (6, 3, 5)] {
        let mut t = Two::with(seed, Host::new(2).queues(n), Host::new(1).queues(m), |config| {
            config.rss.mirrored = true;
        });
        let out = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let seen = Arc::clone(&out);
        t.w.net.lose_if(0, 1, move |frame| {
            look(frame, |pair, _| seen.lock().expect("one thread").insert(pair));
            false
        });
        let refused = Arc::new(Mutex::new(0));
        let refuses = Arc::clone(&refused);
        t.w.net.lose_if(1, 0, move |frame| {
            let stranger = look(frame, |pair, _| !out.lock().expect("one thread").contains(&pair.mirrored()))
                == Some(true);
            *refuses.lock().expect("one thread") += u32::from(stranger);
            stranger
        });
        let flows = t.connect();
        t.w.pass(Nanos::millis(300));
        t.assert_on_course(flows);
        let second = t.connect();
        t.w.pass(Nanos::millis(300));
        t.assert_on_course(second);
        // And when the keys change.
        t.w.net.rekey(0);
        t.w.net.rekey(1);
        for _ in 0..20 {
            t.both_ways(flows, 2000);
            t.w.pass(Nanos::millis(20));
        }
        t.assert_on_course(flows);
        assert_eq!(*refused.lock().expect("one thread"), 0, "seed {seed}");
        t.w.assert_nothing_is_lost();
    }
}

#[test]
fn where_nics_steer_one_syn_and_one_syn_ack_are_enough() {
    let host = |n| Host { steering: 64, ..Host::new(n).queues(8) };
    let mut t = Two::with(3, host(2), host(1), |_| {});
    let flows = t.connect();
    t.w.pass(Nanos::millis(1100));
    assert_eq!(t.count("flow_hellos_sent"), [1, 1]);
    t.assert_on_course(flows);
    for name in ["probes_sent", "searches", "paths_sent", "syn_sprayed"] {
        assert_eq!(t.count(name), [0, 0], "{name}");
    }
    t.w.assert_nothing_is_lost();
}

/// It loses what misses its queue, and waits for 300 ms where everything did.
#[test]
fn the_papers_form_connects_without_hand_over() {
    let (mut at_once, mut later) = (0, 0);
    for seed in 0..60 {
        let mut t =
            Two::with(seed, Host::new(2).queues(4), Host::new(1).queues(4), |config| config.rss.paper = true);
        let begun = t.w.now;
        let flows = t.connect();
        let took = t.w.now - begun;
        match took {
            _ if took < Nanos::millis(1) => at_once += 1,
            _ if took > Nanos::millis(200) => later += 1,
            _ => panic!("seed {seed}: {took:?}"),
        }
        t.assert_on_course(flows);
        assert_eq!((t.count("handover_out"), t.count("misdirected")), ([0, 0], [0, 0]));
        assert!(t.count("paper_dropped")[1] > 0);
        t.w.assert_nothing_is_lost();
    }
    assert!(at_once >= 50 && later >= 1, "{at_once} at once, {later} later");
}

/// The flag that asks for a report is on no packet of a peer with one queue.
#[test]
fn nothing_asks_a_peer_with_one_queue_where_its_packets_went() {
    let mut t = Two::new(5, 8, 1);
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    t.w.net.lose_if(1, 0, move |frame| {
        let asks = look(frame, |_, packet| packet.header.flags.has(Flags::REPORT)) == Some(true);
        *count.lock().expect("one thread") += u32::from(asks);
        false
    });
    let flows = t.connect();
    t.w.pass(Nanos::millis(100));
    t.assert_on_course(flows);
    assert_eq!(*asked.lock().expect("one thread"), 0);
    assert_eq!(t.count("probes_sent")[1], 0);
    t.w.assert_nothing_is_lost();
}

/// A pair that was known does not arrive any more, in one direction or the other: the set-up after the next SYN takes others, and the dead
/// one is not tried again.
#[test]
fn a_known_pair_that_is_dead_is_forgotten() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut t = Two::new(13, 4, 4);
        t.connect();
        t.w.pass(Nanos::millis(100));
        // Nothing of the pairs that are known arrives.
        let (known, fresh) =
            (Arc::new(Mutex::new(std::collections::HashSet::new())), t.w.now + Nanos::millis(1));
        let (net, seen) = (t.w.net.clone(), Arc::clone(&known));
        let clock = Arc::new(Mutex::new(net.now()));
        let now = Arc::clone(&clock);
        t.w.net.lose_if(from, to, move |frame| {
            let first = *now.lock().expect("one thread") < fresh;
            look(frame, |pair, packet| {
                let mut known = seen.lock().expect("one thread");
                if first && matches!(packet.header.kind, Kind::Syn | Kind::SynAck) {
                    known.insert(pair);
                }
                known.contains(&pair)
            }) == Some(true)
        });
        let ip = t.w.sidecars[1].ip;
        let mut times = Vec::new();
        for _ in 0..40 {
            let (client, server, begun) = (t.client, t.server, t.w.now);
            let (id, accepted) = (t.w.apps[client].dial(ip, 8000, 0, 0), t.w.apps[server].accepted.len());
            t.w.run("connecting", |w| {
                *clock.lock().expect("one thread") = net.now();
                w.apps[client].dialled(id).is_some() && w.apps[server].accepted.len() > accepted
            });
            times.push(t.w.now - begun);
            let near = t.w.apps[client].dialled(id).expect("dialled").flow;
            let far = t.w.apps[server].accepted[accepted].flow;
            t.both_ways((near, far), 1000);
            t.w.pass(Nanos::millis(20));
            t.assert_on_course((near, far));
        }
        assert_eq!(t.count("repathed"), [0, 0], "from {from}");
        assert!(times[0] > Nanos::millis(7) && times[0] < Nanos::millis(12), "from {from}: {times:?}");
        assert!(times[1..].iter().all(|&took| took < Nanos::millis(1)), "from {from}: {times:?}");
        t.w.assert_nothing_is_lost();
    }
}

/// Another sidecar with the same addresses, another epoch and another key: what was known of the first is worth nothing.
#[test]
fn a_peer_that_starts_anew_is_met_anew() {
    let mut t = Two::new(17, 4, 4);
    let flows = t.connect();
    t.w.pass(Nanos::millis(100));
    t.assert_on_course(flows);
    t.w.sidecars[1].running = false;
    let ip = t.w.sidecars[1].ip;
    let next = t.w.add_on(3, Host::new(3).queues(4), |config| config.neighbor.ip = ip);
    let server = t.w.app(next, 3);
    t.w.listen(server, 8000);
    // The address is known under the first one's MAC until the link says otherwise.
    t.w.sidecars[0].shared.neighbors.learn(ip, machnet_wire::Mac([2, 0, 0, 0, 0, 3]), true, t.w.now);
    for _ in 0..3 {
        let (near, far) = t.w.connect(t.client, server, ip, 8000);
        t.w.pass(Nanos::millis(100));
        let before = [t.w.counter(0, "misdirected"), t.w.counter(next, "misdirected")];
        t.w.carry((t.client, near), (server, far), pattern(20_000, 1));
        t.w.carry((server, far), (t.client, near), pattern(20_000, 2));
        assert_eq!([t.w.counter(0, "misdirected"), t.w.counter(next, "misdirected")], before);
    }
    assert!(t.w.counter(next, "rss_remapped") == 0 && t.w.counter(0, "rss_remapped") == 0);
}

/// What a search has not found is nothing against a NIC where its connection ended meanwhile.
#[test]
fn a_connection_that_ends_ends_its_search() {
    for seed in 0..8 {
        let nic = Host { hash: HashOver::Addresses, ..Host::new(2).queues(4) };
        let mut t = Two::with(seed, nic, Host::new(1), |_| {});
        let (near, far) = t.connect();
        t.w.apps[t.client].close(near);
        t.w.apps[t.server].close(far);
        t.w.pass(Nanos::millis(300));
        assert_eq!(t.count("searches_given_up"), [0, 0], "seed {seed}");
        assert!(t.count("probes_sent")[0] < 2 * u64::from(spray::batch(4)), "seed {seed}");
    }
}

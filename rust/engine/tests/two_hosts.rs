//! Two hosts, whole stack: data, ends, and everything that can go wrong between them.

use machnet_engine::End;
use machnet_nic::sim::Link;
use machnet_shm::{FlowId, Reason, Reply};
use machnet_sim::{AppNo, Out, World, pattern};
use machnet_wire::Nanos;
use std::net::Ipv4Addr;

/// Two hosts with a connection between an application on each.
fn pair(seed: u64) -> (World, (AppNo, FlowId), (AppNo, FlowId)) {
    let mut w = World::seeded(seed);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    (w, (client, near), (server, far))
}

fn connect_failure(w: &mut World, app: AppNo, id: u32) -> Reason {
    w.run("failing to connect", |w| w.apps[app].reply(id).is_some());
    match w.apps[app].take_reply(id) {
        Some(Reply::ConnectFailed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_echo_goes_there_and_back() {
    let (mut w, (client, near), (server, _)) = pair(1);
    w.apps[server].echoes = true;
    for (i, len) in [0, 1, 64, 96, 97, 1424, 1425, 100_000].into_iter().enumerate() {
        w.apps[client].send(near, pattern(len, i as u64));
        w.run("echo", |w| !w.apps[client].conn(near).received.is_empty());
        assert_eq!(
            w.apps[client].conn(near).received.pop_front(),
            Some(pattern(len, i as u64)),
            "{len} bytes"
        );
    }
    w.assert_nothing_is_lost();
}

#[test]
fn a_small_request_and_its_reply_are_two_packets() {
    let (mut w, near, far) = pair(2);
    w.apps[far.0].echoes = true;
    // The first one after a pause asks for credit.
    w.carry(near, near, pattern(64, 0));
    w.carry(near, near, pattern(64, 0));
    let before = w.net.counts().sent;
    for i in 0..10 {
        w.carry(near, near, pattern(64, i));
    }
    assert_eq!(w.net.counts().sent - before, 20);
}

#[test]
fn eight_mebibytes_in_one_message() {
    let (mut w, near, far) = pair(3);
    w.carry(near, far, pattern(8 << 20, 1));
    w.assert_nothing_is_lost();
}

#[test]
fn messages_survive_loss_duplication_and_reordering() {
    for seed in 10..14 {
        let (mut w, near, far) = pair(seed);
        w.net.set_links(Link::faulty(0.05));
        for i in 0..300u64 {
            w.apps[near.0].send(near.1, pattern((i * 37 % 6000) as usize, i));
            w.apps[far.0].send(far.1, pattern((i * 91 % 3000) as usize, i));
        }
        w.run("carrying", |w| {
            w.apps[far.0].conn(far.1).received.len() == 300
                && w.apps[near.0].conn(near.1).received.len() == 300
        });
        for i in 0..300u64 {
            assert_eq!(w.apps[far.0].conn(far.1).received[i as usize], pattern((i * 37 % 6000) as usize, i));
            assert_eq!(
                w.apps[near.0].conn(near.1).received[i as usize],
                pattern((i * 91 % 3000) as usize, i)
            );
        }
        w.net.set_links(Link::default());
        w.assert_nothing_is_lost();
        w.pass(Nanos::secs(2));
        for sidecar in [0, 1] {
            assert!(w.counter(sidecar, "flow_retransmitted") > 5, "{:?}", w.counters(sidecar));
            assert!(w.counter(sidecar, "flow_duplicates") > 5, "{:?}", w.counters(sidecar));
        }
    }
}

#[test]
fn corrupted_frames_are_counted_and_repaired() {
    let (mut w, near, far) = pair(20);
    w.net.set_links(Link { corruption: 0.2, ..Link::default() });
    for i in 0..200u64 {
        w.apps[near.0].send(near.1, pattern(500, i));
    }
    w.run("carrying", |w| w.apps[far.0].conn(far.1).received.len() == 200);
    for i in 0..200u64 {
        assert_eq!(w.apps[far.0].conn(far.1).received[i as usize], pattern(500, i));
    }
    assert!(w.counter(1, "rx_bad_checksum") > 10, "{:?}", w.counters(1));
    w.net.set_links(Link::default());
    w.assert_nothing_is_lost();
}

#[test]
fn a_port_without_a_listener_refuses_at_once() {
    let (mut w, near, _) = pair(4);
    let ip = w.sidecars[1].ip;
    let begun = w.now;
    let id = w.apps[near.0].dial(ip, 9, 0, 0);
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Refused);
    assert!(w.now - begun < Nanos::micros(200), "{:?}", w.now - begun);
    assert_eq!((w.counter(1, "syn_refused"), w.counter(0, "connects_refused")), (1, 1));
}

#[test]
fn a_silent_host_times_out_in_the_time_asked_for() {
    let (mut w, near, _) = pair(5);
    let ip = w.sidecars[1].ip;
    w.net.lose_if(0, 1, |_| true);
    let begun = w.now;
    let id = w.apps[near.0].dial(ip, 8000, 0, 300);
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Timeout);
    let took = w.now - begun;
    assert!((Nanos::millis(300)..Nanos::millis(310)).contains(&took), "{took:?}");
    assert_eq!(w.counter(0, "connects_timeout"), 1);
}

#[test]
fn a_connect_ends_in_its_own_time_though_its_next_hop_is_not_known_yet() {
    let (mut w, near, _) = pair(5);
    let id = w.apps[near.0].dial(Ipv4Addr::new(10, 0, 0, 77), 7000, 0, 50);
    let began = w.now;
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Timeout);
    let took = w.now - began;
    assert!(took >= Nanos::millis(50) && took < Nanos::millis(60), "after {took:?}, seed {}", w.seed);
}

#[test]
fn a_host_that_does_not_answer_arp_is_unreachable() {
    let (mut w, near, _) = pair(6);
    let begun = w.now;
    let id = w.apps[near.0].dial(Ipv4Addr::new(10, 0, 0, 77), 8000, 0, 30_000);
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Unreachable);
    let took = w.now - begun;
    assert!((Nanos::millis(1000)..Nanos::millis(1010)).contains(&took), "{took:?}");
    assert_eq!((w.counter(0, "arp_failed"), w.counter(0, "unreachable")), (1, 1));
    let id = w.apps[near.0].dial(Ipv4Addr::new(192, 168, 0, 1), 8000, 0, 30_000);
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Unreachable, "no route");
}

#[test]
fn a_peer_that_falls_silent_ends_its_connections_in_the_configured_time() {
    let (mut w, near, far) = pair(7);
    w.carry(near, far, pattern(64, 0));
    w.sidecars[1].running = false;
    w.apps[near.0].send(near.1, pattern(64, 1));
    let begun = w.now;
    w.run("dying", |w| w.apps[near.0].conn(near.1).over.is_some());
    let took = w.now - begun;
    assert_eq!(w.apps[near.0].conn(near.1).over, Some(Reason::Timeout));
    assert!((Nanos::secs(2)..Nanos::millis(2300)).contains(&took), "{took:?}");
    w.apps[near.0].close(near.1);
    w.run("forgetting", |w| w.sidecars[0].engines[0].flows() == 0);
    assert_eq!(w.sidecars[0].engines[0].usage()[0].1, (0, 0, 0));
}

#[test]
fn an_attempt_given_up_says_so() {
    let (mut w, near, _) = pair(8);
    let ip = w.sidecars[1].ip;
    w.net.lose_if(0, 1, |_| true);
    let id = w.apps[near.0].dial(ip, 8000, 0, 30_000);
    w.pass(Nanos::millis(20));
    assert!(w.apps[near.0].end.tx.request(machnet_shm::Request::Cancel { id }));
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Canceled);
}

#[test]
fn an_attempt_given_up_before_arp_answers_leaves_nothing_behind() {
    let (mut w, near, _) = pair(38);
    let nobody = Ipv4Addr::new(10, 0, 0, 77);
    let id = w.apps[near.0].dial(nobody, 8000, 777, 30_000);
    w.pass(Nanos::millis(1));
    assert_eq!(w.sidecars[0].engines[0].flows(), 2);
    assert!(w.apps[near.0].end.tx.request(machnet_shm::Request::Cancel { id }));
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Canceled);
    w.pass(Nanos::micros(1));
    assert_eq!(w.sidecars[0].engines[0].flows(), 1);
    let id = w.apps[near.0].dial(nobody, 8000, 777, 30_000);
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Unreachable, "the port is free again");
    w.assert_nothing_is_lost();
}

#[test]
fn local_ports_and_listeners_are_exclusive() {
    let (mut w, near, far) = pair(9);
    let ip = w.sidecars[1].ip;
    let id = w.apps[near.0].dial(ip, 8000, 555, 0);
    w.run("connecting", |w| w.apps[near.0].dialled(id).is_some() && w.apps[far.0].accepted.len() == 2);
    assert_eq!(w.apps[near.0].dialled(id).map(|e| e.local.1), Some(555));
    let again = w.apps[near.0].dial(ip, 8000, 555, 0);
    assert_eq!(connect_failure(&mut w, near.0, again), Reason::InUse);
    let taken = w.apps[far.0].listen(8000);
    w.run("answer", |w| w.apps[far.0].reply(taken).is_some());
    assert_eq!(
        w.apps[far.0].take_reply(taken),
        Some(Reply::ListenFailed { id: taken, reason: Reason::InUse })
    );
    let first = w.apps[near.0].dialled(id).expect("there").flow;
    w.apps[near.0].close(first);
    let far_flow = w.apps[far.0].accepted[1].flow;
    w.apps[far.0].close(far_flow);
    w.run("ending", |w| w.sidecars[0].engines[0].flows() == 1);
    let third = w.apps[near.0].dial(ip, 8000, 555, 0);
    w.run("the port is free again", |w| w.apps[near.0].dialled(third).is_some());
    w.assert_nothing_is_lost();
}

#[test]
fn a_message_given_up_half_way_leaves_the_others_whole() {
    let (mut w, near, far) = pair(30);
    w.apps[near.0].send(near.1, pattern(10, 1));
    w.apps[near.0].conn(near.1).outgoing.push_back(Out::Aborted(pattern(600_000, 2), 1_000_000));
    w.apps[near.0].send(near.1, pattern(5000, 3));
    w.run("carrying", |w| w.apps[far.0].conn(far.1).received.len() == 2);
    assert_eq!(w.apps[far.0].conn(far.1).received[1], pattern(5000, 3));
    assert_eq!(w.apps[far.0].conn(far.1).aborted, 1, "it had begun to arrive");
    w.assert_nothing_is_lost();
}

#[test]
fn a_finished_direction_leaves_the_other_open() {
    let (mut w, near, far) = pair(31);
    w.apps[near.0].send(near.1, pattern(3000, 1));
    w.apps[near.0].conn(near.1).outgoing.push_back(Out::Fin);
    w.run("half close", |w| w.apps[far.0].conn(far.1).fin);
    assert_eq!(w.apps[far.0].conn(far.1).received.len(), 1);
    w.carry(far, near, pattern(9000, 2));
    w.apps[far.0].conn(far.1).outgoing.push_back(Out::Fin);
    w.run("clean end", |w| {
        w.apps[near.0].conn(near.1).over.is_some() && w.apps[far.0].conn(far.1).over.is_some()
    });
    assert_eq!(w.apps[near.0].conn(near.1).over, Some(Reason::Clean));
    w.assert_nothing_is_lost();
}

#[test]
fn close_flushes_what_was_sent() {
    let (mut w, near, far) = pair(32);
    for i in 0..20 {
        w.apps[near.0].send(near.1, pattern(7000, i));
    }
    w.apps[near.0].close(near.1);
    w.run("flushing", |w| w.apps[far.0].conn(far.1).fin);
    assert_eq!(w.apps[far.0].conn(far.1).received.len(), 20);
    w.assert_nothing_is_lost();
}

#[test]
fn a_reset_reaches_the_other_end_with_its_reason() {
    let (mut w, near, far) = pair(33);
    w.apps[near.0].end.tx.reset(near.1);
    w.apps[near.0].conns.clear();
    w.run("reset", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert_eq!(w.apps[far.0].conn(far.1).over, Some(Reason::Reset));
    w.assert_nothing_is_lost();
}

/// An abortive close, as SO_LINGER with 0 asks for.
#[test]
fn a_reset_drops_what_was_not_sent() {
    let (mut w, near, far) = pair(35);
    for i in 0..20 {
        w.apps[near.0].send(near.1, pattern(7000, i));
    }
    w.run("submitting", |w| w.apps[near.0].conn(near.1).outgoing.is_empty());
    w.apps[near.0].end.tx.reset(near.1);
    w.apps[near.0].conns.clear();
    w.run("reset", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert_eq!(w.apps[far.0].conn(far.1).over, Some(Reason::Reset));
    let got = w.apps[far.0].conn(far.1).received.len();
    assert!(got < 20, "seed {}: all of it came", w.seed);
    w.assert_nothing_is_lost();
}

#[test]
fn an_application_that_does_not_read_stops_only_its_own_sender() {
    let (mut w, near, far) = pair(34);
    let (sidecar_a, sidecar_b) = (0, 1);
    let (c2, s2) = (w.app(sidecar_a, 0), w.app(sidecar_b, 0));
    w.listen(s2, 8001);
    let ip = w.sidecars[1].ip;
    let (near2, far2) = w.connect(c2, s2, ip, 8001);
    let (near3, far3) = w.connect(near.0, far.0, ip, 8000);
    w.apps[far.0].reads = false;
    for i in 0..1000 {
        w.apps[near.0].send(near.1, pattern(1000, i));
    }
    w.pass(Nanos::millis(100));
    let got = w.apps[far.0].conn(far.1).received.len();
    assert!((1..=16).contains(&got), "a few units of the channel, not {got}");
    w.carry((c2, near2), (s2, far2), pattern(300_000, 1));
    // Another connection on the same two channels, whose reader reads.
    w.carry((near.0, near3), (far.0, far3), pattern(50, 2));
    w.pass(Nanos::secs(5));
    assert_eq!(w.apps[near.0].conn(near.1).over, None, "not reading is not being dead");
    w.apps[far.0].reads = true;
    let begun = w.now;
    w.run("catching up", |w| w.apps[far.0].conn(far.1).received.len() == 1000);
    assert!(w.now - begun < Nanos::millis(20), "{:?}: credit is told, not probed for", w.now - begun);
    w.assert_nothing_is_lost();
}

#[test]
fn an_application_that_leaves_is_told_to_its_peers_and_leaves_nothing_behind() {
    let (mut w, near, far) = pair(35);
    w.apps[near.0].send(near.1, pattern(4 << 20, 1));
    w.pass(Nanos::micros(300));
    assert!(w.apps[far.0].conn(far.1).partial.is_some(), "in the middle of it");
    w.apps[far.0].alive = false;
    let number = w.apps[far.0].number;
    assert!(w.apps[far.0].engine.detach(number));
    w.run("reset", |w| w.apps[near.0].conn(near.1).over.is_some());
    assert_eq!(w.apps[near.0].conn(near.1).over, Some(Reason::Gone));
    w.run("forgetting", |w| w.sidecars[1].engines[0].flows() == 0);
    assert!(w.sidecars[1].engines[0].usage().is_empty(), "the channel is dropped");
    let (channel, why, _) = w.next_over(1).expect("a report");
    assert_eq!((channel, why), (number, End::Left));
    let ip = w.sidecars[1].ip;
    let id = w.apps[near.0].dial(ip, 8000, 0, 0);
    assert_eq!(connect_failure(&mut w, near.0, id), Reason::Refused, "its listener is gone");
    w.assert_nothing_is_lost();
}

#[test]
fn what_an_application_closed_before_it_left_still_arrives() {
    let (mut w, near, far) = pair(36);
    w.apps[near.0].send(near.1, pattern(200_000, 1));
    w.apps[near.0].close(near.1);
    w.run("submitting", |w| w.apps[near.0].conn(near.1).outgoing.is_empty());
    w.apps[near.0].alive = false;
    let number = w.apps[near.0].number;
    assert!(w.apps[near.0].engine.detach(number));
    w.run("flushing", |w| w.apps[far.0].conn(far.1).fin);
    assert_eq!(w.apps[far.0].conn(far.1).received.front(), Some(&pattern(200_000, 1)));
    w.apps[far.0].close(far.1);
    w.run("forgetting", |w| w.sidecars[0].engines[0].flows() == 0);
    assert!(w.sidecars[0].engines[0].usage().is_empty(), "the channel is dropped");
}

#[test]
fn a_sidecar_that_shuts_down_tells_its_peers() {
    let (mut w, near, far) = pair(37);
    assert!(w.sidecars[1].shared.handle(0).expect("engine").shutdown());
    w.run("draining", |w| w.sidecars[1].engines[0].is_drained());
    w.run("reset", |w| w.apps[near.0].conn(near.1).over.is_some());
    assert_eq!(w.apps[near.0].conn(near.1).over, Some(Reason::Gone));
    w.apps[far.0].alive = false;
}

#[test]
fn two_applications_of_one_host_talk_without_the_nic() {
    let mut w = World::seeded(40);
    let a = w.add(1, 1);
    let (client, server) = (w.app(a, 0), w.app(a, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[a].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    w.carry((client, near), (server, far), pattern(1 << 20, 1));
    w.carry((server, far), (client, near), pattern(64, 1));
    let announced = w.counter(a, "arp_announced");
    assert_eq!((w.net.counts().sent, announced), (1, 1), "{}", w.net.trace());
    let id = w.apps[client].dial(ip, 9, 0, 0);
    assert_eq!(connect_failure(&mut w, client, id), Reason::Refused);
    let id = w.apps[client].dial(ip, 8000, 8000, 0);
    assert_eq!(connect_failure(&mut w, client, id), Reason::InUse, "one port for both ends");
    w.assert_nothing_is_lost();
}

#[test]
fn what_the_nics_queue_counts_can_be_read_without_the_engine() {
    let (mut w, near, far) = pair(11);
    let missed = |w: &World, host: usize| {
        let samples = w.sidecars[host].shared.samples(0).unwrap();
        let one = |name: &str| samples.queue.iter().find(|sample| sample.name == name).unwrap().value;
        (one("rx_missed"), one("link_down"))
    };
    assert_eq!(missed(&w, 1), (Some(0), Some(0)), "nothing was lost");
    // A sender fills the ring of a host whose core is away.
    w.net.steal(1, Nanos::millis(3));
    for _ in 0..300 {
        w.net.inject(1, &[0x42; 64]);
    }
    w.carry(near, far, pattern(64, 0));
    w.pass(Nanos::secs(2));
    let (lost, _) = missed(&w, 1);
    assert!(lost >= Some(44), "256 of 300 fit the ring: {lost:?}");
    assert_eq!(w.counter(0, "queue_tx_frames"), w.counter(0, "tx_frames"));
}

//! Applications that leave, and sidecars that end: what was submitted arrives, in full and before the end is told.

use machnet_engine::End;
use machnet_nic::sim::Link;
use machnet_shm::{FlowId, Fragment, Geometry, PeerFault, Reason};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;

/// A connection as one of its applications has it.
type Side = (AppNo, FlowId);

/// Two hosts, an application on each, and a connection between them.
fn pair(seed: u64) -> (World, Side, Side) {
    joined(seed, Geometry::DEFAULT, Nanos::secs(1))
}

/// The same, where the second application has a channel of this size, and the first one's sidecar this linger.
fn joined(seed: u64, geometry: Geometry, linger: Nanos) -> (World, Side, Side) {
    let mut w = World::seeded(seed);
    let (a, b) = (w.add_with(1, 1, |config| config.linger = linger), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app_with(b, 0, geometry));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    (w, (client, near), (server, far))
}

/// A channel that holds less than these tests send.
const SMALL: Geometry = Geometry { units: 16, flows: 2, ..Geometry::DEFAULT };

/// Runs until `end` has submitted everything that it was given to send.
fn submitted(w: &mut World, end: Side) {
    w.run("submitting", |w| w.apps[end.0].conn(end.1).outgoing.is_empty());
}

/// Sends messages until they are submitted, more than the peer has room for.
fn say(w: &mut World, end: Side, count: u64, len: usize) {
    (0..count).for_each(|n| w.apps[end.0].send(end.1, pattern(len, n)));
    submitted(w, end);
}

/// Checks that `end` has got these messages, all of them.
fn assert_got(w: &mut World, end: Side, count: u64, len: usize) {
    let seed = w.seed;
    let got = std::mem::take(&mut w.apps[end.0].conn(end.1).received);
    assert_eq!(got.len() as u64, count, "seed {seed}");
    assert!(got.into_iter().eq((0..count).map(|n| pattern(len, n))), "seed {seed}: other bytes");
}

/// Whether nothing is left of the channels of a sidecar's first engine.
fn empty(w: &World, sidecar: usize) -> bool {
    let engine = &w.sidecars[sidecar].engines[0];
    engine.flows() == 0 && engine.usage().is_empty() && engine.promised() == 0
}

#[test]
fn what_was_sent_arrives_and_the_reset_behind_it() {
    let (mut w, near, far) = pair(1);
    say(&mut w, near, 4, 60_000);
    w.leave(near.0);
    w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert_got(&mut w, far, 4, 60_000);
    let conn = w.apps[far.0].conn(far.1);
    assert_eq!((conn.over, conn.fin, conn.aborted), (Some(Reason::Gone), false, 0));
    w.run("dropping the channel", |w| empty(w, 0));
    assert_eq!((w.counter(0, "channels_gone"), w.counter(0, "linger_resets")), (1, 0));
    w.assert_nothing_is_lost();
}

#[test]
fn loss_and_disorder_change_nothing() {
    for seed in 0..10 {
        let (mut w, near, far) = pair(seed);
        w.net.set_links(Link {
            loss: 0.02,
            duplication: 0.02,
            reorder: 0.05,
            reorder_by: Nanos::micros(50),
            ..Link::default()
        });
        (0..8).for_each(|n| w.apps[far.0].send(far.1, pattern(20_000, n)));
        say(&mut w, near, 8, 20_000);
        w.leave(near.0);
        w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
        assert_got(&mut w, far, 8, 20_000);
        w.run("dropping the channel", |w| empty(w, 0));
        w.assert_nothing_is_lost();
    }
}

#[test]
fn a_channel_is_reported_over_once_and_not_before_all_is_delivered() {
    let (mut w, near, far) = joined(2, SMALL, Nanos::secs(1));
    w.apps[far.0].reads = false;
    say(&mut w, near, 1, 100_000);
    w.leave(near.0);
    w.pass(Nanos::millis(300));
    assert!(w.next_over(0).is_none(), "its memory is in use");
    assert_eq!(w.sidecars[0].engines[0].usage().len(), 1);
    w.apps[far.0].reads = true;
    w.run("dropping the channel", |w| empty(w, 0));
    let (channel, why, _) = w.next_over(0).expect("a report");
    assert_eq!((channel, why), (w.apps[near.0].number, End::Left));
    // To leave a second time does nothing.
    w.leave(near.0);
    w.pass(Nanos::millis(1));
    assert!(w.next_over(0).is_none());
}

#[test]
fn a_reader_that_pauses_gets_all_of_it_in_its_own_time() {
    let (mut w, near, far) = joined(3, SMALL, Nanos::secs(1));
    w.apps[far.0].reads = false;
    say(&mut w, near, 5, 40_000);
    w.leave(near.0);
    w.pass(Nanos::millis(300));
    assert!(w.apps[far.0].conn(far.1).bytes < 40_000, "its buffers hold less than one message");
    assert_eq!(w.apps[far.0].conn(far.1).over, None);
    w.apps[far.0].reads = true;
    assert!(
        w.run_for(Nanos::millis(100), |w| w.apps[far.0].conn(far.1).over.is_some()),
        "it reads again, and nobody hears of it"
    );
    assert_got(&mut w, far, 5, 40_000);
}

#[test]
fn after_a_half_close_the_reader_finds_the_end_and_no_reset() {
    let (mut w, near, far) = pair(4);
    w.apps[near.0].conn(near.1).outgoing.push_back(machnet_sim::Out::Message(pattern(100_000, 0)));
    w.apps[near.0].conn(near.1).outgoing.push_back(machnet_sim::Out::Fin);
    submitted(&mut w, near);
    w.leave(near.0);
    w.run("the end", |w| w.apps[far.0].conn(far.1).fin);
    assert_got(&mut w, far, 1, 100_000);
    w.pass(Nanos::millis(100));
    assert_eq!(w.apps[far.0].conn(far.1).over, None, "the peer may still close in peace");
    w.apps[far.0].close(far.1);
    w.run("dropping the channel", |w| empty(w, 0));
    assert_eq!(w.counter(1, "resets_received"), 0);
}

#[test]
fn a_peer_that_does_not_close_keeps_no_channel_beyond_the_linger() {
    let (mut w, near, far) = pair(5);
    w.apps[near.0].send(near.1, pattern(1000, 0));
    w.apps[near.0].close(near.1);
    submitted(&mut w, near);
    w.leave(near.0);
    w.pass(Nanos::millis(900));
    assert!(w.apps[far.0].conn(far.1).fin && !empty(&w, 0));
    w.pass(Nanos::millis(200));
    assert!(empty(&w, 0));
    assert_eq!(w.counter(0, "linger_resets"), 1);
    assert_eq!(w.apps[far.0].conn(far.1).over, Some(Reason::Gone));
    assert_got(&mut w, far, 1, 1000);
}

#[test]
fn a_peer_that_talks_on_is_told_behind_the_end() {
    let (mut w, near, far) = pair(6);
    w.apps[far.0].send(far.1, pattern(2 << 20, 7));
    w.apps[near.0].conn(near.1).outgoing.push_back(machnet_sim::Out::Message(pattern(200_000, 0)));
    w.apps[near.0].conn(near.1).outgoing.push_back(machnet_sim::Out::Fin);
    submitted(&mut w, near);
    w.leave(near.0);
    w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert!(w.apps[far.0].conn(far.1).fin, "the end of the data came first");
    assert_got(&mut w, far, 1, 200_000);
    assert_eq!(w.counter(0, "linger_resets"), 0);
    w.run("dropping the channel", |w| empty(w, 0));
}

#[test]
fn a_message_half_submitted_is_taken_back() {
    let (mut w, near, far) = pair(7);
    w.apps[near.0].send(near.1, pattern(10_000, 0));
    w.apps[near.0].send(near.1, pattern(4 << 20, 1));
    let begun = |w: &mut World| w.apps[far.0].conn(far.1).partial.as_ref().is_some_and(|p| p.0 == 4 << 20);
    w.run("the middle of it", begun);
    w.leave(near.0);
    w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert_got(&mut w, far, 1, 10_000);
    let conn = w.apps[far.0].conn(far.1);
    assert_eq!((conn.over, conn.aborted, conn.partial.is_some()), (Some(Reason::Gone), 1, false));
    w.run("dropping the channel", |w| empty(w, 0));
    w.assert_nothing_is_lost();
}

#[test]
fn a_peer_that_reads_nothing_holds_a_channel_no_longer_than_the_linger() {
    for linger in [Nanos::millis(50), Nanos::secs(1), Nanos::secs(3)] {
        let (mut w, near, far) = joined(8, SMALL, linger);
        w.apps[far.0].reads = false;
        say(&mut w, near, 1, 100_000);
        w.leave(near.0);
        w.pass(linger - Nanos::millis(1));
        assert!(!empty(&w, 0), "{linger:?}");
        w.pass(Nanos::millis(2));
        assert!(empty(&w, 0), "{linger:?}");
        assert_eq!(w.counter(0, "linger_resets"), 1);
        w.apps[far.0].reads = true;
        w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
        assert_eq!(w.apps[far.0].conn(far.1).over, Some(Reason::Gone));
        w.assert_nothing_is_lost();
    }
}

#[test]
fn each_channel_has_its_own_linger() {
    let (mut w, near, far) = joined(9, SMALL, Nanos::millis(100));
    let (late, ip) = (w.app(0, 0), w.sidecars[1].ip);
    let (later, _) = w.connect(late, far.0, ip, 8000);
    w.apps[far.0].reads = false;
    say(&mut w, near, 1, 60_000);
    say(&mut w, (late, later), 1, 60_000);
    w.leave(near.0);
    w.pass(Nanos::millis(60));
    w.leave(late);
    assert_eq!(w.sidecars[0].engines[0].usage().len(), 2);
    w.pass(Nanos::millis(60));
    assert_eq!(w.sidecars[0].engines[0].usage().len(), 1);
    w.pass(Nanos::millis(60));
    assert!(empty(&w, 0));
}

#[test]
fn without_a_linger_the_reset_goes_at_once() {
    let (mut w, near, far) = joined(10, SMALL, Nanos::ZERO);
    w.apps[far.0].reads = false;
    say(&mut w, near, 1, 100_000);
    w.leave(near.0);
    w.pass(Nanos::millis(1));
    assert!(empty(&w, 0));
    w.apps[far.0].reads = true;
    w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert!(w.apps[far.0].conn(far.1).received.is_empty());
}

#[test]
fn a_host_that_is_gone_holds_a_channel_no_longer_than_the_linger() {
    let (mut w, near, _) = pair(11);
    w.sidecars[1].running = false;
    say(&mut w, near, 1, 100_000);
    w.leave(near.0);
    w.pass(Nanos::millis(990));
    assert!(!empty(&w, 0), "it is tried for as long as there is time");
    w.pass(Nanos::millis(20));
    assert!(empty(&w, 0));
}

#[test]
fn dials_under_way_listeners_and_what_nobody_accepted_end_at_once() {
    let (mut w, near, far) = pair(12);
    let ip = w.sidecars[0].ip;
    w.listen(near.0, 9000);
    let accepted = w.apps[far.0].dial(ip, 9000, 0, 0);
    w.run("connecting", |w| w.apps[far.0].dialled(accepted).is_some());
    let accepted = w.apps[far.0].dialled(accepted).expect("dialled").flow;
    let silent = std::net::Ipv4Addr::new(10, 0, 0, 99);
    w.apps[near.0].dial(silent, 1, 0, 60_000);
    w.pass(Nanos::millis(1));
    assert_eq!(w.sidecars[0].engines[0].flows(), 3);
    w.leave(near.0);
    w.pass(Nanos::millis(1));
    assert!(empty(&w, 0), "there is nothing to deliver");
    for flow in [far.1, accepted] {
        assert_eq!(w.apps[far.0].conn(flow).over, Some(Reason::Gone));
    }
    let refused = w.apps[far.0].dial(ip, 9000, 0, 0);
    w.run("refusal", |w| w.apps[far.0].reply(refused).is_some());
}

#[test]
fn what_is_written_after_the_end_is_not_read() {
    let (mut w, near, far) = joined(13, SMALL, Nanos::secs(1));
    w.apps[far.0].reads = false;
    say(&mut w, near, 1, 100_000);
    w.leave(near.0);
    w.pass(Nanos::millis(1));
    let taken = w.counter(0, "tx_units");
    // A process still has the memory mapped. It writes a submission that would be valid, and then an invalid one.
    let fragment = Fragment { begin: true, end: true, message_len: 5 };
    w.apps[near.0].end.tx.data(near.1, fragment, b"ghost").expect("a token");
    w.apps[near.0].end.tx.close(FlowId { index: 99, generation: 7 });
    w.apps[near.0].end.tx.flush();
    w.pass(Nanos::millis(1));
    assert_eq!((w.counter(0, "tx_units"), w.counter(0, "channels_faulty")), (taken, 0));
    w.apps[far.0].reads = true;
    w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
    assert_got(&mut w, far, 1, 100_000);
}

#[test]
fn a_channel_that_is_drained_delivers_what_was_submitted_though_its_application_stays() {
    let (mut w, near, far) = joined(3, SMALL, Nanos::secs(1));
    say(&mut w, near, 2, 5_000);
    assert!(w.apps[near.0].engine.drain(w.apps[near.0].number));
    w.run("dropping the channel", |w| empty(w, 0));
    w.run("its peer's end", |w| w.apps[far.0].conn(far.1).over == Some(Reason::Gone));
    assert_got(&mut w, far, 2, 5_000);
    assert!(matches!(w.next_over(0), Some((number, End::Drained, _)) if number == w.apps[near.0].number));
    let ended = |w: &World| (w.counter(0, "channels_gone"), w.counter(0, "channels_drained"));
    assert_eq!(ended(&w), (0, 1), "its application has not left");
    // That it leaves then is nothing new.
    w.leave(near.0);
    w.pass(Nanos::millis(1));
    assert!(w.next_over(0).is_none());
    assert_eq!(ended(&w), (0, 1));
}

#[test]
fn a_channel_that_is_found_broken_when_its_application_leaves_is_cut_off() {
    let (mut w, near, far) = joined(14, SMALL, Nanos::secs(1));
    w.apps[far.0].reads = false;
    say(&mut w, near, 1, 100_000);
    w.apps[near.0].end.tx.close(FlowId { index: 99, generation: 7 });
    w.leave(near.0);
    w.pass(Nanos::millis(1));
    assert!(empty(&w, 0));
    assert_eq!(
        (w.counter(0, "channels_faulty"), w.counter(0, "channels_gone")),
        (1, 0),
        "each ends in one way"
    );
    assert!(matches!(w.next_over(0), Some((_, End::Fault(PeerFault::Flow { index: 99, generation: 7 }), _))));
}

#[test]
fn two_applications_of_one_host_keep_the_same_rules() {
    let mut w = World::seeded(15);
    let a = w.add(1, 1);
    let (client, server) = (w.app(a, 0), w.app_with(a, 0, SMALL));
    w.listen(server, 8000);
    let ip = w.sidecars[a].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    w.apps[server].reads = false;
    say(&mut w, (client, near), 3, 50_000);
    w.leave(client);
    w.pass(Nanos::millis(300));
    assert_eq!(w.apps[server].conn(far).over, None);
    w.apps[server].reads = true;
    w.run("the end", |w| w.apps[server].conn(far).over.is_some());
    assert_got(&mut w, (server, far), 3, 50_000);
    w.run("dropping the channel", |w| w.sidecars[a].engines[0].usage().len() == 1);
    // The other application leaves with a connection open, too, and its peer is already gone.
    w.leave(server);
    w.pass(Nanos::millis(1));
    assert!(empty(&w, a));
}

#[test]
fn two_that_leave_at_once_keep_each_other_no_longer_than_it_takes() {
    let (mut w, near, far) = pair(16);
    say(&mut w, near, 4, 60_000);
    say(&mut w, far, 4, 60_000);
    w.leave(near.0);
    w.leave(far.0);
    w.pass(Nanos::millis(100));
    assert!(empty(&w, 0) && empty(&w, 1));
}

#[test]
fn a_sidecar_that_ends_delivers_what_its_applications_submitted() {
    for finished in [false, true] {
        let (mut w, near, far) = joined(17, SMALL, Nanos::secs(1));
        w.apps[far.0].reads = false;
        say(&mut w, near, 3, 50_000);
        if finished {
            w.apps[near.0].conn(near.1).outgoing.push_back(machnet_sim::Out::Fin);
            submitted(&mut w, near);
        }
        assert!(w.sidecars[0].shared.handle(0).expect("engine").shutdown());
        w.apps[near.0].alive = false;
        w.pass(Nanos::millis(300));
        assert!(!w.sidecars[0].engines[0].is_drained());
        assert_eq!(w.apps[far.0].conn(far.1).over, None);
        w.apps[far.0].reads = true;
        w.run("ending", |w| w.sidecars[0].engines[0].is_drained());
        w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
        assert_got(&mut w, far, 3, 50_000);
        assert_eq!(w.apps[far.0].conn(far.1).fin, finished);
        assert!(empty(&w, 0));
    }
}

#[test]
fn a_sidecar_with_nothing_to_deliver_ends_at_once() {
    let (mut w, near, far) = pair(18);
    // One connection that is idle, one that is closed here and not there, one that is closed both ways and lingers.
    let ip = w.sidecars[1].ip;
    let (half, _) = w.connect(near.0, far.0, ip, 8000);
    let (both, theirs) = w.connect(near.0, far.0, ip, 8000);
    w.apps[near.0].close(half);
    w.apps[near.0].close(both);
    w.apps[far.0].close(theirs);
    w.pass(Nanos::millis(10));
    assert_eq!(w.sidecars[0].engines[0].flows(), 3);
    assert!(w.sidecars[0].shared.handle(0).expect("engine").shutdown());
    w.apps[near.0].alive = false;
    assert!(w.run_for(Nanos::micros(100), |w| empty(w, 0)));
    assert!(w.run_for(Nanos::millis(51), |w| w.sidecars[0].engines[0].is_drained()));
    w.run("the end", |w| w.apps[far.0].conn(far.1).over.is_some());
}

#[test]
fn a_sidecar_that_has_told_its_peers_stays_until_they_may_have_heard() {
    let (mut w, near, far) = pair(20);
    w.apps[near.0].alive = false;
    // The other end does not look at its ring for a while, as an engine that naps.
    w.sidecars[1].running = false;
    assert!(w.sidecars[0].shared.handle(0).expect("engine").shutdown());
    w.pass(Nanos::millis(40));
    assert!(empty(&w, 0) && !w.sidecars[0].engines[0].is_drained());
    w.sidecars[1].running = true;
    w.pass(Nanos::millis(20));
    assert!(w.sidecars[0].engines[0].is_drained());
    assert_eq!(w.apps[far.0].conn(far.1).over, Some(Reason::Gone));
}

#[test]
fn a_sidecar_that_is_asked_for_more_without_end_ends_all_the_same() {
    let (mut w, near, far) = pair(22);
    let ip = w.sidecars[0].ip;
    assert!(w.sidecars[0].shared.handle(0).expect("engine").shutdown());
    w.apps[near.0].alive = false;
    let ended = (0..20).any(|_| {
        w.apps[far.0].dial(ip, 9000, 0, 0);
        w.pass(Nanos::millis(10));
        w.sidecars[0].engines[0].is_drained()
    });
    assert!(w.counter(0, "refused_ending") > 1, "they have asked");
    assert!(ended, "the peer dials each 10 ms, and the sidecar stays for that");
}

#[test]
fn a_sidecar_without_connections_ends_in_its_next_round() {
    let mut w = World::seeded(21);
    let a = w.add(1, 1);
    w.app(a, 0);
    w.pass(Nanos::millis(1));
    assert!(w.sidecars[a].shared.handle(0).expect("engine").shutdown());
    assert!(w.run_for(Nanos::micros(1), |w| w.sidecars[0].engines[0].is_drained()));
}

#[test]
fn a_sidecar_ends_when_the_linger_has_passed_whoever_does_not_read() {
    let (mut w, near, far) = joined(19, SMALL, Nanos::millis(200));
    w.apps[far.0].reads = false;
    say(&mut w, near, 1, 100_000);
    assert!(w.sidecars[0].shared.handle(0).expect("engine").shutdown());
    w.apps[near.0].alive = false;
    w.pass(Nanos::millis(199));
    assert!(!empty(&w, 0));
    w.pass(Nanos::millis(2));
    assert!(empty(&w, 0));
    assert_eq!(w.counter(0, "linger_resets"), 1);
    assert!(w.run_for(Nanos::millis(51), |w| w.sidecars[0].engines[0].is_drained()));
}

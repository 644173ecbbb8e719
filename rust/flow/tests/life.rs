//! How connections begin and end, and what old packets cannot do to new ones.

mod common;

use common::{A, B, Sim, message};
use machnet_flow::{Closed, Event, FlowError, SendError, Unit};
use machnet_wire::{Header, Kind, Nanos, Reason, Reset, Seq};

const SYN: fn(&machnet_wire::Packet<'_>) -> bool = |p| p.header.kind == Kind::Syn;
const SYN_ACK: fn(&machnet_wire::Packet<'_>) -> bool = |p| p.header.kind == Kind::SynAck;
const ACK: fn(&machnet_wire::Packet<'_>) -> bool = |p| p.header.kind == Kind::Ack;

fn rst(tag: u32, epoch: u64, echo: u32, reason: Reason) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let at = Header { tag, ..Header::new(Kind::Rst) }.emit(&[], &mut bytes);
    bytes[at..].copy_from_slice(&Reset { epoch, echo, reason }.emit());
    bytes
}

fn established(sim: &Sim) -> bool {
    sim.both(|end| end.channel.told(Event::Established) == 1)
}

#[test]
fn a_connection_takes_three_packets_and_one_and_a_half_round_trips() {
    let mut sim = Sim::new(1);
    let start = sim.now;
    sim.connect();
    sim.run_until(Nanos::millis(1), established);
    assert_eq!(sim.now - start, Nanos::micros(30));
    assert_eq!([sim.sent[1], sim.sent[2], sim.sent[4], sim.sent.iter().sum()], [1, 1, 1 + 1, 4]);
    assert_eq!(sim.flow(A).rtt(), Some(Nanos::micros(20)));
    assert_eq!(sim.flow(B).rtt(), Some(Nanos::micros(20)));
}

#[test]
fn any_packet_of_the_handshake_may_be_lost() {
    for (end, lost, times, within_ms) in [
        (A, SYN, 1, 11),
        (A, SYN, 3, 72),
        (B, SYN_ACK, 1, 11),
        (B, SYN_ACK, 2, 31),
        (A, ACK, 1, 2),
        (A, ACK, 3, 8),
    ] {
        let mut sim = Sim::new(2);
        sim.links[end].drop_if = Some(lost);
        sim.links[end].drops = times;
        sim.connect();
        sim.run_until(Nanos::millis(within_ms), established);
    }
}

#[test]
fn data_that_overtakes_the_last_packet_of_the_handshake_is_taken() {
    let mut sim = Sim::new(3);
    sim.links[A].drop_if = Some(ACK);
    sim.links[A].drops = 1;
    sim.connect();
    sim.ends[A].outbox.push_back((message(1, 64), None));
    // The unit goes as soon as there is a connection, half a round trip before B knows of it.
    sim.run_until(Nanos::micros(100), |sim| sim.ends[B].channel.messages.len() == 1);
    assert_eq!(sim.ends[B].received[Kind::Ack as usize], 0);
}

#[test]
fn nobody_listens() {
    let mut sim = Sim::new(4);
    sim.ends[B].accepts = false;
    sim.connect();
    sim.run_for(Nanos::micros(21));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByPeer(Reason::Refused)));
    assert!(sim.ends[A].flow.is_none());
}

#[test]
fn nobody_answers() {
    let mut sim = Sim::new(5);
    sim.links[A].down = true;
    let start = sim.now;
    sim.connect_within(Nanos::millis(700));
    sim.run_until(Nanos::secs(1), |sim| sim.ends[A].channel.closed().is_some());
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::Timeout));
    assert_eq!(sim.now - start, Nanos::millis(700));
    // Pauses of 10, 20, 40, 80, 160 and then 200 ms, each up to a quarter shorter.
    let syns = sim.sent[Kind::Syn as usize];
    assert!((7..=9).contains(&syns), "{syns} SYNs");
    assert!(sim.ends[A].flow.is_none());
}

#[test]
fn a_half_open_connection_expires_in_silence() {
    let mut sim = Sim::new(6);
    sim.links[B].down = true;
    sim.connect_within(Nanos::millis(5));
    sim.run_for(Nanos::secs(6));
    assert_eq!(sim.ends[B].channel.events, [Event::Closed(Closed::Timeout)]);
    assert_eq!(sim.sent_by[B], 1);
    assert_eq!(sim.ends[B].channel.rx_free, 1024);
}

#[test]
fn each_copy_of_a_syn_buys_one_syn_ack() {
    let mut sim = Sim::new(7);
    sim.record = Some(Vec::new());
    sim.links[A].down = true;
    sim.connect();
    let syn = sim.record.take().unwrap()[0].1.clone();
    sim.links[A].down = false;
    sim.links[B].down = true;
    for copies in 1..=5 {
        sim.give(B, syn.clone());
        assert_eq!(sim.sent[Kind::SynAck as usize], copies);
    }
}

#[test]
fn both_ends_call_each_other() {
    let mut sim = Sim::new(8);
    sim.connect();
    let (config, setup) = (sim.ends[B].config, sim.setup(B));
    sim.ends[B].flow = Some(machnet_flow::Flow::connect(sim.now, config, setup, Nanos::secs(1)));
    sim.pump(B);
    sim.run_until(Nanos::millis(1), established);
    sim.send(A, &message(1, 5000));
    sim.send(B, &message(2, 5000));
    sim.run_until(Nanos::millis(2), |sim| sim.both(|end| end.channel.messages.len() == 1));
}

/// Both ends call each other, B for the second time with the same ports. A has answered the second call and B knows it;
/// B's acknowledgement is under way. Gives the packets of B's so far: SYN of the first call, SYN, acknowledgement.
fn both_call_and_b_called_before(sim: &mut Sim) -> Vec<Vec<u8>> {
    fn call(sim: &mut Sim, i: usize) {
        let (config, setup) = (sim.ends[i].config, sim.setup(i));
        sim.ends[i].flow = Some(machnet_flow::Flow::connect(sim.now, config, setup, Nanos::secs(1)));
        sim.pump(i);
    }
    sim.record = Some(Vec::new());
    sim.links[A].down = true;
    sim.links[B].down = true;
    call(sim, B);
    sim.forget(B);
    call(sim, A);
    call(sim, B);
    let of = |sim: &Sim, end| -> Vec<Vec<u8>> {
        sim.record.iter().flatten().filter(|(from, _)| *from == end).map(|(_, bytes)| bytes.clone()).collect()
    };
    sim.give(A, of(sim, B)[1].clone());
    sim.give(B, of(sim, A)[1].clone());
    assert!(sim.flow(B).is_established() && !sim.flow(A).is_established());
    of(sim, B)
}

#[test]
fn a_syn_of_an_earlier_call_takes_nobodys_place() {
    let mut sim = Sim::new(25);
    let [first, _, ack] = both_call_and_b_called_before(&mut sim).try_into().unwrap();
    sim.give(A, first);
    sim.links[A].down = false;
    sim.links[B].down = false;
    sim.give(A, ack);
    let tag = sim.flow(B).tag();
    assert_eq!(sim.flow(A).peer().map(|peer| peer.tag), Some(tag));
    sim.send(A, &message(1, 64));
    sim.send(B, &message(2, 64));
    sim.run_until(Nanos::millis(1), |sim| sim.both(|end| end.channel.messages.len() == 1));
    sim.run_for(Nanos::secs(3));
    assert!(sim.both(|end| end.channel.closed().is_none()));
}

#[test]
fn an_rst_of_an_earlier_call_is_not_believed_though_it_knows_our_tag() {
    let mut sim = Sim::new(26);
    both_call_and_b_called_before(&mut sim);
    let peer = sim.flow(B).tag();
    let mut reset = |tag: u32, echo: u32| {
        sim.ends[A].errors.clear();
        sim.give(A, rst(tag, 7, echo, Reason::Aborted));
        (sim.ends[A].errors.pop(), sim.ends[A].channel.closed())
    };
    // 0xb2 was the tag of B's first call, and A's is 0xa1.
    assert_eq!(reset(0xa1, 0xb2), (Some(FlowError::Tag), None));
    assert_eq!(reset(0, 0xb2), (Some(FlowError::Tag), None));
    assert_eq!(reset(0xb2, 0xa1), (Some(FlowError::Tag), None));
    assert_eq!(reset(0xa1, peer), (None, Some(Closed::ByPeer(Reason::Aborted))));
}

#[test]
fn a_half_closed_connection_carries_the_other_direction() {
    let mut sim = Sim::new(9);
    sim.establish();
    sim.send(A, &message(1, 5_000));
    sim.finish(A);
    sim.run_for(Nanos::millis(3));
    assert_eq!((sim.ends[B].channel.messages.len(), sim.ends[B].channel.told(Event::PeerFin)), (1, 1));
    let tx = sim.ends[A].channel.token(b"x");
    let fragment = machnet_wire::Fragment { begin: true, end: true, message_len: 1 };
    let refused = sim.flow(A).send(Unit { fragment, len: 1, tx }).unwrap_err();
    assert_eq!(refused.why, SendError::NotOpen);
    sim.ends[A].channel.tokens.remove(&tx);
    for n in 0..50 {
        sim.send(B, &message(n, 10_000));
    }
    sim.finish(B);
    sim.run_for(Nanos::millis(600));
    assert_eq!(sim.ends[A].channel.messages.len(), 50);
    assert!(sim.both(|end| end.channel.closed() == Some(Closed::Clean) && end.flow.is_none()));
    sim.check_books();
}

#[test]
fn both_ends_close_at_once_and_every_packet_of_it_may_be_lost() {
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        sim.establish();
        sim.links[A].loss = 300;
        sim.links[B].loss = 300;
        sim.send(A, &message(1, 3_000));
        sim.send(B, &message(2, 3_000));
        sim.finish(A);
        sim.finish(B);
        sim.run_for(Nanos::secs(3));
        assert!(sim.both(|end| end.channel.messages.len() == 1 && end.flow.is_none()), "seed {seed}");
        assert!(sim.both(|end| end.channel.closed() == Some(Closed::Clean)), "seed {seed}");
    }
}

#[test]
fn a_lost_last_acknowledgement_is_given_again() {
    let mut sim = Sim::new(10);
    sim.establish();
    sim.finish(A);
    sim.run_for(Nanos::millis(3));
    // A's acknowledgement of B's FIN is the last packet there is.
    sim.links[A].drops = 2;
    sim.finish(B);
    sim.run_for(Nanos::millis(1));
    assert_eq!((sim.ends[A].channel.closed(), sim.ends[B].channel.closed()), (Some(Closed::Clean), None));
    sim.run_for(Nanos::millis(10));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::Clean));
    assert_eq!(sim.sent[Kind::Rst as usize], 0);
}

#[test]
fn a_fin_that_meets_no_connection_any_more_is_still_a_clean_end() {
    let mut sim = Sim::new(11);
    sim.establish();
    sim.finish(A);
    sim.run_for(Nanos::millis(3));
    sim.links[A].down = true;
    sim.finish(B);
    sim.run_for(Nanos::millis(1));
    sim.links[B].down = true;
    sim.run_for(Nanos::millis(600));
    assert!(sim.ends[A].flow.is_none(), "lingered for long enough");
    sim.links[A].down = false;
    sim.links[B].down = false;
    sim.run_for(Nanos::millis(300));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::Clean));
    assert!(sim.sent[Kind::Rst as usize] > 0);
}

#[test]
fn a_fin_that_meets_a_peer_that_has_restarted_is_no_clean_end() {
    for (epoch, want) in [(7, Closed::Clean), (8, Closed::ByPeer(Reason::Closed))] {
        let mut sim = Sim::new(27);
        sim.establish();
        sim.finish(A);
        sim.run_for(Nanos::millis(3));
        sim.links[B].down = true;
        sim.finish(B);
        // What A's sidecar says that does not know the connection, its start being that of `epoch`.
        let echo = sim.ends[A].tag;
        sim.give(B, rst(0, epoch, echo, Reason::Closed));
        assert_eq!(sim.ends[B].channel.closed(), Some(want), "epoch {epoch}");
    }
}

#[test]
fn a_reset_tells_the_peer_why_and_gives_everything_back() {
    let mut sim = Sim::new(12);
    sim.establish();
    sim.run_for(Nanos::micros(100));
    sim.ends[B].reading = false;
    sim.links[A].drop_if = Some(|p| p.header.unit == Seq(1001));
    sim.links[A].drops = 1;
    sim.send(A, &message(1, 100_000));
    sim.run_for(Nanos::micros(15));
    assert!(sim.ends[B].channel.held > 0 && !sim.ends[A].channel.tokens.is_empty());
    sim.reset(A, Reason::Aborted);
    sim.run_for(Nanos::micros(20));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(Reason::Aborted)));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(Reason::Aborted)));
    assert!(sim.both(|end| end.flow.is_none() && end.channel.tokens.is_empty() && end.channel.reserved == 0));
}

#[test]
fn a_peer_that_has_restarted_resets_the_connection() {
    let mut sim = Sim::new(13);
    sim.establish();
    sim.ends[B].flow = None;
    sim.send(A, &message(1, 64));
    sim.run_for(Nanos::micros(25));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByPeer(Reason::Closed)));
}

#[test]
fn a_port_pair_is_used_again_at_once() {
    let mut sim = Sim::new(14);
    sim.establish();
    sim.finish(A);
    sim.finish(B);
    sim.run_until(Nanos::millis(10), |sim| sim.both(|end| end.channel.closed().is_some()));
    assert!(sim.flow(B).is_lingering());
    sim.ends[A].channel = common::Channel::new(1024);
    sim.ends[A].tag = 0xa2;
    let start = sim.now;
    sim.connect();
    sim.run_until(Nanos::millis(1), established);
    assert_eq!(sim.now - start, Nanos::micros(30));
}

#[test]
fn a_late_copy_of_its_own_syn_does_not_end_the_linger() {
    let mut sim = Sim::new(22);
    sim.record = Some(Vec::new());
    sim.establish();
    let syn = sim.record.take().unwrap()[0].1.clone();
    sim.finish(B);
    sim.run_for(Nanos::micros(100));
    // B acknowledges all of it at once, and nothing of that arrives before the copy of the SYN does.
    sim.links[B].down = true;
    sim.send(A, &message(1, 3_000));
    sim.finish(A);
    sim.run_for(Nanos::micros(50));
    assert!(sim.flow(B).is_lingering());
    sim.give(B, syn);
    sim.links[B].down = false;
    sim.run_for(Nanos::millis(10));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::Clean));
    assert_eq!((sim.sent[Kind::SynAck as usize], sim.sent[Kind::Rst as usize]), (1, 0));
}

#[test]
fn a_port_pair_is_used_again_though_the_peer_still_holds_the_old_connection() {
    let mut sim = Sim::new(15);
    sim.establish();
    // A's sidecar restarts and its RSTs, if any, are lost.
    sim.ends[A].flow = None;
    sim.ends[A].channel = common::Channel::new(1024);
    sim.ends[A].tag = 0xa2;
    sim.connect();
    sim.run_until(Nanos::millis(11), established);
    assert_eq!(sim.sent[Kind::Ping as usize], 1, "asked before it let go");
}

#[test]
fn packets_of_an_earlier_connection_do_nothing_to_a_later_one() {
    let mut sim = Sim::new(16);
    sim.record = Some(Vec::new());
    sim.establish();
    sim.send(A, &message(1, 30_000));
    sim.send(B, &message(1, 30_000));
    sim.run_for(Nanos::millis(5));
    sim.reset(A, Reason::Aborted);
    sim.run_for(Nanos::millis(1));
    let record = sim.record.take().unwrap();
    for end in &mut sim.ends {
        end.channel = common::Channel::new(1024);
        end.tag += 1;
    }
    sim.establish();
    sim.ends[B].errors.clear();
    // What the old packets are answered with stays off the link: a flood of RSTs and PINGs proves nothing.
    sim.links[A].down = true;
    sim.links[B].down = true;
    for (from, bytes) in record {
        sim.give(1 - from, bytes);
    }
    assert!(sim.both(|end| end.channel.messages.is_empty() && end.channel.closed().is_none()));
    for end in &sim.ends {
        assert!(end.errors.len() > 10 && end.errors.iter().all(|e| *e == FlowError::Tag), "{:?}", end.errors);
    }
    sim.links[A].down = false;
    sim.links[B].down = false;
    sim.send(A, &message(2, 30_000));
    sim.run_until(Nanos::millis(10), |sim| sim.ends[B].channel.messages.len() == 1);
    assert_eq!(sim.ends[B].channel.messages[0], message(2, 30_000));
}

/// Nothing arrives at either end any more.
fn cut(sim: &mut Sim) {
    sim.links[A].down = true;
    sim.links[B].down = true;
}

/// A takes B for dead 2 s after `since`, or up to `late` later than that, and no sooner.
fn assert_dies(sim: &mut Sim, since: Nanos, late: Nanos, what: &str) {
    sim.run_until(Nanos::secs(10), |sim| sim.ends[A].channel.closed().is_some());
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::Timeout), "{what}");
    let took = sim.now - since;
    let allowed = Nanos::secs(2)..Nanos::secs(2) + STEP + late;
    assert!(allowed.contains(&took), "{what}: {took:?}");
}

/// Both ends ask after the whole of their keep-alive, and not after a part of it that differs from connection to connection.
fn ask_late(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    // The inverse of what a tag is multiplied with, and twice that.
    (sim.ends[A].tag, sim.ends[B].tag) = (0x144c_bc89, 0x2899_7912);
    sim
}

/// PINGs that A has sent.
fn pings(sim: &Sim) -> u64 {
    sim.ends[A].flow.as_ref().map_or(0, |flow| flow.stats().pings_sent)
}

/// Silence is looked at so often.
const STEP: Nanos = Nanos(2_000_000_000 / 32);

#[test]
fn an_idle_peer_is_dead_two_seconds_after_the_ping_that_it_did_not_answer() {
    // The first PING goes after 1 s, the second 1 s after its answer. Cut well before one, just before, and after its answer.
    for (cut_at, asked_at) in [(100, 1000), (998, 1000), (1001, 2000), (1500, 2000), (2998, 3000)] {
        let mut sim = ask_late(17);
        sim.establish();
        sim.run_for(Nanos::millis(cut_at));
        cut(&mut sim);
        let before = pings(&sim);
        sim.run_until(Nanos::secs(2), |sim| pings(sim) > before);
        let asked = sim.now;
        assert_eq!(asked.0 / 10_000_000, asked_at / 10, "cut at {cut_at} ms");
        assert_dies(&mut sim, asked, Nanos::millis(1), &format!("cut at {cut_at} ms"));
    }
    let mut sim = ask_late(17);
    sim.establish();
    sim.run_for(Nanos::millis(990));
    sim.links[B].down = true;
    sim.run_until(Nanos::secs(2), |sim| pings(sim) > 0);
    let asked = sim.now;
    assert_dies(&mut sim, asked, Nanos::millis(1), "every answer is lost");
}

/// Whatever the connection did before, and wherever the keep-alive timer stands.
#[test]
fn a_peer_is_dead_two_seconds_after_the_data_that_it_did_not_answer() {
    for phase in 0..60 {
        let mut sim = Sim::new(25);
        sim.establish();
        if phase % 2 == 0 {
            sim.send(A, &message(1, 100_000));
        }
        sim.run_for(Nanos::millis(900 + 53 * phase));
        cut(&mut sim);
        let asked = sim.now;
        sim.send(A, &message(2, 64));
        // A retransmission timeout notices that there is no answer.
        assert_dies(&mut sim, asked, Nanos::millis(10), &format!("phase {phase}"));
    }
}

/// A question that is not answered, and a peer that speaks on another connection until it stops: the 2 s count from then. With data out, that
/// is so as long as it is not stuck for five seconds.
#[test]
fn the_last_sign_of_life_counts_from_whatever_connection_it_came() {
    for (busy, spoke) in [(false, [300, 1_010, 2_500, 7_777]), (true, [300, 1_010, 1_777, 2_500])] {
        for spoke in spoke {
            let mut sim = ask_late(26);
            sim.establish();
            sim.run_for(Nanos::millis(1_990));
            cut(&mut sim);
            if busy {
                sim.send(A, &message(1, 64));
            }
            // Until after the next question at least.
            let mut last = sim.now;
            while sim.now - last < Nanos::secs(1) && last.0 < (2_000 + spoke) * 1_000_000 {
                sim.run_for(Nanos::millis(10));
                last = sim.now;
                sim.ends[A].channel.peer_heard = last;
            }
            assert_dies(&mut sim, last, Nanos::millis(10), &format!("busy {busy}, spoke for {spoke} ms"));
        }
    }
}

#[test]
fn a_peer_heard_elsewhere_is_not_dead() {
    let mut sim = Sim::new(18);
    sim.establish();
    sim.links[A].down = true;
    sim.send(A, &message(1, 64));
    for _ in 0..100 {
        sim.ends[A].channel.peer_heard = sim.now;
        sim.ends[B].channel.peer_heard = sim.now;
        sim.run_for(Nanos::millis(50));
    }
    assert!(sim.both(|end| end.channel.closed().is_none()));
    sim.links[A].down = false;
    sim.run_until(Nanos::millis(300), |sim| sim.ends[B].channel.messages.len() == 1);
}

#[test]
fn a_stall_of_our_own_is_no_silence_of_the_peers() {
    let mut sim = Sim::new(19);
    sim.establish();
    sim.run_for(Nanos::millis(990));
    // A does not run for five seconds, while it waits for an answer and none arrives; B hears of A by other flows.
    sim.links[A].drops = 1;
    sim.links[B].down = true;
    sim.send(A, &message(1, 64));
    sim.ends[A].stalled_until = sim.now + Nanos::secs(5);
    for _ in 0..50 {
        sim.ends[B].channel.peer_heard = sim.now;
        sim.run_for(Nanos::millis(100));
    }
    sim.links[B].down = false;
    let now = sim.now;
    sim.flow(A).stalled(now);
    sim.run_for(Nanos::secs(3));
    assert_eq!(sim.ends[B].channel.messages.len(), 1);
    assert!(sim.both(|end| end.channel.closed().is_none()));
}

#[test]
fn a_round_trip_across_a_stall_is_not_measured() {
    let mut sim = Sim::new(24);
    sim.establish();
    sim.run_for(Nanos::micros(100));
    let rtt = sim.flow(A).rtt();
    // The acknowledgement comes in time and lies in the ring until A runs again.
    sim.send(A, &message(1, 64));
    sim.ends[A].stalled_until = sim.now + Nanos::millis(50);
    sim.run_for(Nanos::millis(50) - Nanos(1));
    let now = sim.now;
    sim.flow(A).stalled(now);
    sim.run_for(Nanos::millis(1));
    assert_eq!((sim.flow(A).in_flight(), sim.flow(A).rtt()), (0, rtt));
    assert_eq!(sim.flow(A).stats().rtos, 0);
}

#[test]
fn close_flushes_though_the_peer_still_talks_and_then_the_peer_is_told() {
    let mut sim = Sim::new(21);
    sim.establish();
    for n in 0..20 {
        sim.send(A, &message(n, 50_000));
        sim.send(B, &message(n, 50_000));
    }
    sim.close(A);
    assert!(sim.flow(A).credit_wait().is_none() && sim.ends[A].channel.reserved == 0);
    // The rest goes out as the application submits it; it has closed, so it reads nothing.
    sim.run_until(Nanos::millis(200), |sim| sim.ends[B].channel.told(Event::PeerFin) == 1);
    assert_eq!(sim.ends[B].channel.messages.len(), 20);
    for n in 0..200 {
        sim.send(B, &message(n, 50_000));
    }
    sim.run_for(Nanos::millis(200));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(Reason::Closed)));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByPeer(Reason::Closed)));
    assert!(sim.both(|end| end.channel.tokens.is_empty() && end.channel.reserved == 0));
}

#[test]
fn an_orphan_waits_for_the_peers_fin_but_not_for_ever() {
    let mut sim = Sim::new(22);
    sim.establish();
    sim.close(A);
    sim.run_for(Nanos::secs(59));
    assert_eq!(sim.ends[A].channel.closed(), None);
    sim.run_for(Nanos::secs(2));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByUs(Reason::Closed)));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_reset() {
    let mut sim = Sim::new(23);
    sim.establish();
    let mut h = machnet_wire::Header::new(Kind::Ack);
    h.tag = sim.ends[B].tag;
    h.ack = Seq(2000);
    h.tx = Seq(5000);
    let mut bytes = vec![0; 48];
    h.emit(&[], &mut bytes);
    sim.give(B, bytes);
    assert!(matches!(sim.ends[B].errors.last(), Some(FlowError::Protocol(_))));
    sim.run_for(Nanos::micros(50));
    assert_eq!(sim.ends[B].channel.closed(), Some(Closed::ByUs(Reason::Protocol)));
    assert_eq!(sim.ends[A].channel.closed(), Some(Closed::ByPeer(Reason::Protocol)));
}

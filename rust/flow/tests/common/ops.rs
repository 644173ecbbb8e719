//! Sequences of operations on a pair of flows over a faulty link, against an oracle that only knows what was sent.

use super::{A, B, Channel, Choices, Link, Sim, message};
use machnet_flow::{Closed, Config, Event};
use machnet_wire::{Nanos, Reason, Seq};

/// What the applications did, per direction.
#[derive(Default)]
struct Oracle {
    whole: Vec<(u64, usize)>,
    given_up: u32,
}

/// Bytes that both applications send at most, about.
const MOST: usize = 1 << 19;
/// How long an end may stand still in all: less than a peer waits before it takes it for dead.
const STALLS: Nanos = Nanos::millis(500);

/// Runs one sequence. `choices` are what the applications and the world do, `faults` what the link does to each packet.
/// Panics where the flows did wrong; gives what is left of the run.
pub fn run(seed: u64, mut choices: Choices, faults: Choices) -> Sim {
    let rng = &mut choices;
    let mut sim = begin(seed, rng, faults);
    let mut oracle = [Oracle::default(), Oracle::default()];
    let mut finished = [false; 2];
    let mut closed = [false; 2];
    // How many whole messages an application had submitted when it left without a word.
    let mut left_after = [None; 2];
    let mut reset = false;
    let mut restarted = None;
    let mut left = MOST;
    let mut stalls = [Nanos::ZERO; 2];
    for step in 0..rng.steps(120) {
        if rng.is_spent() {
            break;
        }
        let i = rng.below(2) as usize;
        let size = match rng.below(10) {
            0 => 0,
            1..=6 => rng.below(300) as usize,
            7..=8 => rng.below(20_000) as usize,
            _ => rng.below(120_000) as usize,
        };
        let size = size.min(left);
        match rng.below(100) {
            0..=49 if !finished[i] => {
                left -= size;
                oracle[i].whole.push((step, size));
                sim.send(i, &message(step, size));
            }
            50..=59 if !finished[i] => {
                // Several units, or there would be nothing to give up half-way.
                left -= size;
                let size = size + 30_000;
                oracle[i].given_up += 1;
                sim.send_part(i, &message(step, size), 1 + rng.below(15_000) as usize);
            }
            60..=69 => sim.ends[i].reading = !sim.ends[i].reading,
            70..=79 => {
                let n = rng.below(40) as u32;
                sim.read(i, n);
                sim.pump(i);
            }
            80..=82 => sim.links[i].down = !sim.links[i].down,
            83..=84 => {
                let pause = Nanos::micros(rng.below(20_000));
                if stalls[i] + pause < STALLS {
                    stalls[i] += pause;
                    sim.ends[i].stalled_until = sim.now + pause;
                }
            }
            85 => {
                let now = sim.now;
                sim.flow(i).stalled(now);
            }
            86..=87 if !finished[i] => {
                finished[i] = true;
                sim.finish(i);
            }
            88 if rng.chance(100) => {
                sim.reset(i, Reason::Aborted);
                reset = true;
                break;
            }
            89..=90 if rng.chance(200) => {
                restarted = Some(i);
                break;
            }
            91 if !finished[i] && rng.chance(300) && sim.ends[i].stalled_until <= sim.now => {
                finished[i] = true;
                closed[i] = sim.close_when_said(i);
            }
            92 if !finished[i] && rng.chance(300) && sim.ends[i].stalled_until <= sim.now => {
                let unsaid = sim.ends[i].outbox.iter().filter(|(_, cut)| cut.is_none()).count();
                let submitted = oracle[i].whole.len() - unsaid;
                // The one that was being submitted is given up.
                oracle[i].given_up += 1;
                sim.leave(i, Reason::AppGone);
                (finished[i], closed[i], left_after[i]) = (true, true, Some(submitted));
            }
            _ => {
                let most = [2_000, 50_000, 2_000_000, 40_000_000][rng.below(4) as usize];
                let pause = Nanos(rng.below(most));
                sim.run_for(pause);
                sim.links[A].down &= rng.chance(500);
                sim.links[B].down &= rng.chance(500);
            }
        }
        if sim.ends.iter().any(|end| end.flow.is_none() || end.talk().closed().is_some()) {
            break;
        }
    }
    for i in [A, B] {
        sim.links[i].down = false;
        sim.ends[i].reading = true;
        sim.ends[i].stalled_until = sim.now;
    }
    if let Some(i) = restarted {
        return restart(sim, i, &oracle);
    }
    for i in [A, B] {
        if !finished[i] && !reset {
            sim.finish(i);
        }
        sim.pump(i);
    }
    // Loss of 20 % and channels of four units are slow, and never for ever.
    sim.run_until(Nanos::secs(600), |sim| sim.both(|end| end.talk().closed().is_some()));
    sim.run_for(Nanos::secs(10));
    for i in [A, B] {
        let got = sim.ends[1 - i].talk();
        let sent = sent(&oracle[i]);
        let left = left_after.iter().any(Option::is_some);
        if reset || closed[1 - i] {
            assert!(sent.starts_with(&got.messages), "what was delivered was sent, in order");
        } else if let Some(submitted) = left_after[i] {
            assert!(got.messages == sent[..submitted], "{} of {submitted}", got.messages.len());
        } else if !left {
            assert!(got.messages == sent, "delivered {} of {}", got.messages.len(), sent.len());
            assert_eq!(got.told(Event::PeerFin), 1);
        }
        // Who talks to an application that is gone is told so, when that has said all it had to say.
        let gone = (closed[i] && got.closed() == Some(Closed::ByPeer(Reason::Closed)))
            || (closed[1 - i] && got.closed() == Some(Closed::ByUs(Reason::Closed)));
        let gone = gone
            || left
                && matches!(
                    got.closed(),
                    Some(Closed::ByPeer(Reason::AppGone | Reason::Closed) | Closed::ByUs(Reason::AppGone))
                );
        assert!(reset || gone || got.closed() == Some(Closed::Clean), "{:?}", got.closed());
        assert!(got.aborted <= oracle[i].given_up);
        assert!(sim.ends[i].channel.tokens.is_empty() && sim.ends[i].flow.is_none());
    }
    if !reset {
        sim.check_books();
    }
    sim
}

/// Two ends that may differ, links with faults, and a connection.
fn begin(seed: u64, rng: &mut Choices, faults: Choices) -> Sim {
    let first = Seq(rng.word().wrapping_sub(if rng.chance(300) { 0 } else { 1 << 31 }));
    let config = Config { credit_max: [256, 64, 1024][rng.below(3) as usize], ..Config::default() };
    let mtus = [576, 1460, 1500, 9001];
    let mtu = mtus[rng.below(4) as usize];
    let first = if rng.chance(300) { Seq(0u32.wrapping_sub(rng.below(2000) as u32)) } else { first };
    let mut sim = Sim::with(seed, config, mtu, first);
    sim.rng = faults;
    sim.mercy = Some(Nanos::millis(300));
    let other = mtus[rng.below(4) as usize];
    sim.ends[B].mtu = other;
    sim.ends[B].unit = machnet_wire::unit_size(other, 0);
    for i in [A, B] {
        sim.ends[i].channel = Channel::new([4, 64, 1024, 1024][rng.below(4) as usize]);
        sim.links[i] = Link {
            loss: [0, 10, 50, 200][rng.below(4) as usize],
            duplicate: [0, 50][rng.below(2) as usize],
            reorder: [0, 50, 300][rng.below(3) as usize],
            delay: Nanos::micros(1 + rng.below(50)),
            ..Link::default()
        };
    }
    sim.establish();
    sim
}

/// Whole messages that end `i` was given, as they must arrive.
fn sent(oracle: &Oracle) -> Vec<Vec<u8>> {
    oracle.whole.iter().map(|(n, size)| message(*n, *size)).collect()
}

/// End `i` forgets everything, as a sidecar does that starts again, while packets of the old connection are under way. The other
/// end learns of it, and the same ports carry a new connection to which the old packets do nothing.
fn restart(mut sim: Sim, i: usize, oracle: &[Oracle; 2]) -> Sim {
    let other = 1 - i;
    let before = sim.ends[other].talk();
    assert!(sent(&oracle[i]).starts_with(&before.messages), "what was delivered was sent, in order");
    assert!(before.aborted <= oracle[i].given_up);
    sim.forget(i);
    if i == B {
        sim.run_until(Nanos::secs(10), |sim| sim.ends[A].channel.closed().is_some());
        sim.forget(A);
    } else {
        sim.ends[B].quiet();
    }
    sim.connect_within(Nanos::secs(60));
    let fresh =
        |sim: &Sim| sim.both(|end| end.talk().told(Event::Established) == 1 && end.talk().closed().is_none());
    sim.run_until(Nanos::secs(60), |sim| sim.ends[A].channel.told(Event::Established) == 1 && fresh(sim));
    for i in [A, B] {
        sim.ends[i].quiet();
        (0..3).for_each(|n| sim.send(i, &message(n, 5_000 * n as usize)));
        sim.finish(i);
    }
    sim.run_until(Nanos::secs(600), |sim| sim.both(|end| end.talk().closed().is_some()));
    for end in &sim.ends {
        assert_eq!(end.talk().closed(), Some(Closed::Clean));
        let expected: Vec<_> = (0..3).map(|n| message(n, 5_000 * n as usize)).collect();
        assert!(end.talk().messages == expected, "the new connection carries its own messages only");
    }
    sim.run_for(Nanos::secs(10));
    sim.check_books();
    sim
}

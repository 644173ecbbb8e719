//! Applications that write what no honest one writes: each loses its channel, and nobody else loses anything.

use machnet_engine::End;
use machnet_shm::{FlowId, Fragment, Reason};
use machnet_sim::{World, pattern};
use machnet_wire::Nanos;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[test]
fn a_hostile_application_only_detaches_itself() {
    let mut faults = 0;
    for seed in 1..60u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut w = World::seeded(seed);
        let (a, b) = (w.add(1, 1), w.add(2, 1));
        let (honest, server, hostile) = (w.app(a, 0), w.app(b, 0), w.app(a, 0));
        w.listen(server, 8000);
        let ip = w.sidecars[b].ip;
        let (near, far) = w.connect(honest, server, ip, 8000);
        let (bad, bad_far) = w.connect(hostile, server, ip, 8000);
        w.apps[hostile].alive = false; // from here on it is driven by hand
        w.apps[honest].send(near, pattern(100_000, seed));
        let mut tokens = Vec::new();
        for _ in 0..200 {
            let end = &mut w.apps[hostile].end;
            let some = |r: &mut Random| FlowId { index: r.below(3) as u32, generation: r.below(3) as u32 };
            let flow = if random.below(4) > 0 { bad } else { some(&mut random) };
            match random.below(10) {
                9 if random.below(4) == 0 => end.rx.accepted(flow), // none that was offered
                0 => {
                    let fragment = Fragment {
                        begin: random.below(2) > 0,
                        end: random.below(2) > 0,
                        message_len: random.below(300) as u32,
                    };
                    let _ = end.tx.data(flow, fragment, &pattern(random.below(200) as usize, seed));
                }
                1..=3 => {
                    let len = random.below(1400) as u32;
                    let fragment = Fragment { begin: true, end: true, message_len: len };
                    let _ = end.tx.data(flow, fragment, &pattern(len as usize, seed));
                }
                4 => drop(end.tx.fin(flow)),
                5 => drop(end.tx.abort(flow)),
                6 if random.below(4) == 0 => end.tx.close(flow),
                7 if random.below(4) == 0 => end.tx.reset(flow),
                _ => {
                    while let Ok(Some(delivery)) = end.rx.delivery() {
                        if let machnet_shm::Delivery::Data(data) = delivery {
                            tokens.push(data.token);
                        }
                    }
                    if let Some(&token) = tokens.last() {
                        end.rx.give_back(token); // again and again
                        end.rx.flush_returns();
                    }
                    if random.below(3) == 0 {
                        w.apps[server].send(bad_far, pattern(400, 1));
                    }
                }
            }
            w.apps[hostile].end.tx.flush();
            w.run_for(Nanos::micros(random.below(30)), |_| false);
            if w.counter(a, "channels_faulty") > 0 {
                break;
            }
        }
        faults += w.counter(a, "channels_faulty");
        w.run("the honest message", |w| !w.apps[server].conn(far).received.is_empty());
        assert_eq!(w.apps[server].conn(far).received.pop_front(), Some(pattern(100_000, seed)));
        if let Some((channel, why, _)) = w.next_over(a) {
            assert_eq!(channel, w.apps[hostile].number);
            assert!(matches!(why, End::Fault(_)), "seed {seed}: {why:?}");
            w.run("peer told", |w| {
                let conn = w.apps[server].conn(bad_far);
                conn.over.is_some() || conn.fin
            });
        }
        let number = w.apps[hostile].number;
        w.apps[hostile].engine.detach(number);
        w.apps[hostile].conns.clear();
        w.assert_nothing_is_lost();
    }
    assert!(faults > 30, "only {faults} of 59 were found out");
}

#[test]
fn its_listeners_are_gone_with_it() {
    let mut w = World::seeded(1);
    let a = w.add(1, 1);
    let (hostile, other) = (w.app(a, 0), w.app(a, 0));
    w.listen(hostile, 8000);
    w.apps[hostile].end.tx.close(FlowId { index: 99, generation: 7 });
    w.apps[hostile].alive = false;
    w.pass(Nanos::millis(1));
    assert_eq!(w.counter(a, "channels_faulty"), 1);
    w.listen(other, 8000);
}

#[test]
fn a_peer_of_a_faulty_application_hears_that_it_is_gone() {
    let mut w = World::seeded(2);
    let (a, b) = (w.add(1, 1), w.add(2, 1));
    let (client, server) = (w.app(a, 0), w.app(b, 0));
    w.listen(server, 8000);
    let ip = w.sidecars[b].ip;
    let (near, far) = w.connect(client, server, ip, 8000);
    w.apps[client].end.tx.close(FlowId { index: near.index, generation: near.generation + 1 });
    w.apps[client].alive = false;
    w.run("reset", |w| w.apps[server].conn(far).over.is_some());
    assert_eq!(w.apps[server].conn(far).over, Some(Reason::Gone));
}

/// A place in a backlog that is given back twice, or was never taken, would let in more than the backlog says, and more than
/// the engine counts.
#[test]
fn one_that_takes_what_it_was_not_offered_loses_its_channel() {
    for lie in 0..4 {
        let mut w = World::seeded(3);
        let (a, b) = (w.add(1, 1), w.add(2, 1));
        let (client, other, hostile) = (w.app(a, 0), w.app(b, 0), w.app(b, 0));
        w.listen(hostile, 8000);
        w.listen(other, 8001);
        let (from, to) = (w.sidecars[a].ip, w.sidecars[b].ip);
        let (near, far) = w.connect(client, hostile, to, 8000);
        let honest = w.connect(client, other, to, 8001);
        w.listen(client, 9000);
        let (dialled, _) = w.connect(hostile, client, from, 9000);
        let said = match lie {
            0 => far, // once more: it took it when it came
            1 => dialled,
            2 => FlowId { generation: far.generation + 1, ..far },
            _ => FlowId { index: u32::MAX, ..far },
        };
        w.apps[hostile].alive = false;
        w.apps[hostile].end.rx.accepted(said);
        w.apps[hostile].end.tx.flush();
        w.pass(Nanos::micros(10));
        // It rings nobody, so the engine finds it when it next looks.
        w.apps[client].send(near, pattern(10, 1));
        w.run("the lie is found out", |w| w.counter(b, "channels_faulty") == 1);
        w.carry((client, honest.0), (other, honest.1), pattern(1000, 1));
    }
}

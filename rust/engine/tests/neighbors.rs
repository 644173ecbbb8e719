//! Applications of one engine that must not be felt by the others: many that are quiet, one that rings without end, one that leaves.
//! The tests put the engine to sleep themselves: it arms, wakes and runs a round, and the test says how much time has passed.

use machnet_engine::{Engine, Member, UserId};
use machnet_nic::sim::SimQueue;
use machnet_shm::{Geometry, Reason, Reply, Request};
use machnet_sim::{AppNo, World, pattern};
use machnet_wire::Nanos;

const SMALL: Geometry = Geometry { units: 64, flows: 8, unit_size: 1424 };

fn engine(w: &mut World) -> &mut Engine<SimQueue> {
    &mut w.sidecars[0].engines[0]
}

/// A sidecar with one engine and so many applications.
fn crowd(seed: u64, apps: usize) -> World {
    let mut w = World::seeded(seed);
    let sidecar = w.add(1, 1);
    for i in 0..apps {
        let app = w.app_with(sidecar, 0, SMALL);
        w.listen(app, 8000 + i as u16);
    }
    w
}

/// Sleeps for `time`, wakes, and runs one round.
fn sleep(w: &mut World, time: Nanos) {
    assert!(engine(w).prepare_sleep(), "seed {}: there is work", w.seed);
    engine(w).wake();
    w.now += time;
    let now = w.now;
    engine(w).run_once(now);
}

/// Lets enough time and rounds pass for the engine to see that channels are quiet.
fn quiet(w: &mut World) {
    w.pass(Nanos::millis(1));
    (0..3).for_each(|_| sleep(w, Nanos::millis(1)));
}

fn listens(w: &mut World, app: AppNo, id: u32) -> bool {
    w.apps[app].poll();
    matches!(w.apps[app].reply(id), Some(Reply::Listening { .. }))
}

#[test]
fn of_many_quiet_channels_few_are_looked_at_and_the_others_are_heard() {
    let mut w = crowd(50, 100);
    quiet(&mut w);
    let looked_at = engine(&mut w).looked_at();
    assert_eq!(looked_at.len(), 16, "of 100");
    let resting: Vec<AppNo> = (0..100).filter(|&app| !looked_at.contains(&w.apps[app].number)).collect();
    let (client, server) = (resting[0], resting[50]);
    let ip = w.sidecars[0].ip;
    let (near, far) = w.connect(client, server, ip, 8000 + server as u16);
    w.carry((client, near), (server, far), pattern(20_000, 1));
    quiet(&mut w);
    let looked_at = engine(&mut w).looked_at();
    assert_eq!(looked_at.len(), 16, "they rest again");
    // Data that arrives for a resting channel is delivered, though its application has submitted nothing.
    w.carry((server, far), (client, near), pattern(20_000, 2));
    w.assert_nothing_is_lost();
    assert_eq!(w.counter(0, "bells_unheard"), 0, "nobody rang without reason");
}

#[test]
fn a_channel_that_rests_wakes_a_sleeping_engine() {
    let mut w = crowd(51, 40);
    quiet(&mut w);
    let looked_at = engine(&mut w).looked_at();
    let app = (0..40).find(|&app| !looked_at.contains(&w.apps[app].number)).expect("one rests");
    assert!(engine(&mut w).prepare_sleep());
    let id = w.apps[app].listen(9000);
    engine(&mut w).wake();
    w.now += Nanos::micros(1);
    let now = w.now;
    engine(&mut w).run_once(now);
    assert!(listens(&mut w, app, id), "served in the first round");
}

#[test]
fn a_doorbell_that_rings_for_nothing_is_left_alone_and_its_channel_still_served() {
    let mut w = crowd(52, 2);
    w.pass(Nanos::millis(1));
    for _ in 0..5000 {
        w.apps[0].end.tx.ring();
        sleep(&mut w, Nanos::micros(10));
    }
    let (empty, unheard) = (w.counter(0, "bells_empty"), w.counter(0, "bells_unheard"));
    assert!((100..200).contains(&empty), "woken for nothing {empty} times of 5000");
    assert!((3..20).contains(&unheard), "left alone {unheard} times, for longer each time");
    // What it submits meanwhile is found at the next look, which is due by time.
    w.apps[0].end.tx.ring();
    let id = w.apps[0].listen(9000);
    let due = engine(&mut w).next_deadline().expect("a look at it");
    assert!(due <= w.now + Nanos::millis(10), "seed {}: late", w.seed);
    let rest = due - w.now;
    sleep_until_found(&mut w, rest);
    assert!(listens(&mut w, 0, id));
    // Once the application has stopped that for a while, its doorbell is listened to as before.
    w.pass(Nanos::millis(20));
    let before = w.counter(0, "bells_empty");
    w.pass(Nanos::secs(2));
    assert_eq!(engine(&mut w).next_deadline(), None, "nothing is looked at by time");
    w.apps[0].end.tx.ring();
    sleep(&mut w, Nanos::micros(10));
    assert_eq!(w.counter(0, "bells_empty"), before + 1, "it is listened to");
}

/// The same, where the request may be in the ring already, so that the engine refuses to sleep.
fn sleep_until_found(w: &mut World, time: Nanos) {
    if engine(w).prepare_sleep() {
        engine(w).wake();
    }
    w.now += time;
    let now = w.now;
    engine(w).run_once(now);
}

#[test]
fn room_for_an_answer_is_something_to_ring_for() {
    let mut w = crowd(56, 1);
    w.pass(Nanos::millis(1));
    // One answer more than their ring holds.
    for id in 1000..1129 {
        assert!(w.apps[0].end.tx.request(Request::Unlisten { id }));
        let now = w.now;
        engine(&mut w).run_once(now);
    }
    for id in 1000..1129 {
        assert!(engine(&mut w).prepare_sleep(), "nothing can be done for it");
        let answer = w.apps[0].end.rx.reply().expect("sound");
        assert_eq!(answer, Some(Reply::Unlistened { id }));
        engine(&mut w).wake();
        let now = w.now;
        engine(&mut w).run_once(now);
    }
    assert_eq!(w.counter(0, "bells_empty"), 0);
}

#[test]
fn a_channel_that_rests_while_its_application_leaves_delivers_what_was_sent() {
    let mut w = crowd(57, 40);
    let (client, server) = (0, 20);
    let ip = w.sidecars[0].ip;
    let (near, far) = w.connect(client, server, ip, 8000 + server as u16);
    w.apps[server].reads = false;
    w.apps[client].send(near, pattern(30_000, 1));
    w.run("submitting", |w| w.apps[client].conn(near).outgoing.is_empty());
    w.run("submitting", |w| w.apps[client].conn(near).outgoing.is_empty());
    w.pass(Nanos::millis(100));
    w.leave(client);
    w.pass(Nanos::millis(500));
    let number = w.apps[client].number;
    assert!(engine(&mut w).usage().iter().any(|(channel, _)| *channel == number), "it drains");
    w.apps[server].reads = true;
    w.run("the end", |w| w.apps[server].conn(far).over.is_some());
    assert_eq!(w.apps[server].conn(far).over, Some(Reason::Gone));
    assert!(w.apps[server].conn(far).received.iter().eq([&pattern(30_000, 1)]));
    w.run("dropping the channel", |w| engine(w).usage().len() == 39);
    quiet(&mut w);
    assert_eq!(engine(&mut w).looked_at().len(), 16);
}

#[test]
fn a_closed_doorbell_does_not_keep_the_engine_awake() {
    let mut w = crowd(53, 2);
    // The application is gone, and the control thread has not told the engine yet.
    let gone = w.apps.remove(0);
    drop(gone);
    for _ in 0..1000 {
        sleep(&mut w, Nanos::micros(10));
    }
    let unheard = w.counter(0, "bells_unheard");
    assert!((1..=3).contains(&unheard), "found closed {unheard} times in 10 ms");
}

#[test]
fn a_channel_that_ends_is_handed_back_and_not_unmapped_by_the_engine() {
    let mut w = crowd(54, 2);
    let (number, ip) = (w.apps[0].number, w.sidecars[0].ip);
    let (near, _) = w.connect(1, 0, ip, 8000);
    w.apps[0].alive = false;
    assert!(w.apps[0].engine.detach(number));
    w.run("the end", |w| w.apps[1].conn(near).over.is_some());
    w.run("forgetting", |w| engine(w).usage().len() == 1);
    assert!(w.apps[0].end.rx.drain_doorbell(), "the engine's end is still there");
    let (channel, _, leftover) = w.next_over(0).expect("it was handed back");
    assert_eq!(channel, number);
    let (step, mut steps) = (16 << 10, 0);
    leftover.release(step, &mut || steps += 1);
    assert!(steps > 0);
    assert_eq!(steps + 1, SMALL.len().div_ceil(step), "the last is left to munmap");
    assert!(!w.apps[0].end.rx.drain_doorbell(), "and now it is gone");
    assert!(w.next_over(0).is_none());
}

#[test]
fn an_engine_that_reads_no_notes_loses_no_channel() {
    let mut w = World::seeded(55);
    let sidecar = w.add(1, 1);
    let handle = w.sidecars[sidecar].shared.handle(0).expect("in range");
    let tiny = Geometry { units: 16, flows: 1, unit_size: 64 };
    let mut apps = Vec::new();
    let refused = loop {
        let (app, end) = machnet_shm::pair(tiny).expect("memory");
        match handle.attach(end, Member::alone(UserId(1000))) {
            Ok(_) => apps.push(app),
            Err(end) => break (app, end),
        }
        assert!(apps.len() <= 256);
    };
    assert!(refused.0.rx.drain_doorbell(), "it came back whole");
    w.pass(Nanos::millis(1));
    assert_eq!(engine(&mut w).usage().len(), 256);
    assert!(handle.attach(*refused.1, Member::alone(UserId(1000))).is_ok());
}

#[test]
fn many_that_leave_at_once_are_let_go_a_few_in_each_round() {
    let mut w = crowd(58, 40);
    let numbers: Vec<u64> = w.apps.iter().map(|app| app.number).collect();
    for (app, number) in w.apps.iter_mut().zip(numbers) {
        app.alive = false;
        assert!(app.engine.detach(number));
    }
    for left in (0..40).rev().step_by(8) {
        let now = w.now;
        assert!(engine(&mut w).run_once(now) > 0);
        assert_eq!(engine(&mut w).usage().len(), left - left % 8, "they are looked at in turn");
    }
    assert!(engine(&mut w).prepare_sleep(), "nobody is forgotten");
    engine(&mut w).wake();
}

//! Requests and answers beyond what their rings hold, of an application that looks only when it was rung. Virtual time.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;

use machnet_engine::{Member, UserId};
use machnet_shm::sleep::ROOM;
use machnet_shm::{AppEnd, Geometry, Reason, Reply, Request, pair};
use machnet_sim::World;
use machnet_wire::Nanos;

/// An application that sleeps on its doorbell whenever it has nothing to do.
struct Sleeper {
    end: AppEnd,
    bell: File,
    /// Requests not yet sent, in reverse order.
    requests: Vec<Request>,
    answers: Vec<Reply>,
    wakes: u32,
    /// Requests that had not found room when the first answer came.
    waited_for_answers: usize,
}

impl Sleeper {
    /// Attached to the only engine of sidecar 0.
    fn attach(w: &mut World, geometry: Geometry) -> Sleeper {
        let (end, engine) = pair(geometry).expect("memory");
        let handle = w.sidecars[0].shared.handle(0).expect("in range");
        assert!(handle.attach(engine, Member::alone(UserId(1000))).is_ok());
        let bell = bell(end.rx.doorbell());
        Sleeper { end, bell, requests: Vec::new(), answers: Vec::new(), wakes: 0, waited_for_answers: 0 }
    }

    /// Sends and takes what it can, and goes to sleep.
    fn work(&mut self) {
        self.wakes += 1;
        loop {
            while let Some(reply) = self.end.rx.reply().expect("sound replies") {
                if self.answers.is_empty() {
                    self.waited_for_answers = self.requests.len();
                }
                self.answers.push(reply);
            }
            while let Some(&next) = self.requests.last()
                && self.end.tx.request(next)
            {
                self.requests.pop();
            }
            self.end.tx.flush();
            if self.end.rx.arm(ROOM, || !self.requests.is_empty()) {
                return;
            }
        }
    }

    /// Runs the world until so many answers are there.
    fn await_answers(&mut self, w: &mut World, wanted: usize) {
        self.work();
        for _ in 0..60_000 {
            if self.answers.len() >= wanted {
                return;
            }
            w.pass(Nanos::micros(100));
            if matches!(self.bell.read(&mut [0; 64]), Ok(1..)) {
                self.work();
            }
        }
        let (have, left) = (self.answers.len(), self.requests.len());
        panic!("after 6 s: {have} answers of {wanted}, and {left} requests that found no room");
    }
}

/// The doorbell as a file of our own, by its name, since a descriptor alone is read with unsafe code only.
fn bell(doorbell: i32) -> File {
    const O_NONBLOCK: i32 = 0o4000;
    let name = format!("/proc/self/fd/{doorbell}");
    File::options().read(true).custom_flags(O_NONBLOCK).open(name).expect("the doorbell")
}

#[test]
fn more_dials_than_both_rings_hold_all_end_though_nobody_asks_again() {
    const DIALS: u32 = 400;
    let mut w = World::seeded(901);
    w.add(1, 1);
    let mut app = Sleeper::attach(&mut w, Geometry { flows: 512, ..Geometry::DEFAULT });
    // Nobody answers ARP for this address, so all dials end in one round.
    let ip = Ipv4Addr::new(10, 0, 0, 77);
    app.requests = (0..DIALS)
        .map(|id| Request::Connect { id, ip, port: 7000, local_port: 0, timeout_ms: 3000 })
        .rev()
        .collect();
    app.await_answers(&mut w, DIALS as usize);
    let told: BTreeSet<u32> = app
        .answers
        .iter()
        .map(|answer| match answer {
            Reply::ConnectFailed { id, reason: Reason::Unreachable } => *id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, (0..DIALS).collect(), "each is told once");
    assert_eq!(app.waited_for_answers, 0, "room came as requests were taken, not as they were answered");
    assert!(app.wakes < DIALS, "it was woken {} times", app.wakes);
}

#[test]
fn more_listeners_than_a_ring_holds_come_and_go_in_their_order() {
    const LISTENERS: u32 = 300;
    let mut w = World::seeded(902);
    w.add(1, 1);
    let mut app = Sleeper::attach(&mut w, Geometry::DEFAULT);
    let listen = |id| Request::Listen {
        id,
        ip: Ipv4Addr::UNSPECIFIED,
        port: 8000 + id as u16,
        backlog: 1,
        reuse_port: false,
        group: false,
    };
    for _ in 0..2 {
        app.requests =
            (0..LISTENERS).map(listen).chain((0..LISTENERS).map(|id| Request::Unlisten { id })).collect();
        app.requests.reverse();
        app.await_answers(&mut w, 2 * LISTENERS as usize);
        for (answers, kind) in app.answers.chunks(LISTENERS as usize).zip(["listening", "over"]) {
            for (id, answer) in (0..).zip(answers) {
                let wanted = match kind {
                    "listening" => Reply::Listening { id, port: 8000 + id as u16 },
                    _ => Reply::Unlistened { id },
                };
                assert_eq!(*answer, wanted);
            }
        }
        app.answers.clear();
        assert_eq!(w.sidecars[0].shared.ports.listeners(), 0);
    }
}

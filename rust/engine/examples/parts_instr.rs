//! What the parts of a round cost: an engine under loads of different make-up, each the same work again and again. Prints what the engine did;
//! `scripts/parts-instr.sh` has callgrind count the instructions of `measured` meanwhile, and solves for the parts.
//!
//! Arguments: load (idle, echo, send, receive, hand-out, hand-in), messages of 64 bytes (rounds where it is idle), in flight.

mod app;
mod plain;

use std::net::Ipv4Addr;

use machnet_engine::{Counters, Engine, Member, UserId};
use machnet_shm::{AppEnd, FlowId, Fragment, Geometry, Request};
use machnet_wire::Nanos;
use plain::{Frames, Plain};

/// Which engine is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Client,
    /// The one on whose queue everything comes in.
    Front,
    /// The one that the server's application belongs to.
    Back,
}

/// One round of the engine that is looked at.
#[inline(never)]
fn measured(engine: &mut Engine<Plain>, now: Nanos) {
    engine.run_once(now);
}

/// Two hosts. The server's application is on the last of its engines; all that comes, comes to the first.
struct World {
    engines: [Vec<Engine<Plain>>; 2],
    apps: [AppEnd; 2],
    flow: Option<FlowId>,
    now: u64,
    looked_at: Option<Place>,
}

impl World {
    fn round(&mut self, time: Nanos) {
        self.now += time.0;
        let [client, server] = &mut self.engines;
        let last = server.len() - 1;
        let each = client.iter_mut().map(|engine| (Place::Client, engine));
        let server = server
            .iter_mut()
            .enumerate()
            .map(|(i, engine)| (if i == last { Place::Back } else { Place::Front }, engine));
        for (place, engine) in each.chain(server) {
            if self.looked_at == Some(place) {
                measured(engine, Nanos(self.now));
            } else {
                engine.run_once(Nanos(self.now));
            }
        }
    }

    /// Takes what came to an application, and sends it back if it is to `echo`; gives how many messages.
    fn poll(&mut self, app: usize, echo: bool) -> usize {
        app::poll(&mut self.apps[app], echo, &mut self.flow)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse().ok()).unwrap_or(1);
    let (load, count, inflight): (&str, usize, usize) =
        (arguments.first().map_or("echo", String::as_str), number(1), number(2));
    let (place, echo, queues) = match load {
        "idle" | "echo" => (Place::Back, true, 1),
        "send" => (Place::Client, false, 1),
        "receive" => (Place::Back, false, 1),
        "hand-out" => (Place::Front, true, 2),
        "hand-in" => (Place::Back, true, 2),
        other => panic!("{other}: no load; idle, echo, send, receive, hand-out or hand-in"),
    };
    let (to_server, to_client, nothing) = (Frames::new(), Frames::new(), Frames::new());
    let server_queues = [[&to_client, &to_server], [&to_client, &nothing]];
    let (client, client_engines) = plain::engines(1, &[[&to_server, &to_client]]);
    let (server, server_engines) = plain::engines(2, &server_queues[..queues]);
    let last = queues as u16 - 1;
    let [client_app, server_app] = [(&client, 0), (&server, last)].map(|(shared, engine)| {
        let (app, end) = machnet_shm::pair(Geometry::DEFAULT).expect("memory");
        assert!(shared.handle(engine).expect("in range").attach(end, Member::alone(UserId(1000))).is_ok());
        app
    });
    let mut w = World {
        engines: [client_engines, server_engines],
        apps: [client_app, server_app],
        flow: None,
        now: 0,
        looked_at: None,
    };
    let listen = Request::Listen {
        id: 1,
        ip: Ipv4Addr::UNSPECIFIED,
        port: 80,
        backlog: 8,
        reuse_port: false,
        group: false,
    };
    assert!(w.apps[1].tx.request(listen));
    w.round(ROUND);
    let ip = Ipv4Addr::new(10, 0, 0, 2);
    assert!(w.apps[0].tx.request(Request::Connect { id: 1, ip, port: 80, local_port: 0, timeout_ms: 0 }));
    while w.flow.is_none() {
        w.round(ROUND);
        w.poll(0, false);
    }
    // Whatever a set-up brings with it is over.
    for _ in 0..3000 {
        w.round(Nanos::micros(100));
        w.poll(1, echo);
    }
    let flow = w.flow.expect("established");
    let fragment = Fragment { begin: true, end: true, message_len: 64 };
    let shared = if place == Place::Client { &client } else { &server };
    let counters = shared.counters(if place == Place::Back { last } else { 0 }).expect("in range");
    let before = so_far(counters);
    w.looked_at = Some(place);
    let (mut sent, mut done) = (0, 0);
    while done < count {
        if load == "idle" {
            done += 1;
        }
        while load != "idle"
            && sent < count
            && sent - done < inflight
            && w.apps[0].tx.data(flow, fragment, &[7; 64]).is_ok()
        {
            sent += 1;
        }
        w.round(ROUND);
        let at_server = w.poll(1, echo);
        let at_client = w.poll(0, false);
        done += if echo { at_client } else { at_server };
    }
    let after = so_far(counters);
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        println!("{name} {}", after - before);
    }
}

/// What an engine has done.
fn so_far(counters: &Counters) -> [(&'static str, u64); 7] {
    [
        ("round", counters.rounds.get()),
        // A frame that is handed over is not worked through here.
        ("frame_in", counters.rx_frames.get() - counters.handover_out.get()),
        ("frame_out", counters.tx_frames.get()),
        ("unit_in", counters.rx_units.get()),
        ("unit_out", counters.tx_units.get()),
        ("hand_out", counters.handover_out.get()),
        ("hand_in", counters.handover_in.get()),
    ]
}

const ROUND: Nanos = Nanos(300);

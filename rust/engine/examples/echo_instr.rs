//! What an echo costs: two hosts joined by pairs of plain queues, all in one thread, with applications that echo 64 bytes.
//! Prints nanoseconds per echo, and per pass (an echo is four: there are two engines, and each sees it twice), and what connections
//! cost in memory of their own (`RssAnon`) when they are idle. For instructions: `make bench-instr`.
//!
//! Arguments: echoes of each engine (1000000), in flight at each (1), bytes (64), engines of each host (1), connections of each
//! engine (1), of these those that carry the echoes in turn (all), other channels of each engine, which do nothing (0).

mod plain;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use machnet_engine::{Engine, Member, UserId};
use machnet_shm::{AppEnd, Delivery, FlowId, Fragment, Geometry, Origin, Request};
use machnet_wire::Nanos;
use plain::{Frames, Plain};

/// An engine and its application.
struct Side {
    engine: Engine<Plain>,
    app: AppEnd,
    /// Of other channels.
    _quiet: Vec<AppEnd>,
    flows: Vec<FlowId>,
    echoes: bool,
    sent: usize,
    done: usize,
}

impl Side {
    /// Takes what came. Messages are counted, or answered.
    fn poll(&mut self) {
        let (tx, rx) = (&mut self.app.tx, &mut self.app.rx);
        if tx.ready() {
            tx.reclaim(|_| {}).expect("sound");
        }
        while let Some(delivery) = rx.delivery().expect("sound") {
            match delivery {
                Delivery::Established(e) => {
                    self.flows.push(e.flow);
                    if matches!(e.origin, Origin::Accepted(_)) {
                        rx.accepted(e.flow);
                    }
                }
                Delivery::Data(data) => {
                    self.done += 1;
                    if self.echoes {
                        let mut bytes = [0; 2048];
                        let bytes = &mut bytes[..data.len.into()];
                        if data.token.has_buffer() {
                            rx.read(data.token, 0, bytes);
                        } else {
                            bytes.copy_from_slice(&data.inline[..data.len.into()]);
                        }
                        tx.data(data.flow, data.fragment, bytes).expect("tokens");
                    }
                    rx.give_back(data.token);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The engines of host `n`, each with a queue of its own and an application; `wires`: to and from.
fn host(
    n: u8,
    wires: &[[&Arc<Mutex<Frames>>; 2]],
    connections: usize,
    quiet: usize,
    echoes: bool,
) -> Vec<Side> {
    let (shared, engines) = plain::engines(n, wires);
    let side = |(index, engine): (usize, Engine<Plain>)| {
        let attach = |geometry| {
            let (app, end) = machnet_shm::pair(geometry).expect("memory");
            let handle = shared.handle(index as u16).expect("in range");
            assert!(handle.attach(end, Member::alone(UserId(1000))).is_ok());
            app
        };
        let flows = Geometry::DEFAULT.flows.max(connections as u32);
        let app = attach(Geometry { flows, ..Geometry::DEFAULT });
        let _quiet = (0..quiet).map(|_| attach(Geometry::DEFAULT)).collect();
        // Touched now, or it would count as the engine's.
        let mut flows = vec![FlowId { index: 0, generation: 0 }; connections];
        flows.clear();
        Side { engine, app, _quiet, flows, echoes, sent: 0, done: 0 }
    };
    engines.into_iter().enumerate().map(side).collect()
}

/// Both hosts, and the time.
struct Hosts {
    clients: Vec<Side>,
    servers: Vec<Side>,
    now: u64,
    /// The longest round of an engine so far, wall-clock nanoseconds; without those that another thread interrupted.
    longest: u128,
}

impl Hosts {
    fn round(&mut self, step: u64) {
        self.now += step;
        for side in &mut self.clients {
            side.engine.run_once(Nanos(self.now));
        }
        for side in &mut self.servers {
            side.engine.run_once(Nanos(self.now));
        }
    }

    /// A round that is timed, and everything that applications do about it.
    fn round_and_poll(&mut self) {
        self.now += ROUND;
        for side in self.clients.iter_mut().chain(&mut self.servers) {
            let (slices, begun) = (slices(), Instant::now());
            side.engine.run_once(Nanos(self.now));
            let took = begun.elapsed().as_nanos();
            if took > self.longest && slices == self::slices() {
                self.longest = took;
            }
            side.poll();
        }
    }

    /// Opens `connections` at each engine.
    fn connect(&mut self, connections: usize) {
        // An engine has some 64 000 local ports divided by the engines towards each port of a peer, of which the first half is quick to find.
        let ports = connections * self.servers.len() / 32_000 + 1;
        let port = |engine: usize, n: usize| (80 + engine * ports + n % ports) as u16;
        for (engine, server) in self.servers.iter_mut().enumerate() {
            for n in 0..ports {
                let (id, ip, port) = (n as u32, Ipv4Addr::UNSPECIFIED, port(engine, n));
                let listen = Request::Listen { id, ip, port, backlog: 64, reuse_port: false, group: false };
                assert!(server.app.tx.request(listen));
            }
        }
        self.round_and_poll();
        let mut dialled = 0;
        while dialled < connections {
            let more = (connections - dialled).min(32);
            for (i, client) in self.clients.iter_mut().enumerate() {
                for n in 0..more {
                    let (id, ip, port) =
                        ((dialled + n) as u32, Ipv4Addr::new(10, 0, 0, 2), port(i, dialled + n));
                    assert!(client.app.tx.request(Request::Connect {
                        id,
                        ip,
                        port,
                        local_port: 0,
                        timeout_ms: 0
                    }));
                }
            }
            dialled += more;
            while self.clients.iter().chain(&self.servers).any(|side| side.flows.len() < dialled) {
                self.round_and_poll();
            }
        }
    }

    /// Echoes of each engine over the first `active` of its connections in turn; in how many rounds. A function of its own, since callgrind counts
    /// what happens in it alone.
    #[inline(never)]
    fn exchange(&mut self, echoes: usize, inflight: usize, bytes: usize, active: usize) -> u64 {
        let message = vec![7; bytes];
        let fragment = Fragment { begin: true, end: true, message_len: bytes as u32 };
        let mut rounds = 0u64;
        while self.clients.iter().any(|client| client.done < echoes) {
            for client in &mut self.clients {
                while client.sent < echoes && client.sent - client.done < inflight {
                    let flow = client.flows[client.sent % active];
                    if client.app.tx.data(flow, fragment, &message).is_err() {
                        break;
                    }
                    client.sent += 1;
                }
            }
            self.round(ROUND);
            self.servers.iter_mut().for_each(Side::poll);
            self.clients.iter_mut().for_each(Side::poll);
            rounds += 1;
        }
        rounds
    }

    /// Runs until no connection has anything to do but to ask whether its peer lives, and a little longer.
    fn idle(&mut self) {
        for _ in 0..IDLE / STEP {
            self.round(STEP);
        }
        self.clients.iter_mut().chain(&mut self.servers).for_each(Side::poll);
    }
}

/// How often this thread was given a core.
fn slices() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("there on Linux");
    stat.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("the third number")
}

/// Memory of this process that no other shares, bytes.
fn anonymous() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("there since Linux 4.5");
    line.trim().trim_end_matches(" kB").parse::<i64>().expect("a number") * 1024
}

fn main() {
    let argument =
        |n: usize, default: usize| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (echoes, inflight, bytes) = (argument(1, 1_000_000), argument(2, 1), argument(3, 64));
    let (engines, connections) = (argument(4, 1), argument(5, 1));
    let (active, quiet) = (argument(6, connections), argument(7, 0));
    let wires: Vec<_> = (0..engines).map(|_| [Frames::new(), Frames::new()]).collect();
    let (there, back): (Vec<_>, Vec<_>) = wires.iter().map(|[to, from]| ([to, from], [from, to])).unzip();
    let (clients, servers) =
        (host(1, &there, connections, quiet, false), host(2, &back, connections, quiet, true));
    let mut hosts = Hosts { clients, servers, now: 0, longest: 0 };
    hosts.idle();
    let before = anonymous();
    hosts.connect(connections);
    let longest = hosts.longest;
    // What beginning leaves behind is no part of an echo.
    hosts.idle();
    let begun = Instant::now();
    let rounds = hosts.exchange(echoes, inflight, bytes, active);
    let all = (echoes * engines) as f64;
    let took = begun.elapsed().as_nanos() as f64 / all;
    println!(
        "{bytes} B, {inflight} in flight at each of {engines} engines: {took:.0} ns per echo, {:.0} ns per pass, {:.2} rounds per echo",
        took / 4.0,
        rounds as f64 / echoes as f64
    );
    println!("{:?}", hosts.clients[0].engine.usage());
    hosts.idle();
    let ends = (2 * engines * connections) as i64;
    println!(
        "{connections} connections at each engine, {active} of them used: {} bytes of memory for each end when idle; the longest round while they began: {} us",
        (anonymous() - before) / ends,
        longest / 1000
    );
}

/// Virtual time of a round in which something happens, nanoseconds.
const ROUND: u64 = 300;
/// And of those in which nothing does.
const STEP: u64 = 200_000;
/// Longer than it takes an idle connection to give its memory back.
const IDLE: u64 = 3_000_000_000;

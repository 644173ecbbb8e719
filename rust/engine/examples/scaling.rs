//! Whether a second engine on a second core does as much as the first: pairs of engines, one of a client's sidecar and one of a server's, each
//! pair and its applications in a thread of its own that never waits, echo 64 bytes with 32 in flight. What engines of a sidecar share (tables of
//! ports and neighbours, counters, cache lines) is shared; queue i of one host is wired to queue i of the other. Prints echoes a second of one
//! pair and of two, interleaved, and the efficiency, of medians and of the best rounds; by the clock, which needs two cores that nobody else
//! uses, and by the processor time that the threads got.
//!
//! Arguments: rounds (11), milliseconds of each (200).

mod app;
mod plain;

use std::net::Ipv4Addr;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use machnet_engine::{Engine, Member, Shared, UserId};
use machnet_shm::{AppEnd, FlowId, Fragment, Geometry, Request};
use machnet_wire::Nanos;
use plain::{Frames, Plain};

type Wire = Arc<Mutex<Frames>>;

/// An engine of each host, and an application on each.
struct Pair {
    engines: [Engine<Plain>; 2],
    apps: [AppEnd; 2],
    flow: Option<FlowId>,
}

impl Pair {
    fn round(&mut self, now: Nanos) -> usize {
        let [client, server] = &mut self.engines;
        client.run_once(now);
        server.run_once(now);
        self.poll(1);
        self.poll(0)
    }

    /// Takes what came to an application; the server's sends it back. Gives how many messages.
    fn poll(&mut self, app: usize) -> usize {
        app::poll(&mut self.apps[app], app == 1, &mut self.flow)
    }

    /// Connects to port `port` of the server, and echoes for this long; gives echoes a second, and a second of processor time. Threads
    /// begin together.
    fn run(mut self, port: u16, time: Duration, together: &Barrier) -> [f64; 2] {
        let mut now = 0;
        let mut round = |pair: &mut Self| {
            now += 300;
            pair.round(Nanos(now))
        };
        let listen = Request::Listen {
            id: 1,
            ip: Ipv4Addr::UNSPECIFIED,
            port,
            backlog: 8,
            reuse_port: false,
            group: false,
        };
        assert!(self.apps[1].tx.request(listen));
        round(&mut self);
        let ip = Ipv4Addr::new(10, 0, 0, 2);
        assert!(self.apps[0].tx.request(Request::Connect { id: 1, ip, port, local_port: 0, timeout_ms: 0 }));
        while self.flow.is_none() {
            round(&mut self);
        }
        let flow = self.flow.expect("established");
        let fragment = Fragment { begin: true, end: true, message_len: 64 };
        let (mut sent, mut done) = (0u64, 0u64);
        together.wait();
        let (begun, had) = (Instant::now(), processor_time());
        while begun.elapsed() < time {
            for _ in 0..256 {
                while sent - done < IN_FLIGHT && self.apps[0].tx.data(flow, fragment, &[7; 64]).is_ok() {
                    sent += 1;
                }
                done += round(&mut self) as u64;
            }
        }
        let spent = [begun.elapsed(), processor_time() - had];
        spent.map(|time| done as f64 / time.as_secs_f64())
    }
}

/// The processor time that this thread has had, as Linux counts it.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number of nanoseconds"))
}

/// Echoes of so many pairs, a second and a second of processor time.
fn rate(pairs: u16, time: Duration) -> [f64; 2] {
    let wires: Vec<(Wire, Wire)> = (0..pairs).map(|_| (Frames::new(), Frames::new())).collect();
    let there: Vec<_> = wires.iter().map(|(there, back)| [there, back]).collect();
    let back: Vec<_> = wires.iter().map(|(there, back)| [back, there]).collect();
    let hosts = [plain::engines(1, &there), plain::engines(2, &back)];
    let [(client, client_engines), (server, server_engines)] = hosts;
    let attach = |shared: &Arc<Shared>, engine| {
        let (app, end) = machnet_shm::pair(Geometry::DEFAULT).expect("memory");
        assert!(shared.handle(engine).expect("in range").attach(end, Member::alone(UserId(1000))).is_ok());
        app
    };
    let together = Barrier::new(pairs.into());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(client_engines.into_iter().zip(server_engines))
            .map(|(i, (near, far))| {
                let apps = [attach(&client, i), attach(&server, i)];
                let pair = Pair { engines: [near, far], apps, flow: None };
                let together = &together;
                scope.spawn(move || pair.run(8000 + i, time, together))
            })
            .collect();
        let each = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        each.fold([0.0; 2], |sum, one| [sum[0] + one[0], sum[1] + one[1]])
    })
}

fn main() {
    let number = |n: usize, default| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (rounds, time) = (number(1, 11), Duration::from_millis(number(2, 200)));
    let mut each = [const { [Vec::new(), Vec::new()] }; 2];
    for _ in 0..rounds {
        for (rates, pairs) in each.iter_mut().zip([1, 2]) {
            rates.iter_mut().zip(rate(pairs, time)).for_each(|(rates, rate)| rates.push(rate));
        }
    }
    each.iter_mut().flatten().for_each(|rates| rates.sort_by(f64::total_cmp));
    let [one, two] = each;
    for (clock, (one, two)) in ["by the clock", "by processor time"].iter().zip(one.iter().zip(&two)) {
        for (what, at) in [("median", one.len() / 2), ("best", one.len() - 1)] {
            println!(
                "{clock}, {what}: one pair {:.0} echoes/s, two {:.0}, efficiency {:.2}",
                one[at],
                two[at],
                two[at] / one[at] / 2.0
            );
        }
    }
}

const IN_FLIGHT: u64 = 32;

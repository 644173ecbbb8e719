//! What an echo costs: two engines joined by a pair of plain queues in one thread, an application on each, 64 bytes.
//! Prints nanoseconds per echo, and per pass (an echo is four: there are two engines, and each sees it twice). For instructions:
//! `valgrind --tool=callgrind target/release/examples/echo_instr 20000 1`.
//!
//! Arguments: echoes (1000000), in flight (1), bytes (64).

mod plain;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use machnet_engine::{Engine, UserId};
use machnet_shm::{AppEnd, Delivery, FlowId, Fragment, Geometry, Request};
use machnet_wire::Nanos;
use plain::{Frames, Plain};

struct Side {
    engine: Engine<Plain>,
    app: AppEnd,
    flow: Option<FlowId>,
}

fn side(n: u8, to: &Arc<Mutex<Frames>>, from: &Arc<Mutex<Frames>>) -> Side {
    let (shared, mut engines) = plain::engines(n, &[[to, from]]);
    let (app, end) = machnet_shm::pair(Geometry::DEFAULT).expect("memory");
    assert!(shared.handle(0).expect("in range").attach(end, UserId(1000)).is_ok());
    Side { engine: engines.remove(0), app, flow: None }
}

/// Takes messages; returns their number, and answers each when `echo`.
fn poll(side: &mut Side, echo: bool) -> usize {
    let mut got = 0;
    let (tx, rx) = (&mut side.app.tx, &mut side.app.rx);
    if tx.ready() {
        tx.reclaim(|_| {}).expect("sound");
    }
    while let Some(delivery) = rx.delivery().expect("sound") {
        match delivery {
            Delivery::Established(e) => side.flow = Some(e.flow),
            Delivery::Data(data) => {
                got += 1;
                if echo {
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
    got
}

fn main() {
    let argument =
        |n: usize, default: usize| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (echoes, inflight, bytes) = (argument(1, 1_000_000), argument(2, 1), argument(3, 64));
    let (ab, ba) = (Frames::new(), Frames::new());
    let sides = RefCell::new((side(1, &ab, &ba), side(2, &ba, &ab)));
    let mut now = 0u64;
    let mut round = |sides: &mut (Side, Side)| {
        now += 300;
        sides.0.engine.run_once(Nanos(now));
        sides.1.engine.run_once(Nanos(now));
    };
    let mut both = sides.borrow_mut();
    let both = &mut *both;
    let listen =
        Request::Listen { id: 1, ip: Ipv4Addr::UNSPECIFIED, port: 80, backlog: 8, reuse_port: false };
    assert!(both.1.app.tx.request(listen));
    round(both);
    let ip = Ipv4Addr::new(10, 0, 0, 2);
    assert!(both.0.app.tx.request(Request::Connect { id: 1, ip, port: 80, local_port: 0, timeout_ms: 0 }));
    while both.0.flow.is_none() || both.1.flow.is_none() {
        round(both);
        poll(&mut both.0, false);
        poll(&mut both.1, true);
    }
    let flow = both.0.flow.expect("established");
    let message = vec![7; bytes];
    let fragment = Fragment { begin: true, end: true, message_len: bytes as u32 };
    let (mut sent, mut done, mut rounds) = (0, 0, 0u64);
    let begun = Instant::now();
    while done < echoes {
        while sent < echoes && sent - done < inflight && both.0.app.tx.data(flow, fragment, &message).is_ok()
        {
            sent += 1;
        }
        round(both);
        poll(&mut both.1, true);
        done += poll(&mut both.0, false);
        rounds += 1;
    }
    let took = begun.elapsed().as_nanos() as f64 / echoes as f64;
    println!(
        "{bytes} B, {inflight} in flight: {took:.0} ns per echo, {:.0} ns per pass, {:.2} rounds per echo",
        took / 4.0,
        rounds as f64 / echoes as f64
    );
    println!("{:?}", both.0.engine.usage());
}

//! Random operations on both ends against an oracle of queues: everything arrives, once, in order, with its bytes; tokens and buffers
//! are never more than there are, and all come home. A failure prints its seed.

use machnet_shm::{
    AppEnd, Delivery, EngineEnd, FlowId, Fragment, Geometry, HeldUnit, Reason, Returned, RxToken, Submission,
    TxUnit, pair,
};
use std::collections::VecDeque;

const GEOMETRY: Geometry = Geometry { units: 16, flows: 4, unit_size: 300 };

#[test]
fn everything_arrives_once_in_order_and_every_token_comes_home() {
    for seed in 0..200 {
        let run = std::panic::catch_unwind(|| Model::new(seed).run(2000));
        if let Err(cause) = run {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

/// What crosses a ring, by the oracle's book.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    Data(FlowId, Fragment, Vec<u8>),
    Abort(FlowId),
    Fin(FlowId),
    Close(FlowId),
    Reset(FlowId, Reason),
}

/// One direction of a connection, as its sender knows it.
#[derive(Default, Clone)]
struct Side {
    /// Bytes of the message under way that are still to be sent.
    left: Option<u32>,
    finished: bool,
}

struct Conn {
    flow: FlowId,
    out: Side,
    inward: Side,
    granted: u32,
    held: Vec<(Fragment, Vec<u8>, HeldUnit)>,
    /// The engine has told that it is over.
    reset: bool,
}

struct Model {
    random: u64,
    app: AppEnd,
    engine: EngineEnd,
    conns: Vec<Conn>,
    submitted: VecDeque<Item>,
    delivered: VecDeque<Item>,
    /// Units that the engine has taken and not completed, of these per flow index.
    taken: Vec<(FlowId, TxUnit, Vec<u8>)>,
    /// Units that the application has received and not given back.
    received: Vec<(RxToken, Vec<u8>)>,
}

impl Model {
    fn new(seed: u64) -> Model {
        let (app, engine) = pair(GEOMETRY).unwrap();
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (conns, submitted, delivered) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Model { random, app, engine, conns, submitted, delivered, taken: Vec::new(), received: Vec::new() }
    }

    /// Below `n`. xorshift64.
    fn below(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let salt = self.below(251);
        (0..len).map(|i| (i * 7 + salt) as u8).collect()
    }

    /// The next unit of a direction: begins a message, or goes on with the one under way.
    fn unit(&mut self, side: Side) -> (Fragment, Vec<u8>, Side) {
        let begin = side.left.is_none();
        let message =
            side.left.unwrap_or_else(|| [0, 1, 8, 95, 96, 97, 300, 301, 700][self.below(9)]) as usize;
        // A sender may cut smaller than it must, but sends no empty unit before the end.
        let most = message.min(GEOMETRY.unit_size as usize);
        let len = if most > 1 && self.below(3) == 0 { 1 + self.below(most) } else { most };
        let end = len == message;
        let fragment = Fragment { begin, end, message_len: if begin { message as u32 } else { 0 } };
        let left = if end { None } else { Some((message - len) as u32) };
        (fragment, self.bytes(len), Side { left, finished: false })
    }

    fn run(mut self, steps: usize) {
        for _ in 0..steps {
            match self.below(12) {
                0 => self.open(),
                1 | 2 => self.send(),
                3 => self.end_sending(),
                4 | 5 => self.take_submission(),
                6 => self.complete(),
                7 | 8 => self.deliver(),
                9 => self.receive(),
                10 => self.give_back(),
                _ => self.tokens_come_home(),
            }
            let (tx, rx, granted) = self.engine.usage();
            assert!(tx <= GEOMETRY.units && rx + granted <= GEOMETRY.units);
            assert_eq!(granted, self.conns.iter().map(|c| c.granted).sum::<u32>());
        }
        self.settle();
    }

    /// Everything under way arrives, everything lent comes home.
    fn settle(mut self) {
        for at in (0..self.conns.len()).rev() {
            self.close(at);
        }
        while !self.submitted.is_empty() {
            self.take_submission();
        }
        while !self.taken.is_empty() {
            self.complete();
        }
        self.engine.flush();
        while !self.delivered.is_empty() {
            self.receive();
        }
        assert!(self.app.rx.delivery().unwrap().is_none(), "more was delivered than was sent");
        assert!(self.engine.submission().unwrap().is_none(), "more was submitted than was sent");
        while !self.received.is_empty() {
            self.give_back();
        }
        self.app.rx.flush_returns();
        self.tokens_come_home();
        assert_eq!(self.engine.usage(), (0, 0, 0));
        assert_eq!(self.engine.flows(), 0);
    }

    fn open(&mut self) {
        match self.engine.open_flow() {
            Some(flow) => self.conns.push(Conn {
                flow,
                out: Side::default(),
                inward: Side::default(),
                granted: 0,
                held: Vec::new(),
                reset: false,
            }),
            None => {
                if self.conns.len() == GEOMETRY.flows as usize {
                    let at = self.below(self.conns.len());
                    self.close(at);
                }
            }
        }
    }

    /// Both ends are done with a connection; what is under way still arrives.
    fn close(&mut self, at: usize) {
        let conn = self.conns.swap_remove(at);
        self.app.tx.close(conn.flow);
        self.submitted.push_back(Item::Close(conn.flow));
        for (_, _, held) in conn.held {
            self.engine.discard_held(held);
        }
        self.engine.ungrant(conn.flow, conn.granted);
        self.engine.flow_done(conn.flow);
    }

    fn pick(&mut self) -> Option<usize> {
        if self.conns.is_empty() { None } else { Some(self.below(self.conns.len())) }
    }

    fn send(&mut self) {
        let Some(at) = self.pick() else { return };
        let (flow, side) = (self.conns[at].flow, self.conns[at].out.clone());
        if side.finished {
            return;
        }
        let (fragment, bytes, side) = self.unit(side);
        let tokens = self.app.tx.tokens(flow);
        assert_eq!(self.app.tx.data(flow, fragment, &bytes).is_ok(), tokens > 0);
        if tokens > 0 {
            self.conns[at].out = side;
            self.submitted.push_back(Item::Data(flow, fragment, bytes));
        }
    }

    fn end_sending(&mut self) {
        let Some(at) = self.pick() else { return };
        let flow = self.conns[at].flow;
        let (app, out) = (&mut self.app.tx, &mut self.conns[at].out);
        if out.left.is_some() {
            if app.abort(flow).is_ok() {
                out.left = None;
                self.submitted.push_back(Item::Abort(flow));
            }
        } else if !out.finished && self.random.is_multiple_of(8) && app.fin(flow).is_ok() {
            out.finished = true;
            self.submitted.push_back(Item::Fin(flow));
        }
    }

    fn take_submission(&mut self) {
        let Some(submission) = self.engine.submission().unwrap() else {
            return assert!(self.submitted.is_empty(), "a submission is missing");
        };
        let got = match submission {
            Submission::Data { flow, fragment, unit } => {
                let mut bytes = vec![0; unit.len()];
                self.engine.read_tx(&unit, 0, &mut bytes);
                self.taken.push((flow, unit, bytes.clone()));
                Item::Data(flow, fragment, bytes)
            }
            Submission::Abort { flow, unit } => {
                self.taken.push((flow, unit, Vec::new()));
                Item::Abort(flow)
            }
            Submission::Fin { flow, unit } => {
                self.taken.push((flow, unit, Vec::new()));
                Item::Fin(flow)
            }
            Submission::Close { flow } => Item::Close(flow),
            Submission::Reset { .. } => panic!("nobody reset"),
        };
        assert_eq!(Some(got), self.submitted.pop_front());
    }

    /// Any unit, not the oldest: acknowledgements of different connections come in any order.
    fn complete(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let at = self.below(self.taken.len());
        let (_, unit, bytes) = self.taken.swap_remove(at);
        // The bytes stay lent until now: a retransmission would read them again.
        let from = self.below(bytes.len() + 1);
        let mut again = vec![0; bytes.len() - from];
        self.engine.read_tx(&unit, from, &mut again);
        assert_eq!(again, bytes[from..]);
        self.engine.complete(unit);
        if self.below(3) == 0 {
            self.engine.flush();
        }
    }

    fn deliver(&mut self) {
        let Some(at) = self.pick() else { return };
        let flow = self.conns[at].flow;
        if self.conns[at].reset {
            return;
        }
        let want = 1 + self.below(4) as u32;
        let got = self.engine.grant(flow, want);
        assert!(got <= want);
        self.conns[at].granted += got;
        if self.conns[at].granted == 0 {
            return assert!(
                !self.engine.deliver(flow, Fragment::default(), &[]),
                "delivered beyond the grant"
            );
        }
        // Units that were held go first: they were numbered before.
        if !self.conns[at].held.is_empty() && self.below(2) == 0 {
            let (fragment, bytes, held) = self.conns[at].held.remove(0);
            self.engine.deliver_held(flow, fragment, held);
            self.delivered.push_back(Item::Data(flow, fragment, bytes));
            self.conns[at].granted -= 1;
            return;
        }
        let side = self.conns[at].inward.clone();
        match self.below(10) {
            0 if self.conns[at].held.is_empty() && side.left.is_some() => {
                self.engine.aborted(flow);
                self.conns[at].inward.left = None;
                self.conns[at].granted -= 1;
                self.delivered.push_back(Item::Abort(flow));
            }
            1 if self.conns[at].held.is_empty() && side.left.is_none() && !side.finished => {
                self.engine.fin(flow);
                self.conns[at].inward.finished = true;
                self.conns[at].granted -= 1;
                self.delivered.push_back(Item::Fin(flow));
            }
            2 if self.conns[at].held.is_empty() && self.below(10) == 0 => {
                self.engine.reset(flow, Reason::Gone);
                self.conns[at].reset = true;
                self.delivered.push_back(Item::Reset(flow, Reason::Gone));
            }
            _ if side.finished => {}
            3 | 4 if (self.conns[at].held.len() as u32) < self.conns[at].granted => {
                let (fragment, bytes, side) = self.unit(side);
                let held = self.engine.hold(&bytes).expect("a buffer within the grant");
                self.conns[at].held.push((fragment, bytes, held));
                self.conns[at].inward = side;
            }
            _ if self.conns[at].held.is_empty() => {
                let (fragment, bytes, side) = self.unit(side);
                assert!(self.engine.deliver(flow, fragment, &bytes), "a unit within the grant");
                self.conns[at].inward = side;
                self.conns[at].granted -= 1;
                self.delivered.push_back(Item::Data(flow, fragment, bytes));
            }
            _ => {}
        }
        self.engine.flush();
    }

    fn receive(&mut self) {
        let Some(delivery) = self.app.rx.delivery().unwrap() else {
            return assert!(self.delivered.is_empty(), "a delivery is missing");
        };
        let got = match delivery {
            Delivery::Data(data) => {
                let mut bytes = vec![0; data.len.into()];
                if data.token.has_buffer() {
                    self.app.rx.read(data.token, 0, &mut bytes);
                } else {
                    bytes.copy_from_slice(&data.inline[..data.len.into()]);
                }
                self.received.push((data.token, bytes.clone()));
                Item::Data(data.flow, data.fragment, bytes)
            }
            Delivery::Aborted { flow, token } => {
                self.received.push((token, Vec::new()));
                Item::Abort(flow)
            }
            Delivery::Fin { flow, token } => {
                self.received.push((token, Vec::new()));
                Item::Fin(flow)
            }
            Delivery::Reset { flow, reason } => Item::Reset(flow, reason),
            Delivery::Established(_) => panic!("nobody announced a connection"),
        };
        assert_eq!(Some(got), self.delivered.pop_front());
    }

    /// Any unit, not the oldest: connections are read in any order.
    fn give_back(&mut self) {
        if self.received.is_empty() {
            return;
        }
        let at = self.below(self.received.len());
        let (token, bytes) = self.received.swap_remove(at);
        if token.has_buffer() {
            let mut again = vec![0; bytes.len()];
            self.app.rx.read(token, 0, &mut again);
            assert_eq!(again, bytes, "a buffer changed while it was lent");
        }
        self.app.rx.give_back(token);
    }

    fn tokens_come_home(&mut self) {
        self.app.tx.reclaim(|index| assert!(index < GEOMETRY.flows)).unwrap();
        let good =
            |back| matches!(back, Returned::Units(index, count) if index < GEOMETRY.flows && count > 0);
        self.engine.returns(|back| assert!(good(back))).unwrap();
    }
}

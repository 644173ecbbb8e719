//! The receiving direction of a channel: takes the deliver ring apart into the queues of the connections, and keeps
//! the events that machnet_poll hands out.
use crate::code::{
    MACHNET_EABORTED, MACHNET_EAGAIN, MACHNET_ECLOSED, MACHNET_EEOF, MACHNET_EMSGSIZE,
    MACHNET_EVENT_ACCEPTED, MACHNET_EVENT_CLOSED, MACHNET_EVENT_CONNECTED, MACHNET_EVENT_READABLE,
};
use crate::conns::{Conns, index};
use crate::inbox::{Got, Inline, Kind, Mode, Nodes, Nothing, Queue, Units};
use crate::types::{machnet_conn, machnet_event, machnet_peer};
use machnet_shm::Fragment;

/// What the deliver ring carries.
pub enum Delivery<T> {
    /// A connection begins.
    Established {
        /// Its handle.
        conn: machnet_conn,
        /// The listener or the dial that it came from.
        origin: Origin,
        /// Its ends.
        peer: machnet_peer,
    },
    /// A unit: of data, or an order that takes a token.
    Unit(Unit<T>),
    /// The peer or the sidecar ended the connection.
    Reset {
        /// Its handle.
        conn: machnet_conn,
        /// A negative code.
        code: i32,
    },
}

/// A unit: of data, or an order that takes a token.
pub struct Unit<T> {
    /// Its connection.
    pub conn: machnet_conn,
    /// What it is.
    pub kind: Kind,
    /// Payload bytes.
    pub len: u32,
    /// The bytes came without a buffer.
    pub inline: bool,
    /// What to give back.
    pub token: T,
}

/// A reader who waits for whole messages of its connection, and what it got.
struct Direct<'a> {
    conn: machnet_conn,
    mode: Mode,
    out: &'a mut [u8],
    got: Got,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Accepted by the listener of this id.
    Listener(u32),
    /// Dialled under this id.
    Dial(u32),
}

/// The consumer of the deliver ring.
pub trait Ring: Units {
    /// The next delivery, its bytes in `inline` if it has any of that kind; `None` when there is none (tokens given back are told to
    /// the engine then), or the channel is down.
    fn pop(&mut self, inline: &mut Inline) -> Option<Delivery<Self::Token>>;
    /// A receive has left `conn` without queued units: what was given back must not stay here if its peer needs it.
    fn settle(&mut self, conn: machnet_conn);
    /// The application has taken a listener's connection: its place in the backlog is another's.
    fn accepted(&mut self, conn: machnet_conn);
}

/// One connection, as the receiving side sees it.
#[derive(Clone, Copy)]
pub struct RxConn {
    handle: machnet_conn,
    queue: Queue,
    peer: machnet_peer,
    origin: Origin,
    code: i32,
    /// A listener's, and not taken yet.
    offered: bool,
    /// Events to hand out: `NEW`, `READABLE`, `CLOSED`; in the list while not 0.
    events: u8,
    /// READABLE was told, or needs not be, and no receive has left the queue empty since.
    told: bool,
    prev: u32,
    next: u32,
}

impl RxConn {
    /// An unused entry.
    pub const UNUSED: Self = Self {
        handle: 0,
        queue: Queue::new(),
        peer: machnet_peer { local_ip: 0, remote_ip: 0, local_port: 0, remote_port: 0 },
        origin: Origin::Dial(0),
        code: 0,
        offered: false,
        events: 0,
        told: false,
        prev: NONE,
        next: NONE,
    };
}

/// The receiving direction.
pub struct Receiver<R: Ring + 'static>
where
    R::Token: 'static,
{
    /// The ring.
    pub ring: R,
    conns: &'static mut [RxConn],
    nodes: Nodes<R::Token>,
    /// Connections with events, oldest first.
    head: u32,
    tail: u32,
    listed: u32,
}

impl<R: Ring> Receiver<R> {
    /// Over memory made at attach.
    pub fn new(ring: R, conns: &'static mut [RxConn], nodes: Nodes<R::Token>) -> Self {
        Self { ring, conns, nodes, head: NONE, tail: NONE, listed: 0 }
    }

    /// Connections that have events to hand out.
    pub fn pending(&self) -> u32 {
        self.listed
    }

    /// Receives up to `out.len()` bytes of `conn`.
    #[inline]
    pub fn recv(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        mode: Mode,
        out: &mut [u8],
    ) -> Result<Got, Refused> {
        let got = self.receive(shared, conn, mode, out);
        if self.conns.get(index(conn)).is_some_and(|c| c.handle == conn && !c.queue.holds()) {
            self.ring.settle(conn);
        }
        got
    }

    fn receive(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        mode: Mode,
        out: &mut [u8],
    ) -> Result<Got, Refused> {
        let ended = shared.check(conn).map_err(Refused::code)?;
        let at = index(conn);
        match self.conns.get_mut(at) {
            Some(c) if c.handle == conn => {
                if !c.queue.readable() {
                    // What comes now is about to be read: no event for it.
                    c.told = true;
                    let mut direct = Direct { conn, mode, out: &mut *out, got: Got::default() };
                    self.take(shared, BUDGET, Some(&mut direct));
                    let Direct { mut got, .. } = direct;
                    if got.end {
                        self.unlist(at, READABLE);
                        if let Some(c) = self.conns.get_mut(at) {
                            got.more = c.queue.readable();
                            c.told = got.more;
                        }
                        return Ok(got);
                    }
                }
            }
            _ => return Err(Refused::code(MACHNET_ECLOSED)),
        }
        self.unlist(at, READABLE);
        let Some(c) = self.conns.get_mut(at) else { return Err(Refused::code(MACHNET_ECLOSED)) };
        match self.nodes.read(&mut c.queue, &mut self.ring, mode, out) {
            Ok(got) => {
                c.told = got.more;
                Ok(got)
            }
            Err(Nothing::TooShort { message_len }) => Err(Refused { code: MACHNET_EMSGSIZE, message_len }),
            Err(Nothing::Aborted) => Err(Refused::code(MACHNET_EABORTED)),
            Err(Nothing::End) => Err(Refused::code(MACHNET_EEOF)),
            Err(Nothing::Empty) => {
                c.told = false;
                // The end may have come with the drain above, after `ended` was read.
                let code = if c.code != 0 { Some(c.code) } else { ended };
                Err(Refused::code(code.unwrap_or(MACHNET_EAGAIN)))
            }
        }
    }

    /// Hands out events; the ring is drained as far as they fit.
    pub fn poll(&mut self, shared: &Conns, out: &mut [machnet_event]) -> usize {
        self.sweep(shared);
        let mut have = 0;
        loop {
            have += self.hand_out(out.get_mut(have..).unwrap_or_default());
            if have == out.len() || !self.drain(shared, BUDGET) {
                // The last drain may have found less than its budget, and still something.
                return have + self.hand_out(out.get_mut(have..).unwrap_or_default());
            }
        }
    }

    /// Takes a new connection of `origin` out of the events, for calls that wait for just that.
    pub fn take_new(&mut self, shared: &Conns, origin: Origin) -> Option<(machnet_conn, machnet_peer)> {
        self.drain(shared, BUDGET);
        let mut at = self.head;
        while let Some(c) = self.conns.get(at as usize) {
            if c.events & NEW != 0 && c.origin == origin {
                let found = (c.handle, c.peer);
                self.unlist(at as usize, NEW);
                self.taken(at as usize);
                return Some(found);
            }
            at = c.next;
        }
        None
    }

    /// The application has taken a connection that an event told it of.
    pub fn accepted(&mut self, shared: &Conns, conn: machnet_conn) -> Result<(), i32> {
        shared.check(conn)?;
        match self.conns.get(index(conn)) {
            Some(c) if c.handle == conn => self.taken(index(conn)),
            _ => return Err(MACHNET_ECLOSED),
        }
        Ok(())
    }

    /// Frees a place in the backlog, if the connection has one.
    fn taken(&mut self, at: usize) {
        if let Some(c) = self.conns.get_mut(at)
            && core::mem::take(&mut c.offered)
        {
            self.ring.accepted(c.handle);
        }
    }

    /// Takes up to `budget` deliveries. `false`: the ring was empty before that.
    pub fn drain(&mut self, shared: &Conns, budget: usize) -> bool {
        self.take(shared, budget, None)
    }

    /// The same; whole messages for a reader who waits for just them go straight into its buffer.
    fn take(&mut self, shared: &Conns, budget: usize, mut direct: Option<&mut Direct<'_>>) -> bool {
        self.sweep(shared);
        let mut inline = Inline::EMPTY;
        for _ in 0..budget {
            let Some(delivery) = self.ring.pop(&mut inline) else { return false };
            match delivery {
                Delivery::Established { conn, origin, peer } => self.begin(shared, conn, origin, peer),
                Delivery::Reset { conn, code } => self.end(shared, conn, code),
                Delivery::Unit(unit) => {
                    if let Some(direct) = &mut direct
                        && unit.conn == direct.conn
                        && self.straight(&unit, &inline, direct)
                    {
                        if direct.mode != Mode::Stream {
                            return true;
                        }
                    } else {
                        self.unit(shared, &unit, &inline);
                    }
                }
            }
        }
        true
    }

    /// Copies a whole message into the waiting reader's buffer, if nothing is queued before it and it fits.
    #[inline]
    fn straight(&mut self, unit: &Unit<R::Token>, inline: &Inline, direct: &mut Direct<'_>) -> bool {
        let Kind::Data(Fragment { begin: true, end: true, .. }) = unit.kind else { return false };
        let Some(c) = self.conns.get_mut(index(unit.conn)) else { return false };
        let Some(room) = direct.out.get_mut(direct.got.bytes..direct.got.bytes + unit.len as usize) else {
            return false;
        };
        if c.queue.busy() {
            return false;
        }
        match inline.0.get(..room.len()) {
            Some(bytes) if unit.inline => room.copy_from_slice(bytes),
            _ => self.ring.read(unit.token, 0, room),
        }
        self.ring.give_back(unit.token);
        // An empty message is nothing in a stream.
        if unit.len > 0 || direct.mode != Mode::Stream {
            let bytes = direct.got.bytes + unit.len as usize;
            direct.got = Got { bytes, message_len: unit.len, offset: 0, begin: true, end: true, more: false };
        }
        true
    }

    /// Forgets what the application has closed.
    fn sweep(&mut self, shared: &Conns) {
        shared.take_closed(|at| self.forget(shared, at));
    }

    fn begin(&mut self, shared: &Conns, conn: machnet_conn, origin: Origin, peer: machnet_peer) {
        let at = index(conn);
        self.unlist(at, u8::MAX);
        let Some(c) = self.conns.get_mut(at) else { return };
        // The application has closed the flow that was here, or the engine would not use its index again.
        self.nodes.clear(&mut c.queue, &mut self.ring);
        let offered = matches!(origin, Origin::Listener(_));
        *c = RxConn { handle: conn, peer, origin, offered, ..RxConn::UNUSED };
        shared.announce(conn);
        self.list(at, NEW);
    }

    /// Queues a unit, or gives it back when nobody wants it.
    fn unit(&mut self, shared: &Conns, unit: &Unit<R::Token>, inline: &Inline) {
        let at = index(unit.conn);
        let wanted = self.conns.get_mut(at).filter(|c| c.handle == unit.conn && !shared.is_closed(unit.conn));
        let Some(c) = wanted else { return self.ring.give_back(unit.token) };
        if !self.nodes.push(&mut c.queue, unit.kind, unit.len, unit.token, unit.inline.then_some(inline)) {
            return self.ring.give_back(unit.token);
        }
        if !c.told {
            c.told = true;
            self.list(at, READABLE);
        }
    }

    fn end(&mut self, shared: &Conns, conn: machnet_conn, code: i32) {
        let at = index(conn);
        let Some(c) = self.conns.get_mut(at) else { return };
        // A clean end (0) says nothing new: both ends have finished, and the readers know.
        if c.handle != conn || code == 0 || shared.is_closed(conn) {
            return;
        }
        c.code = code;
        shared.end(conn, code);
        self.list(at, CLOSED);
    }

    /// The application has closed what is at this index.
    fn forget(&mut self, shared: &Conns, at: usize) {
        let Some(c) = self.conns.get_mut(at) else { return };
        if c.handle == 0 || !shared.is_closed(c.handle) {
            return;
        }
        c.handle = 0;
        self.nodes.clear(&mut c.queue, &mut self.ring);
        self.unlist(at, u8::MAX);
    }

    fn hand_out(&mut self, out: &mut [machnet_event]) -> usize {
        for (have, event) in out.iter_mut().enumerate() {
            let at = self.head as usize;
            let Some(c) = self.conns.get(at) else { return have };
            let (which, told) = if c.events & NEW != 0 {
                (NEW, established(c))
            } else if c.events & READABLE != 0 {
                (
                    READABLE,
                    machnet_event {
                        kind: MACHNET_EVENT_READABLE,
                        conn: c.handle,
                        ..machnet_event::default()
                    },
                )
            } else {
                let kind = MACHNET_EVENT_CLOSED;
                (CLOSED, machnet_event { kind, code: c.code, conn: c.handle, ..machnet_event::default() })
            };
            *event = told;
            self.unlist(at, which);
        }
        out.len()
    }

    /// Adds `events` to those of the connection.
    fn list(&mut self, at: usize, events: u8) {
        let tail = self.tail;
        let Some(c) = self.conns.get_mut(at) else { return };
        let listed = c.events != 0;
        c.events |= events;
        if listed {
            return;
        }
        c.prev = tail;
        c.next = NONE;
        match self.conns.get_mut(tail as usize) {
            Some(last) => last.next = at as u32,
            None => self.head = at as u32,
        }
        self.tail = at as u32;
        self.listed += 1;
    }

    /// Takes `events` away, and the connection from the list with the last.
    fn unlist(&mut self, at: usize, events: u8) {
        let Some(c) = self.conns.get_mut(at) else { return };
        let before = c.events;
        c.events &= !events;
        if before == 0 || c.events != 0 {
            return;
        }
        let (prev, next) = (c.prev, c.next);
        match self.conns.get_mut(prev as usize) {
            Some(c) => c.next = next,
            None => self.head = next,
        }
        match self.conns.get_mut(next as usize) {
            Some(c) => c.prev = prev,
            None => self.tail = prev,
        }
        self.listed -= 1;
    }
}

/// A code, and the length of the message that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Negative.
    pub code: i32,
    /// With MACHNET_EMSGSIZE.
    pub message_len: u32,
}

impl Refused {
    const fn code(code: i32) -> Self {
        Self { code, message_len: 0 }
    }
}

fn established(c: &RxConn) -> machnet_event {
    let (kind, id) = match c.origin {
        Origin::Listener(id) => (MACHNET_EVENT_ACCEPTED, id),
        Origin::Dial(id) => (MACHNET_EVENT_CONNECTED, id),
    };
    machnet_event {
        kind,
        conn: c.handle,
        id,
        local_ip: c.peer.local_ip,
        remote_ip: c.peer.remote_ip,
        local_port: c.peer.local_port,
        remote_port: c.peer.remote_port,
        ..machnet_event::default()
    }
}

/// Deliveries taken per look: bounds the length of one call.
const BUDGET: usize = 64;
const NEW: u8 = 1;
const READABLE: u8 = 2;
const CLOSED: u8 = 4;
/// No connection.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{MACHNET_ERESET, MACHNET_EVENT_CLOSED};
    use crate::conns::{Entry, handle};
    use crate::inbox::Node;
    use core::sync::atomic::AtomicU64;
    use std::boxed::Box;
    use std::collections::VecDeque;
    use std::vec::Vec;

    #[derive(Default)]
    struct Fake {
        ring: VecDeque<Delivery<u32>>,
        back: Vec<u32>,
        settled: Vec<machnet_conn>,
        accepted: Vec<machnet_conn>,
    }

    impl Units for Fake {
        type Token = u32;
        fn read(&self, token: u32, _: usize, out: &mut [u8]) {
            out.fill(token as u8);
        }
        fn give_back(&mut self, token: u32) {
            self.back.push(token);
        }
    }

    impl Ring for Fake {
        fn pop(&mut self, inline: &mut Inline) -> Option<Delivery<u32>> {
            let delivery = self.ring.pop_front();
            if let Some(Delivery::Unit(unit)) = &delivery {
                inline.0.fill(unit.token as u8);
            }
            delivery
        }
        fn settle(&mut self, conn: machnet_conn) {
            self.settled.push(conn);
        }
        fn accepted(&mut self, conn: machnet_conn) {
            self.accepted.push(conn);
        }
    }

    fn receiver(count: usize) -> (Receiver<Fake>, Conns) {
        let entries: Vec<_> = (0..count).map(|_| Entry::default()).collect();
        let words: Vec<_> = (0..Conns::words(count)).map(|_| AtomicU64::new(0)).collect();
        let nodes: Vec<_> = (0..64).map(|i| Node::free(i + 1)).collect();
        let conns: Vec<_> = (0..count).map(|_| RxConn::UNUSED).collect();
        let nodes = Nodes::new(Box::leak(nodes.into()));
        let shared = Conns::new(Box::leak(entries.into()), Box::leak(words.into()));
        (Receiver::new(Fake::default(), Box::leak(conns.into()), nodes), shared)
    }

    fn established(at: u32, generation: u32, origin: Origin) -> Delivery<u32> {
        let peer = machnet_peer { remote_port: at as u16, ..machnet_peer::default() };
        Delivery::Established { conn: handle(at, generation), origin, peer }
    }

    /// A message of one byte, which is also its token.
    fn byte(conn: machnet_conn, byte: u32) -> Delivery<u32> {
        let kind = Kind::Data(Fragment { begin: true, end: true, message_len: 1 });
        Delivery::Unit(Unit { conn, kind, len: 1, inline: true, token: byte })
    }

    fn events(rx: &mut Receiver<Fake>, shared: &Conns, cap: usize) -> Vec<(u32, u64, i32)> {
        let mut out = std::vec![machnet_event::default(); cap];
        let have = rx.poll(shared, &mut out);
        out[..have].iter().map(|e| (e.kind, e.conn, e.code)).collect()
    }

    fn read(rx: &mut Receiver<Fake>, shared: &Conns, conn: machnet_conn) -> Result<Vec<u8>, i32> {
        let mut out = [0; 8];
        let got = rx.recv(shared, conn, Mode::Stream, &mut out).map_err(|refused| refused.code)?;
        Ok(out[..got.bytes].to_vec())
    }

    #[test]
    fn events_come_in_order_and_readable_again_only_after_a_receive_that_took_everything() {
        let (mut rx, shared) = receiver(8);
        let (a, b) = (handle(1, 1), handle(2, 1));
        rx.ring.ring.extend([
            established(1, 1, Origin::Listener(9)),
            established(2, 1, Origin::Dial(5)),
            byte(b, 1),
            byte(a, 2),
            byte(a, 3),
            Delivery::Reset { conn: a, code: MACHNET_ERESET },
        ]);
        let want = [
            (MACHNET_EVENT_ACCEPTED, a, 0),
            (MACHNET_EVENT_READABLE, a, 0),
            (MACHNET_EVENT_CLOSED, a, MACHNET_ERESET),
            (MACHNET_EVENT_CONNECTED, b, 0),
            (MACHNET_EVENT_READABLE, b, 0),
        ];
        assert_eq!(events(&mut rx, &shared, 1), want[..1]);
        assert_eq!(rx.pending(), 2);
        assert_eq!(events(&mut rx, &shared, 8), want[1..]);
        assert_eq!(read(&mut rx, &shared, b), Ok(std::vec![1]));
        rx.ring.ring.push_back(byte(b, 4));
        assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_READABLE, b, 0)]);
        rx.ring.ring.push_back(byte(b, 6));
        assert_eq!(events(&mut rx, &shared, 8), [], "b was told, and has not read");
        assert_eq!(read(&mut rx, &shared, b), Ok(std::vec![4, 6]));
        assert_eq!(read(&mut rx, &shared, b), Err(MACHNET_EAGAIN));
        rx.ring.ring.push_back(byte(b, 5));
        assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_READABLE, b, 0)]);
        assert_eq!(
            read(&mut rx, &shared, a),
            Ok(std::vec![2, 3]),
            "what came before the reset is read first"
        );
        assert_eq!(read(&mut rx, &shared, a), Err(MACHNET_ERESET));
    }

    #[test]
    fn a_receive_keeps_what_it_finds_for_others() {
        let (mut rx, shared) = receiver(8);
        let (a, b) = (handle(1, 1), handle(2, 1));
        rx.ring.ring.extend([established(1, 1, Origin::Dial(1)), established(2, 1, Origin::Dial(2))]);
        assert_eq!(events(&mut rx, &shared, 8).len(), 2);
        rx.ring.ring.extend([byte(b, 1), byte(a, 2)]);
        assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![2]));
        assert_eq!(rx.pending(), 1);
        assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_READABLE, b, 0)]);
    }

    #[test]
    fn messages_go_straight_to_a_waiting_reader_and_stay_in_order_with_what_is_queued() {
        let (mut rx, shared) = receiver(8);
        let a = handle(1, 1);
        rx.ring.ring.push_back(established(1, 1, Origin::Dial(1)));
        assert_eq!(events(&mut rx, &shared, 8).len(), 1);
        let half = || Unit {
            conn: a,
            kind: Kind::Data(Fragment { begin: true, end: false, message_len: 2 }),
            len: 1,
            inline: true,
            token: 10,
        };
        let rest = || Unit {
            kind: Kind::Data(Fragment { begin: false, end: true, message_len: 0 }),
            token: 11,
            ..half()
        };
        rx.ring.ring.extend((1..=9).map(|n| byte(a, n)));
        rx.ring.ring.extend([Delivery::Unit(half()), Delivery::Unit(rest()), byte(a, 12)]);
        let mut out = [0; 8];
        let got = rx.recv(&shared, a, Mode::Stream, &mut out).expect("bytes");
        assert_eq!((&out, got.bytes, got.end, got.more), (&[1, 2, 3, 4, 5, 6, 7, 8], 8, true, true));
        assert_eq!(rx.ring.back, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![9, 10, 11, 12]));
        rx.ring.ring.extend([Delivery::Unit(half()), Delivery::Unit(rest()), byte(a, 12)]);
        assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![10, 11, 12]), "none overtakes another");
        rx.ring.ring.extend([byte(a, 13), byte(a, 14)]);
        let got = rx.recv(&shared, a, Mode::Message, &mut out).expect("a message");
        assert_eq!((out[0], got.bytes, got.begin, got.end, got.message_len), (13, 1, true, true, 1));
        assert_eq!(rx.ring.ring.len(), 1, "one message was asked for, and one was taken");
        assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![14]));
        assert_eq!(rx.pending(), 0);
    }

    #[test]
    fn a_receive_that_leaves_nothing_queued_sees_to_it_that_its_tokens_do_not_stay() {
        let (mut rx, shared) = receiver(8);
        let (a, b) = (handle(1, 1), handle(2, 1));
        rx.ring.ring.extend([established(1, 1, Origin::Dial(1)), established(2, 1, Origin::Dial(2))]);
        assert_eq!(events(&mut rx, &shared, 8).len(), 2);
        rx.ring.ring.extend([byte(b, 1), byte(b, 2), byte(a, 3)]);
        assert_eq!(read(&mut rx, &shared, a), Ok(std::vec![3]));
        assert_eq!(rx.ring.settled, [a], "though b is not read");
        let mut out = [0; 1];
        assert!(rx.recv(&shared, b, Mode::Message, &mut out).is_ok());
        assert_eq!(rx.ring.settled, [a], "b is about to be read on");
        assert!(rx.recv(&shared, b, Mode::Message, &mut out).is_ok());
        assert!(rx.recv(&shared, b, Mode::Message, &mut out).is_err());
        assert_eq!(rx.ring.settled, [a, b, b]);
    }

    #[test]
    fn a_closed_connection_gives_its_tokens_back_and_its_events_vanish() {
        let (mut rx, shared) = receiver(8);
        let a = handle(1, 1);
        rx.ring.ring.extend([established(1, 1, Origin::Dial(1)), byte(a, 1), byte(a, 2)]);
        rx.drain(&shared, 8);
        shared.close(a);
        rx.ring.ring.push_back(byte(a, 3));
        assert_eq!(events(&mut rx, &shared, 8), []);
        assert_eq!((rx.ring.back.as_slice(), rx.pending()), (&[1, 2, 3][..], 0));
        assert_eq!(read(&mut rx, &shared, a), Err(MACHNET_ECLOSED));
    }

    #[test]
    fn an_index_used_again_begins_afresh() {
        let (mut rx, shared) = receiver(8);
        let (old, new) = (handle(1, 1), handle(1, 2));
        rx.ring.ring.extend([established(1, 1, Origin::Dial(1)), byte(old, 1)]);
        rx.drain(&shared, 8);
        shared.close(old);
        rx.ring.ring.extend([established(1, 2, Origin::Dial(2)), byte(old, 2), byte(new, 3)]);
        let want = [(MACHNET_EVENT_CONNECTED, new, 0), (MACHNET_EVENT_READABLE, new, 0)];
        assert_eq!(events(&mut rx, &shared, 8), want);
        assert_eq!(read(&mut rx, &shared, new), Ok(std::vec![3]));
        assert_eq!(read(&mut rx, &shared, old), Err(MACHNET_ECLOSED));
        assert_eq!(rx.ring.back, [1, 2, 3]);
    }

    #[test]
    fn an_engine_that_uses_an_index_too_early_costs_no_token() {
        let (mut rx, shared) = receiver(8);
        rx.ring.ring.extend([established(1, 1, Origin::Dial(1)), byte(handle(1, 1), 1)]);
        rx.ring.ring.push_back(established(1, 2, Origin::Dial(2)));
        assert_eq!(events(&mut rx, &shared, 8), [(MACHNET_EVENT_CONNECTED, handle(1, 2), 0)]);
        assert_eq!(rx.ring.back, [1]);
        assert_eq!(read(&mut rx, &shared, handle(1, 2)), Err(MACHNET_EAGAIN));
    }

    #[test]
    fn a_waiting_accept_takes_its_own_connection_and_leaves_the_rest() {
        let (mut rx, shared) = receiver(8);
        rx.ring.ring.extend([
            established(1, 1, Origin::Dial(7)),
            established(2, 1, Origin::Listener(7)),
            established(3, 1, Origin::Listener(8)),
        ]);
        let found = rx.take_new(&shared, Origin::Listener(7)).map(|(conn, peer)| (conn, peer.remote_port));
        assert_eq!(found, Some((handle(2, 1), 2)));
        assert!(rx.take_new(&shared, Origin::Listener(7)).is_none());
        assert_eq!((rx.pending(), rx.ring.accepted.as_slice()), (2, &[handle(2, 1)][..]));
        assert_eq!(events(&mut rx, &shared, 8).len(), 2);
    }

    #[test]
    fn an_event_takes_no_connection_and_a_place_is_freed_once() {
        let (mut rx, shared) = receiver(8);
        let (dialled, taken, closed) = (handle(1, 1), handle(2, 1), handle(3, 1));
        rx.ring.ring.extend([
            established(1, 1, Origin::Dial(7)),
            established(2, 1, Origin::Listener(7)),
            established(3, 1, Origin::Listener(7)),
        ]);
        assert_eq!(events(&mut rx, &shared, 8).len(), 3);
        assert_eq!(rx.ring.accepted, [], "being told of one is not taking it");
        for _ in 0..2 {
            assert_eq!([dialled, taken].map(|conn| rx.accepted(&shared, conn)), [Ok(()); 2]);
        }
        shared.close(closed);
        assert_eq!(
            [closed, handle(2, 2), 0].map(|conn| rx.accepted(&shared, conn)),
            [Err(MACHNET_ECLOSED); 3]
        );
        assert_eq!(rx.ring.accepted, [taken]);
    }

    #[test]
    fn deliveries_for_connections_that_are_not_there_only_give_tokens_back() {
        let (mut rx, shared) = receiver(2);
        rx.ring.ring.extend([
            byte(handle(1, 1), 1),
            byte(handle(2, 1), 2),
            byte(u64::MAX, 3),
            established(2, 1, Origin::Dial(1)),
            Delivery::Reset { conn: handle(0, 4), code: -5 },
            Delivery::Reset { conn: u64::MAX, code: -5 },
        ]);
        assert_eq!(events(&mut rx, &shared, 8), []);
        assert_eq!(rx.ring.back, [1, 2, 3]);
    }
}

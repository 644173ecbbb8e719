//! The receiving direction of a channel: takes the deliver ring apart into the queues of the connections, and keeps
//! the events that machnet_poll hands out.
mod conn;
mod delivery;
mod events;
#[cfg(test)]
mod tests;

pub use conn::RxConn;
pub use delivery::{Delivery, ReceiveHalf, Unit};

use crate::code::{MACHNET_EABORTED, MACHNET_EAGAIN, MACHNET_ECLOSED, MACHNET_EEOF, MACHNET_EMSGSIZE};
use crate::conns::{Conns, index};
use crate::inbox::{Got, Inline, Kind, Mode, Nodes, Nothing};
use crate::types::{machnet_conn, machnet_event, machnet_peer};
use conn::{CLOSED, NEW, READABLE};
use core::mem::MaybeUninit;
use events::EventList;
use machnet_shm::{Fragment, Origin};

/// A receive that is under way and found nothing queued: whole messages of its connection go straight into its buffer.
struct Direct<'a> {
    conn: machnet_conn,
    mode: Mode,
    out: &'a mut [MaybeUninit<u8>],
    got: Got,
}

/// The receiving direction.
pub struct Receiver<R: ReceiveHalf + 'static>
where
    R::Token: 'static,
{
    /// The channel's half.
    pub channel: R,
    conns: &'static mut [RxConn],
    nodes: Nodes<R::Token>,
    events: EventList,
}

impl<R: ReceiveHalf> Receiver<R> {
    /// Over memory made at attach.
    pub fn new(channel: R, conns: &'static mut [RxConn], nodes: Nodes<R::Token>) -> Self {
        Self { channel, conns, nodes, events: EventList::new() }
    }

    /// Connections that have events to hand out.
    pub fn pending(&self) -> u32 {
        self.events.len()
    }

    /// Receives up to `out.len()` bytes of `conn`.
    #[inline]
    pub fn recv(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        mode: Mode,
        out: &mut [MaybeUninit<u8>],
    ) -> Result<Got, Refused> {
        let got = self.receive(shared, conn, mode, out);
        if self.conns.get(index(conn)).is_some_and(|c| c.handle == conn && !c.queue.holds()) {
            self.channel.on_read_to_the_end(conn);
        }
        got
    }

    fn receive(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        mode: Mode,
        out: &mut [MaybeUninit<u8>],
    ) -> Result<Got, Refused> {
        let ended = shared.check(conn).map_err(Refused::code)?;
        let at = index(conn);
        match self.conns.get_mut(at) {
            Some(c) if c.handle == conn => {
                if !c.queue.readable() {
                    // What comes now is about to be read: no event for it.
                    c.readable_reported = true;
                    let mut direct = Direct { conn, mode, out: &mut *out, got: Got::default() };
                    self.take(shared, BUDGET, Some(&mut direct));
                    let Direct { mut got, .. } = direct;
                    if got.end {
                        self.events.remove(self.conns, at, READABLE);
                        if let Some(c) = self.conns.get_mut(at) {
                            got.more = c.queue.readable();
                            c.readable_reported = got.more;
                        }
                        return Ok(got);
                    }
                }
            }
            _ => return Err(Refused::code(MACHNET_ECLOSED)),
        }
        self.events.remove(self.conns, at, READABLE);
        let Some(c) = self.conns.get_mut(at) else { return Err(Refused::code(MACHNET_ECLOSED)) };
        match self.nodes.read(&mut c.queue, &mut self.channel, mode, out) {
            Ok(got) => {
                c.readable_reported = got.more;
                Ok(got)
            }
            Err(Nothing::TooShort { message_len }) => Err(Refused { code: MACHNET_EMSGSIZE, message_len }),
            Err(Nothing::Aborted) => Err(Refused::code(MACHNET_EABORTED)),
            Err(Nothing::End) => Err(Refused::code(MACHNET_EEOF)),
            Err(Nothing::Empty) => {
                c.readable_reported = false;
                // The end may have come with the drain above, after `ended` was read.
                let code = if c.code != 0 { Some(c.code) } else { ended };
                Err(Refused::code(code.unwrap_or(MACHNET_EAGAIN)))
            }
        }
    }

    /// Hands out events; the ring is drained as far as they fit.
    pub fn poll(&mut self, shared: &Conns, out: &mut [MaybeUninit<machnet_event>]) -> usize {
        self.forget_closed(shared);
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
        let mut at = self.events.first();
        while let Some(c) = self.conns.get(at) {
            if c.link.events & NEW != 0 && c.origin == origin {
                let found = (c.handle, c.peer);
                self.events.remove(self.conns, at, NEW);
                self.taken(at);
                return Some(found);
            }
            at = c.link.next as usize;
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
            self.channel.accepted(c.handle);
        }
    }

    /// Takes up to `budget` deliveries. `false`: the ring was empty before that.
    pub fn drain(&mut self, shared: &Conns, budget: usize) -> bool {
        self.take(shared, budget, None)
    }

    /// The same; whole messages for `direct` go straight into its buffer.
    fn take(&mut self, shared: &Conns, budget: usize, mut direct: Option<&mut Direct<'_>>) -> bool {
        self.forget_closed(shared);
        let mut inline = Inline::EMPTY;
        for _ in 0..budget {
            let Some(delivery) = self.channel.pop(&mut inline) else { return false };
            match delivery {
                Delivery::Established { conn, origin, peer } => self.established(shared, conn, origin, peer),
                Delivery::Reset { conn, code } => self.reset(shared, conn, code),
                Delivery::Unit(unit) => {
                    if let Some(direct) = &mut direct
                        && unit.conn == direct.conn
                        && self.read_direct(&unit, &inline, direct)
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
    fn read_direct(&mut self, unit: &Unit<R::Token>, inline: &Inline, direct: &mut Direct<'_>) -> bool {
        let Kind::Data(Fragment { begin: true, end: true, .. }) = unit.kind else { return false };
        let Some(c) = self.conns.get_mut(index(unit.conn)) else { return false };
        let Some(room) = direct.out.get_mut(direct.got.bytes..direct.got.bytes + unit.len as usize) else {
            return false;
        };
        if c.queue.busy() {
            return false;
        }
        match inline.0.get(..room.len()) {
            Some(bytes) if unit.inline => _ = room.write_copy_of_slice(bytes),
            _ => self.channel.read(unit.token, 0, room),
        }
        self.channel.give_back(unit.token);
        // An empty message is nothing in a stream.
        if unit.len > 0 || direct.mode != Mode::Stream {
            let bytes = direct.got.bytes + unit.len as usize;
            direct.got = Got { bytes, message_len: unit.len, offset: 0, begin: true, end: true, more: false };
        }
        true
    }

    /// Forgets what the application has closed.
    fn forget_closed(&mut self, shared: &Conns) {
        shared.take_closed(|at| self.forget(shared, at));
    }

    fn established(&mut self, shared: &Conns, conn: machnet_conn, origin: Origin, peer: machnet_peer) {
        let at = index(conn);
        self.events.remove(self.conns, at, u8::MAX);
        let Some(c) = self.conns.get_mut(at) else { return };
        // The application has closed the flow that was here, or the engine would not use its index again.
        self.nodes.clear(&mut c.queue, &mut self.channel);
        let offered = matches!(origin, Origin::Accepted(_));
        *c = RxConn { handle: conn, peer, origin, offered, ..RxConn::UNUSED };
        shared.announce(conn);
        self.events.add(self.conns, at, NEW);
    }

    /// Queues a unit, or gives it back when nobody wants it.
    fn unit(&mut self, shared: &Conns, unit: &Unit<R::Token>, inline: &Inline) {
        let at = index(unit.conn);
        let wanted = self.conns.get_mut(at).filter(|c| c.handle == unit.conn && !shared.is_closed(unit.conn));
        let Some(c) = wanted else { return self.channel.give_back(unit.token) };
        if !self.nodes.push(&mut c.queue, unit.kind, unit.len, unit.token, unit.inline.then_some(inline)) {
            return self.channel.give_back(unit.token);
        }
        if !c.readable_reported {
            c.readable_reported = true;
            self.events.add(self.conns, at, READABLE);
        }
    }

    fn reset(&mut self, shared: &Conns, conn: machnet_conn, code: i32) {
        let at = index(conn);
        let Some(c) = self.conns.get_mut(at) else { return };
        // A clean end (0) says nothing new: both ends have finished, and the readers know.
        if c.handle != conn || code == 0 || shared.is_closed(conn) {
            return;
        }
        c.code = code;
        shared.end(conn, code);
        self.events.add(self.conns, at, CLOSED);
    }

    /// The application has closed what is at this index.
    fn forget(&mut self, shared: &Conns, at: usize) {
        let Some(c) = self.conns.get_mut(at) else { return };
        if c.handle == 0 || !shared.is_closed(c.handle) {
            return;
        }
        c.handle = 0;
        self.nodes.clear(&mut c.queue, &mut self.channel);
        self.events.remove(self.conns, at, u8::MAX);
    }

    fn hand_out(&mut self, out: &mut [MaybeUninit<machnet_event>]) -> usize {
        for (have, event) in out.iter_mut().enumerate() {
            let at = self.events.first();
            let Some(c) = self.conns.get(at) else { return have };
            let (which, first) = c.event();
            event.write(first);
            self.events.remove(self.conns, at, which);
        }
        out.len()
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

/// Deliveries taken per look: bounds the length of one call.
const BUDGET: usize = 64;

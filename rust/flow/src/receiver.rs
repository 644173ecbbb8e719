//! Units received: checked, delivered in order, kept while something before them is missing.

use machnet_wire::{Flags, Fragment, Nanos, Packet, Part, Seq};

use crate::credit::Credit;
use crate::message::Assembly;
use crate::parts::{Parts, Taken};
use crate::sack::Arrived;
use crate::slots::Slots;
use crate::stats::{Bytes, Counts};
use crate::{Config, Event, Io, REACH};

/// Units of one direction, from the peer.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Receiver<H> {
    /// The next unit expected.
    next: Seq,
    waiting: Slots<Option<Waiting<H>>>,
    arrived: Arrived,
    /// Units of which a part has come.
    parts: Parts<H>,
    open: Assembly,
    finished: bool,
    /// The application reads no more.
    discarding: bool,
    /// Payload that was delivered.
    pub bytes: Bytes,
    pub credit: Credit,
}

/// A unit that came ahead of its turn.
#[derive(Debug, Clone, Hash)]
enum Waiting<H> {
    Data {
        fragment: Fragment,
        len: u32,
        held: H,
    },
    Fin,
    Abort,
    /// Acknowledged, and not wanted any more.
    Void {
        fin: bool,
    },
}

/// What came of a unit that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The next one, and nothing behind it had come before; `ends`: it ended a message of several units, or the direction.
    InOrder { ends: bool },
    /// The next one, while others had come ahead of their turn: those directly behind it were taken with it.
    FilledGap,
    /// Ahead of its turn: kept.
    Ahead,
    /// A part of a unit that is not whole yet.
    Part,
    /// Come before.
    Duplicate,
    /// Ahead of its turn, and not kept: too far, or there is no buffer for one that is not next.
    Dropped,
    /// Beyond its credit, and there is no buffer: the peer is to keep it until there is credit.
    Refused,
}

/// What a unit needs of the flow to be judged.
pub(crate) struct Context<'a> {
    pub now: Nanos,
    pub config: &'a Config,
    pub unit_size: u32,
    /// The least round trip.
    pub round: Nanos,
}

impl<H> Receiver<H> {
    pub fn new(next: Seq, config: &Config) -> Self {
        Receiver {
            next,
            waiting: Slots::new(),
            arrived: Arrived::new(),
            parts: Parts::new(),
            open: Assembly::default(),
            finished: false,
            discarding: false,
            bytes: Bytes::default(),
            credit: Credit::new(next, config),
        }
    }

    #[inline]
    pub fn next(&self) -> Seq {
        self.next
    }

    #[inline]
    pub fn arrived(&self) -> &Arrived {
        &self.arrived
    }

    /// Whether the peer's FIN came, and with it everything.
    #[inline]
    pub fn finished(&self) -> bool {
        self.finished
    }

    #[inline]
    pub fn discarding(&self) -> bool {
        self.discarding
    }

    /// Reserves as much credit as there ought to be; `round`: the least round trip.
    #[inline]
    pub fn top_up<I: Io<Held = H>>(&mut self, round: Nanos, io: &mut I) {
        self.credit.top_up(self.next, self.arrived.count(), round, io);
    }

    /// Takes the unit of a Data packet.
    #[inline]
    pub fn on_unit<I: Io<Held = H>>(
        &mut self,
        context: &Context<'_>,
        packet: &Packet<'_>,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<Arrival, &'static str> {
        let header = &packet.header;
        let len = packet.part.map_or(packet.payload.len(), |part| part.unit_len.into());
        if len > context.unit_size as usize {
            return Err("a unit is longer than the path's packets");
        }
        let ahead = header.unit.since(self.next);
        if ahead < 0 {
            counts.rare().duplicates += 1;
            return Ok(Arrival::Duplicate);
        }
        if self.finished {
            return Err("a unit follows the FIN");
        }
        let ahead = ahead as u32;
        if ahead >= if self.discarding { REACH_UNREAD } else { REACH } {
            counts.rare().beyond_window += 1;
            return Ok(Arrival::Dropped);
        }
        if self.arrived.has(header.unit) && ahead > 0 {
            counts.rare().duplicates += 1;
            return Ok(Arrival::Duplicate);
        }
        if !self.discarding {
            self.credit.activate(context.now);
            if ahead >= self.credit.reserved()
                && !self.credit.stretch(ahead, context.round, context.config, io)
            {
                counts.rare().refused += 1;
                return Ok(Arrival::Refused);
            }
        }
        if let Some(part) = packet.part {
            counts.rare().parts_received += 1;
            if !self.discarding {
                return self.on_part(context, packet, part, counts, io);
            }
        } else if !self.parts.is_empty() {
            self.parts.discard(header.unit, io);
        }
        if ahead > 0 {
            return self.keep(packet, counts, io);
        }
        let was_open = self.open.is_open();
        if !self.take(context, packet, counts, io)? {
            return Ok(Arrival::Refused);
        }
        let ends = !self.open.is_open() && was_open || self.finished;
        if self.arrived.count() > 0 {
            self.take_waiting(context, counts, io)?;
            return Ok(Arrival::FilledGap);
        }
        Ok(Arrival::InOrder { ends })
    }

    /// Takes a part of a unit, and the unit when it is whole.
    #[cold]
    fn on_part<I: Io<Held = H>>(
        &mut self,
        context: &Context<'_>,
        packet: &Packet<'_>,
        part: Part,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<Arrival, &'static str> {
        let (unit, fragment) = (packet.header.unit, packet.header.fragment());
        let (len, held) = match self.parts.take(packet, part, io)? {
            Taken::Whole(len, held) => (len, held),
            Taken::More => return Ok(Arrival::Part),
            Taken::Known => {
                counts.rare().duplicates += 1;
                return Ok(Arrival::Duplicate);
            }
            Taken::Dropped => {
                counts.rare().beyond_window += 1;
                return Ok(Arrival::Dropped);
            }
        };
        if unit != self.next {
            counts.rare().out_of_order += 1;
            self.set_aside(unit, Waiting::Data { fragment, len, held });
            return Ok(Arrival::Ahead);
        }
        let was_open = self.open.is_open();
        self.take_held(context, fragment, len, held, counts, io)?;
        if self.arrived.count() > 0 {
            self.take_waiting(context, counts, io)?;
            return Ok(Arrival::FilledGap);
        }
        Ok(Arrival::InOrder { ends: was_open && !self.open.is_open() })
    }

    /// Takes a unit that was kept and is now next in order.
    fn take_held<I: Io<Held = H>>(
        &mut self,
        context: &Context<'_>,
        fragment: Fragment,
        len: u32,
        held: H,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<(), &'static str> {
        self.open = match self.open.after(fragment, len) {
            Ok(open) => open,
            Err(what) => {
                io.discard_held(held);
                return Err(what);
            }
        };
        io.deliver_held(fragment, held);
        self.credit.used(context.now);
        self.count(len, counts);
        self.next = self.next + 1;
        Ok(())
    }

    /// Takes the unit expected next. False: there was no buffer.
    #[inline]
    fn take<I: Io<Held = H>>(
        &mut self,
        context: &Context<'_>,
        packet: &Packet<'_>,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<bool, &'static str> {
        let header = &packet.header;
        if header.flags.0 & (Flags::FIN.0 | Flags::ABORT.0) != 0 {
            self.take_mark(context, header.flags.has(Flags::FIN), counts, io)?;
            return Ok(true);
        }
        if self.discarding {
            counts.rare().discarded += 1;
            self.next = self.next + 1;
            return Ok(true);
        }
        let fragment = packet.header.fragment();
        let open = self.open.after(fragment, packet.payload.len() as u32)?;
        if !io.deliver(fragment, packet.payload) {
            counts.rare().refused += 1;
            return Ok(false);
        }
        self.credit.used(context.now);
        self.count(packet.payload.len() as u32, counts);
        self.open = open;
        self.next = self.next + 1;
        Ok(true)
    }

    /// Counts a unit that was delivered.
    #[inline]
    fn count(&mut self, len: u32, counts: &mut Counts) {
        counts.units_delivered();
        if self.bytes.add(len) {
            counts.delivered_beyond();
        }
    }

    /// Takes a FIN or an ABORT, next in order.
    fn take_mark<I: Io<Held = H>>(
        &mut self,
        context: &Context<'_>,
        fin: bool,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<(), &'static str> {
        // An application that reads no more is told of nothing, and messages are not assembled for it; a FIN ends the direction all the same.
        if self.discarding {
            counts.rare().discarded += 1;
        } else if fin == self.open.is_open() {
            return Err(if fin { "FIN within a message" } else { "ABORT without a message" });
        } else {
            self.credit.used(context.now);
            io.event(if fin { Event::PeerFin } else { Event::Aborted });
        }
        self.open = Assembly::default();
        self.finished = fin;
        self.next = self.next + 1;
        Ok(())
    }

    /// Keeps a unit that came ahead of its turn.
    fn keep<I: Io<Held = H>>(
        &mut self,
        packet: &Packet<'_>,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<Arrival, &'static str> {
        let header = &packet.header;
        let fin = header.flags.has(Flags::FIN);
        let waiting = if self.discarding {
            Waiting::Void { fin }
        } else if fin {
            Waiting::Fin
        } else if header.flags.has(Flags::ABORT) {
            Waiting::Abort
        } else {
            let fragment = packet.header.fragment();
            match io.hold(fragment, packet.payload) {
                Some(held) => Waiting::Data { fragment, len: packet.payload.len() as u32, held },
                // The peer retransmits it, and there is a buffer by then.
                None => {
                    counts.rare().beyond_window += 1;
                    return Ok(Arrival::Dropped);
                }
            }
        };
        counts.rare().out_of_order += 1;
        self.set_aside(header.unit, waiting);
        Ok(Arrival::Ahead)
    }

    /// A unit ahead of its turn has come.
    fn set_aside(&mut self, unit: Seq, waiting: Waiting<H>) {
        let live = self.arrived.highest().map_or(0, |highest| highest.since(self.next).max(0) as u32);
        self.waiting.reserve(self.next + 1, live, unit.since(self.next) as u32);
        *self.waiting.at_mut(unit) = Some(waiting);
        self.arrived.set(self.next, unit);
    }

    /// Delivers what waited for the unit that just came.
    fn take_waiting<I: Io<Held = H>>(
        &mut self,
        context: &Context<'_>,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<(), &'static str> {
        loop {
            if self.finished && self.arrived.count() > 0 {
                return Err("a unit follows the FIN");
            }
            if !self.arrived.clear(self.next) {
                return Ok(());
            }
            match self.waiting.at_mut(self.next).take() {
                Some(Waiting::Data { fragment, len, held }) => {
                    self.take_held(context, fragment, len, held, counts, io)?;
                }
                Some(Waiting::Fin) => self.take_mark(context, true, counts, io)?,
                Some(Waiting::Abort) => self.take_mark(context, false, counts, io)?,
                Some(Waiting::Void { fin }) => self.take_mark(context, fin, counts, io)?,
                None => return Err("a unit is marked and not kept"),
            }
        }
    }

    /// Gives memory back that the next unit ahead of its turn makes anew.
    pub fn rest(&mut self) {
        if self.arrived.count() == 0 {
            self.waiting.rest();
        }
        self.arrived.rest();
    }

    /// The application reads no more.
    pub fn stop_reading<I: Io<Held = H>>(&mut self, io: &mut I) {
        if self.discarding {
            return;
        }
        self.discarding = true;
        self.drop_parts(io);
        self.drop_waiting(io);
        self.credit.give_up(io);
    }

    /// Gives everything back. The receiver is of no use after.
    pub fn clear<I: Io<Held = H>>(&mut self, io: &mut I) {
        self.stop_reading(io);
    }

    /// Forgets what has come of units in parts: nothing is reserved for them any more.
    pub fn drop_parts<I: Io<Held = H>>(&mut self, io: &mut I) {
        self.parts.discard_all(io);
    }

    /// Frees the buffers of waiting units; that they arrived was promised and stays so.
    fn drop_waiting<I: Io<Held = H>>(&mut self, io: &mut I) {
        let Some(highest) = self.arrived.highest() else { return };
        // From the next one on: where the peer broke the rules one may be kept that was not delivered although its turn had come.
        let mut unit = self.next;
        while unit.at_or_before(highest) {
            let slot = self.waiting.at_mut(unit);
            match slot.take() {
                Some(Waiting::Data { held, .. }) => {
                    io.discard_held(held);
                    *slot = Some(Waiting::Void { fin: false });
                }
                Some(Waiting::Fin) => *slot = Some(Waiting::Void { fin: true }),
                Some(Waiting::Abort) => *slot = Some(Waiting::Void { fin: false }),
                other => *slot = other,
            }
            unit = unit + 1;
        }
    }
}

/// How far ahead units are noted that nobody is going to read: credit does not bound those.
const REACH_UNREAD: u32 = 1024;

//! Units to send: numbered, kept until acknowledged, sent again when lost.

use machnet_wire::{Flags, Nanos, Packet, Seq};

use crate::allowance::Allowance;
use crate::message::Assembly;
use crate::rack::Rack;
use crate::rtt::Rtt;
use crate::sack::Arrived;
use crate::slots::Slots;
use crate::{Io, NotSent, QUEUE_MAX, REACH, SendError, Stats, Unit};

/// Units of one direction, `una <= nxt <= end`: sent and not acknowledged up to `nxt`, waiting up to `end`.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Sender<T> {
    /// What is known of each unit; apart from the tokens, because loss detection walks it.
    meta: Slots<Meta>,
    tokens: Slots<Option<T>>,
    una: Seq,
    nxt: Seq,
    end: Seq,
    in_flight: u32,
    /// Of those, sent more than once.
    again_in_flight: u32,
    lost: u32,
    /// No unit before this one is lost.
    lost_from: Seq,
    sacked: Arrived,
    /// The message being queued.
    open: Assembly,
    /// Nothing more is taken: a FIN is queued, or the end comes without one.
    sealed: bool,
    /// A FIN is queued.
    fin: bool,
    pub allowance: Allowance,
    pub rack: Rack,
    pub tail: Tail,
    /// The next transmission when the last timeout passed, until it is known whether that was needless.
    timeout_tx: Option<Seq>,
}

/// One unit on the wire.
#[derive(Debug, Clone, Copy, Hash, Default)]
pub(crate) struct Meta {
    pub sent: Nanos,
    /// The latest transmission.
    pub tx: Seq,
    pub message_len: u32,
    /// First byte within the token's payload, which may go as several units.
    pub offset: u32,
    pub len: u16,
    /// How many units ahead the token lies: with the last piece of its payload, which is acknowledged last.
    pub token: u8,
    pub flags: Flags,
    pub state: State,
    pub again: bool,
    /// A timeout found it lost, which may yet prove needless.
    pub timed_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum State {
    /// Never sent.
    #[default]
    Waiting,
    InFlight,
    /// To be sent again.
    Lost,
    Arrived,
}

/// What is due for the last units sent, which no later ones can prove lost (RFC 8985 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tail {
    Quiet,
    /// A probe is to be sent now.
    ProbeDue,
    /// It was sent; a timeout comes next.
    Probed,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Units newly acknowledged.
    pub acked: u32,
    /// Units in flight before.
    pub in_flight: u32,
    /// Units refused for want of a buffer.
    pub refused: u32,
    /// Units that went again needlessly.
    pub needless: u32,
    /// The last timeout was needless, or was not.
    pub timeout_needless: Option<bool>,
}

/// What goes out next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub unit: Seq,
    /// Without credit.
    pub uncovered: bool,
    /// Answer at once, please.
    pub probe: bool,
}

impl<T> Sender<T> {
    pub fn new(first: Seq) -> Self {
        Sender {
            meta: Slots::new(),
            tokens: Slots::new(),
            una: first,
            nxt: first,
            end: first,
            in_flight: 0,
            again_in_flight: 0,
            lost: 0,
            lost_from: first,
            sacked: Arrived::new(),
            open: Assembly::default(),
            sealed: false,
            fin: false,
            allowance: Allowance::new(first),
            rack: Rack::new(first),
            tail: Tail::Quiet,
            timeout_tx: None,
        }
    }

    /// The next unit to be numbered on the wire.
    #[inline]
    pub fn next(&self) -> Seq {
        self.nxt
    }

    #[inline]
    pub fn queued(&self) -> u32 {
        self.end.since(self.una) as u32
    }

    /// Units that come behind one.
    #[inline]
    pub fn behind(&self, unit: Seq) -> u32 {
        (self.end.since(unit) - 1).max(0) as u32
    }

    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Units never sent.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.end.since(self.nxt) as u32
    }

    #[inline]
    pub fn meta(&self, unit: Seq) -> &Meta {
        self.meta.at(unit)
    }

    /// The token that `unit` is a piece of.
    #[inline]
    pub fn token(&self, unit: Seq) -> Option<&T> {
        self.tokens.at(unit + u32::from(self.meta.at(unit).token)).as_ref()
    }

    /// Nothing more is taken.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    #[inline]
    pub fn has_fin(&self) -> bool {
        self.fin
    }

    /// Whether nothing more is taken, and everything was acknowledged, with the FIN if there is one.
    #[inline]
    pub fn finish_acked(&self) -> bool {
        self.sealed && self.una == self.end
    }

    /// Whether the FIN is all that is not acknowledged.
    pub fn only_finish_left(&self) -> bool {
        self.fin && self.end.since(self.una) <= 1 && self.nxt == self.end
    }

    #[inline]
    pub fn message_open(&self) -> bool {
        self.open.is_open()
    }

    /// Queues a unit, in pieces where the path takes less than it holds.
    pub fn push(&mut self, unit: Unit<T>, unit_size: u32) -> Result<(), NotSent<T>> {
        let Unit { fragment, len, tx } = unit;
        if self.sealed {
            return Err(NotSent { tx, why: SendError::NotOpen });
        }
        let open = match self.open.after(fragment, len) {
            Ok(open) => open,
            Err(what) => return Err(NotSent { tx, why: SendError::Malformed(what) }),
        };
        // Nearly always one: a division would be felt.
        let pieces = if len <= unit_size { 1 } else { len.div_ceil(unit_size) };
        if pieces > PIECES_MAX {
            return Err(NotSent { tx, why: SendError::Malformed("a unit is longer than any packet") });
        }
        if !self.make_room(pieces, QUEUE_MAX) {
            return Err(NotSent { tx, why: SendError::Full });
        }
        self.open = open;
        let mut offset = 0;
        for i in 0..pieces {
            let (first, last) = (i == 0, i + 1 == pieces);
            let mut flags = Flags::NONE;
            if first && fragment.begin {
                flags |= Flags::BEGIN;
            }
            if last && fragment.end {
                flags |= Flags::END;
            }
            let piece = (len - offset).min(unit_size);
            *self.meta.at_mut(self.end + i) = Meta {
                message_len: if first { fragment.message_len } else { 0 },
                offset,
                len: piece as u16,
                token: (pieces - 1 - i) as u8,
                flags,
                ..Meta::default()
            };
            offset += piece;
        }
        *self.tokens.at_mut(self.end + (pieces - 1)) = Some(tx);
        self.end = self.end + pieces;
        Ok(())
    }

    /// Queues a FIN.
    pub fn push_fin(&mut self, tx: T) -> Result<(), NotSent<T>> {
        if self.sealed {
            return Err(NotSent { tx, why: SendError::NotOpen });
        }
        if self.open.is_open() {
            return Err(NotSent { tx, why: SendError::Malformed("the last message is not finished") });
        }
        self.push_mark(tx, Flags::FIN)?;
        (self.sealed, self.fin) = (true, true);
        Ok(())
    }

    /// Takes back what was not sent of the open message, and queues an ABORT if something was.
    pub fn abort<I: Io<Tx = T>>(&mut self, tx: T, io: &mut I) -> Result<(), NotSent<T>> {
        if !self.open.is_open() {
            io.complete(tx);
            return Ok(());
        }
        self.open = Assembly::default();
        while self.nxt.before(self.end) {
            // A payload goes back whole or not at all: pieces of it that are out are read from it again.
            let mut first = Seq(self.end.0.wrapping_sub(1));
            while self.meta.at(first).offset != 0 {
                first = Seq(first.0.wrapping_sub(1));
            }
            if first.before(self.nxt) {
                break;
            }
            if let Some(tx) = self.tokens.at_mut(Seq(self.end.0.wrapping_sub(1))).take() {
                io.complete(tx);
            }
            self.end = first;
            if self.meta.at(first).flags.has(Flags::BEGIN) {
                io.complete(tx);
                return Ok(());
            }
        }
        self.push_mark(tx, Flags::ABORT)
    }

    fn push_mark(&mut self, tx: T, flags: Flags) -> Result<(), NotSent<T>> {
        // FIN and ABORT find room behind any data.
        if !self.make_room(1, QUEUE_MAX + MARKS) {
            return Err(NotSent { tx, why: SendError::Full });
        }
        *self.meta.at_mut(self.end) = Meta { flags, ..Meta::default() };
        *self.tokens.at_mut(self.end) = Some(tx);
        self.end = self.end + 1;
        Ok(())
    }

    #[inline]
    fn make_room(&mut self, units: u32, most: u32) -> bool {
        let queued = self.queued();
        if queued + units > most {
            return false;
        }
        self.meta.reserve(self.una, queued, queued + units);
        self.tokens.reserve(self.una, queued, queued + units);
        true
    }

    /// Takes what an acknowledgement says about units. `echo`: the transmission that it answers.
    pub fn on_ack<I: Io<Tx = T>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        echo: Option<Seq>,
        rtt: &Rtt,
        stats: &mut Stats,
        io: &mut I,
    ) -> Result<Outcome, &'static str> {
        let ack = packet.header.ack;
        let mut out = Outcome { in_flight: self.in_flight, ..Outcome::default() };
        if ack.before(self.una) {
            return Ok(out);
        }
        if self.nxt.before(ack) {
            return Err("acknowledges a unit that was never sent");
        }
        while self.una.before(ack) {
            let unit = self.una;
            if !self.sacked.clear(unit) {
                self.arrived(now, unit, echo, rtt, stats, &mut out);
            }
            if let Some(tx) = self.tokens.at_mut(unit).take() {
                io.complete(tx);
            }
            self.una = unit + 1;
        }
        if self.lost_from.before(self.una) {
            self.lost_from = self.una;
        }
        for (i, word) in packet.sack.iter().enumerate() {
            let first = ack + (1 + 64 * i as u32);
            let mut news = word & !self.sacked.from(first);
            while news != 0 {
                let unit = first + news.trailing_zeros();
                news &= news - 1;
                if !unit.before(self.nxt) {
                    return Err("acknowledges a unit that was never sent");
                }
                self.arrived(now, unit, echo, rtt, stats, &mut out);
                self.sacked.set(unit);
            }
        }
        if out.acked > 0 {
            self.tail = Tail::Quiet;
        }
        Ok(out)
    }

    #[inline]
    fn arrived(
        &mut self,
        now: Nanos,
        unit: Seq,
        echo: Option<Seq>,
        rtt: &Rtt,
        stats: &mut Stats,
        out: &mut Outcome,
    ) {
        let meta = self.meta.at_mut(unit);
        let (tx, sent, again) = (meta.tx, meta.sent, meta.again);
        let was_lost = meta.state == State::Lost;
        meta.state = State::Arrived;
        if was_lost {
            self.lost -= 1;
        } else {
            self.in_flight -= 1;
            self.again_in_flight -= u32::from(again);
        }
        out.acked += 1;
        // The answer is to a transmission before the repetition, so the repetition has not been seen yet.
        let needless = again && echo.is_some_and(|echo| echo.before(tx));
        stats.needless += u64::from(needless);
        out.needless += u32::from(needless);
        if let Some(timeout_tx) = self.timeout_tx {
            let repeated = !tx.before(timeout_tx);
            out.timeout_needless = Some(was_lost && !repeated || repeated && again && needless);
            self.timeout_tx = None;
        }
        let trustworthy = !again || !needless && (echo == Some(tx) || now - sent >= rtt.least());
        self.rack.arrived(now, unit, tx, sent, again, needless, trustworthy && !was_lost);
    }

    /// The peer had no buffer for what came with transmission `echo` or before and lies beyond its credit.
    pub fn refused(&mut self, edge: Seq, echo: Seq, out: &mut Outcome) {
        let mut unit = if edge.before(self.una) { self.una } else { edge };
        while unit.before(self.nxt) {
            let meta = self.meta.at(unit);
            if meta.state == State::InFlight && meta.tx.at_or_before(echo) {
                self.lose(unit);
                out.refused += 1;
            }
            unit = unit + 1;
        }
    }

    /// A unit in flight is to be sent again.
    fn lose(&mut self, unit: Seq) {
        let meta = self.meta.at_mut(unit);
        debug_assert_eq!(meta.state, State::InFlight);
        meta.state = State::Lost;
        meta.timed_out = false;
        self.in_flight -= 1;
        self.again_in_flight -= u32::from(meta.again);
        self.lost += 1;
        if unit.before(self.lost_from) || self.lost == 1 {
            self.lost_from = unit;
        }
    }

    /// Units that RACK holds for lost by now, and when it will know more.
    pub fn detect_losses(&mut self, now: Nanos, rtt: &Rtt) -> (u32, Option<Nanos>) {
        // Units go out in order: without a hole and without repetitions nothing older than the newest that arrived is
        // outstanding.
        if self.sacked.count() == 0 && self.again_in_flight == 0 {
            return (0, None);
        }
        let patience = self.rack.patience(rtt, self.sacked.count());
        let (mut lost, mut next) = (0, None);
        let mut unit = self.una;
        while unit.before(self.nxt) {
            let meta = self.meta.at(unit);
            if meta.state == State::InFlight {
                if meta.tx.before(self.rack.newest()) {
                    let due = meta.sent + patience;
                    if due <= now {
                        self.lose(unit);
                        lost += 1;
                    } else {
                        next = Some(next.map_or(due, |n: Nanos| n.min(due)));
                    }
                } else if !meta.again {
                    // This one was sent later, and so were all behind it.
                    break;
                }
            }
            unit = unit + 1;
        }
        (lost, next)
    }

    /// The retransmission timeout passed: everything goes again.
    pub fn on_timeout(&mut self, next_tx: Seq) {
        let mut unit = self.una;
        while unit.before(self.nxt) {
            if self.meta.at(unit).state == State::InFlight {
                self.lose(unit);
                self.meta.at_mut(unit).timed_out = true;
            }
            unit = unit + 1;
        }
        self.timeout_tx = Some(next_tx);
        self.tail = Tail::Quiet;
    }

    /// The timeout was needless: what it took for lost and was not repeated since is in flight as before.
    pub fn undo_timeout(&mut self) {
        let mut unit = self.una;
        while self.lost > 0 && unit.before(self.nxt) {
            let meta = self.meta.at_mut(unit);
            if meta.state == State::Lost && meta.timed_out {
                meta.state = State::InFlight;
                self.lost -= 1;
                self.in_flight += 1;
                self.again_in_flight += u32::from(meta.again);
            }
            unit = unit + 1;
        }
    }

    /// What may go out now, if anything.
    #[inline]
    pub fn choose(&mut self, now: Nanos, window: u32) -> Option<Choice> {
        if self.tail == Tail::ProbeDue {
            return self.choose_probe();
        }
        if self.in_flight >= window {
            return None;
        }
        let unit = if self.lost > 0 {
            while self.meta.at(self.lost_from).state != State::Lost && self.lost_from.before(self.nxt) {
                self.lost_from = self.lost_from + 1;
            }
            debug_assert!(self.lost_from.before(self.nxt));
            self.lost_from
        } else if self.nxt.before(self.end) && (self.nxt.since(self.una) as u32) < REACH {
            self.nxt
        } else {
            return None;
        };
        if self.allowance.covers(unit) {
            return Some(Choice { unit, uncovered: false, probe: false });
        }
        // The one unit that may be in flight without credit. What is lost below it has gone before.
        (self.in_flight == 0 && now >= self.allowance.try_at()).then_some(Choice {
            unit,
            uncovered: true,
            probe: true,
        })
    }

    /// A new unit if there is one within credit, else the last one again: its acknowledgement shows what is missing
    /// before it (RFC 8985 section 7.3).
    fn choose_probe(&mut self) -> Option<Choice> {
        self.tail = Tail::Probed;
        let new = self.nxt.before(self.end)
            && (self.nxt.since(self.una) as u32) < REACH
            && self.allowance.covers(self.nxt);
        if new {
            return Some(Choice { unit: self.nxt, uncovered: false, probe: true });
        }
        let mut unit = self.nxt;
        while self.una.before(unit) {
            unit = Seq(unit.0.wrapping_sub(1));
            if self.meta.at(unit).state == State::InFlight {
                return Some(Choice { unit, uncovered: false, probe: true });
            }
        }
        None
    }

    /// Whether only the pause after a refusal keeps a unit back; until when.
    pub fn waits_to_try(&self) -> Option<Nanos> {
        let unit = if self.lost > 0 { self.lost_from } else { self.nxt };
        (self.in_flight == 0 && unit.before(self.end) && !self.allowance.covers(unit))
            .then_some(self.allowance.try_at())
    }

    /// The chosen unit goes out as transmission `tx`.
    #[inline]
    pub fn transmitted(&mut self, now: Nanos, unit: Seq, tx: Seq) {
        let meta = self.meta.at_mut(unit);
        match meta.state {
            State::Waiting => self.nxt = unit + 1,
            State::Lost => {
                meta.again = true;
                self.lost -= 1;
            }
            _ => {
                self.in_flight -= 1;
                self.again_in_flight -= u32::from(meta.again);
                meta.again = true;
            }
        }
        meta.state = State::InFlight;
        meta.sent = now;
        meta.tx = tx;
        self.again_in_flight += u32::from(meta.again);
        self.in_flight += 1;
        self.allowance.used(now);
    }

    /// Gives every token back. The sender is of no use after.
    pub fn clear<I: Io<Tx = T>>(&mut self, io: &mut I) {
        while self.una.before(self.end) {
            if let Some(tx) = self.tokens.at_mut(self.una).take() {
                io.complete(tx);
            }
            self.una = self.una + 1;
        }
        *self = Sender { sealed: true, ..Sender::new(self.end) };
    }
}

/// Pieces that one payload may go in: a 9001-byte packet's through a 576-byte path are 18.
const PIECES_MAX: u32 = 64;
/// FIN, and ABORTs behind a full queue.
const MARKS: u32 = 64;

//! Units in flight: which have arrived, which are lost, and which goes next.

use machnet_wire::{Flags, Nanos, Packet, Seq};

use crate::Io;
use crate::allowance::Allowance;
use crate::path_mtu::PathMtu;
use crate::queue::{Queue, UnitState};
use crate::rack::Rack;
use crate::repeats::{Repeat, Repeats};
use crate::rtt::Rtt;
use crate::sack::Arrived;
use crate::stats::{Bytes, Counts};

/// Units of one direction, and what is known of those that were sent.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Sender<T> {
    pub queue: Queue<T>,
    in_flight: u32,
    /// Of those, sent more than once.
    repeats: Repeats,
    /// No unit before this one is in flight that was sent only once.
    fresh_from: Seq,
    lost: u32,
    /// No unit before this one is lost.
    lost_from: Seq,
    sacked: Arrived,
    pub allowance: Allowance,
    pub path: PathMtu,
    rack: Rack,
    tail: Tail,
    /// The next transmission when the last timeout passed, until it is known whether that was needless.
    timeout_tx: Option<Seq>,
    /// Payload that was sent for the first time.
    pub bytes: Bytes,
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
    /// Units retransmitted needlessly.
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
            queue: Queue::new(first),
            in_flight: 0,
            repeats: Repeats::new(),
            fresh_from: first,
            lost: 0,
            lost_from: first,
            sacked: Arrived::new(),
            allowance: Allowance::new(first),
            path: PathMtu::new(0),
            rack: Rack::new(first),
            tail: Tail::Quiet,
            timeout_tx: None,
            bytes: Bytes::default(),
        }
    }

    /// What is due for the last units sent.
    #[inline]
    pub fn tail(&self) -> Tail {
        self.tail
    }

    pub fn set_tail(&mut self, tail: Tail) {
        self.tail = tail;
    }

    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Units that have arrived behind one that has not.
    #[inline]
    pub fn sacked(&self) -> u32 {
        self.sacked.count()
    }

    /// Takes what an acknowledgement says about units. `echo`: the transmission that it answers.
    pub fn on_ack<I: Io<Tx = T>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        echo: Option<Seq>,
        rtt: &Rtt,
        counts: &mut Counts,
        io: &mut I,
    ) -> Result<Outcome, &'static str> {
        let ack = packet.header.ack;
        let mut out = Outcome { in_flight: self.in_flight, ..Outcome::default() };
        if ack.before(self.queue.first()) {
            return Ok(out);
        }
        if self.queue.next().before(ack) {
            return Err("acknowledges a unit that was never sent");
        }
        while self.queue.first().before(ack) {
            let unit = self.queue.first();
            if !self.sacked.clear(unit) {
                self.arrived(now, unit, echo, rtt, counts, &mut out);
            }
            self.queue.complete_first(io);
        }
        if self.lost_from.before(self.queue.first()) {
            self.lost_from = self.queue.first();
        }
        if packet.header.flags.has(Flags::RANGES) {
            for range in packet.sack.ranges() {
                let first = ack + (1 + u32::from(range.first));
                let behind = first + u32::from(range.count);
                // Asked first, so that no range is walked farther than what is in flight.
                if self.queue.next().before(behind) {
                    return Err("acknowledges a unit that was never sent");
                }
                for i in (0..u32::from(range.count)).step_by(64) {
                    let word = u64::MAX >> 64u32.saturating_sub(u32::from(range.count) - i);
                    self.on_sacks(now, first + i, word, echo, rtt, counts, &mut out)?;
                }
            }
        } else {
            for (i, word) in packet.sack.iter().enumerate() {
                self.on_sacks(now, ack + (1 + 64 * i as u32), word, echo, rtt, counts, &mut out)?;
            }
        }
        if out.acked > 0 {
            self.tail = Tail::Quiet;
        }
        Ok(out)
    }

    /// Of the 64 units from `first` on those have arrived whose bits are set in `word`.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn on_sacks(
        &mut self,
        now: Nanos,
        first: Seq,
        word: u64,
        echo: Option<Seq>,
        rtt: &Rtt,
        counts: &mut Counts,
        out: &mut Outcome,
    ) -> Result<(), &'static str> {
        let mut news = word & !self.sacked.from(first);
        while news != 0 {
            let unit = first + news.trailing_zeros();
            news &= news - 1;
            if !unit.before(self.queue.next()) {
                return Err("acknowledges a unit that was never sent");
            }
            self.arrived(now, unit, echo, rtt, counts, out);
            self.sacked.set(self.queue.first(), unit);
        }
        Ok(())
    }

    #[inline]
    fn arrived(
        &mut self,
        now: Nanos,
        unit: Seq,
        echo: Option<Seq>,
        rtt: &Rtt,
        counts: &mut Counts,
        out: &mut Outcome,
    ) {
        let meta = self.queue.meta_mut(unit);
        let (tx, sent, retransmitted) = (meta.tx, meta.sent, meta.retransmitted);
        let was_lost = meta.state == UnitState::Lost;
        meta.state = UnitState::Arrived;
        self.path.on_arrived(meta.len);
        if was_lost {
            self.lost -= 1;
        } else {
            self.in_flight -= 1;
            if retransmitted {
                self.repeats.remove(tx);
            }
        }
        out.acked += 1;
        // The answer is to a transmission before the repetition, so the repetition has not been seen yet.
        let needless = retransmitted && echo.is_some_and(|echo| echo.before(tx));
        if needless {
            counts.rare().needless += 1;
            out.needless += 1;
        }
        if let Some(timeout_tx) = self.timeout_tx {
            let repeated = !tx.before(timeout_tx);
            out.timeout_needless = Some(was_lost && !repeated || repeated && retransmitted && needless);
            self.timeout_tx = None;
        }
        let trustworthy = !retransmitted || !needless && (echo == Some(tx) || now - sent >= rtt.least());
        self.rack.arrived(now, unit, tx, sent, retransmitted, needless, trustworthy && !was_lost);
    }

    /// The peer had no buffer for what came with transmission `echo` or before and lies beyond its credit.
    pub fn refused(&mut self, edge: Seq, echo: Seq, out: &mut Outcome) {
        let mut unit = if edge.before(self.queue.first()) { self.queue.first() } else { edge };
        while unit.before(self.queue.next()) {
            let meta = self.queue.meta(unit);
            if meta.state == UnitState::InFlight && meta.tx.at_or_before(echo) {
                self.lose(unit);
                out.refused += 1;
            }
            unit = unit + 1;
        }
    }

    /// A unit in flight is to be retransmitted.
    fn lose(&mut self, unit: Seq) {
        let meta = self.queue.meta_mut(unit);
        debug_assert_eq!(meta.state, UnitState::InFlight);
        meta.state = UnitState::Lost;
        meta.timed_out = false;
        self.in_flight -= 1;
        if meta.retransmitted {
            self.repeats.remove(meta.tx);
        }
        self.lost += 1;
        if unit.before(self.lost_from) || self.lost == 1 {
            self.lost_from = unit;
        }
    }

    /// Units that RACK holds for lost by now, and when it will know more.
    ///
    /// Those that were sent once went out in their order, and the others are listed in that of their transmissions: of both only the oldest
    /// need be looked at.
    pub fn detect_losses(&mut self, now: Nanos, rtt: &Rtt) -> (u32, Option<Nanos>) {
        // Without a hole and without repetitions nothing older than the newest that arrived is outstanding.
        if self.sacked.count() == 0 && self.repeats.len() == 0 {
            return (0, None);
        }
        let delay = self.rack.loss_delay(rtt, self.sacked.count());
        let (mut lost, mut next) = (0, None);
        while let Some(Repeat { unit, tx }) = self.repeats.first()
            && tx.before(self.rack.newest())
        {
            let due = self.queue.meta(unit).sent + delay;
            if due > now {
                next = Some(due);
                break;
            }
            self.path.on_lost(self.queue.meta(unit).len);
            self.lose(unit);
            lost += 1;
        }
        if self.fresh_from.before(self.queue.first()) {
            self.fresh_from = self.queue.first();
        }
        while self.fresh_from.before(self.queue.next()) {
            let unit = self.fresh_from;
            let meta = self.queue.meta(unit);
            if meta.state == UnitState::InFlight && !meta.retransmitted {
                if !meta.tx.before(self.rack.newest()) {
                    break;
                }
                let due = meta.sent + delay;
                if due > now {
                    next = Some(next.map_or(due, |n: Nanos| n.min(due)));
                    break;
                }
                self.path.on_lost(meta.len);
                self.lose(unit);
                lost += 1;
            }
            self.fresh_from = unit + 1;
        }
        (lost, next)
    }

    /// The retransmission timeout passed: everything is retransmitted.
    pub fn on_timeout(&mut self, next_tx: Seq) {
        let mut unit = self.queue.first();
        while unit.before(self.queue.next()) {
            let meta = self.queue.meta(unit);
            if meta.state == UnitState::InFlight {
                self.path.on_lost(meta.len);
                self.lose(unit);
                self.queue.meta_mut(unit).timed_out = true;
            }
            unit = unit + 1;
        }
        self.timeout_tx = Some(next_tx);
        self.tail = Tail::Quiet;
    }

    /// The path takes packets of `size` at most, payload: what is in flight and longer is to be sent again.
    pub fn lose_longer(&mut self, size: u32) {
        self.path.set_cut(None);
        let mut unit = self.queue.first();
        while unit.before(self.queue.next()) {
            let meta = self.queue.meta(unit);
            if meta.state == UnitState::InFlight && u32::from(meta.len) > size {
                self.lose(unit);
            }
            unit = unit + 1;
        }
        self.tail = Tail::Quiet;
    }

    /// The unit of which parts have gone and more are to go, and where the next begins.
    #[inline]
    pub fn cut_at(&mut self) -> Option<(Seq, u16)> {
        let (unit, at) = self.path.cut()?;
        self.go_on(unit).then_some((unit, at))
    }

    /// Whether a unit of which parts have gone is still in flight, so that the rest of it is worth sending.
    #[cold]
    fn go_on(&mut self, unit: Seq) -> bool {
        let live = self.queue.first().at_or_before(unit) && unit.before(self.queue.next());
        let goes_on = live && self.queue.meta(unit).state == UnitState::InFlight;
        if !goes_on {
            self.path.set_cut(None);
        }
        goes_on
    }

    /// The timeout was needless: what it took for lost and was not repeated since is in flight as before.
    pub fn undo_timeout(&mut self) {
        let mut unit = self.queue.first();
        while self.lost > 0 && unit.before(self.queue.next()) {
            let meta = self.queue.meta_mut(unit);
            if meta.state == UnitState::Lost && meta.timed_out {
                meta.state = UnitState::InFlight;
                self.lost -= 1;
                self.in_flight += 1;
                if meta.retransmitted {
                    self.repeats.add(Repeat { unit, tx: meta.tx });
                }
            }
            unit = unit + 1;
        }
        self.fresh_from = self.queue.first();
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
            while self.queue.meta(self.lost_from).state != UnitState::Lost
                && self.lost_from.before(self.queue.next())
            {
                self.lost_from = self.lost_from + 1;
            }
            debug_assert!(self.lost_from.before(self.queue.next()));
            self.lost_from
        } else if self.queue.has_next() {
            self.queue.next()
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

    /// A new unit if there is one within credit, else the last one once more: its acknowledgement shows what is missing
    /// before it (RFC 8985 section 7.3).
    fn choose_probe(&mut self) -> Option<Choice> {
        self.tail = Tail::Probed;
        let new = self.queue.has_next() && self.allowance.covers(self.queue.next());
        if new {
            return Some(Choice { unit: self.queue.next(), uncovered: false, probe: true });
        }
        let mut unit = self.queue.next();
        while self.queue.first().before(unit) {
            unit = Seq(unit.0.wrapping_sub(1));
            if self.queue.meta(unit).state == UnitState::InFlight {
                return Some(Choice { unit, uncovered: false, probe: true });
            }
        }
        None
    }

    /// The first unit that was sent and is not acknowledged.
    pub fn under_way(&self) -> Option<Seq> {
        (self.in_flight + self.lost > 0).then_some(self.queue.first())
    }

    /// Whether a unit is to be sent, for the first time or again.
    pub fn has_more(&self) -> bool {
        self.lost > 0 || self.queue.has_next()
    }

    /// Whether the next unit waits for credit at `now`.
    pub fn waits_for_credit(&self, now: Nanos) -> bool {
        let mut unit = if self.lost > 0 { self.lost_from } else { self.queue.next() };
        while unit.before(self.queue.next()) && self.queue.meta(unit).state != UnitState::Lost {
            unit = unit + 1;
        }
        !self.allowance.covers(unit) && (self.in_flight > 0 || now < self.allowance.try_at())
    }

    /// Whether only the pause after a refusal keeps a unit back; until when.
    pub fn waits_to_try(&self) -> Option<Nanos> {
        let unit = if self.lost > 0 { self.lost_from } else { self.queue.next() };
        (self.in_flight == 0 && unit.before(self.queue.end()) && !self.allowance.covers(unit))
            .then_some(self.allowance.try_at())
    }

    /// The chosen unit goes out as transmission `tx`; `round` is the least round trip. True: the bytes sent went beyond 32 bits.
    #[inline]
    pub fn transmitted(&mut self, now: Nanos, unit: Seq, tx: Seq, round: Nanos) -> bool {
        let meta = self.queue.meta_mut(unit);
        let before = core::mem::replace(&mut meta.state, UnitState::InFlight);
        let before_tx = core::mem::replace(&mut meta.tx, tx);
        meta.sent = now;
        let mut beyond = false;
        if before == UnitState::Waiting {
            beyond = self.bytes.add(meta.len.into());
            self.queue.number_next();
        } else {
            let was_repeated = core::mem::replace(&mut meta.retransmitted, true);
            if before == UnitState::Lost {
                self.lost -= 1;
            } else {
                self.in_flight -= 1;
                if was_repeated {
                    self.repeats.remove(before_tx);
                }
            }
            self.repeats.add(Repeat { unit, tx });
        }
        self.in_flight += 1;
        self.allowance.used(now, round);
        beyond
    }

    /// Gives memory back that the next unit makes anew.
    pub fn rest(&mut self) {
        self.queue.rest();
        self.sacked.rest();
        self.repeats.rest();
    }

    /// Gives every token back. The sender is of no use after.
    pub fn clear<I: Io<Tx = T>>(&mut self, io: &mut I) {
        self.queue.clear(io);
        let path = PathMtu::new(self.path.size());
        *self = Sender { bytes: self.bytes, path, ..Sender::new(self.queue.end()) };
        self.queue.seal();
    }
}

//! What a flow sends, one packet at a time.

use machnet_wire::header::{DELAY_STEP, delay_steps};
use machnet_wire::{Flags, Header, Hello, Kind, Nanos, PathEntry};

use super::Flow;
use crate::life::State;
use crate::pairs::Due;
use crate::sender::{Choice, Tail};
use crate::spread;
use crate::timers::Timer;
use crate::{Body, Io, Transmit};

impl<T, H> Flow<T, H> {
    /// The next packet to send, if any. It counts as sent: ask only while there is room in the NIC.
    #[inline]
    pub fn poll_transmit<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        io: &mut I,
    ) -> Option<Transmit<'_, T>> {
        if !self.life.is_open() {
            return self.poll_not_open(now, io);
        }
        if self.pairs.is_due() {
            return self.poll_pairs(now, io);
        }
        if self.sender.path.is_due() {
            return self.send_probe(now, io);
        }
        if let Some((unit, at)) = self.sender.cut_at() {
            return self.send_rest(now, unit, at, io);
        }
        if !self.sender.queue.is_empty() {
            if self.sender.in_flight() == 0 {
                let next = self.sender.queue.next();
                self.sender.allowance.lapse(now, next, self.rtt.or_zero(), &self.config);
            }
            if let Some(least) = self.congestion.judge(now, &self.rtt) {
                self.rtt.rebase(least);
            }
            if self.drain_epochs.own_changed(io.drain_epoch()) {
                self.drain(now);
            }
            if let Some(choice) = self.choose(now) {
                let words = self.receiver.arrived().word_count(self.receiver.next());
                let room =
                    self.sender.path.size().saturating_sub(self.sender.queue.meta(choice.unit).len.into())
                        as usize
                        / 8;
                let hit = self.pairs.hit().filter(|_| room > 0);
                let room = room - usize::from(hit.is_some());
                if !self.acks.goes_before_unit(words, room) {
                    return self.send_unit(now, choice, hit, room, io);
                }
                // The probe, if it was one, is still due.
                if choice.probe && !choice.uncovered {
                    self.sender.set_tail(Tail::ProbeDue);
                }
            } else if let Some(at) = self.sender.waits_to_try().filter(|at| *at > now) {
                self.timers.set(Timer::Probe, at);
            }
        }
        if self.acks.goes_alone() {
            if self.asks_round_trip() {
                self.counts.pings_sent();
                return Some(self.send_bare(now, Kind::Ping, Flags::NONE, io));
            }
            self.counts.acks_sent();
            let probe = if self.hellos.unconfirmed() { Flags::PROBE } else { Flags::NONE };
            return Some(self.send_bare(now, Kind::Ack, probe, io));
        }
        if self.silence.take_ping() {
            self.counts.pings_sent();
            let again = if self.silence.asks_again() { Flags::PROBE } else { Flags::NONE };
            return Some(self.send_bare(now, Kind::Ping, again, io));
        }
        None
    }

    /// The next unit to send, if it is its turn.
    #[inline]
    fn choose(&mut self, now: Nanos) -> Option<Choice> {
        let choice = self.sender.choose(now, self.congestion.window(now));
        let wait_until = match choice {
            None => self.congestion.held_until(now)?,
            Some(choice) if choice.probe || self.ready_at() <= now => return Some(choice),
            Some(_) => self.ready_at(),
        };
        self.timers.set(Timer::Pace, wait_until);
        None
    }

    /// Whether an acknowledgement goes as a PING: one that only receives measures no round trips otherwise, and how much may be promised over
    /// a long path, and how fast that grows, hangs on how long it is. The answer rides on what the peer sends.
    #[inline]
    fn asks_round_trip(&self) -> bool {
        let unmeasured = self.numbering.unmeasured();
        if self.rtt.smoothed().is_none() {
            // The packets of the handshake that would have told were lost.
            return unmeasured.is_power_of_two();
        }
        self.rtt.least() > spread::SHORT
            && self.receiver.credit.reserved() > ASKED_FOR
            && unmeasured > 0
            && unmeasured.is_multiple_of(ASK_EVERY)
    }

    /// When the next unit may go, where there is congestion or the path is long.
    #[inline]
    pub(super) fn ready_at(&self) -> Nanos {
        self.congestion.ready_at().max(self.sender.allowance.ready_at(self.rtt.least()))
    }

    #[inline]
    fn send_unit<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        choice: Choice,
        hit: Option<PathEntry>,
        room: usize,
        io: &mut I,
    ) -> Option<Transmit<'_, T>> {
        let unit = choice.unit;
        let mut header = self.header(now, Kind::Data, io);
        let meta = self.sender.queue.meta(unit);
        header.unit = unit;
        header.message_len = meta.message_len;
        header.flags |= meta.flags;
        let behind = self.sender.queue.behind(unit);
        header.want = capped(behind);
        let retransmits = unit.before(self.sender.queue.next());
        if retransmits {
            self.counts.rare().retransmitted += 1;
        } else {
            self.counts.units_sent();
            self.sender.allowance.announce(behind > 0);
        }
        if choice.uncovered {
            self.counts.rare().credit_probes += 1;
        } else if choice.probe {
            self.counts.rare().tail_probes += 1;
        }
        if retransmits || choice.probe {
            header.flags |= Flags::PROBE;
        }
        if self.sender.transmitted(now, unit, header.tx, self.rtt.least()) {
            self.counts.sent_beyond();
        }
        self.congestion.sent(now);
        self.loss_timer.restart(now);
        if !self.timers.is_set(Timer::Loss) {
            self.watch_losses(now, None);
        }
        let sacks = self.acks.take_words(self.receiver.arrived(), self.receiver.next());
        let words = sacks.words.min(room);
        if sacks.ranges && words > 0 {
            header.flags |= Flags::RANGES;
        }
        let meta = *self.sender.queue.meta(unit);
        if u32::from(meta.len) > self.sender.path.size() && self.ends.takes_parts() {
            return Some(self.part(header, unit, 0));
        }
        let body = match self.sender.queue.token(unit) {
            Some(tx) if meta.len > 0 => Body::Unit { tx, offset: meta.offset, len: meta.len.into() },
            _ => Body::None,
        };
        if hit.is_some() {
            header.flags |= Flags::HIT;
        }
        Some(Transmit { header, hit, part: None, sack: self.acks.words(words), body })
    }

    /// A packet without a body.
    pub(super) fn send_bare<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        kind: Kind,
        flags: Flags,
        io: &mut I,
    ) -> Transmit<'_, T> {
        let mut header = self.header(now, kind, io);
        header.flags |= flags;
        let hit = self.pairs.hit().filter(|_| kind == Kind::Ack);
        if hit.is_some() {
            header.flags |= Flags::HIT;
        }
        let sacks = self.acks.take_words(self.receiver.arrived(), self.receiver.next());
        if sacks.ranges {
            header.flags |= Flags::RANGES;
        }
        Transmit { header, hit, part: None, sack: self.acks.words(sacks.words), body: Body::None }
    }

    #[cold]
    fn poll_pairs<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) -> Option<Transmit<'_, T>> {
        match self.pairs.take()? {
            Due::Report => {
                self.counts.acks_sent();
                let probe = if self.hellos.unconfirmed() { Flags::PROBE } else { Flags::NONE };
                let packet = self.send_bare(now, Kind::Paths, probe, io);
                Some(Transmit { body: Body::Paths(&[]), ..packet })
            }
            Due::Probe => {
                self.counts.pings_sent();
                Some(self.send_bare(now, Kind::Ping, Flags::REPORT, io))
            }
            Due::Feeler => {
                self.counts.pings_sent();
                Some(self.send_bare(now, Kind::Ping, Flags::REPORT | Flags::PROBE, io))
            }
        }
    }

    #[cold]
    fn poll_not_open<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) -> Option<Transmit<'_, T>> {
        if let Some(reason) = self.life.take_reset() {
            let header = self.header(now, Kind::Rst, io);
            let reset = self.ends.reset(reason);
            return Some(Transmit { header, hit: None, part: None, sack: &[], body: Body::Reset(reset) });
        }
        if self.hellos.take_cookie()
            && let (Some(ticket), Some(own)) = (self.ends.ticket(), self.ends.hello().copied())
        {
            self.counts.acks_sent();
            let header = self.header(now, Kind::Ack, io);
            let flags = header.flags | Flags::PROBE | Flags::HELLO;
            let header = Header { tag: ticket.tag, ack: ticket.unit, flags, ..header };
            let hello = Hello { cookie: ticket.cookie, ..own };
            return Some(Transmit { header, hit: None, part: None, sack: &[], body: Body::Hello(hello) });
        }
        if self.hellos.take_syn_ack() {
            self.counts.hellos_sent();
            let echo = self.acks.echo();
            let header = self.header(now, Kind::SynAck, io);
            if let Some(echo) = echo {
                // The next copy answers the same SYN unless another comes.
                self.acks.on_hello(echo);
            }
            return Some(Transmit {
                header,
                hit: None,
                part: None,
                sack: &[],
                body: Body::Hello(*self.ends.hello()?),
            });
        }
        if self.hellos.take_syn() {
            self.counts.hellos_sent();
            let mut header = self.header(now, Kind::Syn, io);
            header.tag = 0;
            return Some(Transmit {
                header,
                hit: None,
                part: None,
                sack: &[],
                body: Body::Hello(*self.ends.hello()?),
            });
        }
        if self.life.state() == State::Linger && self.acks.goes_alone() {
            self.counts.acks_sent();
            return Some(self.send_bare(now, Kind::Ack, Flags::NONE, io));
        }
        None
    }

    /// The header of the next packet: it acknowledges all that has arrived, so nothing else need do so.
    #[inline]
    pub(super) fn header<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, kind: Kind, io: &mut I) -> Header {
        let mut header = Header::new(kind);
        (header.src, header.dst) = self.ends.ports();
        header.tag = self.ends.peer_tag();
        header.unit = self.sender.queue.next();
        header.tx = self.numbering.take();
        header.ts = now.0 as u32;
        header.ack = self.receiver.next();
        let waiting = self.sender.queue.waiting();
        header.want = capped(waiting);
        self.sender.allowance.announce(waiting > 0);
        if self.life.is_open() {
            if io.drain_epoch() {
                header.flags |= Flags::DRAIN_EPOCH;
            }
            header.credit = if self.receiver.discarding() {
                // Nobody reads, so there is no hurry, and nothing is set aside for it.
                1
            } else {
                self.receiver.top_up(self.rtt.least(), io);
                let credit = self.receiver.credit.advertise(now, header.ack);
                self.watch_lapse();
                credit
            };
        }
        let (echo, refused) = self.acks.take();
        if let Some(echo) = echo {
            header.flags |= Flags::ECHO;
            header.ack_tx = echo.tx;
            header.ts_echo = echo.ts;
            header.ack_delay = delay_steps(now - echo.at);
            header.gap = delay_steps(Nanos(u64::from(echo.gap) + DELAY_STEP - 1));
        }
        if refused {
            header.flags |= Flags::REFUSED;
        }
        self.counts.packets_sent();
        header
    }
}

/// Units promised for which it matters whether the path is as long as it seemed.
const ASKED_FOR: u32 = 64;
/// Packets without a measured answer before a question.
const ASK_EVERY: u32 = 32;

/// Units, as the header tells them.
#[inline]
pub(super) fn capped(units: u32) -> u8 {
    units.min(u8::MAX.into()) as u8
}

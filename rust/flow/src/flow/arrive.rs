//! What packets do to a flow.

use machnet_wire::header::DELAY_STEP;
use machnet_wire::{Flags, Hello, Kind, Nanos, Packet, ParseError, Reason};

use super::Flow;
use crate::acks::Echo;
use crate::allowance::Progress;
use crate::life::State;
use crate::receiver::{Arrival, Context};
use crate::sender::Outcome;
use crate::timers::Timer;
use crate::{FlowError, Io};

impl<T, H> Flow<T, H> {
    /// Takes a packet whose ports are this flow's. The body of PATHS and the path word are the engine's, which reads them when this has
    /// taken the packet.
    #[inline]
    pub fn on_packet<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        let header = &packet.header;
        if header.tag == self.ends.tag()
            && self.life.is_open()
            && matches!(header.kind, Kind::Data | Kind::Ack)
            && !needs_agreement(packet)
        {
            return self.on_open(now, packet, io);
        }
        self.on_other(now, packet, io)
    }

    fn on_other<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        let header = &packet.header;
        match header.kind {
            Kind::Syn => return self.on_syn(now, io.gap(), packet),
            Kind::Rst => return self.on_reset(packet, io),
            _ if header.tag != self.ends.tag() => {
                self.counts.rare().stale_tags += 1;
                return Err(FlowError::Tag);
            }
            Kind::SynAck => return self.on_syn_ack(now, packet, io),
            Kind::Data | Kind::Ack | Kind::Ping | Kind::Paths => {}
        }
        match self.life.state() {
            State::Open | State::SynReceived => {}
            State::SynSent if self.ends.peer().is_some() => {}
            State::SynSent => return Ok(()),
            State::Linger => {
                // Our last acknowledgement was lost. Acknowledgements themselves are not answered.
                if matches!(header.kind, Kind::Data | Kind::Ping) || header.flags.has(Flags::PROBE) {
                    self.acks.on_question(Echo::new(now, io.gap(), header));
                    self.timers.set(Timer::Limit, now + self.config.linger);
                }
                return Ok(());
            }
            State::Dead => return Err(FlowError::Over),
        }
        if needs_agreement(packet) {
            self.check_agreed(packet, io)?;
        }
        if !self.life.is_open() {
            // The third packet of the handshake, or data that overtook it.
            self.establish(now, header.flags.has(Flags::DRAIN_EPOCH), io);
            self.ends.on_confirmed();
        }
        self.on_open(now, packet, io)
    }

    /// Whether a packet that carries our tag and [needs an agreement](needs_agreement) has it: a flow agrees on one lane and on no
    /// seals, takes parts, and knows its peer's hello already.
    #[cold]
    fn check_agreed<I: Io<Tx = T, Held = H>>(
        &mut self,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        let malformed = |what, value| FlowError::Malformed(ParseError::Field { what, value });
        let header = &packet.header;
        if header.lane != 0 {
            return Err(malformed("machnet lane", header.lane.into()));
        }
        if header.flags.has(Flags::SEALED) {
            return Err(self.fail("a seal that was not agreed on", io));
        }
        if !header.flags.has(Flags::HELLO) {
            return Ok(());
        }
        let hello = Hello::parse(packet.payload).map_err(FlowError::Malformed)?;
        if !self.ends.is_peer(hello.tag) {
            return Err(malformed("machnet hello tag", hello.tag));
        }
        Ok(())
    }

    #[inline]
    fn heard(&mut self, now: Nanos) {
        self.counts.packets_received();
        self.silence.on_packet(now);
        if self.hellos.on_packet(&mut self.timers) {
            self.pairs.on_confirmed();
            self.ends.on_confirmed();
        }
    }

    #[inline]
    fn on_open<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        self.heard(now);
        if let Err(what) = self.on_acknowledgement(now, packet, io) {
            return Err(self.fail(what, io));
        }
        let header = &packet.header;
        if header.kind == Kind::Data
            && let Err(what) = self.on_data(now, packet, io)
        {
            return Err(self.fail(what, io));
        }
        if header.kind == Kind::Ping || header.flags.has(Flags::PROBE) {
            let echo = Echo::new(now, io.gap(), header);
            if header.kind == Kind::Ping && !packet.payload.is_empty() {
                self.acks.on_probe(echo);
            } else {
                self.acks.on_question(echo);
            }
            let again = match header.kind {
                Kind::Data => header.unit.before(self.receiver.next()),
                kind => kind == Kind::Ping && header.flags.has(Flags::PROBE),
            };
            if again {
                self.pairs.on_repeat(now, self.receiver.next());
            }
        }
        self.check_closed(now, io);
        Ok(())
    }

    #[inline]
    fn on_acknowledgement<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), &'static str> {
        let header = &packet.header;
        let echo = header.flags.has(Flags::ECHO).then_some(header.ack_tx);
        if let Some(echo) = echo {
            if !self.numbering.was_sent(echo) {
                return Err("echoes a transmission that never was");
            }
            self.sample(now, packet, io.gap());
            if self.sender.path.is_searching() && self.sender.path.on_echo(echo) {
                self.sender.path.set_due(now);
            }
        }
        let mut outcome = self.sender.on_ack(now, packet, echo, &self.rtt, &mut self.counts, io)?;
        // Credit may shrink, so an old packet that comes late must not speak for the peer.
        if self.numbering.is_newest(header.tx) {
            let rtt = self.rtt.or_zero();
            // Before the packet counts as a sign of life.
            if self.drain_epochs.peer_changed(header.flags.has(Flags::DRAIN_EPOCH)) {
                self.drain(now);
            }
            let progress = match outcome.acked {
                _ if header.flags.has(Flags::REFUSED) => Progress::Refused,
                0 => Progress::None,
                _ => Progress::Acked,
            };
            let come = self.sender.sacked();
            self.sender.allowance.update(now, header.ack, header.credit, come, progress, rtt, &self.config);
            let next = header.unit + u32::from(header.kind == Kind::Data);
            self.receiver.credit.demanded(next, header.want);
            if let (true, Some(echo)) = (header.flags.has(Flags::REFUSED), echo) {
                self.sender.refused(header.ack + u32::from(header.credit), echo, &mut outcome);
                if outcome.refused > 0 {
                    self.loss_timer.refused();
                    self.counts.rare().refused_by_peer += u64::from(outcome.refused);
                    self.sender.allowance.refused(now, rtt, &self.config);
                    self.watch_losses(now, None);
                }
            }
        }
        if outcome.acked > 0 {
            self.on_progress(now, &outcome);
        }
        Ok(())
    }

    #[inline]
    fn on_progress(&mut self, now: Nanos, outcome: &Outcome) {
        if let Some(needless) = outcome.timeout_needless {
            if needless {
                // The acknowledgements were late, not the units lost (RFC 3522).
                self.sender.undo_timeout();
                self.congestion.undo_timeout();
                self.counts.rare().rtos_undone += 1;
            } else {
                self.congestion.confirm_timeout();
            }
        }
        self.loss_timer.progress(now);
        self.congestion.on_ack(outcome.acked, outcome.in_flight);
        self.congestion.on_needless(outcome.needless);
        self.find_losses(now);
    }

    /// Looks for losses and sets the timer for what cannot be told yet.
    pub(super) fn find_losses(&mut self, now: Nanos) {
        let (lost, next) = self.sender.detect_losses(now, &self.rtt);
        if lost > 0 {
            self.counts.rare().lost += u64::from(lost);
            self.congestion.on_loss(now, lost, &self.rtt);
            self.watch_path(now);
        }
        self.watch_losses(now, next);
    }

    #[inline]
    fn on_data<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), &'static str> {
        let header = &packet.header;
        let (unit_size, round) = (self.ends.unit_size(), self.rtt.least());
        let context = Context { now, config: &self.config, unit_size, round };
        let arrival = self.receiver.on_unit(&context, packet, &mut self.counts, io)?;
        let runs_out = self.receiver.credit.runs_out(self.receiver.next());
        self.acks.on_unit(now, Echo::new(now, io.gap(), header), arrival, runs_out, &self.config);
        // Nobody reads what still comes, and all that we had to say has arrived.
        let unwanted = self.receiver.discarding()
            && self.sender.queue.finish_acked()
            && !self.receiver.finished()
            && matches!(arrival, Arrival::InOrder { .. });
        if unwanted {
            self.reset(self.life.ends_behind().unwrap_or(Reason::Closed), io);
            return Ok(());
        }
        self.watch_lapse();
        Ok(())
    }

    /// The credit's timer runs from when it is first needed and looks by itself whether it came too early.
    #[inline]
    pub(super) fn watch_lapse(&mut self) {
        if !self.timers.is_set(Timer::Lapse)
            && !self.receiver.discarding()
            && self.life.is_open()
            && let Some(at) = self.receiver.credit.lapses_at(self.rtt.or_zero(), &self.config)
        {
            self.timers.set(Timer::Lapse, at);
        }
    }

    /// Takes the round trip that the packet's echo ends, if it is to be measured.
    #[inline]
    pub(super) fn sample(&mut self, now: Nanos, packet: &Packet<'_>, gap: Nanos) {
        let header = &packet.header;
        let Some(rtt) = self.numbering.round_trip(now, header) else { return };
        self.counts.rtt_samples();
        self.rtt.sample(rtt);
        // What the packets may have lain in rings while nobody looked is no delay of the path.
        let unseen = gap + Nanos(u64::from(header.gap) * DELAY_STEP);
        self.congestion.on_delay(rtt - unseen, header.backlog);
    }
}

/// Whether a packet has anything that both ends must have agreed on.
#[inline]
fn needs_agreement(packet: &Packet<'_>) -> bool {
    const ASKS: u16 = Flags::SEALED.0 | Flags::PART.0 | Flags::HELLO.0;
    packet.header.flags.0 & ASKS | u16::from(packet.header.lane) != 0
}

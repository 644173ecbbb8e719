//! What time does to a flow.

use machnet_wire::{Nanos, Reason};

use super::Flow;
use crate::life::State;
use crate::sender::Tail;
use crate::silence::{Look, Silence};
use crate::timers::Timer;
use crate::{Closed, Io};

impl<T, H> Flow<T, H> {
    /// Does what is due at `now`. Harmless when nothing is.
    pub fn on_timeout<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        self.acks.on_time(now);
        if self.timers.take_due(Timer::Loss, now) {
            self.on_loss_timer(now);
        }
        // Sending is what they are for, and `poll_transmit` does that.
        self.timers.take_due(Timer::Probe, now);
        self.timers.take_due(Timer::Pace, now);
        if self.timers.take_due(Timer::Lapse, now) {
            self.on_lapse_timer(now, io);
        }
        if self.timers.take_due(Timer::Hello, now) {
            self.on_hello_timer(now);
        }
        if self.timers.take_due(Timer::Silence, now) {
            self.on_silence_timer(now, io);
        }
        if self.sender.path.take_due(now) {
            self.on_path_timer(now, io);
        }
        if self.timers.take_due(Timer::Limit, now) {
            match self.life.state() {
                State::SynSent | State::SynReceived => self.end(Closed::Timeout, State::Dead, io),
                State::Open => self.reset(Reason::Closed, io),
                State::Linger => self.life.enter(State::Dead),
                State::Dead => {}
            }
        }
    }

    /// Sets the timer for units in flight: to `next` if something will be known then, else to probe or timeout.
    pub(super) fn watch_losses(&mut self, now: Nanos, next: Option<Nanos>) {
        match next {
            Some(at) => self.timers.set(Timer::Loss, at),
            None if self.sender.in_flight() > 0 => {
                let at = self.loss_timer.expires_at(self.sender.tail(), &self.rtt, &self.config);
                self.timers.set(Timer::Loss, at.max(now));
            }
            None => self.timers.clear(Timer::Loss),
        }
    }

    fn on_loss_timer(&mut self, now: Nanos) {
        if !self.life.is_open() {
            return;
        }
        self.find_losses(now);
        if self.sender.in_flight() == 0 || self.timers.get(Timer::Loss) > now {
            return;
        }
        self.loss_timer.expired(now);
        if self.loss_timer.probes_next(self.sender.tail(), &self.rtt) {
            self.sender.set_tail(Tail::ProbeDue);
        } else {
            self.counts.rare().rtos += 1;
            self.loss_timer.back_off();
            self.pairs.on_unanswered(self.loss_timer.in_row());
            self.sender.on_timeout(self.numbering.next());
            self.congestion.on_timeout(now);
            self.silence.watch(now, &self.config, &mut self.timers);
            self.watch_path(now);
        }
        self.watch_losses(now, None);
    }

    fn on_lapse_timer<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        let Some(at) = self.receiver.credit.lapses_at(self.rtt.or_zero(), &self.config) else { return };
        if now < at {
            self.timers.set(Timer::Lapse, at);
        } else if let Some(last) = self.receiver.arrived().highest() {
            self.receiver.drop_parts(io);
            // The peer is about to fill a gap, and what is kept lies on reserved units.
            self.receiver.credit.lapse_behind(self.receiver.next(), last, &mut self.counts, io);
        } else if self.receiver.credit.reminds(now, self.receiver.next()) {
            self.acks.on_credit();
            self.watch_lapse();
        } else {
            self.receiver.drop_parts(io);
            self.receiver.credit.lapse(self.receiver.next(), &self.config, &mut self.counts, io);
        }
    }

    fn on_silence_timer<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if !self.life.is_open() {
            return;
        }
        let owes = self.sender.in_flight() > 0 || self.hellos.unconfirmed();
        let look = self.silence.on_timer(
            now,
            self.ends.tag(),
            owes,
            || io.peer_heard(),
            &self.config,
            &mut self.timers,
        );
        let stuck = look == Look::Step
            && Silence::is_stuck(self.loss_timer.looked(self.sender.under_way()), &self.config);
        if look == Look::Dead || stuck {
            self.end(if stuck { Closed::NoProgress } else { Closed::Timeout }, State::Dead, io);
            self.tell_reset(Reason::Timeout);
        } else if self.silence.is_asking() {
            // Neither end has had anything to say for long: what the next burst needs, it makes anew.
            self.sender.rest();
            self.receiver.rest();
            self.acks.rest();
            self.congestion.rest();
            self.pairs.rest();
        }
        let checks = self.silence.checks(&self.config);
        if checks > 0 && self.sender.queue.is_empty() {
            self.pairs.on_unanswered(checks);
        }
    }

    /// The handshake's packet was not answered.
    fn on_hello_timer(&mut self, now: Nanos) {
        match self.life.state() {
            State::SynSent if self.ends.ticket().is_some() => self.hellos.bring_cookie(),
            State::SynSent => self.hellos.call(self.ends.syns().again.max(1)),
            State::Open if self.hellos.unconfirmed() => self.acks.on_unconfirmed(),
            _ => return,
        }
        self.hellos.back_off(&self.config);
        self.watch_hello(now);
    }
}

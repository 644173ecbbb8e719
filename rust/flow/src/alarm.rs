//! What time does to a flow.

use machnet_wire::{Nanos, Reason};

use crate::flow::{Flow, State};
use crate::sender::Tail;
use crate::timers::Timer;
use crate::{Closed, Io};

impl<T, H> Flow<T, H> {
    /// Does what is due at `now`. Harmless when nothing is.
    pub fn on_timeout<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if self.timers.take_due(Timer::Ack, now) {
            self.ack_now = true;
        }
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
            self.on_hello_timeout(now);
        }
        if self.timers.take_due(Timer::Silence, now) {
            self.on_silence_timer(now, io);
        }
        if self.timers.take_due(Timer::Limit, now) {
            match self.state {
                State::SynSent | State::SynReceived => self.end(Closed::Timeout, State::Dead, io),
                State::Open => self.reset(Reason::Closed, io),
                State::Linger => self.state = State::Dead,
                State::Dead => {}
            }
        }
    }

    /// Sets the timer for units in flight: to `next` if something will be known then, else to probe or timeout.
    pub(crate) fn watch_losses(&mut self, now: Nanos, next: Option<Nanos>) {
        match next {
            Some(at) => self.timers.set(Timer::Loss, at),
            None if self.sender.in_flight() > 0 => {
                self.timers.set(Timer::Loss, (self.loss_base + self.patience()).max(now));
            }
            None => self.timers.clear(Timer::Loss),
        }
    }

    /// How long after the last transmission or progress the tail is probed, or all is sent again.
    fn patience(&self) -> Nanos {
        let timeout = self.rtt.timeout(&self.config);
        if self.probes_next() {
            return self.rtt.probe_timeout(&self.config).min(timeout);
        }
        self.backed_off(timeout)
    }

    pub(crate) fn backed_off(&self, timeout: Nanos) -> Nanos {
        (timeout * (1 << self.backoff.min(BACKOFF_MAX))).min(self.config.rto_max)
    }

    fn probes_next(&self) -> bool {
        self.sender.tail == Tail::Quiet && self.backoff == 0 && self.rtt.smoothed().is_some()
    }

    fn on_loss_timer(&mut self, now: Nanos) {
        if self.state != State::Open {
            return;
        }
        self.find_losses(now);
        if self.sender.in_flight() == 0 || self.timers.get(Timer::Loss) > now {
            return;
        }
        self.loss_base = now;
        if self.probes_next() {
            self.sender.tail = Tail::ProbeDue;
        } else {
            self.stats.rtos += 1;
            self.backoff += 1;
            self.sender.on_timeout(self.next_tx);
            self.congestion.on_timeout(now);
            self.watch_silence(now);
        }
        self.watch_losses(now, None);
    }

    fn on_lapse_timer<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        let Some(at) = self.receiver.credit.lapses_at(self.rtt.or_zero(), &self.config) else { return };
        if now < at {
            self.timers.set(Timer::Lapse, at);
        } else if let Some(last) = self.receiver.arrived().highest() {
            // The peer is about to fill a gap, and what is kept lies on reserved units.
            self.receiver.credit.lapse_behind(self.receiver.next(), last, &mut self.stats, io);
        } else if self.receiver.credit.reminds(now, self.receiver.next()) {
            self.ack_now = true;
            self.watch_lapse();
        } else {
            self.receiver.credit.lapse(self.receiver.next(), &self.config, &mut self.stats, io);
        }
    }

    /// Begins to look at the peer's silence closely, unless that is so already.
    pub(crate) fn watch_silence(&mut self, now: Nanos) {
        let next = now + self.silence_step();
        if self.timers.get(Timer::Silence) > next {
            self.timers.set(Timer::Silence, next);
            self.begin_waiting(now);
        }
    }

    /// A question is out; the peer's silence counts from here.
    fn begin_waiting(&mut self, now: Nanos) {
        self.waited = Some(Nanos::ZERO);
        self.looked_at = now;
    }

    fn silence_step(&self) -> Nanos {
        (self.config.dead_after / STEPS).max(Nanos::millis(1))
    }

    /// Silence counts while an answer is owed: from when this look finds the question out, or a retransmission timeout
    /// does, and anew from each sign of life on whatever connection. It is counted in steps that this end waited through: a
    /// stall of ours is one step, whatever it took.
    fn on_silence_timer<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if self.state != State::Open {
            return;
        }
        let step = self.silence_step();
        let owes = self.sender.in_flight() > 0 || self.ping_out || self.unconfirmed;
        match self.waited {
            _ if !owes => {
                let idle_until = self.last_heard + self.config.keep_alive;
                if now < idle_until {
                    self.waited = None;
                    self.timers.set(Timer::Silence, idle_until);
                    return;
                }
                self.ping_due = true;
                self.ping_out = true;
                self.begin_waiting(now);
            }
            None => self.begin_waiting(now),
            Some(waited) => {
                let heard = self.last_heard.max(io.peer_heard());
                let waited = if heard > self.looked_at { Nanos::ZERO } else { waited + step };
                self.waited = Some(waited);
                self.looked_at = now;
                if waited >= self.config.dead_after {
                    self.end(Closed::Timeout, State::Dead, io);
                    self.tell_reset(Reason::Timeout);
                    return;
                }
                self.ping_due |= self.ping_out;
            }
        }
        self.timers.set(Timer::Silence, now + step);
    }
}

/// Steps in which the peer's silence is counted; as many PINGs may be lost.
const STEPS: u64 = 32;
const BACKOFF_MAX: u32 = 16;

//! The flow: its parts, and what the application's side does to it. What packets do is in `arrive`, what goes out in
//! `depart`, what time does in `alarm`, and how it begins in `handshake`: only these see the parts together.

mod alarm;
mod arrive;
mod depart;
mod handshake;
mod path;

use alloc::sync::Arc;

use machnet_wire::{Hello, Nanos, PathEntry, Reason, Seq};

use crate::acks::Acks;
use crate::congestion::Congestion;
use crate::drain::DrainEpochs;
use crate::ends::Ends;
use crate::hellos::Hellos;
use crate::life::{Life, State};
use crate::loss_timer::LossTimer;
use crate::numbering::Numbering;
use crate::pairs::Pairs;
use crate::receiver::Receiver;
use crate::rtt::Rtt;
use crate::sender::Sender;
use crate::silence::Silence;
use crate::stats::Counts;
use crate::timers::{Timer, Timers};
use crate::{Closed, Config, Event, Io, NotSent, SendError, Setup, Stats, Unit};

/// One connection. `T` is the token of a unit to send, `H` that of a unit held ([`Io::Tx`], [`Io::Held`]).
///
/// After any call but the getters, ask [`Flow::poll_transmit`] until it has nothing more, as far as there is room to
/// send, and file the flow under [`Flow::next_timeout`] again. A timer that fires early does no harm.
///
/// Take the packets that have arrived before the timeouts that are due: after a stall the answers are in the ring.
#[derive(Debug, Clone, Hash)]
pub struct Flow<T, H> {
    config: Arc<Config>,
    // The connection: whose it is, in what state, what of the handshake is still to be sent, whether the peer lives.
    ends: Ends,
    life: Life,
    hellos: Hellos,
    silence: Silence,
    pairs: Pairs,
    numbering: Numbering,
    // What we send.
    sender: Sender<T>,
    loss_timer: LossTimer,
    rtt: Rtt,
    congestion: Congestion,
    drain_epochs: DrainEpochs,
    // What the peer sends.
    receiver: Receiver<H>,
    acks: Acks,
    timers: Timers,
    counts: Counts,
}

/// What keeps a flow from sending what is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing is to be sent.
    Idle,
    /// As many units are in flight as may be.
    Window,
    /// The peer has promised no room.
    Credit,
    /// The next unit goes at a pace.
    Pace,
    /// Nothing of the flow's own.
    Not,
}

/// What a peer without credit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditWait {
    /// The application, which has not read what there is.
    Reader,
    /// Units that others have.
    Units,
}

impl<T, H> Flow<T, H> {
    fn new(now: Nanos, config: Arc<Config>, local: Setup, state: State) -> Self {
        Flow {
            ends: Ends::new(local),
            life: Life::new(state),
            hellos: Hellos::new(&config),
            silence: Silence::new(now),
            pairs: Pairs::default(),
            numbering: Numbering::new(local.first),
            sender: Sender::new(local.first),
            loss_timer: LossTimer::new(now),
            rtt: Rtt::new(),
            congestion: Congestion::new(config.window_first),
            drain_epochs: DrainEpochs::new(false, false),
            receiver: Receiver::new(Seq(0), &config),
            acks: Acks::new(),
            timers: Timers::new(),
            counts: Counts::default(),
            config,
        }
    }

    /// Queues a unit.
    pub fn send(&mut self, unit: Unit<T>) -> Result<(), NotSent<T>> {
        match self.life.state() {
            State::Open => self.sender.queue.push(unit, self.sender.path.size()),
            _ => Err(NotSent { tx: unit.tx, why: SendError::NotOpen }),
        }
    }

    /// Gives up the message that was begun and not ended: units of it not yet sent are completed, the peer is told
    /// if it may have seen a part. `tx` is the ABORT's own token; where nothing needs telling it completes at once.
    pub fn abort<I: Io<Tx = T, Held = H>>(&mut self, tx: T, io: &mut I) -> Result<(), NotSent<T>> {
        match self.life.state() {
            State::Open => self.sender.queue.abort(tx, io),
            _ => Err(NotSent { tx, why: SendError::NotOpen }),
        }
    }

    /// Half close: a FIN follows the data queued. `tx` is its token. Not within a message: abort that first.
    pub fn fin(&mut self, tx: T) -> Result<(), NotSent<T>> {
        match self.life.state() {
            State::Open => self.sender.queue.push_fin(tx),
            _ => Err(NotSent { tx, why: SendError::NotOpen }),
        }
    }

    /// The application reads no more: held units are dropped, reservations go back, nothing more is delivered or told
    /// but `Closed`. What still arrives is acknowledged and thrown away until our FIN is acknowledged, so that a flush
    /// is not cut off by a peer that still talks; data after that resets the connection (RFC 1122 section 4.2.2.13).
    /// Call with or after [`Flow::fin`].
    pub fn stop_reading<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if self.life.is_open() {
            self.receiver.stop_reading(io);
            self.timers.clear(Timer::Lapse);
            self.check_closed(now, io);
        }
    }

    /// Ends the flow at once: tokens complete, `Closed(ByUs(reason))` is told, an RST is ready to send.
    pub fn reset<I: Io<Tx = T, Held = H>>(&mut self, reason: Reason, io: &mut I) {
        match self.life.state() {
            State::Dead => {}
            State::Linger => self.life.enter(State::Dead),
            State::SynSent | State::SynReceived | State::Open => {
                self.end(Closed::ByUs(reason), State::Dead, io);
                self.tell_reset(reason);
            }
        }
    }

    /// Ends the flow like [`Flow::reset`], but behind what is queued: the peer has all of it in hand before it hears the RST. Nothing
    /// more is taken. A message that was begun and not ended is aborted first, by [`Flow::abort`]. Where both directions finish before
    /// that the end is clean; a flow that is not open has nothing queued, and ends now.
    pub fn reset_behind<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, reason: Reason, io: &mut I) {
        match self.life.state() {
            State::Open => {
                self.sender.queue.seal();
                self.life.reset_behind(reason);
                self.check_closed(now, io);
            }
            State::SynSent | State::SynReceived => self.reset(reason, io),
            State::Linger | State::Dead => {}
        }
    }

    /// The application returned `n` units of this flow; none: some are free again for one that
    /// [waits for units](Flow::credit_wait).
    #[inline]
    pub fn credit_returned<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, n: u32, io: &mut I) {
        if self.life.is_open() && !self.receiver.discarding() {
            let next = self.receiver.next();
            self.receiver.credit.returned(now, n, self.rtt.or_zero(), &self.config);
            self.receiver.top_up(self.rtt.least(), io);
            if self.receiver.credit.is_news(next) {
                self.acks.on_credit();
            }
        }
    }

    /// What keeps the peer from sending what it has, if something here does: call [`Flow::credit_returned`] when that
    /// changes; otherwise the peer is served at its next try.
    #[inline]
    pub fn credit_wait(&self) -> Option<CreditWait> {
        let credit = &self.receiver.credit;
        credit.is_peer_blocked().then_some(if credit.is_full() {
            CreditWait::Reader
        } else {
            CreditWait::Units
        })
    }

    /// This engine did not run for a while until `now`: what is under way is not overdue for that, and its round trips
    /// are not measured. The peer's silence needs no such care: it is counted in steps that this end waited through,
    /// so a stall counts as one step however long it was.
    pub fn stalled(&mut self, now: Nanos) {
        self.numbering.skip_measuring();
        self.loss_timer.stalled(now);
    }

    /// Has `probes` PINGs with REPORT sent, each of which the engine gives UDP ports of its own: the peer tells by PATHS which queue each
    /// reached. An established flow only, for nobody else is sent more than was asked for.
    pub fn probe_pairs(&mut self, probes: u16) {
        if self.life.is_open() {
            self.pairs.probe(probes);
        }
    }

    /// The same, by PINGs with PROBE, too: what went before was not answered, so the peer's answers may be what is lost.
    pub fn feel_pairs(&mut self, probes: u16) {
        if self.life.is_open() {
            self.pairs.feel(probes);
        }
    }

    /// Has a PATHS packet sent, whose entries the engine fills in, before anything else. It acknowledges and promises as an ACK does, and
    /// goes in place of one that is due.
    pub fn report_pairs(&mut self) {
        if self.life.is_open() {
            self.pairs.report();
        }
    }

    /// Has acknowledgements, and data that leaves room for it, carry `hit` until the peer has shown that it knows of the connection: a
    /// pair of its UDP ports, and the queue of ours that it reached.
    pub fn set_hit(&mut self, hit: PathEntry) {
        if self.hellos.unconfirmed() {
            self.pairs.set_hit(hit);
        }
    }

    /// Whether the peer has called, after a pause, once more since this was asked last: what answered its first SYN seems not to have arrived.
    pub fn take_asked_again(&mut self) -> bool {
        self.hellos.take_asked_again()
    }

    /// Whether it calls, and nobody has answered yet.
    #[inline]
    pub fn is_calling(&self) -> bool {
        self.life.state() == State::SynSent && self.ends.peer().is_none()
    }

    /// SYN-ACKs that are to be sent and were not yet, each the answer of one SYN.
    pub fn syn_acks_due(&self) -> u16 {
        self.hellos.syn_acks_due()
    }

    /// After [`Flow::on_timeout`]: how often in a row the peer has left something unanswered by now, if that was once more; 0: it was not.
    /// That is retransmission timeouts since the last progress, or, where no unit is out, checks of its silence since a question. What goes
    /// out, or its answer, seems not to arrive.
    #[inline]
    pub fn take_unanswered(&mut self) -> u32 {
        self.pairs.take_unanswered()
    }

    /// Whether `enough` questions of the peer's (PING, units sent again) came one after the other though each was answered, or one more
    /// after that: the answers seem not to arrive. `enough`: 1 or more.
    pub fn take_repeats(&mut self, enough: u8) -> bool {
        self.pairs.take_repeats(enough)
    }

    /// When to call [`Flow::on_timeout`] at the latest. `None`: nothing is awaited.
    #[inline]
    pub fn next_timeout(&self) -> Option<Nanos> {
        let next = self.timers.next().min(self.acks.due_by()).min(self.sender.path.due_at());
        (next != Nanos::MAX).then_some(next)
    }

    /// The same, where an acknowledgement that goes alone may be late by `patience`.
    pub fn next_timeout_but(&self, patience: Nanos) -> Option<Nanos> {
        let next = self.timers.next().min(self.acks.due_by().saturating_add(patience));
        (next != Nanos::MAX).then_some(next)
    }

    /// Whether nothing is left to do: the flow may be dropped.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.life.is_done()
    }

    /// Whether both ends know of the connection and it is not over.
    #[inline]
    pub fn is_established(&self) -> bool {
        self.life.is_open()
    }

    /// Whether it is closed both ways and only stays to acknowledge repetitions: it may be dropped at any time for a
    /// new connection with its ports.
    pub fn is_lingering(&self) -> bool {
        self.life.state() == State::Linger
    }

    /// Our tag: packets to us carry it.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.ends.tag()
    }

    /// What the peer said of itself, once it has.
    pub fn peer(&self) -> Option<&Hello> {
        self.ends.peer()
    }

    /// Most payload of one packet of this flow, bytes: what both ends take, or less, where the path between is known to take less.
    #[inline]
    pub fn unit_size(&self) -> u32 {
        if self.life.is_open() { self.sender.path.size() } else { self.ends.unit_size() }
    }

    /// Units queued or sent and not yet acknowledged.
    #[inline]
    pub fn queued(&self) -> u32 {
        self.sender.queue.len()
    }

    /// Units in flight.
    pub fn in_flight(&self) -> u32 {
        self.sender.in_flight()
    }

    /// Whether nothing more is taken: a FIN is queued, or the end comes without one.
    pub fn is_finished(&self) -> bool {
        self.sender.queue.is_sealed()
    }

    /// Whether the message last queued has not ended.
    pub fn message_open(&self) -> bool {
        self.sender.queue.message_open()
    }

    /// Congestion window at `now`, units.
    pub fn window(&self, now: Nanos) -> u32 {
        self.congestion.window(now)
    }

    /// Units that the peer has room for beyond those sent.
    pub fn credit(&self) -> u32 {
        self.sender.allowance.beyond(self.sender.queue.next())
    }

    /// What keeps units from being sent at `now`.
    pub fn held(&self, now: Nanos) -> Held {
        if !self.life.is_open() || !self.sender.has_more() {
            Held::Idle
        } else if self.sender.in_flight() >= self.congestion.window(now) {
            Held::Window
        } else if self.sender.waits_for_credit(now) {
            Held::Credit
        } else if self.ready_at() > now {
            Held::Pace
        } else {
            Held::Not
        }
    }

    /// Units that the peer was promised room for.
    pub fn promised(&self) -> u32 {
        self.receiver.credit.reserved()
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Option<Nanos> {
        self.rtt.smoothed()
    }

    /// How far round trips are from the smoothed one, on average; zero before the first sample.
    pub fn rtt_variation(&self) -> Nanos {
        self.rtt.variation()
    }

    /// A drain epoch has changed: all flows that may share a path hold back now. A flow that was idle does not take part, because it is too
    /// late for it to, nor does one with few units queued, which make no queue on the path.
    fn drain(&mut self, now: Nanos) {
        let idle = self.sender.in_flight() == 0
            && self.sender.allowance.is_idle(now, self.rtt.or_zero(), &self.config);
        if !idle && self.sender.queue.len() > self.config.window_first {
            self.congestion.drain(now, &self.rtt);
        }
    }

    /// How long the peer may be silent about what is in flight before it is retransmitted, back-off included.
    pub fn timeout(&self) -> Nanos {
        self.loss_timer.timeout(&self.rtt, &self.config)
    }

    /// Asks the peer after so much silence, a millisecond at least, whether it lives; `None`: after [`Config::keep_alive`], [`Nanos::MAX`]:
    /// never.
    pub fn keep_alive(&mut self, now: Nanos, after: Option<Nanos>) {
        if self.life.is_open() {
            self.silence.keep_alive(now, after, self.ends.tag(), &self.config, &mut self.timers);
        }
    }

    /// Payload bytes (sent for the first time, delivered in order).
    pub fn bytes(&self) -> (u64, u64) {
        self.counts.bytes(self.sender.bytes, self.receiver.bytes)
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.counts.stats()
    }

    /// Closed both ways by now, or is a reset due that waited for the last acknowledgement?
    #[inline]
    fn check_closed<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if !self.sender.queue.finish_acked() {
            return;
        }
        if self.receiver.finished() && self.sender.queue.has_fin() {
            self.end(Closed::Clean, State::Linger, io);
            self.timers.set(Timer::Limit, now + self.config.linger);
        } else if let Some(reason) = self.life.ends_behind() {
            self.reset(reason, io);
        } else if self.receiver.discarding() && !self.timers.is_set(Timer::Limit) {
            self.timers.set(Timer::Limit, now + self.config.orphan);
        }
    }

    /// Gives everything back and tells the end.
    fn end<I: Io<Tx = T, Held = H>>(&mut self, closed: Closed, state: State, io: &mut I) {
        self.sender.clear(io);
        self.receiver.clear(io);
        self.acks.on_end();
        self.silence.end();
        self.hellos.end();
        self.pairs.end();
        self.timers.clear_all();
        self.life.enter(state);
        io.event(Event::Closed(closed));
    }

    /// An RST goes to the peer, if it has told us its tag.
    fn tell_reset(&mut self, reason: Reason) {
        if self.ends.peer().is_some() {
            self.life.owe_reset(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a flow has beyond that it makes when data flows, and gives back when it has been idle for long.
    #[test]
    fn an_idle_flow_is_small() {
        let size = size_of::<Flow<u64, u64>>();
        assert!(size <= 800, "{size} bytes, and there may be a hundred thousand");
    }
}

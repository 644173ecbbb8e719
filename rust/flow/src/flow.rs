//! The flow: state of one connection, and what the application's side does to it. What packets do is in `arrive`,
//! what goes out in `depart`, what time does in `alarm`, and how it begins in `handshake`.

use machnet_wire::header::SACK_WORDS_MAX;
use machnet_wire::{Hello, Nanos, Reason, Reset, Seq, unit_size};

use crate::congestion::Congestion;
use crate::receiver::Receiver;
use crate::rtt::Rtt;
use crate::sender::Sender;
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
    pub(crate) config: Config,
    pub(crate) local: Setup,
    pub(crate) peer: Option<Hello>,
    pub(crate) state: State,
    pub(crate) unit_size: u32,
    pub(crate) sender: Sender<T>,
    pub(crate) receiver: Receiver<H>,
    pub(crate) rtt: Rtt,
    pub(crate) congestion: Congestion,
    pub(crate) timers: Timers,
    /// Number of the next transmission.
    pub(crate) next_tx: Seq,
    /// Drain epochs of this engine and of the peer's, as the flow last heard.
    pub(crate) epochs: (bool, bool),
    /// Newest transmission of the peer's that arrived.
    pub(crate) peer_tx: Seq,
    /// Latest of our transmissions whose round trip was measured, or is not to be.
    pub(crate) sampled_tx: Seq,
    /// An acknowledgement is to go now.
    pub(crate) ack_now: bool,
    /// Packets of data not yet acknowledged.
    pub(crate) ack_pending: u8,
    /// The packet that the next acknowledgement answers.
    pub(crate) echo: Option<Echo>,
    /// Where the timeouts for units in flight count from.
    pub(crate) loss_base: Nanos,
    /// Timeouts since the last progress.
    pub(crate) backoff: u32,
    pub(crate) last_heard: Nanos,
    pub(crate) ping_due: bool,
    /// A PING waits for its answer.
    pub(crate) ping_out: bool,
    /// How long the peer has owed an answer and said nothing; `None` when it owed none at the last look.
    pub(crate) waited: Option<Nanos>,
    /// When the peer's silence was looked at last.
    pub(crate) looked_at: Nanos,
    /// The peer has not shown yet that it knows of the connection.
    pub(crate) unconfirmed: bool,
    pub(crate) syn_due: bool,
    pub(crate) syn_acks_due: u8,
    pub(crate) hello_pause: Nanos,
    pub(crate) reset_due: Option<Reset>,
    /// Why the flow ends once everything queued is acknowledged.
    pub(crate) reset_behind: Option<Reason>,
    pub(crate) sack_words: [u64; SACK_WORDS_MAX],
    pub(crate) stats: Stats,
}

/// What a peer without credit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditWait {
    /// The application, which has not read what there is.
    Reader,
    /// Units that others have.
    Units,
}

/// Where in its life the flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Our SYN is out.
    SynSent,
    /// Theirs came; they have not shown that they know our tag.
    SynReceived,
    Open,
    /// Closed both ways. There is no TIME-WAIT (RFC 9293 section 3.6): tags keep old packets out of a new connection
    /// with the same ports, which may begin at once. What lingers only spares a peer that lost our last
    /// acknowledgement from taking "no such connection" for an answer to its FIN.
    Linger,
    Dead,
}

/// A packet to be answered.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Echo {
    pub tx: Seq,
    pub ts: u32,
    pub at: Nanos,
    /// How long before `at` the ring had last been looked at.
    pub gap: Nanos,
}

impl<T, H> Flow<T, H> {
    pub(crate) fn new(now: Nanos, config: Config, local: Setup, state: State) -> Self {
        Flow {
            local,
            peer: None,
            state,
            unit_size: unit_size(local.hello.mtu).max(1) as u32,
            sender: Sender::new(local.first),
            receiver: Receiver::new(Seq(0), &config),
            rtt: Rtt::new(),
            congestion: Congestion::new(config.window_first),
            timers: Timers::new(),
            next_tx: local.first,
            epochs: (false, false),
            peer_tx: Seq(0),
            sampled_tx: Seq(local.first.0.wrapping_sub(1)),
            ack_now: false,
            ack_pending: 0,
            echo: None,
            loss_base: now,
            backoff: 0,
            last_heard: now,
            ping_due: false,
            ping_out: false,
            waited: None,
            looked_at: now,
            unconfirmed: false,
            syn_due: false,
            syn_acks_due: 0,
            hello_pause: config.syn_retry,
            reset_due: None,
            reset_behind: None,
            sack_words: [0; SACK_WORDS_MAX],
            stats: Stats::default(),
            config,
        }
    }

    /// Queues a unit.
    pub fn send(&mut self, unit: Unit<T>) -> Result<(), NotSent<T>> {
        match self.state {
            State::Open => self.sender.push(unit, self.unit_size),
            _ => Err(NotSent { tx: unit.tx, why: SendError::NotOpen }),
        }
    }

    /// Gives up the message that was begun and not ended: units of it not yet sent are completed, the peer is told
    /// if it may have seen a part. `tx` is the ABORT's own token; where nothing needs telling it completes at once.
    pub fn abort<I: Io<Tx = T, Held = H>>(&mut self, tx: T, io: &mut I) -> Result<(), NotSent<T>> {
        match self.state {
            State::Open => self.sender.abort(tx, io),
            _ => Err(NotSent { tx, why: SendError::NotOpen }),
        }
    }

    /// Half close: a FIN follows the data queued. `tx` is its token. Not within a message: abort that first.
    pub fn fin(&mut self, tx: T) -> Result<(), NotSent<T>> {
        match self.state {
            State::Open => self.sender.push_fin(tx),
            _ => Err(NotSent { tx, why: SendError::NotOpen }),
        }
    }

    /// The application reads no more: held units are dropped, reservations go back, nothing more is delivered or told
    /// but `Closed`. What still arrives is acknowledged and thrown away until our FIN is acknowledged, so that a flush
    /// is not cut off by a peer that still talks; data after that resets the connection (RFC 1122 section 4.2.2.13).
    /// Call with or after [`Flow::fin`].
    pub fn stop_reading<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if self.state == State::Open {
            self.receiver.stop_reading(io);
            self.timers.clear(Timer::Lapse);
            self.check_closed(now, io);
        }
    }

    /// Ends the flow at once: tokens complete, `Closed(ByUs(reason))` is told, an RST is ready to send.
    pub fn reset<I: Io<Tx = T, Held = H>>(&mut self, reason: Reason, io: &mut I) {
        match self.state {
            State::Dead => {}
            State::Linger => self.state = State::Dead,
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
        match self.state {
            State::Open => {
                self.sender.seal();
                self.reset_behind = Some(reason);
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
        if self.state == State::Open && !self.receiver.discarding() {
            let next = self.receiver.next();
            self.receiver.credit.returned(now, n, self.rtt.or_zero(), &self.config);
            self.receiver.credit.top_up(next, io);
            if self.receiver.credit.is_news(next) {
                self.ack_now = true;
            }
        }
    }

    /// What keeps the peer from sending what it has, if something here does: call [`Flow::credit_returned`] when that
    /// changes; otherwise the peer is served at its next try.
    #[inline]
    pub fn credit_wait(&self) -> Option<CreditWait> {
        let credit = &self.receiver.credit;
        credit.is_starved().then_some(if credit.is_full() { CreditWait::Reader } else { CreditWait::Units })
    }

    /// This engine did not run for a while until `now`: what is under way is not overdue for that, and its round trips
    /// are not measured. The peer's silence needs no such care: it is counted in steps that this end waited through,
    /// so a stall counts as one step however long it was.
    pub fn stalled(&mut self, now: Nanos) {
        self.sampled_tx = Seq(self.next_tx.0.wrapping_sub(1));
        self.loss_base = now;
    }

    /// When to call [`Flow::on_timeout`] at the latest. `None`: nothing is awaited.
    #[inline]
    pub fn next_timeout(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// Whether nothing is left to do: the flow may be dropped.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Dead && self.reset_due.is_none()
    }

    /// Whether both ends know of the connection and it is not over.
    #[inline]
    pub fn is_established(&self) -> bool {
        self.state == State::Open
    }

    /// Whether it is closed both ways and only stays to acknowledge repetitions: it may be dropped at any time for a
    /// new connection with its ports.
    pub fn is_lingering(&self) -> bool {
        self.state == State::Linger
    }

    /// Our tag: packets to us carry it.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.local.hello.tag
    }

    /// What the peer said of itself, once it has.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// The ends as given.
    pub fn setup(&self) -> &Setup {
        &self.local
    }

    /// Most payload of one packet of this flow, bytes: the smaller MTU of both ends.
    #[inline]
    pub fn unit_size(&self) -> u32 {
        self.unit_size
    }

    /// Units queued or sent and not yet acknowledged.
    #[inline]
    pub fn queued(&self) -> u32 {
        self.sender.queued()
    }

    /// Units in flight.
    pub fn in_flight(&self) -> u32 {
        self.sender.in_flight()
    }

    /// Whether nothing more is taken: a FIN is queued, or the end comes without one.
    pub fn is_finished(&self) -> bool {
        self.sender.is_sealed()
    }

    /// Whether the message last queued has not ended.
    pub fn message_open(&self) -> bool {
        self.sender.message_open()
    }

    /// Congestion window at `now`, units.
    pub fn window(&self, now: Nanos) -> u32 {
        self.congestion.window(now)
    }

    /// Units that the peer has room for beyond those sent.
    pub fn credit(&self) -> u32 {
        self.sender.allowance.beyond(self.sender.next())
    }

    /// Units that the peer was promised room for.
    pub fn promised(&self) -> u32 {
        self.receiver.credit.reserved()
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Option<Nanos> {
        self.rtt.smoothed()
    }

    /// All who may share a path hold back now. Who was idle then is too late to, and the few units of a request make no queue.
    pub(crate) fn drain(&mut self, now: Nanos) {
        let idle = self.sender.in_flight() == 0
            && self.sender.allowance.is_idle(now, self.rtt.or_zero(), &self.config);
        if !idle && self.sender.queued() > self.config.window_first {
            self.congestion.drain(now, &self.rtt);
        }
    }

    /// How long the peer may be silent about what is in flight before it goes again, back-off included.
    pub fn timeout(&self) -> Nanos {
        self.backed_off(self.rtt.timeout(&self.config))
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Closed both ways by now, or is a reset due that waited for the last acknowledgement?
    #[inline]
    pub(crate) fn check_closed<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if !self.sender.finish_acked() {
            return;
        }
        if self.receiver.finished() && self.sender.has_fin() {
            self.end(Closed::Clean, State::Linger, io);
            self.timers.set(Timer::Limit, now + self.config.linger);
        } else if let Some(reason) = self.reset_behind {
            self.reset(reason, io);
        } else if self.receiver.discarding() && !self.timers.is_set(Timer::Limit) {
            self.timers.set(Timer::Limit, now + self.config.orphan);
        }
    }

    /// Gives everything back and tells the end.
    pub(crate) fn end<I: Io<Tx = T, Held = H>>(&mut self, closed: Closed, state: State, io: &mut I) {
        self.sender.clear(io);
        self.receiver.clear(io);
        self.timers.clear_all();
        self.ping_due = false;
        self.syn_due = false;
        self.syn_acks_due = 0;
        self.state = state;
        io.event(Event::Closed(closed));
    }

    /// An RST goes to the peer, if it has told us its tag.
    pub(crate) fn tell_reset(&mut self, reason: Reason) {
        if self.peer.is_some() {
            let (epoch, echo) = (self.local.hello.epoch, self.local.hello.tag);
            self.reset_due = Some(Reset { epoch, echo, reason });
        }
    }
}

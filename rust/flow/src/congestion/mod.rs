//! How much may be in flight, and when the next unit may go. Windows count units: what overruns a vNIC with 256
//! descriptors is packets, not bytes.
//!
//! Two windows of Swift, and the smaller one counts: the *fabric's*, by the delay of the path, and the *endpoint's*, by the
//! fill of the peer's receive ring. Around them what cloud vNICs need and the paper's data centre did not:
//!
//! - There are no NIC timestamps. A round trip includes the time that packets lay in rings unseen; the engines at
//!   both ends know how long they did not look, and only what that cannot explain is held to be the path's delay.
//! - The base delay is not known beforehand. It is the least round trip ever seen, so a flow that begins while
//!   others hold a queue takes the queue for a part of the path and gets more than its share. Only together can they show
//!   it: from time to time an engine changes its drain epoch, and all flows to it and from it that have met congestion are silent
//!   for two round trips, and then measure (compare the slowdowns of LEDBAT++, which nothing coordinates).
//! - Delays are noisy where others use the cores, or where frames pass through user space: what does not grow with our own window
//!   is no queue. How far delays are spread is allowed on top of the base delay, up to a bound, and only what stands for a round trip is
//!   answered (`noise`).
//! - A window that was cut for nothing comes back by leaps where nothing speaks for a queue, or a long path would stay empty for
//!   minutes.
//! - A path that has become longer is recognised by a delay that is as long as it is steady though windows are small, or
//!   after a second in which small windows never brought it down.
//! - Loss without delay is no sign of congestion until it exceeds 2 %, nor beyond that if it does not depend on what is sent (`loss`).

mod loss;
mod noise;
mod pacer;
mod swift;

use alloc::boxed::Box;

use machnet_wire::Nanos;

use crate::REACH;
use crate::rtt::Rtt;
use loss::{Losses, Verdict};
use noise::Noise;
use pacer::Pacer;
use swift::{ONE, Window, allowed_queueing, base_queueing};

/// The congestion control of one flow.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Congestion {
    fabric: Window,
    endpoint: Window,
    pacer: Pacer,
    signs: Signs,
    /// The last signals were above their targets.
    over: bool,
    /// What is known of the path while data flows.
    path: Option<Box<Path>>,
    drain: Drain,
    rebase: Rebase,
    before_timeout: Option<Box<Window>>,
}

/// What a flow learns of its path, and forgets when it has been idle for long.
#[derive(Debug, Clone, Hash)]
struct Path {
    noise: Noise,
    losses: Losses,
    crowded: Crowded,
    /// Nothing has spoken for a queue since then.
    calm_since: Nanos,
}

impl Path {
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Path {
            noise: Noise::new(),
            losses: Losses::new(),
            crowded: Crowded { since: Nanos::MAX, least: u8::MAX },
            calm_since: Nanos::ZERO,
        })
    }
}

/// What acknowledgements said since the last verdict. Those of one round are judged together, and the least delay of them
/// counts: what delayed only some of them was no queue.
#[derive(Debug, Clone, Hash)]
struct Signs {
    acked: u32,
    in_flight: u32,
    /// The least; `Nanos::MAX`: none was measured.
    delay: Nanos,
    backlog: u8,
}

impl Signs {
    const NONE: Signs = Signs { acked: 0, in_flight: 0, delay: Nanos::MAX, backlog: 0 };
}

/// Holding back so that the path shows its base delay.
#[derive(Debug, Clone, Default, Hash)]
struct Drain {
    /// Nothing goes until then, for what is under way to be gone.
    silent_until: Nanos,
    /// Then one unit at a time until then, to measure.
    until: Nanos,
}

/// Watches for a path that has become longer.
#[derive(Debug, Clone, Hash)]
struct Rebase {
    /// The delay was as it should be for the last time, or was measured anew.
    since: Nanos,
    /// What was measured since; kept for the next time.
    measured: Option<Box<Measured>>,
}

#[derive(Debug, Clone, Hash)]
struct Measured {
    least: Nanos,
    sum: u64,
    samples: u32,
}

impl Congestion {
    /// With a first window in units.
    pub fn new(first: u32) -> Self {
        Congestion {
            fabric: Window::new(first),
            endpoint: Window::new(first),
            pacer: Pacer::new(),
            signs: Signs::NONE,
            over: false,
            path: None,
            drain: Drain::default(),
            rebase: Rebase { since: Nanos::ZERO, measured: None },
            before_timeout: None,
        }
    }

    /// Units that may be in flight: at least 1, but for moments of silence.
    #[inline]
    pub fn window(&self, now: Nanos) -> u32 {
        if now < self.drain.until {
            return u32::from(now >= self.drain.silent_until);
        }
        ((self.units() / ONE) as u32).max(1)
    }

    /// When a moment of silence, or of measuring after it, ends.
    #[inline]
    pub fn held_until(&self, now: Nanos) -> Option<Nanos> {
        let Drain { silent_until, until } = self.drain;
        (now < until).then_some(if now < silent_until { silent_until } else { until })
    }

    /// All who may share a path hold back now.
    pub fn drain(&mut self, now: Nanos, rtt: &Rtt) {
        // One who has never met congestion has no part in a queue.
        if !self.fabric.is_starting() {
            // What a vCPU that was away has done to the smoothed round trip is no reason to be silent for longer.
            let round = rtt.or_zero().min(rtt.least() + allowed_queueing(rtt.least(), self.units()) * 2);
            // However often others begin: three round trips in a hundred, at most.
            if self.drain.until > Nanos::ZERO && now < self.drain.until + round * DRAIN_EVERY {
                return;
            }
            self.drain.silent_until = now + round * SILENT;
            self.drain.until = self.drain.silent_until + round;
        }
    }

    /// When the next unit may go; in the past where nothing holds it back.
    #[inline]
    pub fn ready_at(&self) -> Nanos {
        self.pacer.ready_at()
    }

    /// A unit goes.
    #[inline]
    pub fn sent(&mut self, now: Nanos) {
        self.pacer.sent(now);
    }

    /// An acknowledgement came that measured the path's delay, if it did.
    #[inline]
    pub fn on_delay(&mut self, delay: Nanos, backlog: u8) {
        // While the window doubles, so may the queue, and that is no noise.
        if !self.fabric.is_starting() {
            self.path.get_or_insert_with(Path::new).noise.sample(delay);
        }
        self.signs.delay = self.signs.delay.min(delay);
        self.signs.backlog = backlog;
    }

    /// `acked` units arrived, of `in_flight` before.
    #[inline]
    pub fn on_ack(&mut self, acked: u32, in_flight: u32) {
        self.signs.acked = (self.signs.acked + acked).min(REACH);
        self.signs.in_flight = self.signs.in_flight.max(in_flight);
        if let Some(path) = &mut self.path {
            path.losses.arrived(acked);
        }
    }

    /// Judges what came since the last time: once a round, before anything is sent. Gives the base delay anew when
    /// the path has become longer.
    #[inline]
    pub fn judge(&mut self, now: Nanos, rtt: &Rtt) -> Option<Nanos> {
        if self.signs.acked == 0 || self.signs.delay == Nanos::MAX {
            return None;
        }
        let Signs { acked, in_flight, delay, backlog } = core::mem::replace(&mut self.signs, Signs::NONE);
        let (base, smoothed) = (rtt.least(), rtt.or_zero());
        let units = self.units();
        // A window that was not used says nothing about what the path bears (RFC 7661).
        let used = u64::from(in_flight) * ONE * 2 >= units;

        let noise = self.path.as_ref().map_or(Nanos::ZERO, |path| path.noise.allowed(base));
        let queueing = delay - base;
        let quiet = base_queueing(base);
        // The root is taken only where it can matter.
        let allowed = if queueing > quiet || noise > quiet { allowed_queueing(base, units) } else { quiet };
        let clean = noise <= allowed;
        let allowed = allowed.max(noise);
        let slow = queueing > allowed;
        let crowded = backlog > BACKLOG;
        let mut eager = false;
        // A flow that never met congestion has nothing to remember of it.
        if slow || crowded || self.path.is_some() {
            let path = self.path.get_or_insert_with(Path::new);
            if slow {
                self.fabric.meets_congestion();
                let target = base + allowed;
                if let Some(standing) = path.noise.long(now, delay, clean, smoothed)
                    && standing > target
                    && self.fabric.cut(now, standing.0, target.0, smoothed)
                {
                    path.noise.answered();
                }
            } else {
                path.noise.short();
            }
            // Where the path is clean, half of what is allowed is a queue already: others are there, too.
            let empty = queueing * 2 <= allowed;
            if path.noise.is_long() || clean && !empty {
                path.calm_since = now;
            }
            // Before its first drain a flow may take the queue of others for a part of its path.
            let measured = self.drain.until > Nanos::ZERO;
            eager = empty && measured && path.losses.are_few(now) && now - path.calm_since > smoothed * CALM;
            if crowded {
                self.endpoint.meets_congestion();
                if let Some(least) = path.crowded.stands(now, backlog, smoothed) {
                    self.endpoint.cut(now, least.into(), BACKLOG.into(), smoothed);
                }
            } else {
                path.crowded.since = Nanos::MAX;
            }
        }
        if used && !slow {
            self.fabric.grow(acked, eager);
        }
        if used && !crowded {
            self.endpoint.grow(acked, eager && backlog == 0);
        }
        self.over = slow || crowded;
        self.pace(now, rtt);
        self.consider_rebase(now, delay, base)
    }

    /// `lost` units were found lost.
    pub fn on_loss(&mut self, now: Nanos, lost: u32, rtt: &Rtt) {
        let window = self.fabric.units() as u32;
        let base = rtt.least();
        let path = self.path.get_or_insert_with(Path::new);
        let verdict = path.losses.lost(now, lost, window, rtt.or_zero());
        match verdict {
            Some(Verdict::Random(before)) => self.fabric.widen(before),
            Some(Verdict::Congestion) => {
                self.fabric.halve(now, rtt.or_zero());
                path.calm_since = now;
            }
            // On a noisy path a long delay is no sign of a full queue.
            None if self.over && path.noise.allowed(base) <= base_queueing(base) => {
                path.losses.forget();
                self.fabric.halve(now, rtt.or_zero());
            }
            None => return,
        }
        self.pace(now, rtt);
    }

    /// `units` that had been found lost had arrived after all.
    pub fn on_needless(&mut self, units: u32) {
        if let Some(path) = &mut self.path {
            path.losses.needless(units);
        }
    }

    /// Gives memory back that the next burst makes anew.
    pub fn rest(&mut self) {
        self.path = None;
        self.rebase.measured = None;
    }

    /// The retransmission timeout passed.
    pub fn on_timeout(&mut self, now: Nanos) {
        if self.before_timeout.is_none() {
            self.before_timeout = Some(Box::new(self.fabric.clone()));
        }
        self.fabric.collapse(now);
        self.pacer.stop();
    }

    /// The timeouts since the last verdict were needless: as if they had not been.
    pub fn undo_timeout(&mut self) {
        if let Some(before) = self.before_timeout.take() {
            self.fabric.restore(&before);
        }
    }

    /// The timeouts since the last verdict were not needless.
    pub fn confirm_timeout(&mut self) {
        self.before_timeout = None;
    }

    #[inline]
    fn units(&self) -> u64 {
        self.fabric.units().min(self.endpoint.units())
    }

    /// Where there is no congestion the acknowledgements pace the flow well enough.
    #[inline]
    fn pace(&mut self, now: Nanos, rtt: &Rtt) {
        let (units, smoothed) = (self.units(), rtt.or_zero());
        if units < ONE {
            self.pacer.set(now, Nanos(smoothed.0 * ONE / units), 0);
        } else if self.over {
            // 1.25 windows a round trip, so that pacing never is what limits.
            let interval = Nanos((smoothed.0 * ONE * 4 / (units * 5)).max(1));
            // A thread that comes late sends what it could not send meanwhile.
            let late = (rtt.variation() * 2).max(AT_ONCE);
            let most = if late > AT_ONCE { REACH } else { BURST };
            self.pacer.set(now, interval, (late.0 / interval.0).min(most.into()) as u32);
        } else {
            self.pacer.stop();
        }
    }

    /// Called for each measure of the delay.
    fn consider_rebase(&mut self, now: Nanos, delay: Nanos, base: Nanos) -> Option<Nanos> {
        let allowed = base_queueing(base);
        if delay - base <= allowed || self.units() > REBASE_WINDOW * ONE {
            self.rebase.restart(now);
            return None;
        }
        let since = self.rebase.since;
        let r = self.rebase.measured.get_or_insert_with(|| Box::new(Measured::NOTHING));
        r.least = r.least.min(delay);
        r.sum = r.sum.saturating_add(delay.0);
        r.samples += 1;
        if r.samples < REBASE_SAMPLES {
            return None;
        }
        // A queue goes up and down; a long way is always as long.
        let steady = Nanos(r.sum / u64::from(r.samples)) - r.least <= allowed / 4;
        let least = r.least;
        if !steady && now - since < REBASE_AFTER {
            return None;
        }
        self.rebase.restart(now);
        self.fabric.start_anew();
        Some(least)
    }
}

/// How long the peer's ring has been too full. A peer that was away finds it full and empties it at once: that is not congestion.
#[derive(Debug, Clone, Hash)]
struct Crowded {
    /// `Nanos::MAX`: it was not, the last time.
    since: Nanos,
    /// The least fill since then.
    least: u8,
}

impl Crowded {
    /// It is too full. The least that it was, once that has lasted for a round trip.
    #[inline]
    fn stands(&mut self, now: Nanos, backlog: u8, round_trip: Nanos) -> Option<u8> {
        if self.since == Nanos::MAX {
            *self = Crowded { since: now, least: u8::MAX };
        }
        self.least = self.least.min(backlog);
        (now - self.since >= round_trip).then_some(self.least)
    }
}

impl Rebase {
    #[inline]
    fn restart(&mut self, now: Nanos) {
        self.since = now;
        if let Some(measured) = &mut self.measured {
            **measured = Measured::NOTHING;
        }
    }
}

impl Measured {
    const NOTHING: Measured = Measured { least: Nanos::MAX, sum: 0, samples: 0 };
}

/// The endpoint's target, of 255: a quarter of the peer's ring. The ring's fill stands for the delay in it, because
/// nobody tells how fast the peer empties it.
const BACKLOG: u8 = 64;
/// Units that may go at once while paced, and for how long they would otherwise have taken. On a long path, one by one: what arrives
/// at once measures the path at one moment only.
const BURST: u32 = 8;
const AT_ONCE: Nanos = Nanos::micros(20);
/// Round trips of silence: one until the last of the others is silent too, and one until the queue is gone.
const SILENT: u64 = 2;
/// Round trips from one drain to the next, at least.
const DRAIN_EVERY: u64 = 100;
/// Round trips without a sign of a queue after which the window grows by half in each: what it was cut for is gone.
const CALM: u64 = 4;
const REBASE_AFTER: Nanos = Nanos::secs(1);
const REBASE_SAMPLES: u32 = 64;
/// Units. Larger windows are a sign that the path is just full.
const REBASE_WINDOW: u64 = 2;

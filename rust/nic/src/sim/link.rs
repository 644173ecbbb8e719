//! What a link does to frames.

use super::dice::Dice;
use machnet_wire::Nanos;

/// One direction between two hosts. Probabilities are per frame, 0.0 to 1.0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Link {
    /// Time from the last bit's departure to arrival.
    pub delay: Nanos,
    /// Each frame takes up to this much longer; without `reorder` none overtakes another.
    pub jitter: Nanos,
    /// A few frames take much longer than that, and without `reorder` those behind them wait.
    pub tail: Option<Tail>,
    /// Frames arrive at multiples of this only, those of one tick together, as behind a thread that wakes at intervals; zero: whenever
    /// they are due.
    pub tick: Nanos,
    /// Bits per second; `None`: no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate, what is left of the one being sent included; a frame beyond is dropped.
    pub buffer: u64,
    /// A relay that takes the frames when they have left the host and sends them after delay and ticks: a number that
    /// [`super::Net::add_relay`] gave.
    pub relay: Option<usize>,
    /// A rate beside that of the host, with bursts, which frames meet when they have left it.
    pub shaper: Option<Shaper>,
    /// Lost.
    pub loss: f64,
    /// Arrives twice.
    pub duplication: f64,
    /// Held back by up to `reorder_by`, so that later frames overtake it.
    pub reorder: f64,
    /// The most that a frame is held back.
    pub reorder_by: Nanos,
    /// One byte of the frame damaged, anywhere. Never in more places: the Internet checksum finds that always, while two
    /// flips can cancel out, which Ethernet's own checksum would find and this network has not.
    pub corruption: f64,
}

impl Default for Link {
    /// 10 us and faultless.
    fn default() -> Link {
        Link { delay: Nanos::micros(10), ..Link::instant() }
    }
}

impl Link {
    /// No delay, no limit, no faults.
    pub const fn instant() -> Link {
        Link {
            delay: Nanos::ZERO,
            jitter: Nanos::ZERO,
            tail: None,
            tick: Nanos::ZERO,
            rate: None,
            buffer: u64::MAX,
            relay: None,
            shaper: None,
            loss: 0.0,
            duplication: 0.0,
            reorder: 0.0,
            reorder_by: Nanos::micros(50),
            corruption: 0.0,
        }
    }

    /// Loss, duplication and reordering, each with probability `p`.
    pub fn faulty(p: f64) -> Link {
        Link { loss: p, duplication: p, reorder: p, ..Link::default() }
    }
}

/// Delay with a heavy tail: a Pareto distribution, cut off at [`Tail::LONGEST`] times its scale.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tail {
    /// The part of the frames that take longer, 0.0 to 1.0.
    pub part: f64,
    /// The least that such a frame takes longer.
    pub scale: Nanos,
    /// How fast the tail falls: a share of `x.powf(-shape)` of them take longer than `x` times the scale. 1.0 to 3.0 is usual.
    pub shape: f64,
}

impl Tail {
    /// The most that a frame takes longer, in scales.
    pub const LONGEST: f64 = 100.0;

    /// How much longer one frame takes.
    fn draw(&self, dice: &mut Dice) -> Nanos {
        if !dice.chance(self.part) {
            return Nanos::ZERO;
        }
        Nanos((self.scale.0 as f64 * dice.pareto(self.shape).min(Tail::LONGEST)) as u64)
    }
}

/// A token bucket, as clouds bound the rate of a flow or of a virtual machine with one. Each link has its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shaper {
    /// Bits per second that tokens come in; only the frame's own bytes take any.
    pub rate: u64,
    /// Bytes that pass at once when the bucket is full; less than a frame's stands for a frame's.
    pub burst: u64,
    /// Bytes that may wait for tokens; a frame beyond is dropped. 0: a policer, which drops instead of delaying.
    pub buffer: u64,
}

/// The state of a token bucket.
#[derive(Default)]
struct Bucket {
    /// When it is full again, if nothing else comes.
    full_at: Nanos,
}

impl Bucket {
    /// When a frame that comes at `now` passes; `None`: no room to wait.
    fn pass(&mut self, shaper: &Shaper, now: Nanos, len: usize) -> Option<Nanos> {
        let full_at = self.full_at.max(now) + time_of(len, shaper.rate);
        let passes = (full_at - time_of(shaper.burst.max(len as u64) as usize, shaper.rate)).max(now);
        if passes > now && bytes_of(passes - now, shaper.rate) + len as u64 > shaper.buffer {
            return None;
        }
        self.full_at = full_at;
        Some(passes)
    }
}

/// The switch's port to a host: what all senders to it share. Frames arrive there after their link's delay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwitchPort {
    /// Bits per second.
    pub rate: u64,
    /// Bytes that may wait, what is left of the frame being sent included; a frame beyond is dropped.
    pub buffer: u64,
}

/// The state of a switch's port.
pub(crate) struct Egress {
    pub port: SwitchPort,
    busy_until: Nanos,
}

impl Egress {
    pub fn new(port: SwitchPort) -> Egress {
        Egress { port, busy_until: Nanos::ZERO }
    }

    /// How long a frame that comes at `now` has to wait.
    pub fn wait(&self, now: Nanos) -> Nanos {
        self.busy_until - now
    }

    /// When a frame that comes at `now` has left the port; `None`: no room.
    pub fn pass(&mut self, now: Nanos, len: usize) -> Option<Nanos> {
        let start = self.busy_until.max(now);
        if bytes_of(start - now, self.port.rate) + len as u64 > self.port.buffer {
            return None;
        }
        self.busy_until = start + time_of(len + GAPS, self.port.rate);
        Some(self.busy_until)
    }
}

/// How a hypervisor takes a host's vCPU away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steal {
    /// Mean time between the end of one and the start of the next; drawn evenly from zero to twice this.
    pub every: Nanos,
    /// How long each lasts.
    pub length: Nanos,
}

/// A host that runs and pauses by turns, as a container does whose processor quota is used up in each period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duty {
    /// How long it runs.
    pub run: Nanos,
    /// How long its vCPU is away after that.
    pub pause: Nanos,
}

/// A predicate that loses frames.
pub(crate) type Lose = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// The state of a link.
pub(crate) struct Wire {
    pub link: Link,
    pub dice: Dice,
    pub lose: Option<Lose>,
    /// When the last frame's last bit leaves.
    busy_until: Nanos,
    bucket: Bucket,
    /// When the last frame that was not held back arrives.
    last_arrival: Nanos,
}

/// What the link decided about one copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Lost,
    QueueFull,
    Arrives { at: Nanos, held_back: bool },
}

impl Wire {
    pub fn new(link: Link, dice: Dice) -> Wire {
        Wire {
            link,
            dice,
            lose: None,
            busy_until: Nanos::ZERO,
            bucket: Bucket::default(),
            last_arrival: Nanos::ZERO,
        }
    }

    /// Sends one copy that leaves the host at `now`; `relay` tells when one that reaches the link's relay has been taken.
    pub fn send(&mut self, now: Nanos, frame: &[u8], relay: impl FnOnce(usize, Nanos) -> Nanos) -> Fate {
        let start = if self.busy_until < now { now } else { self.busy_until };
        if let Some(rate) = self.link.rate {
            let waiting = bytes_of(start - now, rate);
            if waiting + frame.len() as u64 > self.link.buffer {
                return Fate::QueueFull;
            }
            self.busy_until = start + time_of(frame.len() + GAPS, rate);
        } else {
            self.busy_until = start;
        }
        let mut at = self.busy_until;
        if let Some(number) = self.link.relay {
            at = relay(number, at);
        }
        if let Some(shaper) = &self.link.shaper {
            match self.bucket.pass(shaper, at, frame.len()) {
                Some(passes) => at = passes,
                None => return Fate::QueueFull,
            }
        }
        // Lost frames took their time on the wire.
        if self.lose.as_mut().is_some_and(|lose| lose(frame)) || self.dice.chance(self.link.loss) {
            return Fate::Lost;
        }
        at += self.link.delay;
        if self.link.jitter > Nanos::ZERO {
            at += Nanos(self.dice.below(self.link.jitter.0 + 1));
        }
        if let Some(tail) = &self.link.tail {
            at += tail.draw(&mut self.dice);
        }
        let held_back = self.dice.chance(self.link.reorder);
        if held_back {
            at += Nanos(1 + self.dice.below(self.link.reorder_by.0));
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        if self.link.tick > Nanos::ZERO {
            at = Nanos(at.0.next_multiple_of(self.link.tick.0));
        }
        Fate::Arrives { at, held_back }
    }

    /// Damages one byte, with the link's probability. Whether it did.
    pub fn corrupt(&mut self, frame: &mut [u8]) -> bool {
        if frame.is_empty() || !self.dice.chance(self.link.corruption) {
            return false;
        }
        let at = self.dice.below(frame.len() as u64) as usize;
        frame[at] ^= 1 + self.dice.below(255) as u8;
        true
    }
}

/// Preamble, checksum and gap that Ethernet adds to a frame on the wire, bytes.
const GAPS: usize = 24;

fn time_of(bytes: usize, rate: u64) -> Nanos {
    Nanos((bytes as u128 * 8 * 1_000_000_000).div_ceil(u128::from(rate.max(1))) as u64)
}

fn bytes_of(time: Nanos, rate: u64) -> u64 {
    (u128::from(time.0) * u128::from(rate) / 8 / 1_000_000_000) as u64
}

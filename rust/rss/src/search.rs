//! One connection's search for a pair that reaches the queue which its peer wants.

use machnet_wire::Nanos;

use crate::{Config, spray};

/// A search: how many probes are out, and what is to be done next. It sends nothing itself; whoever has it sends probes, each on a
/// new pair, says so by [`Search::on_sent`], and tells it each report. The pool is worth a look before every batch: another connection
/// may have found a pair meanwhile.
#[derive(Clone, Debug)]
pub struct Search {
    retry: Nanos,
    batches: u8,
    /// Batches begun.
    begun: u8,
    /// Probes of the batch that is under way, when it is complete; 1 to `spray::BATCH_MAX`.
    size: u16,
    /// Probes of it that were sent.
    sent: u16,
    /// Reports that came in its time. A copy counts, too: it can only make the rest of the batch go early.
    reported: u16,
    due: Nanos,
}

/// What a search wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing until the next report, or until [`Search::due`].
    Wait,
    /// So many probes, now. It asks again until they are told as sent, or put off.
    Spray(u16),
    /// The pair of this report reaches the queue: the search is over.
    Hit,
    /// All batches went without a hit: the search is over.
    GiveUp,
}

impl Search {
    /// A search whose first batch is complete with `batch` probes ([`spray::batch`] of the peer's queues, or [`spray::mirrored_batch`]).
    /// It is due at once; SYNs or SYN-ACKs that are out already are its first probes, told by [`Search::on_sent`].
    pub fn new(config: &Config, batch: u16, now: Nanos) -> Search {
        Search {
            retry: config.retry,
            batches: config.batches,
            begun: 1,
            size: batch.clamp(1, spray::BATCH_MAX),
            sent: 0,
            reported: 0,
            due: now,
        }
    }

    /// `probes` went out.
    pub fn on_sent(&mut self, probes: u16, now: Nanos) {
        self.sent = self.sent.saturating_add(probes);
        self.due = now + self.retry;
    }

    /// Asks again after the retry time: somebody else sprays to this peer just now, or there is no room to send.
    pub fn put_off(&mut self, now: Nanos) {
        self.due = now + self.retry;
    }

    /// The peer said which queue a probe reached: `hit`, the wanted one. When all probes are reported and the batch is not complete,
    /// the rest goes at once.
    pub fn on_report(&mut self, hit: bool) -> Step {
        if hit {
            return Step::Hit;
        }
        self.reported = self.reported.saturating_add(1);
        if self.reported >= self.sent && self.sent < self.size {
            return Step::Spray(self.size - self.sent);
        }
        Step::Wait
    }

    /// Time has come. A batch whose probes are out for the retry time, without a hit, is followed by one of twice its size.
    pub fn on_time(&mut self, now: Nanos) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        if self.sent > 0 {
            if self.begun >= self.batches {
                return Step::GiveUp;
            }
            self.begun += 1;
            self.size = self.size.saturating_mul(2).min(spray::BATCH_MAX);
            (self.sent, self.reported) = (0, 0);
        }
        Step::Spray(self.size)
    }

    /// When [`Search::on_time`] has something to do.
    pub fn due(&self) -> Nanos {
        self.due
    }

    /// Which batch is under way, from 1.
    pub fn batch(&self) -> u8 {
        self.begun
    }
}

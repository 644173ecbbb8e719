//! What we let the peer send: receive units reserved for this flow and promised to its peer.

use machnet_wire::{Nanos, Seq};

use crate::stats::Counts;
use crate::{Config, Io, REACH};

/// The receiver's side of credit. Every unit promised is reserved, so the promises of all flows together never exceed
/// the buffers that are free. A promise may be of no unit at all.
///
/// What is promised and what the application has not read yet are bounded together, by a target that grows as fast as
/// the application reads (dynamic right-sizing; Fisk and Feng, 2001): one that does not read holds few buffers of those it
/// shares with others.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Credit {
    /// Units reserved from the next expected one on: the promise.
    reserved: u32,
    /// Units that may be reserved or unread: grows while the application reads, shrinks when the peer is idle.
    target: u32,
    /// Units that the last request for more did not get, or fewer where less is missing by now: to ask for these alone once more
    /// would be in vain.
    shortfall: u32,
    /// As many as the target are reserved or unread: there can be more when the application has read.
    full: bool,
    /// First unit beyond the credit that the last packet gave the peer.
    advertised_edge: Seq,
    /// How many units that credit was.
    advertised: u32,
    /// Behind the last unit that the peer has, sent or waiting, as of its newest packet.
    demand: Seq,
    /// The peer has sent something lately: only then units are reserved for it.
    active: bool,
    /// The peer has something to send and no credit for it, or was refused: it hears at once when there is credit.
    peer_blocked: bool,
    used_at: Nanos,
    /// Times that the peer was reminded of a promise since it last used one.
    reminders: u8,
    /// Units that the application gave back since `round_at`.
    round: u32,
    round_at: Nanos,
}

impl Credit {
    pub fn new(next: Seq, config: &Config) -> Self {
        Credit {
            reserved: 0,
            target: config.credit_first.clamp(1, config.credit_max.max(1)),
            advertised_edge: next,
            advertised: 0,
            demand: next,
            shortfall: 0,
            full: false,
            active: false,
            peer_blocked: false,
            used_at: Nanos::ZERO,
            reminders: 0,
            round: 0,
            round_at: Nanos::ZERO,
        }
    }

    /// Units promised from the next expected one on.
    #[inline]
    pub fn reserved(&self) -> u32 {
        self.reserved
    }

    /// What the peer's newest packet says: the unit it will number next, and how many wait behind that; the most that it can say: that
    /// many or more, and so as many as there may be.
    #[inline]
    pub fn demanded(&mut self, next: Seq, want: u8) {
        self.demand = next + if want == u8::MAX { REACH } else { u32::from(want) };
    }

    /// Units from `next` on that the peer has to send, as of its newest packet.
    #[inline]
    fn wanted(&self, next: Seq) -> u32 {
        self.demand.since(next).max(0) as u32
    }

    /// Whether the peer waits for units that could not be reserved.
    #[inline]
    pub fn is_peer_blocked(&self) -> bool {
        self.peer_blocked
    }

    /// Whether the application has to read before there can be more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// A unit came in order: its reservation is used up.
    #[inline]
    pub fn used(&mut self, now: Nanos) {
        debug_assert!(self.reserved > 0);
        self.reserved = self.reserved.saturating_sub(1);
        self.used_at = now;
        self.reminders = 0;
    }

    /// The application gave `n` units back. Half the target within two round trips: the target is what holds the peer back.
    #[inline]
    pub fn returned(&mut self, now: Nanos, n: u32, rtt: Nanos, config: &Config) {
        if now - self.round_at > (rtt * 2).max(ROUND_MIN) {
            self.round_at = now;
            self.round = 0;
        }
        self.round += n;
        if self.round * 2 >= self.target && n > 0 {
            self.target = (self.target * 2).min(config.credit_max.max(1));
            self.round_at = now;
            self.round = 0;
        }
    }

    /// The peer is there and may send.
    #[inline]
    pub fn activate(&mut self, now: Nanos) {
        self.active = true;
        self.used_at = now;
    }

    /// Reserves for a unit that lies `ahead` of the next expected one and beyond the promise. False: refused.
    pub fn stretch<I: Io>(&mut self, ahead: u32, round: Nanos, config: &Config, io: &mut I) -> bool {
        self.full = ahead + io.unread() >= self.target;
        if self.full {
            self.peer_blocked = true;
            return false;
        }
        if ahead >= config.credit_max.max(1) {
            return false;
        }
        let missing = (ahead + 1).saturating_sub(self.reserved);
        self.reserved += io.grant(missing, missing, round).min(missing);
        if ahead == self.reserved {
            // The one that may come without credit, though others have all that there is.
            self.reserved += io.take(1).min(1);
        }
        if ahead < self.reserved {
            return true;
        }
        self.peer_blocked = true;
        false
    }

    /// Reserves up to the target, unless so little is missing that it can wait: less than a quarter, or since there was no
    /// room for more, less than a thirty-second of the promise. Larger steps than that make peers send in bursts. `kept`: units that
    /// came ahead of their turn, which lie on reserved ones: they make room for the next as if they had been in order.
    #[inline]
    pub fn top_up<I: Io>(&mut self, next: Seq, kept: u32, round: Nanos, io: &mut I) {
        if !self.active {
            return;
        }
        let missing = self.target.saturating_sub(self.reserved + io.unread());
        self.full = missing == 0;
        self.shortfall = self.shortfall.min(missing + kept);
        let outstanding = self.reserved.saturating_sub(kept);
        let much = missing * 4 >= self.target && missing + kept - self.shortfall >= outstanding / 32;
        if missing > 0 && (much || self.peer_blocked) {
            let known = self.wanted(next).saturating_sub(self.reserved).min(missing);
            let more = io.grant(missing, known, round).min(missing);
            self.reserved += more;
            self.shortfall = missing - more + kept;
        }
    }

    /// Whether the peer ought to hear of its credit now, because it waits for some and there is some, or because it has more
    /// to send than credit left, and there is much more for it.
    #[inline]
    pub fn is_news(&self, next: Seq) -> bool {
        if self.peer_blocked {
            return self.reserved > 0;
        }
        let left = self.left(next);
        self.wanted(next) > left
            && left * 2 < self.target
            && self.reserved.saturating_sub(left) * 4 >= self.target
    }

    /// Whether the peer is about to come to the end of what it was promised and has more to send: its acknowledgement
    /// must not wait for company then.
    #[inline]
    pub fn runs_out(&self, next: Seq) -> bool {
        let left = self.left(next);
        left * 2 <= self.advertised && self.wanted(next) > left
    }

    /// What is left of the advertised promise.
    #[inline]
    fn left(&self, next: Seq) -> u32 {
        self.advertised_edge.since(next).max(0) as u32
    }

    /// A packet tells the peer its credit: the number to write.
    #[inline]
    pub fn advertise(&mut self, now: Nanos, next: Seq) -> u16 {
        if self.peer_blocked {
            self.used_at = now;
        }
        self.advertised_edge = next + self.reserved;
        self.advertised = self.reserved;
        self.peer_blocked = self.reserved == 0 && self.active && self.wanted(next) > 0;
        self.reserved.min(u32::from(u16::MAX)) as u16
    }

    /// When the promise lapses if the peer stays idle: two round trips, and the grace that both ends know. One that
    /// waits for credit is not idle.
    #[inline]
    pub fn lapses_at(&self, rtt: Nanos, config: &Config) -> Option<Nanos> {
        (self.active && !self.peer_blocked)
            .then_some(self.used_at + config.credit_lapse + rtt.min(config.lapse_rtt()) * 2)
    }

    /// The peer has something to send and does not use what it was promised: perhaps the packet that said so was lost. True: it
    /// is to hear of it once more.
    pub fn reminds(&mut self, now: Nanos, next: Seq) -> bool {
        let reminds = self.reserved > 0 && self.wanted(next) > 0 && self.reminders < REMINDERS;
        if reminds {
            self.reminders += 1;
            self.used_at = now;
        }
        reminds
    }

    /// The peer has been idle for long enough: what was promised goes back, for others to have.
    pub fn lapse<I: Io>(&mut self, next: Seq, config: &Config, counts: &mut Counts, io: &mut I) {
        self.advertised_edge = next;
        self.advertised = 0;
        self.target = (self.target / 2).max(config.credit_first).clamp(1, config.credit_max.max(1));
        if self.reserved > 0 {
            counts.credit_lapsed();
        }
        self.give_up(io);
    }

    /// The peer has been idle for long enough, with a gap left: what lies behind the last unit that came goes back.
    pub fn lapse_behind<I: Io>(&mut self, next: Seq, last: Seq, counts: &mut Counts, io: &mut I) {
        let kept = (last.since(next) + 1).max(0) as u32;
        self.advertised_edge = next + kept;
        self.advertised = kept;
        if self.reserved > kept {
            counts.credit_lapsed();
        }
        self.keep(kept, io);
    }

    /// Gives back what is reserved, and reserves nothing until the peer sends again.
    pub fn give_up<I: Io>(&mut self, io: &mut I) {
        self.keep(0, io);
    }

    /// The same, but for the first `kept` units.
    fn keep<I: Io>(&mut self, kept: u32, io: &mut I) {
        self.active = false;
        self.peer_blocked = false;
        if self.reserved > kept {
            io.ungrant(self.reserved - kept);
            self.reserved = kept;
        }
    }
}

/// Shortest time that counts as two round trips when the target is set: at least a few poll rounds of both ends.
const ROUND_MIN: Nanos = Nanos::micros(100);
/// Times that a promise is repeated before it lapses.
const REMINDERS: u8 = 4;

//! When an acknowledgement goes. Nothing else decides that: the other parts of a flow only say here what has happened.
//!
//! Every packet acknowledges all that has arrived by then, so an acknowledgement costs a packet of its own only where no
//! unit goes anyway. When it is due is the plan:
//!
//! | what has happened | the acknowledgement is due |
//! |---|---|
//! | a unit came in order | [`Config::ack_delay`] later: the answer of an application often takes it along |
//! | a part of a unit came, and more of that is to come | the same: there is nothing to acknowledge yet, but the packet to be echoed |
//! | a unit came in order, and it ended a message of several units or the direction | at once: nothing more may follow for a while |
//! | the same, and the peer comes to the end of its credit with more to send | at once: it could not go on |
//! | the same, and it is the [`Config::ack_every`]th that is not acknowledged | at once: windows move in small steps |
//! | a unit came ahead of its turn, filled a gap, came twice, or was dropped | at once: loss detection lives on that |
//! | a unit was refused for want of a buffer | at once, with REFUSED: it was not lost, and has to be sent later |
//! | PING, or PROBE on any packet | at once: it was asked for |
//! | a unit, after the connection was closed both ways | at once: our last acknowledgement was lost |
//! | there is credit that the peer waits for, or it seems not to have heard of its credit | at once |
//! | a SYN-ACK came, or what should confirm it was not answered | at once, with PROBE if it goes alone: the peer must learn that we know its tag |
//!
//! Once it is due it goes with the next packet. If no unit may go now, it goes alone; if a unit may, but leaves no room for
//! the SACK words, it goes alone before that unit.

use alloc::boxed::Box;

use machnet_wire::header::SACK_WORDS_MAX;
use machnet_wire::{Header, Nanos, Seq};

use crate::Config;
use crate::receiver::Arrival;
use crate::sack::Arrived;

/// What is to be acknowledged, and when.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Acks {
    /// Due now.
    at_once: bool,
    /// Due then at the latest; `Nanos::MAX`: no unit waits for its acknowledgement.
    by: Nanos,
    /// Units that came in order and are not acknowledged yet.
    pending: u8,
    /// The packet that the next one answers, if `answers`.
    echo: Echo,
    answers: bool,
    /// It is a probe's, and nothing that comes later takes its place: the peer wants to know whether this very packet arrived.
    probed: bool,
    /// A unit was refused and the peer does not know yet.
    refused: bool,
    /// The SACK words of the packet that goes out, once there has been one that has any.
    words: Option<Box<Words>>,
}

/// A packet to be answered, so that its sender can measure the round trip.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Echo {
    pub tx: Seq,
    pub ts: u32,
    pub at: Nanos,
    /// How long before `at` the receive ring had last been looked at, nanoseconds; 4.3 s and more are 4.3 s.
    pub gap: u32,
}

#[derive(Debug, Clone, Hash)]
struct Words {
    words: [u64; SACK_WORDS_MAX],
    /// Where bits do not reach: from which unit on the next packet tells ranges.
    from: Seq,
}

/// The SACK words of a packet: how many, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sacks {
    pub words: usize,
    /// They are ranges.
    pub ranges: bool,
}

/// When the acknowledgement of a unit is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    AtOnce,
    After(Nanos),
}

impl Echo {
    const NONE: Echo = Echo { tx: Seq(0), ts: 0, at: Nanos::ZERO, gap: 0 };

    #[inline]
    pub fn new(now: Nanos, gap: Nanos, header: &Header) -> Self {
        Echo { tx: header.tx, ts: header.ts, at: now, gap: gap.0.min(u32::MAX.into()) as u32 }
    }
}

impl Acks {
    pub fn new() -> Self {
        Acks {
            at_once: false,
            by: Nanos::MAX,
            pending: 0,
            echo: Echo::NONE,
            answers: false,
            probed: false,
            refused: false,
            words: None,
        }
    }

    /// Gives memory back that only SACK words need.
    pub fn rest(&mut self) {
        self.words = None;
    }

    /// A unit came. `runs_out`: the peer comes to the end of its credit and has more to send.
    #[inline]
    pub fn on_unit(&mut self, now: Nanos, echo: Echo, arrival: Arrival, runs_out: bool, config: &Config) {
        self.answer(echo);
        match self.plan(arrival, runs_out, config) {
            Plan::AtOnce => self.at_once = true,
            Plan::After(delay) => self.by = self.by.min(now + delay),
        }
    }

    #[inline]
    fn plan(&mut self, arrival: Arrival, runs_out: bool, config: &Config) -> Plan {
        let Arrival::InOrder { ends } = arrival else {
            self.refused |= arrival == Arrival::Refused;
            return if arrival == Arrival::Part { Plan::After(config.ack_delay) } else { Plan::AtOnce };
        };
        self.pending = self.pending.saturating_add(1);
        if ends || runs_out || self.pending >= config.ack_every {
            return Plan::AtOnce;
        }
        Plan::After(config.ack_delay)
    }

    /// The peer wants an answer: PING, any packet with PROBE, and after the end any unit.
    pub fn on_question(&mut self, echo: Echo) {
        self.answer(echo);
        self.at_once = true;
    }

    /// A padded PING came, which asks whether it arrives.
    #[cold]
    pub fn on_probe(&mut self, echo: Echo) {
        self.probed = false;
        self.on_question(echo);
        self.probed = true;
    }

    /// A SYN or a SYN-ACK came: whatever goes next answers it.
    pub fn on_hello(&mut self, echo: Echo) {
        self.answer(echo);
    }

    #[inline]
    fn answer(&mut self, echo: Echo) {
        if !self.probed {
            (self.echo, self.answers) = (echo, true);
        }
    }

    /// The peer does not know yet, or does not seem to know, that its SYN-ACK has arrived.
    pub fn on_unconfirmed(&mut self) {
        self.at_once = true;
    }

    /// The peer waits for credit, and there is some; or it makes no use of its credit, and may not have heard of it.
    pub fn on_credit(&mut self) {
        self.at_once = true;
    }

    /// Time has come to `now`.
    #[inline]
    pub fn on_time(&mut self, now: Nanos) {
        if self.by <= now {
            self.by = Nanos::MAX;
            self.at_once = true;
        }
    }

    /// The flow is over: nothing is refused any more, and nothing waits. What is due goes nevertheless: it may acknowledge the
    /// peer's FIN.
    pub fn on_end(&mut self) {
        self.by = Nanos::MAX;
        self.refused = false;
    }

    /// When to call [`Acks::on_time`]; `Nanos::MAX`: nothing waits.
    #[inline]
    pub fn due_by(&self) -> Nanos {
        self.by
    }

    /// No unit may go now: whether the acknowledgement goes alone.
    #[inline]
    pub fn goes_alone(&self) -> bool {
        self.at_once
    }

    /// A unit may go now, with room for `room` SACK words of the `words` that there are: whether the acknowledgement goes alone
    /// before it. One that is not due need not be complete: it names what fits, and the next one the rest.
    #[inline]
    pub fn goes_before_unit(&self, words: usize, room: usize) -> bool {
        self.at_once && words > room
    }

    /// The packet that the next one answers.
    pub fn echo(&self) -> Option<Echo> {
        self.answers.then_some(self.echo)
    }

    /// A packet goes out, and acknowledges everything: which packet it answers, and whether it says that a unit was refused.
    #[inline]
    pub fn take(&mut self) -> (Option<Echo>, bool) {
        self.at_once = false;
        self.pending = 0;
        self.probed = false;
        self.by = Nanos::MAX;
        let answered = core::mem::take(&mut self.answers).then_some(self.echo);
        (answered, core::mem::take(&mut self.refused))
    }

    /// Takes down what has arrived beyond `ack`, for [`Acks::words`].
    #[inline]
    pub fn take_words(&mut self, arrived: &Arrived, ack: Seq) -> Sacks {
        if arrived.count() == 0 {
            return Sacks { words: 0, ranges: false };
        }
        let new = || Box::new(Words { words: [0; SACK_WORDS_MAX], from: ack });
        let Words { words, from } = &mut **self.words.get_or_insert_with(new);
        if arrived.needs_ranges(ack) {
            let (n, next) = arrived.ranges(ack, *from, words);
            *from = next;
            return Sacks { words: n, ranges: true };
        }
        Sacks { words: arrived.words(ack, words), ranges: false }
    }

    /// The first `n` of the words taken down.
    #[inline]
    pub fn words(&self, n: usize) -> &[u64] {
        match &self.words {
            Some(words) => &words.words[..n],
            None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machnet_wire::Kind;

    const NOW: Nanos = Nanos::micros(100);
    const IN_ORDER: Arrival = Arrival::InOrder { ends: false };

    fn echo() -> Echo {
        Echo::new(NOW, Nanos::ZERO, &Header::new(Kind::Data))
    }

    fn unit(acks: &mut Acks, now: Nanos, arrival: Arrival, runs_out: bool) {
        acks.on_unit(now, echo(), arrival, runs_out, &Config::default());
    }

    #[test]
    fn a_unit_in_order_waits_for_company_and_another_does_not_put_that_off() {
        let by = NOW + Config::default().ack_delay;
        let mut acks = Acks::new();
        unit(&mut acks, NOW, IN_ORDER, false);
        unit(&mut acks, NOW + Nanos(9), IN_ORDER, false);
        assert_eq!(acks.due_by(), by);
        acks.on_time(by - Nanos(1));
        assert!(!acks.goes_alone());
        acks.on_time(by);
        assert!(acks.goes_alone());
        assert_eq!(acks.due_by(), Nanos::MAX);
    }

    #[test]
    fn what_the_peer_must_know_goes_at_once() {
        for (arrival, runs_out) in [
            (Arrival::InOrder { ends: true }, false),
            (IN_ORDER, true),
            (Arrival::FilledGap, false),
            (Arrival::Ahead, false),
            (Arrival::Duplicate, false),
            (Arrival::Dropped, false),
            (Arrival::Refused, false),
        ] {
            let mut acks = Acks::new();
            unit(&mut acks, NOW, arrival, runs_out);
            assert!(acks.goes_alone(), "{arrival:?} {runs_out}");
            assert_eq!(acks.take().1, arrival == Arrival::Refused, "{arrival:?}");
        }
        let mut acks = Acks::new();
        for n in 1..=Config::default().ack_every {
            assert!(!acks.goes_alone(), "before unit {n}");
            unit(&mut acks, NOW, IN_ORDER, false);
        }
        assert!(acks.goes_alone());
        let events: [fn(&mut Acks); 3] =
            [|acks| acks.on_question(echo()), Acks::on_unconfirmed, Acks::on_credit];
        for event in events {
            let mut acks = Acks::new();
            event(&mut acks);
            assert!(acks.goes_alone());
        }
    }

    #[test]
    fn it_rides_on_a_unit_unless_it_is_due_and_does_not_fit() {
        let mut acks = Acks::new();
        unit(&mut acks, NOW, IN_ORDER, false);
        assert!(!acks.goes_before_unit(2, 1), "it is not due");
        unit(&mut acks, NOW, Arrival::Ahead, false);
        assert!(!acks.goes_before_unit(1, 1), "it fits");
        assert!(acks.goes_before_unit(2, 1));
    }

    #[test]
    fn a_probe_is_echoed_whatever_comes_behind_it_until_a_packet_goes() {
        let probe = |tx| Echo { tx: Seq(tx), ..echo() };
        let mut acks = Acks::new();
        acks.on_probe(probe(7));
        acks.on_probe(probe(8));
        unit(&mut acks, NOW, IN_ORDER, false);
        acks.on_question(echo());
        assert_eq!(acks.take().0.map(|echo| echo.tx), Some(Seq(8)), "the last of several");
        unit(&mut acks, NOW, IN_ORDER, false);
        assert_eq!(acks.take().0.map(|echo| echo.tx), Some(echo().tx));
    }

    #[test]
    fn any_packet_acknowledges_everything_and_answers_once() {
        let mut acks = Acks::new();
        unit(&mut acks, NOW, IN_ORDER, false);
        unit(&mut acks, NOW, Arrival::Refused, false);
        assert!(matches!(acks.take(), (Some(_), true)));
        assert!(!acks.goes_alone() && acks.due_by() == Nanos::MAX);
        assert!(matches!(acks.take(), (None, false)));
        for n in 1..=Config::default().ack_every {
            assert!(!acks.goes_alone(), "before unit {n}: those acknowledged count no more");
            unit(&mut acks, NOW, IN_ORDER, false);
        }
    }
}

//! When an acknowledgement goes. Nothing else decides that: the other parts of a flow only say here what has happened.
//!
//! Every packet acknowledges all that has arrived by then, so an acknowledgement costs a packet of its own only where no
//! unit goes anyway. When it is due is the plan:
//!
//! | what has happened | the acknowledgement is due |
//! |---|---|
//! | a unit came in order | [`Config::ack_delay`] later: the answer of an application often takes it along |
//! | the same, and it ended a message of several units or the direction | at once: nothing more may follow for a while |
//! | the same, and the peer comes to the end of its credit with more to send | at once: it could not go on |
//! | the same, and it is the [`Config::ack_every`]th that is not acknowledged | at once: windows move in small steps |
//! | a unit came ahead of its turn, filled a gap, came twice, or was dropped | at once: loss detection lives on that |
//! | a unit was refused for want of a buffer | at once, with REFUSED: it was not lost, and has to be sent later |
//! | PING, or PROBE on any packet | at once: it was asked for |
//! | there is credit that the peer waits for, or it seems not to have heard of its credit | at once |
//! | a SYN-ACK came, or what should confirm it was not answered | at once, with PROBE: the peer must learn that we know its tag |
//!
//! Once it is due it goes with the next packet. If no unit may go now, it goes alone; if a unit may, but leaves no room for
//! the SACK words, it goes alone before that unit.

use machnet_wire::header::{DELAY_STEP, SACK_WORDS_MAX, delay_steps};
use machnet_wire::{Flags, Header, Kind, Nanos, Seq};

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
    /// The packet that the next one answers.
    echo: Option<Echo>,
    /// A unit was refused and the peer does not know yet.
    refused: bool,
    /// Room for the SACK words of the packet that goes out.
    words: [u64; SACK_WORDS_MAX],
}

/// A packet to be answered, so that its sender can measure the round trip.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Echo {
    tx: Seq,
    ts: u32,
    at: Nanos,
    /// How long before `at` the receive ring had last been looked at.
    gap: Nanos,
}

/// When the acknowledgement of a unit is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    AtOnce,
    After(Nanos),
}

impl Echo {
    #[inline]
    pub fn new(now: Nanos, gap: Nanos, header: &Header) -> Self {
        Echo { tx: header.tx, ts: header.ts, at: now, gap }
    }
}

impl Acks {
    pub fn new() -> Self {
        Acks {
            at_once: false,
            by: Nanos::MAX,
            pending: 0,
            echo: None,
            refused: false,
            words: [0; SACK_WORDS_MAX],
        }
    }

    /// A unit came. `runs_out`: the peer comes to the end of its credit and has more to send.
    #[inline]
    pub fn on_unit(&mut self, now: Nanos, echo: Echo, arrival: Arrival, runs_out: bool, config: &Config) {
        self.echo = Some(echo);
        match arrival {
            Arrival::InOrder { .. } => self.pending = self.pending.saturating_add(1),
            Arrival::Refused => self.refused = true,
            Arrival::FilledGap | Arrival::Ahead | Arrival::Duplicate | Arrival::Dropped => {}
        }
        match self.plan(arrival, runs_out, config) {
            Plan::AtOnce => self.at_once = true,
            Plan::After(delay) => self.by = self.by.min(now + delay),
        }
    }

    #[inline]
    fn plan(&self, arrival: Arrival, runs_out: bool, config: &Config) -> Plan {
        match arrival {
            Arrival::InOrder { ends } if ends || runs_out || self.pending >= config.ack_every => Plan::AtOnce,
            Arrival::InOrder { .. } => Plan::After(config.ack_delay),
            Arrival::FilledGap
            | Arrival::Ahead
            | Arrival::Duplicate
            | Arrival::Dropped
            | Arrival::Refused => Plan::AtOnce,
        }
    }

    /// The peer asks for an answer: PING, or any packet with PROBE.
    pub fn on_question(&mut self, echo: Echo) {
        self.echo = Some(echo);
        self.at_once = true;
    }

    /// A SYN or a SYN-ACK came: whatever goes next answers it.
    pub fn on_hello(&mut self, echo: Echo) {
        self.echo = Some(echo);
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

    /// A packet goes out, and acknowledges everything.
    #[inline]
    pub fn write(&mut self, now: Nanos, header: &mut Header) {
        // Each copy of a SYN-ACK answers the same SYN, until another comes.
        let echo = if header.kind == Kind::SynAck { self.echo } else { self.echo.take() };
        if let Some(echo) = echo {
            header.flags |= Flags::ECHO;
            header.ack_tx = echo.tx;
            header.ts_echo = echo.ts;
            header.ack_delay = delay_steps(now - echo.at);
            header.gap = delay_steps(echo.gap + Nanos(DELAY_STEP - 1));
        }
        if self.refused {
            self.refused = false;
            header.flags |= Flags::REFUSED;
        }
        self.at_once = false;
        self.pending = 0;
        self.by = Nanos::MAX;
    }

    /// Takes down what has arrived beyond `ack`, for [`Acks::words`]; how many words that are.
    #[inline]
    pub fn take_words(&mut self, arrived: &Arrived, ack: Seq) -> usize {
        arrived.words(ack, &mut self.words)
    }

    /// The first `n` of the words taken down.
    #[inline]
    pub fn words(&self, n: usize) -> &[u64] {
        &self.words[..n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos::micros(100);
    const IN_ORDER: Arrival = Arrival::InOrder { ends: false };

    fn unit(acks: &mut Acks, arrival: Arrival, runs_out: bool) {
        let echo = Echo::new(NOW, Nanos::ZERO, &Header::new(Kind::Data));
        acks.on_unit(NOW, echo, arrival, runs_out, &Config::default());
    }

    fn write(acks: &mut Acks, kind: Kind) -> Header {
        let mut header = Header::new(kind);
        acks.write(NOW, &mut header);
        header
    }

    #[test]
    fn a_unit_in_order_waits_for_company_and_no_longer_than_the_first_of_them() {
        let config = Config::default();
        let mut acks = Acks::new();
        unit(&mut acks, IN_ORDER, false);
        assert!(!acks.goes_alone());
        assert_eq!(acks.due_by(), NOW + config.ack_delay);
        acks.on_time(NOW + config.ack_delay - Nanos(1));
        assert!(!acks.goes_alone());
        acks.on_unit(
            NOW + Nanos(9),
            Echo::new(NOW, Nanos::ZERO, &Header::new(Kind::Data)),
            IN_ORDER,
            false,
            &config,
        );
        assert_eq!(acks.due_by(), NOW + config.ack_delay, "a second unit must not put the first one's off");
        acks.on_time(NOW + config.ack_delay);
        assert!(acks.goes_alone());
        assert_eq!(acks.due_by(), Nanos::MAX);
    }

    #[test]
    fn what_the_peer_must_know_at_once() {
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
            unit(&mut acks, arrival, runs_out);
            assert!(acks.goes_alone(), "{arrival:?} {runs_out}");
            let header = write(&mut acks, Kind::Ack);
            assert_eq!(header.flags.has(Flags::REFUSED), arrival == Arrival::Refused, "{arrival:?}");
        }
        let mut acks = Acks::new();
        for n in 1..=Config::default().ack_every {
            assert!(!acks.goes_alone(), "after {} units", n - 1);
            unit(&mut acks, IN_ORDER, false);
        }
        assert!(acks.goes_alone());
        let events: [fn(&mut Acks); 3] = [
            |acks| acks.on_question(Echo::new(NOW, Nanos::ZERO, &Header::new(Kind::Ping))),
            Acks::on_unconfirmed,
            Acks::on_credit,
        ];
        for event in events {
            let mut acks = Acks::new();
            event(&mut acks);
            assert!(acks.goes_alone());
        }
    }

    #[test]
    fn it_rides_on_a_unit_unless_it_is_due_and_does_not_fit() {
        let mut acks = Acks::new();
        unit(&mut acks, IN_ORDER, false);
        assert!(!acks.goes_before_unit(2, 1), "not due");
        unit(&mut acks, Arrival::Ahead, false);
        assert!(!acks.goes_before_unit(1, 1), "it fits");
        assert!(acks.goes_before_unit(2, 1));
    }

    #[test]
    fn any_packet_acknowledges_and_each_packet_is_answered_once() {
        let mut acks = Acks::new();
        unit(&mut acks, Arrival::Refused, false);
        let header = write(&mut acks, Kind::Data);
        assert!(header.flags.has(Flags::ECHO | Flags::REFUSED));
        assert!(!acks.goes_alone() && acks.due_by() == Nanos::MAX);
        assert_eq!(write(&mut acks, Kind::Data).flags, Flags::NONE);
        acks.on_hello(Echo::new(NOW, Nanos::ZERO, &Header::new(Kind::Syn)));
        for _ in 0..2 {
            assert!(write(&mut acks, Kind::SynAck).flags.has(Flags::ECHO), "each copy answers the SYN");
        }
    }
}

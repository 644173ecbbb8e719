//! How a flow begins: SYN, SYN-ACK, and any packet that shows that its sender has read the SYN-ACK.
//!
//! Only a peer that knows our tag is believed: before that nothing is reserved for it, nothing is repeated to it by a
//! timer, and it gets at most one SYN-ACK for each SYN (compare RFC 4987).

use alloc::sync::Arc;

use machnet_wire::{Flags, Hello, Nanos, Packet, Reason, Reset};

use super::Flow;
use crate::acks::Echo;
use crate::drain::DrainEpochs;
use crate::ends::Ticket;
use crate::life::State;
use crate::receiver::Receiver;
use crate::timers::Timer;
use crate::{Closed, Config, Event, FlowError, Io, Setup};

impl<T, H> Flow<T, H> {
    /// Begins a connection: a SYN is ready to send. `timeout`: how long to try before `Closed(Timeout)`. Flows with the same
    /// settings share them.
    pub fn connect(now: Nanos, config: impl Into<Arc<Config>>, setup: Setup, timeout: Nanos) -> Self {
        let mut flow = Flow::new(now, config.into(), setup, State::SynSent);
        flow.hellos.call(setup.syns.first.max(1));
        flow.timers.set(Timer::Limit, now + timeout);
        flow.watch_hello(now);
        flow
    }

    /// Answers a SYN, or a cookie that came back with the hello of one: a SYN-ACK is ready to send for it (or as many as [`Setup::syns`] says).
    /// The application learns of the flow by [`Event::Established`], when the peer has shown that it knows our tag. `gap` is what [`Io::gap`] would say.
    pub fn accept(
        now: Nanos,
        gap: Nanos,
        config: impl Into<Arc<Config>>,
        setup: Setup,
        syn: &Packet<'_>,
    ) -> Result<Self, FlowError> {
        let hello = Hello::parse(syn.payload).map_err(FlowError::Malformed)?;
        let mut flow = Flow::new(now, config.into(), setup, State::SynReceived);
        flow.timers.set(Timer::Limit, now + flow.config.half_open);
        flow.on_hello(now, gap, hello, syn);
        flow.hellos.answer(setup.syns.answers.max(1));
        Ok(flow)
    }

    /// A SYN for a flow that there is already.
    pub(super) fn on_syn(&mut self, now: Nanos, gap: Nanos, packet: &Packet<'_>) -> Result<(), FlowError> {
        let hello = Hello::parse(packet.payload).map_err(FlowError::Malformed)?;
        let known = self.ends.is_peer(hello.tag);
        match self.life.state() {
            State::SynReceived if known => {
                // Where a SYN buys several SYN-ACKs its copies buy none: not before it is asked for again.
                let copy = |last: Echo| now - last.at < self.config.syn_retry / 2;
                match self.acks.echo().is_some_and(copy) {
                    true if self.ends.syns().answers > 1 => return Ok(()),
                    true => {}
                    false => self.hellos.on_asked_again(),
                }
                // Another copy, perhaps by other UDP ports: it buys another SYN-ACK.
                self.hellos.answer(self.ends.syns().answers.max(1));
                self.acks.on_hello(Echo::new(now, gap, &packet.header));
                Ok(())
            }
            // A late copy of the SYN that began this connection begins no other.
            State::Linger | State::Dead if known => Ok(()),
            State::SynReceived | State::Linger | State::Dead => Err(FlowError::Superseded),
            State::SynSent => {
                // Both ends called each other: each answers, and either answer is enough. The one that was answered
                // knows our tag and may be established by now, so nobody can take its place under this tag. A second
                // caller makes us ask the first: if it is gone, an RST with the echo will tell.
                if self.ends.peer().is_none() {
                    self.on_hello(now, gap, hello, packet);
                }
                self.hellos.answer(self.ends.syns().answers.max(1));
                Ok(())
            }
            State::Open => {
                // The peer has forgotten this connection, or it is somebody else: its answer to a PING will tell, for
                // an RST must echo the tag that the PING carries (compare RFC 5961 section 4).
                if !known {
                    self.silence.ask();
                }
                Ok(())
            }
        }
    }

    /// A SYN-ACK with our tag.
    pub(super) fn on_syn_ack<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        let hello = Hello::parse(packet.payload).map_err(FlowError::Malformed)?;
        // One of several that answered our SYN won, or was answered by us; the others hear nothing and expire.
        if self.life.state() != State::SynSent || self.ends.peer().is_some_and(|peer| peer.tag != hello.tag) {
            return Ok(());
        }
        let header = &packet.header;
        if header.ack != self.sender.queue.first() {
            return Err(self.fail("SYN-ACK acknowledges units", io));
        }
        if hello.cookie != 0 {
            self.on_cookie(now, io.gap(), hello, packet);
            return Ok(());
        }
        self.on_hello(now, io.gap(), hello, packet);
        self.sample(now, packet, io.gap());
        self.establish(now, header.flags.has(Flags::DRAIN_EPOCH), io);
        // The peer waits for proof that we know its tag, and we for proof that it has got it.
        self.acks.on_unconfirmed();
        self.hellos.confirm(self.rtt.timeout(&self.config));
        self.watch_hello(now);
        self.silence.watch(now, &self.config, &mut self.timers);
        Ok(())
    }

    /// A SYN-ACK of a peer that keeps nothing of us: what it gave us goes back, with all that our SYN said. Nobody is connected before a
    /// SYN-ACK without a cookie comes.
    fn on_cookie(&mut self, now: Nanos, gap: Nanos, hello: Hello, packet: &Packet<'_>) {
        if self.ends.peer().is_some() {
            return;
        }
        let first = self.ends.ticket().is_none();
        self.ends.keep_ticket(Ticket { tag: hello.tag, unit: packet.header.unit, cookie: hello.cookie });
        if first {
            // Other copies of our SYN buy more of them, of which one is enough.
            self.acks.on_hello(Echo::new(now, gap, &packet.header));
            self.sample(now, packet, gap);
            self.hellos.bring_cookie();
            self.hellos.wait(self.rtt.timeout(&self.config).max(self.config.syn_retry));
            self.watch_hello(now);
        }
    }

    /// Our cookie came back, with the hello of a SYN: the engine has found that its sender is where he says he is. Else it is that SYN.
    pub fn on_proven_syn(&mut self, now: Nanos, gap: Nanos, packet: &Packet<'_>) -> Result<(), FlowError> {
        self.on_syn(now, gap, packet)
    }

    /// What the peer says of itself.
    fn on_hello(&mut self, now: Nanos, gap: Nanos, hello: Hello, packet: &Packet<'_>) {
        let header = &packet.header;
        self.ends.meet(hello);
        self.receiver = Receiver::new(header.unit, &self.config);
        self.numbering.begin(header.tx);
        self.acks.on_hello(Echo::new(now, gap, header));
        self.silence.on_packet(now);
    }

    /// Both ends know of each other, as far as this end can tell.
    pub(super) fn establish<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, peer_epoch: bool, io: &mut I) {
        self.life.enter(State::Open);
        self.drain_epochs = DrainEpochs::new(io.drain_epoch(), peer_epoch);
        self.hellos.end();
        self.timers.clear_all();
        self.silence.begin(now, self.ends.tag(), &self.config, &mut self.timers);
        self.begin_path(now, io);
        io.event(Event::Established);
        self.receiver.credit.activate(now);
        self.receiver.top_up(self.rtt.least(), io);
        self.watch_lapse();
    }

    /// Sets the timer of the handshake's packet.
    pub(super) fn watch_hello(&mut self, now: Nanos) {
        self.hellos.watch(now, self.ends.tag(), self.numbering.next(), &mut self.timers);
    }

    /// An RST: believed if it echoes the tag that we send to, or that of our SYN while it is out. Our own tag in it is
    /// no proof alone: several may have learned it from copies of our SYN, and one of them is the peer.
    pub(super) fn on_reset<I: Io<Tx = T, Held = H>>(
        &mut self,
        packet: &Packet<'_>,
        io: &mut I,
    ) -> Result<(), FlowError> {
        let reset = Reset::parse(packet.payload).map_err(FlowError::Malformed)?;
        let (ours, tag) = (self.ends.tag(), packet.header.tag);
        if (tag == 0 || tag == ours) && self.ends.drop_ticket(reset.echo) {
            // It is too old, or whoever gave it has started anew. Nothing was agreed on: we call again, after the pause.
            return Ok(());
        }
        let echoed = self.life.state() == State::SynSent && reset.echo == ours
            || self.ends.peer().map_or(tag == ours, |peer| reset.echo == peer.tag);
        if !echoed || tag != ours && tag != 0 {
            self.counts.rare().stale_tags += 1;
            return Err(FlowError::Tag);
        }
        match self.life.state() {
            State::Dead => return Err(FlowError::Over),
            State::Linger => self.life.enter(State::Dead),
            // The peer has told us that it finished, and is gone; all that it had not acknowledged is our FIN: it was
            // gone because it had that, too, or it would have said more than "no such connection". One that has started
            // anew says that of everything.
            State::Open
                if reset.reason == Reason::Closed
                    && self.ends.peer().is_some_and(|peer| peer.epoch == reset.epoch)
                    && self.receiver.finished()
                    && self.sender.queue.only_finish_left() =>
            {
                self.end(Closed::Clean, State::Dead, io);
            }
            _ => self.end(Closed::ByPeer(reset.reason), State::Dead, io),
        }
        Ok(())
    }

    /// The peer, who knows our tag, broke the protocol.
    pub(super) fn fail<I: Io<Tx = T, Held = H>>(&mut self, what: &'static str, io: &mut I) -> FlowError {
        self.reset(Reason::Protocol, io);
        FlowError::Protocol(what)
    }
}

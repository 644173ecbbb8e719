//! The loop.

use std::os::fd::RawFd;
use std::sync::Arc;

use machnet_nic::Queue;
use machnet_wire::Nanos;

use crate::idle::Waited;
use crate::shared::Shared;
use crate::state::Core;

/// One engine: a NIC queue, the channels it serves and their flows.
pub struct Engine<Q> {
    pub(crate) nic: Q,
    pub(crate) core: Core,
    pub(crate) burst: usize,
    interrupt: Option<RawFd>,
}

impl<Q: Queue> Engine<Q> {
    /// Engine `index` of those that `shared` was made for, over its queue. `None` beyond the last.
    pub fn new(shared: &Arc<Shared>, index: u16, mut nic: Q, now: Nanos) -> Option<Self> {
        // At once, or what this NIC cannot count would be read as 0.
        shared.inboxes.get(usize::from(index))?.counts.queue.set(nic.counters().values());
        let mut core = Core::new(shared.handle(index)?, nic.info(), now);
        core.router.steer = steered_port(shared, index, &mut nic).unwrap_or(0);
        Some(Self { nic, core, burst: shared.config.burst.clamp(1, 64), interrupt: None })
    }

    /// One round at time `now`, which never goes back; returns how many things there were to do.
    pub fn run_once(&mut self, now: Nanos) -> usize {
        self.receive(now) + self.send(now)
    }

    /// The first half of a round: takes what came from the NIC, from other engines and from applications. Returns how many things there
    /// were to do.
    pub fn receive(&mut self, now: Nanos) -> usize {
        let burst = self.burst;
        let due = if self.core.clock.is_late(now) { self.sleep_deadline(Nanos::ZERO) } else { None };
        let core = &mut self.core;
        if core.clock.begin_round(now, due) {
            // Flows are told when they are next called: they must not take that for silence of their peers, nor for a long
            // round trip.
            core.counters().stalls.add(1);
        }
        core.conns.drain_epoch.turn(core.clock.now, core.conns.len());
        let mut work = 0;
        if !core.own.inbox().notes.is_empty() {
            work += core.read_notes();
        }
        let received = self.nic.receive(burst, &mut |frame, checked| core.on_frame(frame, checked));
        core.counters().rx_frames.add(received as u64);
        work += received;
        let backlog = if received < burst { 0 } else { self.nic.backlog() };
        let full = u32::from(self.nic.info().descriptors.max(1));
        core.router.backlog = (u32::from(backlog) * 255 / full).min(255) as u8;
        work += core.take_handed(burst);
        work += core.timers();
        if core.ending.linger_until <= core.clock.now {
            core.end_lingers();
        }
        work += core.neighbors();
        core.channels.attend(&core.admission, core.clock.now);
        work += core.serve_channels(burst);
        core.serve_ring_waiters();
        if !core.queries.is_empty() {
            work += core.answer();
        }
        work
    }

    /// The second half: sends, and tells the applications. At its own time, which may be later than the first half's: a
    /// burst takes as long to be worked through as a short path to cross, and what leaves then has not left before.
    pub fn send(&mut self, now: Nanos) -> usize {
        self.core.clock.advance(now);
        // Asked before anything is sent, because a flow is gone with its last packet. Resets that answer packets of no connection do not
        // count: whoever sends such packets without end must not hold up the end of the sidecar.
        let owed = self.core.conns.len() > 0 || self.core.router.has_stash();
        let mut work = if self.has_to_send() { self.transmit() } else { 0 };
        let core = &mut self.core;
        if core.ending.shutdown && work > 0 && owed {
            core.ending.sent(core.clock.now);
        }
        work += core.take_looped(self.burst);
        self.nic.flush();
        core.channels.flush();
        if core.conns.publish(work > 0, core.clock.now) {
            core.own.inbox().counts.queue.set(self.nic.counters().values());
        }
        core.counters().rounds.add(1);
        work
    }

    /// Tells that the ring was empty until `now`, though no round ran: for virtual time, where rounds that find nothing are
    /// left out.
    pub fn looked(&mut self, now: Nanos) {
        self.core.clock.looked(now);
    }

    /// When the engine must run next though nothing arrives; early where that is cheaper to know.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.deadline(self.core.conns.next_deadline())
    }

    /// The same for a thread that sleeps until then, and whom it costs more to wake for nothing than to look. An acknowledgement that would go
    /// alone may be late by `patience`: where waking is dear, it had better go with an answer.
    pub fn sleep_deadline(&self, patience: Nanos) -> Option<Nanos> {
        self.deadline(self.core.conns.sleep_deadline(patience))
    }

    /// When it must run for its connections, as told, or for anything else.
    fn deadline(&self, conns: Option<Nanos>) -> Option<Nanos> {
        let core = &self.core;
        if self.has_work() {
            return Some(core.clock.now);
        }
        let due = core.shared().neighbors.due().min(core.ending.due(core.clock.now));
        let due = core.paper.map_or(due, |paper| due.min(paper.look_at));
        let due = (due != Nanos::MAX).then_some(due);
        due.into_iter().chain(conns).chain(core.channels.attention_due()).min()
    }

    /// Arms everything that can wake a sleeper. False: there is work, do not sleep; nothing stays armed.
    pub fn prepare_sleep(&mut self) -> bool {
        let core = &self.core;
        let inbox = core.own.inbox();
        inbox.bell.arm();
        let mut idle =
            inbox.notes.is_empty() && inbox.packets.is_empty() && !core.router.has_news() && !self.has_work();
        // Those that rest are armed.
        for (at, channel) in core.channels.polled() {
            idle = idle
                && !core.admission.units_due(at)
                && (channel.draining || channel.end.arm_for(core.admission.awaits_returns(at)));
        }
        if idle {
            self.interrupt = self.nic.arm_interrupt();
            idle = self.interrupt.is_none() || self.nic.backlog() == 0;
        }
        if idle {
            self.core.channels.sleep();
            self.core.counters().sleeps.add(1);
            // Rounds do it now and then; nobody does while we sleep.
            self.core.own.inbox().counts.queue.set(self.nic.counters().values());
        } else {
            self.wake();
        }
        idle
    }

    /// Adds the descriptors to poll for input, between a true [`Engine::prepare_sleep`] and [`Engine::wake`].
    pub fn fds(&self, out: &mut Vec<RawFd>) {
        out.push(self.core.own.inbox().bell.fd());
        out.extend(self.interrupt);
        out.push(self.core.channels.doorbells());
    }

    /// Disarms what `prepare_sleep` armed, and empties it; the doorbells in the next round, when the time is known.
    pub fn wake(&mut self) {
        let inbox = self.core.own.inbox();
        inbox.bell.disarm();
        inbox.bell.drain();
        if self.interrupt.take().is_some() {
            self.nic.disarm_interrupt();
        }
        for (_, channel) in self.core.channels.polled().filter(|(_, channel)| !channel.draining) {
            channel.end.disarm();
        }
    }

    /// Between a true [`Engine::prepare_sleep`] and [`Engine::wake`]: whether the NIC is armed to end the sleep.
    pub fn rings(&self) -> bool {
        self.interrupt.is_some()
    }

    /// The engine's thread has waited for its core, or goes on under an alarm.
    #[cold]
    pub fn waited(&mut self, waited: Waited) {
        let counters = self.core.counters();
        counters.core_wait.add(waited.core.0);
        if waited.alarm > Nanos::ZERO {
            counters.hog_alarms.add(1);
            counters.hogged.add(waited.alarm.0);
        }
    }

    /// Whether the NIC can wake a sleeper: for [`crate::Idle::new`].
    pub fn interrupts(&self) -> bool {
        self.nic.info().interrupts
    }

    /// After [`crate::EngineHandle::shutdown`]: what was submitted is delivered, or its time is over; every channel is detached, every peer
    /// told, and what told it has had time to leave the NIC.
    pub fn is_drained(&self) -> bool {
        self.core.ending.is_quiet(self.core.clock.now)
            && self.core.channels.is_empty()
            && self.core.conns.len() == 0
            && !self.has_work()
    }

    /// The queue, for its statistics.
    pub fn nic(&self) -> &Q {
        &self.nic
    }

    /// Flows alive now.
    pub fn flows(&self) -> usize {
        self.core.conns.len()
    }

    /// The longest retransmission timeout of any flow now, back-off included; zero without flows.
    pub fn longest_timeout(&self) -> Nanos {
        self.core.conns.iter().map(|conn| conn.flow.timeout()).max().unwrap_or(Nanos::ZERO)
    }

    /// Units that peers were promised room for in the receive ring.
    pub fn promised(&self) -> u32 {
        self.core.admission.promised()
    }

    /// Per channel: its number, and its units by who has them (submitted, delivered, reserved).
    pub fn usage(&self) -> Vec<(u64, (u32, u32, u32))> {
        self.core.channels.iter().map(|channel| (channel.number.0, channel.end.usage())).collect()
    }

    /// Numbers of the channels that are polled in every round; the others ring.
    pub fn looked_at(&self) -> Vec<u64> {
        self.core.channels.polled().map(|(_, channel)| channel.number.0).collect()
    }

    #[inline]
    fn has_to_send(&self) -> bool {
        self.core.conns.is_ready() || self.core.router.has_waiting()
    }

    fn has_work(&self) -> bool {
        let core = &self.core;
        self.has_to_send()
            || core.router.has_looped()
            || core.admission.rings_due()
            || core.conns.is_publishing()
            || !core.queries.is_empty()
    }
}

/// A UDP destination port that leads to the engine's own queue, where the NIC can see to that.
fn steered_port(shared: &Shared, index: u16, nic: &mut impl Queue) -> Option<u16> {
    let ports = &shared.config.udp_ports;
    let port = ports.end().checked_sub(index).filter(|port| ports.contains(port))?;
    let helps = nic.info().queues > 1 && !shared.config.rss.paper;
    (helps && nic.steer(port)).then_some(port)
}

//! The loop.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;

use machnet_nic::Queue;
use machnet_wire::Nanos;

use crate::attention::Attention;
use crate::budget::Budget;
use crate::full::Warnings;
use crate::peers::Peers;
use crate::phase::Phase;
use crate::query::{Queries, Subjects};
use crate::random::{Limit, Random};
use crate::shared::Shared;
use crate::state::Core;
use crate::table::Table;
use crate::timer_wheel::TimerWheel;
use crate::totals::Totals;

/// One engine: a NIC queue, the channels it serves and their flows.
pub struct Engine<Q> {
    pub(crate) nic: Q,
    pub(crate) core: Core,
    pub(crate) burst: usize,
    /// A frame that found no descriptor.
    pub(crate) stash: Option<Vec<u8>>,
    interrupt: Option<RawFd>,
}

impl<Q: Queue> Engine<Q> {
    /// Engine `index` of those that `shared` was made for, over its queue. `None` beyond the last.
    pub fn new(shared: &Arc<Shared>, index: u16, nic: Q, now: Nanos) -> Option<Self> {
        if index >= shared.engines() {
            return None;
        }
        let info = nic.info();
        let config = &shared.config;
        let mut random = Random::new(config.secret, index.into());
        let engines = shared.engines();
        let core = Core {
            index,
            engines,
            ip: config.neighbor.ip,
            mac: info.mac,
            mtu: info.mtu,
            queues: info.queues.max(engines),
            now,
            looked: now,
            gap: Nanos::ZERO,
            stalls: 0,
            backlog: 0,
            flows: Table::new(random.draw()),
            peers: Peers::new(Arc::clone(&shared.heard)),
            channels: Vec::new(),
            numbers: HashMap::new(),
            attention: Attention::new(now),
            returned: Vec::new(),
            budget: Budget::new(info.descriptors),
            phase: Phase::new(now),
            wheel: TimerWheel::new(now),
            ready: VecDeque::new(),
            waiting: Vec::new(),
            neighbor_version: shared.neighbors.version(),
            looped: VecDeque::new(),
            spare: Vec::new(),
            control: VecDeque::new(),
            totals: Totals::default(),
            queries: Queries::default(),
            next_ephemeral: random.draw() as u16 & 0x3fff,
            random,
            rst_limit: Limit::new(config.rst_rate, now),
            linger_until: Nanos::MAX,
            settled_at: Nanos::ZERO,
            warnings: Warnings::default(),
            shutdown: false,
            fired: Vec::new(),
            shared: Arc::clone(shared),
        };
        // At once, or what this NIC cannot count would be read as 0.
        shared.inboxes[usize::from(index)].counts.queue.set(nic.counters().values());
        Some(Self { nic, core, burst: config.burst.clamp(1, 64), stash: None, interrupt: None })
    }

    /// One round at time `now`, which never goes back; returns how many things there were to do.
    pub fn run_once(&mut self, now: Nanos) -> usize {
        self.receive(now) + self.send(now)
    }

    /// The first half of a round: takes what came from the NIC, from other engines and from applications. Returns how many things there
    /// were to do.
    pub fn receive(&mut self, now: Nanos) -> usize {
        let burst = self.burst;
        let late = now - self.core.now > STALL && self.next_deadline().is_some_and(|due| now - due > STALL);
        self.core.gap = now - self.core.looked;
        self.core.looked = now;
        self.core.now = now.max(self.core.now);
        if late {
            self.core.stalled();
        }
        self.core.phase.turn(self.core.now, self.core.flows.len());
        let mut work = 0;
        if !self.core.shared.inboxes[usize::from(self.core.index)].notes.is_empty() {
            work += self.core.read_notes();
        }
        let core = &mut self.core;
        let received = self.nic.receive(burst, &mut |frame, checked| core.on_frame(frame, checked));
        core.counters().rx_frames.add(received as u64);
        work += received;
        let backlog = if received < burst { 0 } else { self.nic.backlog() };
        let full = u32::from(self.nic.info().descriptors.max(1));
        self.core.backlog = (u32::from(backlog) * 255 / full).min(255) as u8;
        work += self.core.take_handed(burst);
        work += self.core.timers();
        if self.core.linger_until <= self.core.now {
            self.core.end_lingers();
        }
        self.core.neighbors();
        self.core.attend();
        work += self.core.serve_channels(burst);
        self.core.feed_hungry();
        if !self.core.queries.is_empty() {
            work += self.answer();
        }
        work
    }

    /// The second half: sends, and tells the applications. At its own time, which may be later than the first half's: a
    /// burst takes as long to be worked through as a short path to cross, and what leaves then has not left before.
    pub fn send(&mut self, now: Nanos) -> usize {
        self.core.now = now.max(self.core.now);
        // Looked at before, since a flow is gone with its last packet.
        let (flows, stashed) = (self.core.flows.len(), self.stash.is_some());
        let mut work = self.transmit();
        if self.core.shutdown && work > 0 {
            self.settle(flows > 0 || stashed);
        }
        work += self.core.take_looped(self.burst);
        self.nic.flush();
        self.core.flush_channels();
        self.publish(work > 0);
        self.core.counters().rounds.add(1);
        work
    }

    /// Works at what other threads asked, for one step.
    #[cold]
    fn answer(&mut self) -> usize {
        let Core { now, index: engine, channels, flows, peers, queries, shared, .. } = &mut self.core;
        let subjects = Subjects { now: *now, engine: *engine, channels, flows, peers };
        if let Some(answer) = queries.step(&subjects) {
            shared.answer(answer);
        }
        1
    }

    /// Lets other threads read what flows and the NIC's queue counted.
    #[inline]
    fn publish(&mut self, worked: bool) {
        let core = &mut self.core;
        if core.totals.is_due(worked, core.now) {
            let sums = core.totals.collect(core.now, |add| core.flows.each(|conn| add(conn.flow.stats())));
            let counts = &core.shared.inboxes[usize::from(core.index)].counts;
            counts.flows.set(sums);
            counts.queue.set(self.nic.counters().values());
        }
    }

    /// What was sent in a shutdown is given time to leave the NIC. Answers to strangers, who may ask without end, hold up nobody's end.
    #[cold]
    fn settle(&mut self, owed: bool) {
        if owed {
            self.core.settled_at = self.core.now + SETTLE;
        }
    }

    /// Tells that the ring was empty until `now`, though no round ran: for virtual time, where rounds that find nothing are
    /// left out.
    pub fn looked(&mut self, now: Nanos) {
        self.core.now = now.max(self.core.now);
        self.core.looked = self.core.now;
    }

    /// When the engine must run next though nothing arrives; early where that is cheaper to know.
    pub fn next_deadline(&self) -> Option<Nanos> {
        if self.has_work() {
            return Some(self.core.now);
        }
        let due = self.core.shared.neighbors.due();
        let due = due.min(self.core.linger_until);
        let due = if self.core.settled_at > self.core.now { due.min(self.core.settled_at) } else { due };
        let due = (due != Nanos::MAX).then_some(due);
        let due = self.core.wheel.next_deadline().into_iter().chain(due).chain(self.core.totals.due());
        due.chain(self.core.attention_due()).min()
    }

    /// Arms everything that can wake a sleeper. False: there is work, do not sleep; nothing stays armed.
    pub fn prepare_sleep(&mut self) -> bool {
        let inbox = &self.core.shared.inboxes[usize::from(self.core.index)];
        inbox.bell.arm();
        let mut idle = inbox.notes.is_empty()
            && inbox.packets.is_empty()
            && self.core.shared.neighbors.version() == self.core.neighbor_version
            && !self.has_work();
        // Those that rest are armed.
        for channel in self.core.busy_channels() {
            let waits = !channel.starved.is_empty() || channel.unread > 0;
            idle = idle && channel.hungry == 0 && (channel.gone || channel.end.arm_for(waits));
        }
        if idle {
            self.interrupt = self.nic.arm_interrupt();
            idle = self.interrupt.is_none() || self.nic.backlog() == 0;
        }
        if idle {
            self.core.attention.sleep();
            self.core.counters().sleeps.add(1);
        } else {
            self.wake();
        }
        idle
    }

    /// Adds the descriptors to poll for input, between a true [`Engine::prepare_sleep`] and [`Engine::wake`].
    pub fn fds(&self, out: &mut Vec<RawFd>) {
        out.push(self.core.shared.inboxes[usize::from(self.core.index)].bell.fd());
        out.extend(self.interrupt);
        out.push(self.core.bells().fd());
    }

    /// Disarms what `prepare_sleep` armed, and empties it; the doorbells in the next round, when the time is known.
    pub fn wake(&mut self) {
        let inbox = &self.core.shared.inboxes[usize::from(self.core.index)];
        inbox.bell.disarm();
        inbox.bell.drain();
        if self.interrupt.take().is_some() {
            self.nic.disarm_interrupt();
        }
        for channel in self.core.busy_channels().filter(|c| !c.gone) {
            channel.end.disarm();
        }
    }

    /// Whether the NIC can wake a sleeper: for [`crate::Idle::new`].
    pub fn interrupts(&self) -> bool {
        self.nic.info().interrupts
    }

    /// After [`crate::EngineHandle::shutdown`]: what was submitted is delivered, or its time is over; every channel is detached, every peer
    /// told, and what told it has had time to leave the NIC.
    pub fn is_drained(&self) -> bool {
        self.core.shutdown
            && self.core.channels.iter().all(Option::is_none)
            && self.core.flows.is_empty()
            && self.core.now >= self.core.settled_at
            && !self.has_work()
    }

    /// The queue, for its statistics.
    pub fn nic(&self) -> &Q {
        &self.nic
    }

    /// Flows alive now.
    pub fn flows(&self) -> usize {
        self.core.flows.len()
    }

    /// The longest retransmission timeout of any flow now, back-off included; zero without flows.
    pub fn longest_timeout(&self) -> Nanos {
        let mut longest = Nanos::ZERO;
        self.core.flows.each(|conn| longest = longest.max(conn.flow.timeout()));
        longest
    }

    /// Units that peers were promised room for in the receive ring.
    pub fn promised(&self) -> u32 {
        self.core.budget.promised()
    }

    /// Per channel: its number, and its units by who has them (submitted, delivered, reserved).
    pub fn usage(&self) -> Vec<(u64, (u32, u32, u32))> {
        self.core.channels.iter().flatten().map(|c| (c.number, c.end.usage())).collect()
    }

    /// Numbers of the channels that are looked at in every round; the others ring.
    pub fn looked_at(&self) -> Vec<u64> {
        self.core.busy_channels().map(|channel| channel.number).collect()
    }

    fn has_work(&self) -> bool {
        let core = &self.core;
        let queued = !core.ready.is_empty() || !core.looped.is_empty() || !core.control.is_empty();
        queued || core.budget.is_due() || !core.queries.is_empty() || self.stash.is_some()
    }
}

/// What was sent last before the end may still lie in a ring when the NIC is closed: of memif until the other end looks, which naps
/// for 10 ms at most (`idle.rs`).
const SETTLE: Nanos = Nanos::millis(50);

/// A round this much later than it should have been is a stall of ours: no silence of peers', and no round trip.
const STALL: Nanos = Nanos::millis(1);

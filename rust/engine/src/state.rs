//! Everything of an engine but its NIC queue, so that a frame can be handled while the queue lends it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use machnet_flow::{Closed, Flow, Transmit};
use machnet_shm::{HeldUnit, Reason, Returned};
use machnet_wire::{Nanos, arp};

use crate::admission::Admission;
use crate::attention::Attention;
use crate::channels::Channel;
use crate::conn::{self, Bound, Conn, Token, View};
use crate::counters::Counters;
use crate::full::Warnings;
use crate::ids::{ChannelNumber, ConnHandle, ConnIndex, EngineIndex, QueueIndex};
use crate::packet::{self, Handed};
use crate::path::{self, InPath, NextHop, Station};
use crate::peers::Peers;
use crate::phase::Phase;
use crate::query::Queries;
use crate::random::{Limit, Random};
use crate::shared::Shared;
use crate::table::Table;
use crate::timer_wheel::TimerWheel;
use crate::totals::Totals;

/// The state of one engine.
pub(crate) struct Core {
    pub shared: Arc<Shared>,
    pub index: EngineIndex,
    pub queue: QueueIndex,
    pub engines: u16,
    pub station: Station,
    pub mtu: u16,
    pub queues: u16,
    /// The time of this half of the round.
    pub now: Nanos,
    /// When the ring was last looked at, and how long before that for the last time.
    pub looked: Nanos,
    pub gap: Nanos,
    /// How often this engine did not run when it should have.
    pub stalls: u32,
    /// The receive ring's fill, 0 empty to 255 full, as of the last round.
    pub backlog: u8,
    pub flows: Table<Conn>,
    pub peers: Peers,
    pub channels: Vec<Option<Box<Channel>>>,
    /// Where they are, by their numbers.
    pub numbers: HashMap<ChannelNumber, usize>,
    pub attention: Attention,
    /// Room for what a channel returned.
    pub returned: Vec<Returned>,
    pub admission: Admission,
    pub phase: Phase,
    pub wheel: TimerWheel<ConnHandle>,
    /// Handles of flows that may have something to send, oldest first.
    pub ready: VecDeque<ConnHandle>,
    /// Handles of flows that wait for the MAC of their next hop.
    pub waiting: Vec<ConnHandle>,
    pub neighbor_version: u64,
    /// Machnet packets between two applications of this host.
    pub looped: VecDeque<Handed>,
    pub spare: Vec<Vec<u8>>,
    /// Frames that wait to be sent and belong to no flow.
    pub control: VecDeque<Control>,
    pub random: Random,
    pub rst_limit: Limit,
    /// When the first channel that only delivers what it was given is cut off.
    pub linger_until: Nanos,
    /// When what was sent last in a shutdown has left the NIC.
    pub settled_at: Nanos,
    pub warnings: Warnings,
    pub shutdown: bool,
    pub fired: Vec<(Nanos, ConnHandle)>,
    pub next_ephemeral: u16,
    pub totals: Totals,
    pub queries: Queries,
}

/// A frame of no flow.
pub(crate) struct Control {
    pub frame: Vec<u8>,
    pub udp: bool,
}

impl Core {
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.shared.inboxes[self.index.place()].counts.engine
    }

    /// Calls a flow with its channel at hand, files it for sending, and sees to what came of it.
    #[inline]
    pub fn drive<R>(
        &mut self,
        index: ConnIndex,
        call: impl FnOnce(&mut Flow<Token, HeldUnit>, Nanos, &mut View<'_>) -> R,
    ) -> Option<R> {
        let (handle, conn) = self.flows.entry(index)?;
        if conn.stalls != self.stalls {
            conn.stalls = self.stalls;
            conn.flow.stalled(self.now);
        }
        let lane = conn.bound.place().and_then(|(at, id)| {
            let channel = self.channels.get_mut(at as usize)?.as_mut()?;
            self.attention.touch(at, channel);
            Some((&mut channel.end, id))
        });
        let mut view = View {
            lane,
            counters: &self.shared.inboxes[self.index.place()].counts.engine,
            about: &conn.about,
            silent: conn.closed,
            peers: &self.peers,
            peer: conn.peer,
            gap: self.gap,
            phase: self.phase.now(),
            admission: &mut self.admission,
            claim: &mut conn.claim,
            established: false,
            closed: None,
        };
        let out = call(&mut conn.flow, self.now, &mut view);
        let (established, closed) = (view.established, view.closed);
        if !conn.queued {
            conn.queued = true;
            self.ready.push_back(handle);
        }
        if established {
            self.on_established(index);
        }
        if let Some(closed) = closed {
            self.on_closed(index, closed);
        }
        Some(out)
    }

    #[cold]
    fn on_established(&mut self, index: ConnIndex) {
        let Some(conn) = self.flows.get_mut(index) else { return };
        let Bound::Opening { channel, id } = conn.bound else { return };
        conn.bound = Bound::Open { channel, id };
        if !conn.path.is_local() {
            self.phase.newcomer(self.now);
        }
        match conn.about.origin {
            machnet_shm::Origin::Dialled(_) => self.counters().connects.add(1),
            machnet_shm::Origin::Accepted(_) => self.counters().accepts.add(1),
        }
    }

    /// The flow has told its last: the application learns of it, and the handle ends. The flow itself goes when it has
    /// nothing left to send.
    #[cold]
    fn on_closed(&mut self, index: ConnIndex, closed: Closed) {
        let Some((handle, conn)) = self.flows.entry(index) else { return };
        let bound = core::mem::replace(&mut conn.bound, Bound::Free);
        self.admission.end(&mut conn.claim);
        let why = match conn.reason.unwrap_or(conn::reason(closed)) {
            // The listener closed before our ACK came: the application has been told that it is connected.
            Reason::Refused if matches!(bound, Bound::Open { .. }) => Reason::Reset,
            why => why,
        };
        let (origin, let_go) = (conn.about.origin, conn.closed);
        if conn.path.is_unknown() {
            // It may be parked until its next hop is known; it has nothing to wait for any more.
            self.ready.push_back(handle);
        }
        let c = self.counters();
        match closed {
            Closed::ByPeer(_) => c.resets_received.add(1),
            Closed::Timeout => c.flow_timeouts.add(1),
            Closed::Clean | Closed::ByUs(_) => {}
        }
        if let (Bound::Opening { channel, .. }, machnet_shm::Origin::Dialled(id)) = (bound, origin) {
            match why {
                Reason::Refused => c.connects_refused.add(1),
                Reason::Timeout => c.connects_timeout.add(1),
                Reason::Unreachable => c.unreachable.add(1),
                Reason::Full(..) | Reason::PeerEnding => c.connects_peer_full.add(1),
                _ => {}
            }
            if let Some(Some(channel)) = self.channels.get_mut(channel as usize) {
                channel.end.reply(machnet_shm::Reply::ConnectFailed { id, reason: why });
            }
        }
        self.end_place(bound, let_go, why);
    }

    /// Forgets a flow that has nothing left to do.
    #[cold]
    pub fn drop_flow(&mut self, index: ConnIndex) {
        let Some(conn) = self.flows.get(index) else { return };
        let Some(mut conn) = self.flows.remove(conn.key) else { return };
        self.admission.end(&mut conn.claim);
        self.peers.release(conn.peer);
        self.totals.retire(conn.flow.stats());
        if conn.claimed {
            self.shared.ports.release(conn.key);
        }
        conn.path.end(&self.shared.neighbors);
        if conn.bound != Bound::Free {
            // Superseded before it was established: the application never heard of it.
            self.end_place(conn.bound, conn.closed, Reason::Gone);
        }
        self.counters().flows.set(self.flows.len() as u64);
    }

    /// This engine did not run when it should have. Its flows are told when they are next looked at: they must not take that
    /// for silence of their peers, nor for a long round trip.
    #[cold]
    pub fn stalled(&mut self) {
        self.counters().stalls.add(1);
        self.stalls = self.stalls.wrapping_add(1);
    }

    /// Runs the flows whose time has come.
    #[inline]
    pub fn timers(&mut self) -> usize {
        let mut fired = core::mem::take(&mut self.fired);
        self.wheel.expire(self.now, |at, handle| fired.push((at, handle)));
        let count = fired.len();
        for (at, handle) in fired.drain(..) {
            let Some(conn) = self.flows.resolve(handle) else { continue };
            if conn.scheduled != at {
                continue;
            }
            conn.scheduled = Nanos::MAX;
            self.drive(handle.index, |flow, now, view| {
                if flow.next_timeout().is_some_and(|due| due <= now) {
                    flow.on_timeout(now, view);
                }
            });
        }
        self.fired = fired;
        count
    }

    /// Files a flow under the time it asks for, unless it is asked earlier anyway.
    #[inline]
    pub fn schedule(&mut self, index: ConnIndex) {
        let Some((handle, conn)) = self.flows.entry(index) else { return };
        if let Some(at) = conn.flow.next_timeout()
            && at < conn.scheduled
        {
            conn.scheduled = at;
            self.wheel.insert(at, handle);
        }
    }

    /// Queues a whole frame; drops it when too many wait (each is an answer that the peer asks for again).
    pub fn send_frame(&mut self, frame: Vec<u8>) {
        self.queue(Control { frame, udp: false });
    }

    /// Queues a Machnet packet of no flow, back the way by which `from` came.
    pub fn send_alone(&mut self, from: InPath, packet: &Transmit<'_, Token>) {
        let neighbors = &self.shared.neighbors;
        let route = NextHop::toward(from.peer, &self.station, neighbors)
            .map(|hop| from.back(hop).route(&self.station, neighbors, self.neighbor_version, self.now));
        match route {
            Some(Ok(None)) => {
                let mut bytes = vec![0; packet.len()];
                path::emit(packet, None, &mut bytes);
                self.looped.push_back(Handed { from: InPath::local(&self.station), bytes });
            }
            Some(Ok(Some(route))) => {
                let mut frame = vec![0; path::frame_len(packet)];
                path::emit_frame(&route, packet, None, &mut frame);
                self.queue(Control { frame, udp: true });
            }
            _ => self.counters().control_dropped.add(1),
        }
    }

    fn queue(&mut self, control: Control) {
        if self.control.len() >= CONTROL {
            return self.counters().control_dropped.add(1);
        }
        self.control.push_back(control);
    }

    /// Sends the ARP requests that are due, and wakes the flows whose next hop has news.
    pub fn neighbors(&mut self) {
        if self.shared.neighbors.due() <= self.now {
            let mut asks = Vec::new();
            let failed = self.shared.neighbors.poll(self.now, |ask| asks.push(ask));
            for ask in asks {
                self.counters().arp_requests.add(1);
                self.send_frame(packet::arp(arp::Operation::Request, self.station, ask.last, ask.ip));
            }
            if failed > 0 {
                self.counters().arp_failed.add(failed as u64);
                self.shared.wake_others(self.index);
            }
        }
        let version = self.shared.neighbors.version();
        if version != self.neighbor_version {
            self.neighbor_version = version;
            for handle in core::mem::take(&mut self.waiting) {
                self.ready.push_back(handle);
            }
        }
    }
}

/// Control frames that may wait.
const CONTROL: usize = 64;

//! Everything of an engine but its NIC queue, so that a frame can be handled while the queue lends it.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use machnet_flow::{Closed, Flow};
use machnet_shm::{HeldUnit, Reason, Returned};
use machnet_wire::{Mac, Nanos, arp};

use crate::attention::Attention;
use crate::budget::Budget;
use crate::channels::Channel;
use crate::conn::{self, Bound, Conn, Hop, Token, View, Waits};
use crate::counters::Counters;
use crate::full::Warnings;
use crate::neighbor::Lookup;
use crate::packet::{self, Handed, Origin};
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
    pub index: u16,
    pub engines: u16,
    pub ip: Ipv4Addr,
    pub mac: Mac,
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
    pub numbers: HashMap<u64, usize>,
    pub attention: Attention,
    /// Room for what a channel returned.
    pub returned: Vec<Returned>,
    pub budget: Budget,
    pub phase: Phase,
    pub wheel: TimerWheel,
    /// Handles of flows that may have something to send, oldest first.
    pub ready: VecDeque<u64>,
    /// Handles of flows that wait for the MAC of their next hop.
    pub waiting: Vec<u64>,
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
    pub fired: Vec<(Nanos, u64)>,
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
        &self.shared.inboxes[usize::from(self.index)].counts.engine
    }

    /// Calls a flow with its channel at hand, files it for sending, and sees to what came of it.
    #[inline]
    pub fn drive<R>(
        &mut self,
        index: u32,
        call: impl FnOnce(&mut Flow<Token, HeldUnit>, Nanos, &mut View<'_>) -> R,
    ) -> Option<R> {
        let conn = self.flows.get_mut(index)?;
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
            counters: &self.shared.inboxes[usize::from(self.index)].counts.engine,
            about: &conn.about,
            silent: conn.closed,
            peers: &self.peers,
            peer: conn.peer,
            gap: self.gap,
            phase: self.phase.now(),
            budget: (conn.hop != Hop::Loop).then_some(&mut self.budget),
            promise: &mut conn.promise,
            established: false,
            closed: None,
        };
        let out = call(&mut conn.flow, self.now, &mut view);
        let (established, closed) = (view.established, view.closed);
        if !conn.queued {
            conn.queued = true;
            self.ready.push_back(self.flows.handle_of(index));
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
    fn on_established(&mut self, index: u32) {
        let Some(conn) = self.flows.get_mut(index) else { return };
        let Bound::Opening { channel, id } = conn.bound else { return };
        conn.bound = Bound::Open { channel, id };
        if conn.hop != Hop::Loop {
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
    fn on_closed(&mut self, index: u32, closed: Closed) {
        let Some(conn) = self.flows.get_mut(index) else { return };
        let bound = core::mem::replace(&mut conn.bound, Bound::Free);
        let waits = core::mem::replace(&mut conn.waits, Waits::No);
        let why = match conn.reason.unwrap_or(conn::reason(closed)) {
            // The listener closed before our ACK came: the application has been told that it is connected.
            Reason::Refused if matches!(bound, Bound::Open { .. }) => Reason::Reset,
            why => why,
        };
        let (origin, let_go) = (conn.about.origin, conn.closed);
        if matches!(conn.hop, Hop::Unknown { .. }) {
            // It may be parked until its next hop is known; it has nothing to wait for any more.
            self.ready.push_back(self.flows.handle_of(index));
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
        self.end_place(bound, waits, let_go, why);
    }

    /// Forgets a flow that has nothing left to do.
    #[cold]
    pub fn drop_flow(&mut self, index: u32) {
        let Some(conn) = self.flows.get(index) else { return };
        let Some(conn) = self.flows.remove(conn.key) else { return };
        self.peers.release(conn.peer);
        self.totals.retire(conn.flow.stats());
        if conn.claimed {
            self.shared.ports.release(conn.key);
        }
        if let Hop::Unknown { ip } | Hop::Known { ip, .. } = conn.hop {
            self.shared.neighbors.release(ip);
        }
        if conn.bound != Bound::Free {
            // Superseded before it was established: the application never heard of it.
            self.end_place(conn.bound, conn.waits, conn.closed, Reason::Gone);
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
            let Some(index) = self.flows.resolve(handle) else { continue };
            let Some(conn) = self.flows.get_mut(index) else { continue };
            if conn.scheduled != at {
                continue;
            }
            conn.scheduled = Nanos::MAX;
            self.drive(index, |flow, now, view| {
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
    pub fn schedule(&mut self, index: u32) {
        let handle = self.flows.handle_of(index);
        let Some(conn) = self.flows.get_mut(index) else { return };
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

    /// Queues a Machnet packet of no flow, back the way by which `to` came.
    pub fn send_alone(&mut self, to: Origin, bytes: Vec<u8>) {
        if to.ip == self.ip {
            self.looped.push_back(Handed { from: Origin { ip: self.ip, ports: (0, 0) }, bytes });
            return;
        }
        let hop = self.shared.neighbors.next_hop(to.ip);
        let Some(Lookup::Known(dst_mac)) = hop.map(|hop| self.shared.neighbors.lookup(hop, self.now)) else {
            return self.counters().control_dropped.add(1);
        };
        let route = machnet_wire::frame::Route {
            src_mac: self.mac,
            dst_mac,
            src_ip: self.ip,
            dst_ip: to.ip,
            src_port: to.ports.1,
            dst_port: to.ports.0,
        };
        let mut frame = vec![0; machnet_wire::frame::UDP_HEADERS + bytes.len()];
        let at = machnet_wire::frame::emit_udp(&route, bytes.len(), &mut frame);
        frame[at..].copy_from_slice(&bytes);
        self.queue(Control { frame, udp: true });
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
                self.send_frame(packet::arp(arp::Operation::Request, self.mac, self.ip, ask.last, ask.ip));
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

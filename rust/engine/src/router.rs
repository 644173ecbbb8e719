//! Where packets go: to a next hop, round the local loop, to another engine of this host. And the frames that belong to no
//! connection: ARP, ICMP echo, and resets that answer packets of no connection.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use machnet_flow::{Body, Transmit};
use machnet_nic::{Offload, Queue};
use machnet_shm::EngineEnd;
use machnet_wire::frame::Route;
use machnet_wire::{Flags, Header, Hello, Kind, Nanos, Reason, Reset, arp, ether, icmp, ipv4};

use crate::control_frame;
use crate::ids::{EngineIndex, QueueIndex};
use crate::listen::Passed;
use crate::neighbor::{Learned, Lookup, Neighbors};
use crate::path::{self, Handed, InPath, NextHop, OutPath, Station};
use crate::random::RateLimit;
use crate::rss::{Contact, Detour, Rss};
use crate::shared::EngineHandle;
use crate::view::Outgoing;

/// Where packets of one engine go, and its frames that belong to no connection.
pub(crate) struct Router {
    own: EngineHandle,
    pub station: Station,
    /// The largest IP packet.
    pub mtu: u16,
    /// The receive queue of this engine.
    pub queue: QueueIndex,
    /// How many the host has.
    queues: u16,
    /// UDP destination port that leads to this queue whatever the source port; 0: none does.
    pub steer: u16,
    /// The receive ring's fill as packets tell it, 0 empty to 255 full.
    pub backlog: u8,
    /// The version of the table of neighbours by which paths know their next hops.
    neighbor_version: u32,
    /// The packet of a connection that found no descriptor.
    stash: Option<Vec<u8>>,
    /// Frames that wait to be sent and belong to no connection.
    control: VecDeque<ControlFrame>,
    /// Machnet packets between two applications of this host, and buffers for more.
    looped: VecDeque<Handed>,
    spare: Vec<Vec<u8>>,
    resets: RateLimit,
}

/// A frame of no connection.
struct ControlFrame {
    frame: Vec<u8>,
    offload: Offload,
}

impl Router {
    pub fn new(own: EngineHandle, nic: &machnet_nic::Info, now: Nanos) -> Self {
        let (shared, engine) = (own.shared(), own.index());
        Self {
            station: Station { mac: nic.mac, ip: shared.config.neighbor.ip },
            mtu: nic.mtu,
            queue: QueueIndex(engine.0),
            queues: nic.queues.max(shared.engines()),
            steer: 0,
            backlog: 0,
            neighbor_version: shared.neighbors.version(),
            stash: None,
            control: VecDeque::new(),
            looped: VecDeque::new(),
            spare: Vec::new(),
            resets: RateLimit::new(shared.config.rst_rate, now),
            own,
        }
    }

    /// How many receive queues the host has.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Whether frames wait to be sent.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        self.stash.is_some() || !self.control.is_empty()
    }

    /// Whether packets wait that go from one application of this host to another.
    pub fn has_looped(&self) -> bool {
        !self.looped.is_empty()
    }

    /// Whether a connection's packet waits that the connection counts as sent.
    pub fn has_stash(&self) -> bool {
        self.stash.is_some()
    }

    fn neighbors(&self) -> &Neighbors {
        &self.own.shared().neighbors
    }
}

/// Paths of connections.
impl Router {
    /// The first step on the way to `peer`; `None`: there is no way.
    pub fn next_hop(&self, peer: Ipv4Addr) -> Option<NextHop> {
        NextHop::toward(peer, &self.station, self.neighbors())
    }

    /// The path of a connection that begins, to be ended with it.
    pub fn begin_path(
        &self,
        peer: Ipv4Addr,
        hop: NextHop,
        contact: &Contact,
        rss: Option<Box<Rss>>,
        now: Nanos,
    ) -> OutPath {
        OutPath::begin(peer, hop, contact, rss, self.neighbors(), now)
    }

    /// The connection is over.
    pub fn end_path(&self, path: &OutPath) {
        path.end(self.neighbors());
    }

    /// The route of what is sent on a path now; `None`: the local loop. An error: its next hop is not known yet, or not any more.
    #[inline]
    pub fn route(&self, path: &mut OutPath, now: Nanos) -> Result<Option<Route>, Lookup> {
        path.route(&self.station, self.neighbors(), self.neighbor_version, now)
    }

    /// What a SYN or SYN-ACK says of us. `came`: how the SYN that is answered came.
    pub fn hello(&self, tag: u32, came: Option<InPath>) -> Hello {
        let hit = came.filter(|came| came.pair.is_some()).map(|came| came.entry());
        let own = Hello::new(tag, self.own.shared().config.epoch, self.mtu);
        Hello { queues: self.queues, queue: self.queue.0, steer: self.steer, hit, ..own }
    }

    /// Sends the ARP requests that are due. True: there is news of next hops, and who waits for one asks again.
    pub fn poll_neighbors(&mut self, now: Nanos) -> bool {
        if self.neighbors().due() <= now {
            // No more than there is room for beside answers: those that are left are asked for in the next round.
            let room = (CONTROL / 2).saturating_sub(self.control.len());
            let mut asks = Vec::new();
            let polled = self.neighbors().poll(now, room, |ask| asks.push(ask));
            for ask in asks {
                let counters = self.own.counters();
                if ask.ip == self.station.ip { &counters.arp_announced } else { &counters.arp_requests }
                    .add(1);
                self.send_frame(control_frame::arp(arp::Operation::Request, self.station, ask.last, ask.ip));
            }
            self.own.counters().neighbors_evicted.add(polled.evicted as u64);
            if polled.failed > 0 {
                self.own.counters().arp_failed.add(polled.failed as u64);
                self.own.wake_others();
            }
        }
        let news = self.has_news();
        if news {
            self.neighbor_version = self.neighbors().version();
        }
        news
    }

    /// Whether there is news of next hops that [`Router::poll_neighbors`] has not returned.
    pub fn has_news(&self) -> bool {
        self.neighbors().version() != self.neighbor_version
    }
}

/// What leaves.
impl Router {
    /// Sends a connection's packet by its route, or round the local loop; `len` is that of its frame, and a unit that it carries is read
    /// from `units`. False: there is no room for another.
    #[inline(always)]
    pub fn send<Q: Queue>(
        &mut self,
        nic: &mut Q,
        route: Option<&Route>,
        packet: &Transmit<'_, Outgoing>,
        len: usize,
        units: Option<&EngineEnd>,
    ) -> bool {
        let Some(route) = route else { return self.send_local(packet, units) };
        let fill = |out: &mut [u8]| path::emit_frame(route, packet, units, out);
        if nic.transmit(len, Offload::Udp4, fill).is_err() {
            // The flow counts it as sent, so it is built all the same and goes first in the next round.
            let mut built = vec![0; len];
            fill(&mut built);
            return self.keep(built);
        }
        self.own.counters().tx_frames.add(1);
        true
    }

    /// Sends a packet of a connection that is built. False: it waits, there is no room.
    #[inline(never)]
    fn send_built<Q: Queue>(&mut self, nic: &mut Q, built: Vec<u8>) -> bool {
        if nic.transmit(built.len(), Offload::Udp4, |out| out.copy_from_slice(&built)).is_err() {
            return self.keep(built);
        }
        self.own.counters().tx_frames.add(1);
        true
    }

    /// There is no room for a packet of a connection, which goes first when there is.
    #[cold]
    fn keep(&mut self, built: Vec<u8>) -> bool {
        self.stash = Some(built);
        self.own.counters().tx_full.add(1);
        false
    }

    /// As [`Router::send`], for a packet that has a pair or reports of its own.
    #[cold]
    #[inline(never)]
    pub fn send_detour<Q: Queue>(
        &mut self,
        nic: &mut Q,
        route: Option<&Route>,
        packet: Transmit<'_, Outgoing>,
        detour: &Detour,
    ) -> bool {
        let packet = match packet.body {
            Body::Paths(_) => {
                self.own.counters().paths_sent.add(1);
                Transmit { body: Body::Paths(&detour.entries), ..packet }
            }
            _ => packet,
        };
        let aside = route.zip(detour.pair).map(|(route, pair)| Route {
            src_port: pair.src,
            dst_port: pair.dst,
            ..*route
        });
        let Some(route) = aside.as_ref().or(route) else { return self.send_local(&packet, None) };
        // Built first: the one place where a frame is written straight into a descriptor is for those that are common.
        let mut built = vec![0; path::frame_len(&packet)];
        path::emit_frame(route, &packet, None, &mut built);
        self.send_built(nic, built)
    }

    /// A packet that goes from one application of this host to another.
    fn local(&self, bytes: Vec<u8>) -> Handed {
        Handed { from: InPath::local(&self.station, self.queue), passed: Passed::default(), bytes }
    }

    fn send_local(&mut self, packet: &Transmit<'_, Outgoing>, units: Option<&EngineEnd>) -> bool {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(packet.len(), 0);
        path::emit(packet, units, &mut bytes);
        self.looped.push_back(self.local(bytes));
        let counters = self.own.counters();
        counters.local_packets.add(1);
        let room = self.looped.len() < LOOPED;
        counters.local_full.add(u64::from(!room));
        room
    }

    /// Sends what waits from earlier: a connection's packet that found no descriptor, then control frames. False: no room.
    #[inline]
    pub fn send_waiting<Q: Queue>(&mut self, nic: &mut Q, sent: &mut usize) -> bool {
        if let Some(built) = self.stash.take() {
            if !self.send_built(nic, built) {
                return false;
            }
            *sent += 1;
        }
        while let Some(control) = self.control.pop_front() {
            let len = control.frame.len();
            if nic.transmit(len, control.offload, |out| out.copy_from_slice(&control.frame)).is_err() {
                self.control.push_front(control);
                self.own.counters().tx_full.add(1);
                return false;
            }
            self.own.counters().tx_frames.add(1);
            *sent += 1;
        }
        true
    }

    /// Tells the sender of `header` that there is no such connection; `echo` proves that we saw its packet.
    pub fn refuse(&mut self, from: InPath, header: &Header, echo: u32, reason: Reason, now: Nanos) {
        if !self.resets.allow(now) {
            return self.own.counters().rst_limited.add(1);
        }
        let reset = Reset { epoch: self.own.shared().config.epoch, echo, reason };
        let answer =
            Header { src: header.dst, dst: header.src, tag: 0, flags: Flags::NONE, ..Header::new(Kind::Rst) };
        self.own.counters().rst_sent.add(1);
        self.answer(
            from,
            &Transmit { header: answer, hit: None, part: None, sack: &[], body: Body::Reset(reset) },
        );
    }

    /// Queues a packet of no connection, back the way by which `from` came.
    pub fn answer(&mut self, from: InPath, packet: &Transmit<'_, Outgoing>) {
        if from.peer == self.station.ip {
            let mut bytes = vec![0; packet.len()];
            path::emit(packet, None, &mut bytes);
            self.looped.push_back(self.local(bytes));
            return;
        }
        let fixed = self.neighbors().next_hop(from.peer).and_then(|hop| self.neighbors().fixed_mac(hop));
        let Some(route) = from.back(&self.station, fixed) else {
            return self.own.counters().control_dropped.add(1);
        };
        let mut frame = vec![0; path::frame_len(packet)];
        path::emit_frame(&route, packet, None, &mut frame);
        self.queue(ControlFrame { frame, offload: Offload::Udp4 });
    }

    fn send_frame(&mut self, frame: Vec<u8>) {
        self.queue(ControlFrame { frame, offload: Offload::None });
    }

    /// Queues a frame; drops it when too many wait (each is an answer that the peer asks for again).
    fn queue(&mut self, control: ControlFrame) {
        if self.control.len() >= CONTROL {
            return self.own.counters().control_dropped.add(1);
        }
        self.control.push_back(control);
    }
}

/// What arrives: of other engines, of this host, and of ARP and ICMP.
impl Router {
    /// Takes the oldest packet that one application of this host sent to another.
    #[inline]
    pub fn next_looped(&mut self) -> Option<Handed> {
        self.looped.pop_front()
    }

    /// Its buffer is free.
    pub fn looped_done(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < LOOPED {
            self.spare.push(bytes);
        }
    }

    /// Takes the oldest packet that other engines believe to be ours.
    #[inline]
    pub fn next_handed(&self) -> Option<Handed> {
        let packets = &self.own.inbox().packets;
        // That it is empty is seen by two loads; `pop` would fence.
        if packets.is_empty() { None } else { packets.pop() }
    }

    /// Its buffer is free.
    pub fn handed_done(&self, bytes: Vec<u8>) {
        // A full store of spares is no loss.
        let _ = self.own.inbox().spare.push(bytes);
    }

    /// Gives a packet to the engine that owns its flow.
    pub fn hand_over(&self, to: EngineIndex, from: InPath, bytes: &[u8]) {
        self.pass_on(to, from, bytes, Passed::default());
    }

    /// The same for a SYN that may have come to other listeners before.
    pub fn pass_on(&self, to: EngineIndex, from: InPath, bytes: &[u8], passed: Passed) {
        let counters = self.own.counters();
        if self.own.shared().config.rss.paper && from.pair.is_some() {
            return counters.paper_dropped.add(1);
        }
        let Some(inbox) = self.own.shared().inboxes.get(to.place()) else {
            return counters.rx_no_flow.add(1);
        };
        let mut copy = inbox.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        if inbox.packets.push(Handed { from, passed, bytes: copy }).is_err() {
            return counters.handover_full.add(1);
        }
        inbox.bell.ring();
        counters.handover_out.add(1);
    }

    /// Gives a packet to all other engines.
    pub fn hand_to_others(&self, from: InPath, bytes: &[u8]) {
        let all = (0..self.own.shared().engines()).map(EngineIndex);
        all.filter(|&engine| engine != self.own.index()).for_each(|to| self.hand_over(to, from, bytes));
    }

    /// Learns from an ARP packet, and answers it if it asks for us.
    pub fn on_arp(&mut self, arp: &arp::Packet, now: Nanos) {
        let counters = self.own.counters();
        counters.arp_received.add(1);
        if arp.sender_ip == self.station.ip && arp.sender_mac != self.station.mac {
            counters.arp_conflicts.add(1);
            if let Some(suppressed) = self.neighbors().may_warn(now) {
                log::warn!(
                    "{} claims this host's address {}: whoever asks for it may reach that one instead; give one of the two another address{suppressed}",
                    arp.sender_mac,
                    self.station.ip
                );
            }
        }
        let for_us = arp.target_ip == self.station.ip;
        match self.neighbors().learn(arp.sender_ip, arp.sender_mac, for_us, now) {
            Learned::Nothing => {}
            Learned::Disputed => counters.arp_claims.add(1),
            Learned::News => self.own.wake_others(),
        }
        if for_us && arp.operation == arp::Operation::Request && !arp.sender_mac.is_multicast() {
            counters.arp_replies.add(1);
            let to = Some(arp.sender_mac);
            self.send_frame(control_frame::arp(arp::Operation::Reply, self.station, to, arp.sender_ip));
        }
    }

    /// Answers an echo request.
    pub fn on_icmp(&mut self, ether: &ether::Header, ip: &ipv4::Header, echo: &icmp::Echo<'_>) {
        let counters = self.own.counters();
        if ip.dst != self.station.ip {
            return counters.rx_other_address.add(1);
        }
        let answerable = !ip.src.is_multicast() && !ip.src.is_broadcast() && !ip.src.is_unspecified();
        if !echo.reply && answerable && !ether.src.is_multicast() {
            counters.icmp_replies.add(1);
            self.send_frame(control_frame::echo_reply(self.station.mac, ether, ip, echo));
        }
    }
}

/// Control frames that may wait.
const CONTROL: usize = 64;
/// Local packets that may wait.
const LOOPED: usize = 256;

//! How connections begin: requests of applications, and SYNs of peers.

use core::net::Ipv4Addr;

use machnet_flow::{Flow, Setup};
use machnet_shm::{Established, FlowId, HeldUnit, Limit, MAX_LISTENERS, Origin, Reason, Reply, Request};
use machnet_wire::{self as wire, Hello, Nanos, Packet, Seq};

use crate::admission::{Claim, ReceiveRing};
use crate::channels::Listener;
use crate::conn::{Bound, Conn, Hop, Token};
use crate::full::Asked;
use crate::neighbor::Lookup;
use crate::packet;
use crate::ports::{EPHEMERAL, Owner};
use crate::state::Core;
use crate::table;

/// Who a new flow is.
struct Birth {
    key: u64,
    channel: u32,
    id: FlowId,
    origin: Origin,
    local_port: u16,
    peer: (Ipv4Addr, u16),
    hop: Hop,
    claimed: bool,
}

impl Core {
    /// One request of the application of channel `at`.
    pub fn on_request(&mut self, at: usize, request: Request) {
        let reply = match request {
            Request::Listen { id, ip, port, backlog } => Some(self.listen(at, id, ip, port, backlog)),
            Request::Unlisten { id } => {
                self.unlisten(at, id);
                Some(Reply::Unlistened { id })
            }
            Request::Connect { id, ip, port, local_port, timeout_ms } => self
                .connect(at, id, (ip, port), local_port, timeout_ms)
                .err()
                .map(|reason| Reply::ConnectFailed { id, reason }),
            Request::Cancel { id } => {
                self.cancel(at, id);
                None
            }
        };
        if let (Some(reply), Some(Some(channel))) = (reply, self.channels.get_mut(at)) {
            channel.end.reply(reply);
        }
    }

    fn listen(&mut self, at: usize, id: u32, ip: Ipv4Addr, port: u16, backlog: u32) -> Reply {
        let failed = |reason| Reply::ListenFailed { id, reason };
        let Some(Some(channel)) = self.channels.get_mut(at) else { return failed(Reason::Invalid) };
        if !ip.is_unspecified() && ip != self.ip {
            return failed(Reason::NotLocal);
        }
        let number = channel.number;
        if self.shutdown {
            return failed(self.ending());
        }
        if channel.listeners.len() >= MAX_LISTENERS as usize {
            let asked = Asked::Listener { channel: number, port };
            return failed(self.full(Limit::Listeners, MAX_LISTENERS, asked));
        }
        if channel.listeners.contains_key(&id) {
            return failed(Reason::Invalid);
        }
        let owner = Owner { engine: self.index, channel: channel.number, listener: id };
        match self.shared.ports.listen(port, owner) {
            Some(port) => {
                channel.listeners.insert(id, Listener { backlog: backlog.max(1), waiting: 0 });
                self.counters().listens.add(1);
                Reply::Listening { id, port }
            }
            None if port == 0 => {
                let asked = Asked::Listener { channel: number, port };
                failed(self.full(Limit::Ports, (u16::MAX - EPHEMERAL).into(), asked))
            }
            None => {
                self.counters().listens_refused.add(1);
                failed(Reason::InUse)
            }
        }
    }

    fn unlisten(&mut self, at: usize, id: u32) {
        let Some(Some(channel)) = self.channels.get_mut(at) else { return };
        if channel.listeners.remove(&id).is_none() {
            return;
        }
        for place in channel.offered.iter_mut().filter(|place| **place == Some(id)) {
            *place = None;
        }
        self.shared.ports.unlisten(channel.number, id);
        // Half-open connections have no listener to be announced to.
        for index in channel.places.clone() {
            if self.is_opening(index, Origin::Accepted(id)) {
                self.drive(index, |flow, _, view| flow.reset(wire::Reason::Refused, view));
            }
        }
    }

    fn cancel(&mut self, at: usize, id: u32) {
        let Some(Some(channel)) = self.channels.get(at) else { return };
        let index = channel.places.iter().copied().find(|&index| self.is_opening(index, Origin::Dialled(id)));
        if let Some(index) = index {
            self.end_with(index, Reason::Canceled);
        }
    }

    fn is_opening(&self, index: u32, origin: Origin) -> bool {
        self.flows
            .get(index)
            .is_some_and(|conn| conn.about.origin == origin && matches!(conn.bound, Bound::Opening { .. }))
    }

    /// Resets a flow, and tells the application this reason.
    pub fn end_with(&mut self, index: u32, reason: Reason) {
        if let Some(conn) = self.flows.get_mut(index) {
            conn.reason = Some(reason);
            self.drive(index, |flow, _, view| flow.reset(wire::Reason::Aborted, view));
        }
    }

    fn connect(
        &mut self,
        at: usize,
        request: u32,
        peer: (Ipv4Addr, u16),
        local_port: u16,
        timeout_ms: u32,
    ) -> Result<(), Reason> {
        let (ip, port) = peer;
        if port == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
            return Err(Reason::Invalid);
        }
        let hop = self.first_hop(ip).ok_or(Reason::Unreachable)?;
        if self.shutdown {
            return Err(self.ending());
        }
        let Some(Some(channel)) = self.channels.get(at) else { return Err(Reason::Invalid) };
        let (flows, asked) =
            (channel.end.geometry().flows, Asked::Dial { channel: channel.number, ip, port });
        if let Some(most) = self.most_flows() {
            return Err(self.full(Limit::EngineConnections, most, asked));
        }
        let Some((key, claimed)) = self.pick_local(peer, local_port)? else {
            return Err(self.full(Limit::Ports, self.ephemeral_share().into(), asked));
        };
        let opened = self.channels.get_mut(at).and_then(Option::as_mut).and_then(|c| c.end.open_flow());
        let Some(id) = opened else {
            if claimed {
                self.shared.ports.release(key);
            }
            return Err(self.full(Limit::Connections, flows, asked));
        };
        let birth = Birth {
            key,
            channel: at as u32,
            id,
            origin: Origin::Dialled(request),
            local_port: key as u16,
            peer,
            hop,
            claimed,
        };
        let timeout = match timeout_ms {
            0 => self.shared.connect_timeout(),
            ms => Nanos::millis(ms.into()),
        };
        let setup = self.setup(key as u16, port, (0, 0));
        let flow = Flow::connect(self.now, self.shared.config.flow, setup, timeout);
        self.begin(birth, flow);
        Ok(())
    }

    /// A SYN for a listener of this engine.
    pub fn accept(
        &mut self,
        key: u64,
        owner: Owner,
        from: packet::Origin,
        syn: &Packet<'_>,
    ) -> Result<(), wire::Reason> {
        let asked = Asked::Connection { channel: owner.channel, ip: from.ip, port: syn.header.dst };
        if let Some(limit) = self.most_flows() {
            self.full(Limit::EngineConnections, limit, asked);
            return Err(wire::Reason::EngineFull { limit });
        }
        let at = self.place_of(owner.channel).ok_or(wire::Reason::Refused)?;
        if self.is_full(at, owner.listener) {
            // Whoever gets a SYN-ACK has a place, and is served. This one asks again sooner than a place is missed.
            self.counters().syn_backlog.add(1);
            return Ok(());
        }
        let Some(hop) = self.first_hop(from.ip) else {
            // Nor is there a way for an answer.
            self.counters().control_dropped.add(1);
            return Ok(());
        };
        let setup = self.setup(syn.header.dst, syn.header.src, from.ports);
        let flow = Flow::accept(self.now, self.gap, self.shared.config.flow, setup, syn)
            .map_err(|_| wire::Reason::Protocol)?;
        let Some(Some(channel)) = self.channels.get_mut(at) else { return Err(wire::Reason::Refused) };
        if !channel.listeners.contains_key(&owner.listener) {
            return Err(wire::Reason::Refused);
        }
        let Some(id) = channel.end.open_flow() else {
            let limit = channel.end.geometry().flows;
            self.full(Limit::Connections, limit, asked);
            return Err(wire::Reason::AppFull { limit });
        };
        channel.take_place(id, owner.listener);
        let birth = Birth {
            key,
            channel: at as u32,
            id,
            origin: Origin::Accepted(owner.listener),
            local_port: syn.header.dst,
            peer: (from.ip, syn.header.src),
            hop,
            claimed: false,
        };
        self.begin(birth, flow);
        Ok(())
    }

    fn begin(&mut self, birth: Birth, flow: Flow<Token, HeldUnit>) {
        let about = Established {
            flow: birth.id,
            origin: birth.origin,
            local: (self.ip, birth.local_port),
            peer: birth.peer,
        };
        let range = self.shared.config.udp_ports.clone();
        let ports = (self.random.port(&range), self.random.port(&range));
        let peer = self.peers.acquire(birth.peer.0, self.now);
        if let Hop::Unknown { ip } | Hop::Known { ip, .. } = birth.hop {
            // Makes the entry, so that it has a user.
            self.shared.neighbors.lookup(ip, self.now);
            self.shared.neighbors.acquire(ip);
        }
        let index = self.flows.insert(birth.key, |_| Conn {
            flow,
            key: birth.key,
            bound: Bound::Opening { channel: birth.channel, id: birth.id },
            about,
            closed: false,
            peer,
            ports,
            hop: birth.hop,
            scheduled: Nanos::MAX,
            queued: false,
            claim: Claim::new(birth.channel, (birth.hop != Hop::Loop).then_some(ReceiveRing::OWN)),
            deficit: 0,
            stalls: self.stalls,
            claimed: birth.claimed,
            reason: None,
        });
        let Some(index) = index else { return };
        if let Some(Some(channel)) = self.channels.get_mut(birth.channel as usize)
            && let Some(place) = channel.places.get_mut(birth.id.index as usize)
        {
            *place = index;
            channel.live += 1;
        }
        self.counters().flows.set(self.flows.len() as u64);
        self.drive(index, |_, _, _| ());
    }

    /// The most flows, where there are as many.
    fn most_flows(&self) -> Option<u32> {
        let most = self.shared.config.max_flows;
        (self.flows.len() >= most).then_some(most.try_into().unwrap_or(u32::MAX))
    }

    /// Nothing new is begun any more.
    fn ending(&self) -> Reason {
        self.counters().refused_ending.add(1);
        Reason::Ending
    }

    /// How many ephemeral ports this engine gives towards one port of a peer.
    fn ephemeral_share(&self) -> u16 {
        (u16::MAX - EPHEMERAL) / self.engines.max(1)
    }

    /// A key with a local port: the one asked for, or a free ephemeral one of this engine's share. True: it is claimed. `None`: there is
    /// none free.
    fn pick_local(
        &mut self,
        (ip, port): (Ipv4Addr, u16),
        local_port: u16,
    ) -> Result<Option<(u64, bool)>, Reason> {
        let reversed_is_free = |core: &Self, local: u16| {
            // Both ends of a local connection live here; one port for both would be one key for two flows.
            ip != core.ip || local != port
        };
        if local_port != 0 {
            let key = table::key(ip, port, local_port);
            // One that is closed both ways and only repeats acknowledgements gives way.
            if let Some(old) = self.flows.find(key)
                && self.flows.get(old).is_some_and(|conn| conn.flow.is_lingering())
            {
                self.drop_flow(old);
            }
            if !reversed_is_free(self, local_port)
                || self.flows.find(key).is_some()
                || !self.shared.ports.claim(key)
            {
                return Err(Reason::InUse);
            }
            return Ok(Some((key, true)));
        }
        let (engines, share) = (self.engines.max(1), self.ephemeral_share());
        for _ in 0..share {
            self.next_ephemeral = (self.next_ephemeral + 1) % share.max(1);
            let local = EPHEMERAL + self.next_ephemeral * engines + self.index;
            let key = table::key(ip, port, local);
            if self.flows.find(key).is_none()
                && reversed_is_free(self, local)
                && self.shared.ports.owner(local).is_none()
                && !self.shared.ports.is_claimed(key)
            {
                return Ok(Some((key, false)));
            }
        }
        Ok(None)
    }

    fn first_hop(&self, ip: Ipv4Addr) -> Option<Hop> {
        if ip == self.ip {
            return Some(Hop::Loop);
        }
        self.shared.neighbors.next_hop(ip).map(|ip| Hop::Unknown { ip })
    }

    /// Where a flow's packets go now. `None`: not known yet, or not any more.
    pub fn resolve(&mut self, hop: Hop) -> Result<Hop, Lookup> {
        match hop {
            Hop::Loop => Ok(hop),
            Hop::Known { version, .. } if version == self.neighbor_version => Ok(hop),
            Hop::Known { ip, .. } | Hop::Unknown { ip } => {
                match (self.shared.neighbors.lookup(ip, self.now), hop) {
                    (Lookup::Known(mac), _) => Ok(Hop::Known { ip, mac, version: self.neighbor_version }),
                    // It was there a moment ago: the flow's own timers decide how long to believe in it.
                    (_, Hop::Known { mac, .. }) => Ok(Hop::Known { ip, mac, version: self.neighbor_version }),
                    (other, _) => Err(other),
                }
            }
        }
    }

    fn setup(&mut self, local_port: u16, remote_port: u16, hit: (u16, u16)) -> Setup {
        let tag = self.random.tag(self.index, self.engines);
        let hello = Hello {
            tag,
            epoch: self.shared.config.epoch,
            mtu: self.mtu,
            queues: self.queues,
            queue: self.index,
            hit,
        };
        Setup { local_port, remote_port, hello, first: Seq(self.random.draw() as u32) }
    }
}

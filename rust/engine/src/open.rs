//! How connections begin: requests of applications, and SYNs of peers.

use core::net::Ipv4Addr;
use std::sync::Arc;

use machnet_flow::{Flow, Setup, Syns};
use machnet_shm::{FlowId, HeldUnit, Limit, Origin, Reason, Reply, Request};
use machnet_wire::{self as wire, Hello, Nanos, Packet, Seq};

use crate::admission::Claim;
use crate::conn::{Bound, Conn, Who};
use crate::cookies::brings_cookie;
use crate::ephemeral::Ports;
use crate::full::Asked;
use crate::ids::{ChannelIndex, ConnIndex, ConnKey};
use crate::listen::{Declined, Listen};
use crate::path::{Form, InPath, NextHop};
use crate::ports::Owner;
use crate::router::Router;
use crate::rss::Contact;
use crate::state::Core;
use crate::view::Outgoing;

/// Who a new flow is.
struct Birth {
    key: ConnKey,
    channel: ChannelIndex,
    id: FlowId,
    origin: Origin,
    hop: NextHop,
    claimed: bool,
    contact: Contact,
}

impl Core {
    /// One request of the application of channel `at`.
    #[cold]
    pub fn on_request(&mut self, at: ChannelIndex, request: Request) {
        let reply = match request {
            Request::Listen { id, ip, port, backlog, reuse_port, group } => {
                Some(self.listen(at, Listen { id, ip, port, backlog, reuse_port, group }))
            }
            Request::Unlisten { id } => self.unlisten(at, id).then_some(Reply::Unlistened { id }),
            Request::Connect { id, ip, port, local_port, timeout_ms } => self
                .connect(at, id, (ip, port), local_port, timeout_ms)
                .err()
                .map(|reason| Reply::ConnectFailed { id, reason }),
            Request::Cancel { id } => {
                self.cancel(at, id);
                None
            }
            Request::Stats { id, flow } => Some(Reply::Stats { id, stats: self.stats_of(at, flow) }),
            Request::KeepAlive { flow, after } => {
                self.keep_alive(at, flow, after);
                None
            }
        };
        if let (Some(reply), Some(channel)) = (reply, self.channels.get_mut(at)) {
            channel.end.reply(reply);
        }
    }

    fn cancel(&mut self, at: ChannelIndex, id: u32) {
        let Some(channel) = self.channels.get(at) else { return };
        let index = channel.conns().find(|&index| self.is_opening(index, Origin::Dialled(id)));
        if let Some(index) = index {
            self.end_with(index, Reason::Canceled);
        }
    }

    pub fn is_opening(&self, index: ConnIndex, origin: Origin) -> bool {
        self.conns
            .get(index)
            .is_some_and(|conn| conn.who.origin == origin && matches!(conn.bound, Bound::Opening { .. }))
    }

    /// Resets a flow, and tells the application this reason.
    pub fn end_with(&mut self, index: ConnIndex, reason: Reason) {
        if let Some(conn) = self.conns.get_mut(index) {
            conn.reason = Some(reason);
            self.with(index, |flow, io| flow.reset(wire::Reason::Aborted, io));
        }
    }

    fn connect(
        &mut self,
        at: ChannelIndex,
        request: u32,
        peer: (Ipv4Addr, u16),
        local_port: u16,
        timeout_ms: u32,
    ) -> Result<(), Reason> {
        let (ip, port) = peer;
        if port == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
            return Err(Reason::Invalid);
        }
        let hop = self.router.next_hop(ip).ok_or(Reason::Unreachable)?;
        if self.ending.shutdown {
            return Err(self.ending());
        }
        let Some(channel) = self.channels.get(at) else { return Err(Reason::Invalid) };
        let (flows, is_group) = (channel.end.geometry().flows, channel.member.application.is_some());
        let asked = Asked::Dial { channel: channel.number, ip, port };
        if let Some(most) = self.most_flows() {
            return Err(self.full(Limit::EngineConnections, most, asked));
        }
        let Some((key, claimed)) = self.pick_local(peer, local_port)? else {
            return Err(self.full(Limit::Ports, self.ports_to_give().count().into(), asked));
        };
        let opened = self.channels.get_mut(at).and_then(|channel| channel.open_flow(self.clock.now));
        let Some(id) = opened else {
            if claimed {
                self.shared().ports.claims.release(key);
            }
            if is_group {
                // It tries another of its channels, or attaches one: nothing to warn of.
                self.counters().full_connections.add(1);
                return Err(Reason::Full(Limit::Connections, flows));
            }
            return Err(self.full(Limit::Connections, flows, asked));
        };
        let mut setup = self.setup(key.local_port(), port, None);
        let contact = match hop {
            NextHop::Loop => Contact::LOCAL,
            _ => self.first_contact(peer, setup.hello.tag),
        };
        setup.syns = contact.syns;
        setup.hello.mirrored = contact.form == Form::Mirrored;
        let origin = Origin::Dialled(request);
        let birth = Birth { key, channel: at, id, origin, hop, claimed, contact };
        let timeout = match timeout_ms {
            0 => self.shared().connect_timeout(),
            ms => Nanos::millis(ms.into()),
        };
        let flow = Flow::connect(self.clock.now, Arc::clone(&self.shared().flow), setup, timeout);
        self.begin(birth, flow);
        Ok(())
    }

    /// A SYN, or a good cookie in place of one, for a listener of this engine, which may share its port with others.
    pub fn accept(
        &mut self,
        key: ConnKey,
        owner: Owner,
        shared: bool,
        from: InPath,
        syn: &Packet<'_>,
        hello: &Hello,
    ) -> Result<(), Declined> {
        if let Some(limit) = self.most_flows() {
            return Err(Declined::Engine(limit));
        }
        let at = self.channels.find(owner.channel).ok_or(Declined::Gone)?;
        if self.is_full(at, owner.listener) {
            return Err(Declined::Backlog);
        }
        let now = self.clock.now;
        if let Some(full) = self.channels.get_mut(at).and_then(|channel| channel.full(now)) {
            return Err(Declined::Channel(full));
        }
        let Some(hop) = self.router.next_hop(from.peer) else {
            // Nor is there a way for an answer.
            self.counters().control_dropped.add(1);
            return Ok(());
        };
        // Applications of this host are where they say they are.
        let unproven = hop != NextHop::Loop && !brings_cookie(syn);
        if unproven
            && !self.shared().config.rss.paper
            && self.channels.get(at).is_some_and(|channel| channel.is_wary(owner.listener))
        {
            return Err(Declined::Unproven);
        }
        let mut setup = self.setup(syn.header.dst, syn.header.src, Some(from));
        let contact = match hop {
            NextHop::Loop => Contact::LOCAL,
            _ => self.answer_contact(from, hello),
        };
        setup.syns = contact.syns;
        let flow = Flow::accept(self.clock.now, self.clock.gap, Arc::clone(&self.shared().flow), setup, syn)
            .map_err(|_| Declined::Malformed)?;
        let Some(channel) = self.channels.get_mut(at) else { return Err(Declined::Gone) };
        if !channel.listeners.contains_key(&owner.listener) {
            return Err(Declined::Gone);
        }
        let claims = &self.own.shared().ports.claims;
        if shared && !claims.claim(key, self.own.index()) {
            return Err(Declined::Claimed);
        }
        let Some(id) = channel.open_flow(now) else {
            if shared {
                claims.release(key);
            }
            return Err(Declined::Gone);
        };
        channel.take_place(id, owner.listener, unproven);
        let birth = Birth {
            key,
            channel: at,
            id,
            origin: Origin::Accepted(owner.listener),
            hop,
            claimed: shared,
            contact,
        };
        self.begin(birth, flow);
        Ok(())
    }

    fn begin(&mut self, birth: Birth, flow: Flow<Outgoing, HeldUnit>) {
        let (ip, _) = birth.key.peer();
        let rss = self.begin_rss(&birth.contact);
        let path = self.router.begin_path(ip, birth.hop, &birth.contact, rss, self.clock.now);
        let conn = Conn {
            flow,
            who: Who {
                key: birth.key,
                origin: birth.origin,
                peer: self.conns.peers.acquire(ip, self.clock.now),
                released: false,
            },
            bound: Bound::Opening { channel: birth.channel, id: birth.id },
            scheduled: Nanos::MAX,
            queued: false,
            claim: Claim::new(birth.channel, (!path.is_local()).then_some(self.router.queue)),
            path,
            deficit: 0,
            stalls: self.clock.stalls,
            claimed: birth.claimed,
            reason: None,
        };
        let Some(index) = self.conns.insert(conn) else { return };
        if let Some(channel) = self.channels.get_mut(birth.channel) {
            channel.name(birth.id, index);
        }
        self.with(index, |_, _| ());
    }

    /// Refuses what would be one too many.
    pub fn full(&mut self, limit: Limit, bound: u32, asked: Asked) -> Reason {
        self.warnings.refuse(&self.own, limit, bound, asked, self.clock.now)
    }

    /// The most flows, where there are as many.
    fn most_flows(&self) -> Option<u32> {
        let most = self.shared().config.max_flows;
        (self.conns.len() >= most).then_some(most.try_into().unwrap_or(u32::MAX))
    }

    /// Nothing new is begun any more.
    pub fn ending(&self) -> Reason {
        self.counters().refused_ending.add(1);
        Reason::Ending
    }

    /// The ports that this engine gives where none is named.
    fn ports_to_give(&self) -> Ports {
        Ports::of(self.own.index(), self.shared().engines())
    }

    /// A key with a local port: the one asked for, or a free one of this engine's share. True: it is claimed. `None`: there is
    /// none free.
    fn pick_local(
        &mut self,
        (ip, port): (Ipv4Addr, u16),
        local_port: u16,
    ) -> Result<Option<(ConnKey, bool)>, Reason> {
        let reversed_is_free = |router: &Router, local: u16| {
            // Both ends of a local connection live here; one port for both would be one key for two flows.
            ip != router.station.ip || local != port
        };
        if local_port != 0 {
            let key = ConnKey::new(ip, port, local_port);
            // One that is closed both ways and only repeats acknowledgements gives way.
            if let Some(old) = self.conns.find(key)
                && self.conns.get(old).is_some_and(|conn| conn.flow.is_lingering())
            {
                self.drop_flow(old);
            }
            if !reversed_is_free(&self.router, local_port)
                || self.conns.find(key).is_some()
                || !self.shared().ports.claims.claim(key, self.own.index())
            {
                return Err(Reason::InUse);
            }
            return Ok(Some((key, true)));
        }
        let (ports, now) = (self.ports_to_give(), self.clock.now);
        let Core { ephemeral, conns, router, own, .. } = self;
        let found = ephemeral.find(ports, (ip, port), now, |local| {
            let key = ConnKey::new(ip, port, local);
            conns.find(key).is_none() && reversed_is_free(router, local) && own.shared().ports.is_free(key)
        });
        Ok(found.map(|local| (ConnKey::new(ip, port, local), false)))
    }

    fn setup(&mut self, local_port: u16, remote_port: u16, came: Option<InPath>) -> Setup {
        let tag = self.random.tag(self.own.index(), self.own.shared().engines());
        let hello = self.router.hello(tag, came);
        Setup { local_port, remote_port, hello, first: Seq(self.random.draw() as u32), syns: Syns::ONE }
    }
}

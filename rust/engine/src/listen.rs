//! Listeners: how applications open and close them, and how a SYN finds one that has room.
//!
//! A SYN may arrive at any engine and goes to the engine of the listener whose turn it is (`ports.rs`). One that has no room passes it on
//! to the next of those that share the port, and only where none has room is the peer refused, or left to ask again.

use core::net::Ipv4Addr;

use machnet_shm::{Limit, MAX_LISTENERS, Origin, Reason, Reply};
use machnet_wire::{self as wire, Hello, Packet};

use crate::channel::Listener;
use crate::conn::Bound;
use crate::cookies::brings_cookie;
use crate::ephemeral::EPHEMERAL;
use crate::full::Asked;
use crate::ids::{ChannelIndex, ConnIndex, ConnKey, EngineIndex, Member};
use crate::path::InPath;
use crate::ports::{Destination, Full, Owner, Sharing};
use crate::state::Core;

/// How far a SYN has come on its way to a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The engine that it reached first; `None`: this one.
    pub reached: Option<EngineIndex>,
    /// Engines that passed it on.
    pub engines: u16,
    /// Listeners that had no room for it.
    pub declined: u16,
    /// Of these one will have room soon: its application has connections to take, or is attaching one more channel.
    pub waits: bool,
}

/// Why a listener does not take a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declined {
    /// As many connections as its backlog wait for it.
    Backlog,
    /// Its channel has as many connections as it may.
    Channel(Full),
    /// Its engine has as many connections as it may.
    Engine(u32),
    /// It remembers as many callers as it may that have proved nothing, and this is one more.
    Unproven,
    /// It is gone.
    Gone,
    /// Another engine was faster to claim the key.
    Claimed,
    /// The SYN is malformed.
    Malformed,
}

/// A request to listen.
pub(crate) struct Listen {
    pub id: u32,
    pub ip: Ipv4Addr,
    pub port: u16,
    pub backlog: u32,
    pub reuse_port: bool,
    pub group: bool,
}

impl Core {
    /// Opens a listener for the application of channel `at`.
    pub fn listen(&mut self, at: ChannelIndex, asked: Listen) -> Reply {
        let Listen { id, ip, port, backlog, reuse_port, group } = asked;
        let failed = |reason| Reply::ListenFailed { id, reason };
        let Some(channel) = self.channels.get_mut(at) else { return failed(Reason::Invalid) };
        if !ip.is_unspecified() && ip != self.router.station.ip {
            return failed(Reason::NotLocal);
        }
        let number = channel.number;
        if self.ending.shutdown {
            return failed(self.ending());
        }
        if channel.listeners.len() >= MAX_LISTENERS as usize {
            let asked = Asked::Listener { channel: number, port };
            return failed(self.full(Limit::Listeners, MAX_LISTENERS, asked));
        }
        if channel.listeners.contains_key(&id) || channel.closing.contains_key(&id) {
            return failed(Reason::Invalid);
        }
        let owner = Owner { engine: self.own.index(), channel: number, listener: id };
        let Member { user, application } = channel.member;
        let sharing =
            Sharing { user: reuse_port.then_some(user), application: application.filter(|_| group) };
        match self.own.shared().ports.listen(port, owner, sharing) {
            Some(port) => {
                channel
                    .listeners
                    .insert(id, Listener { port, sharing, backlog: backlog.max(1), waiting: 0, unproven: 0 });
                self.counters().listens.add(1);
                Reply::Listening { id, port }
            }
            None if port == 0 => {
                let asked = Asked::Listener { channel: number, port };
                failed(self.full(Limit::Ports, (u16::MAX - EPHEMERAL).into(), asked))
            }
            None if self.own.shared().ports.is_crowded(port, sharing) => {
                let asked = Asked::Listener { channel: number, port };
                failed(self.full(Limit::Listeners, MAX_LISTENERS, asked))
            }
            None => {
                self.counters().listens_refused.add(1);
                failed(Reason::InUse)
            }
        }
    }

    /// Closes a listener. Half-open connections have nobody to be announced to, unless its application goes on to listen on the port, at
    /// another channel: then their callers, who may know already that they are connected, are served as if it were open still. False: the
    /// application is to be told once they have come to be, since nothing comes after that.
    pub fn unlisten(&mut self, at: ChannelIndex, id: u32) -> bool {
        let Some(channel) = self.channels.get_mut(at) else { return true };
        // One that is closed already is told once.
        let Some(listener) = channel.unlisten(id) else { return !channel.closing.contains_key(&id) };
        let (number, conns) = (channel.number, channel.conns().collect::<Vec<_>>());
        let goes_on = self.shared().ports.unlisten(listener.port, number, id);
        let mut half_open = conns;
        half_open.retain(|&index| self.is_opening(index, Origin::Accepted(id)));
        if goes_on && !half_open.is_empty() {
            if let Some(channel) = self.channels.get_mut(at) {
                channel.closing.insert(id, half_open.len() as u32);
            }
            return false;
        }
        for index in half_open {
            if !self.leave_to_others(index) {
                self.with(index, |flow, io| flow.reset(wire::Reason::Refused, io));
            }
        }
        true
    }

    /// A half-open connection of a channel has come to be, or will not: tells the application of its listener, if that had waited for it
    /// alone.
    pub fn half_open_over(&mut self, at: ChannelIndex, origin: Origin) {
        let (Origin::Accepted(id), Some(channel)) = (origin, self.channels.get_mut(at)) else { return };
        let Some(left) = channel.closing.get_mut(&id) else { return };
        *left -= 1;
        if *left == 0 {
            channel.closing.remove(&id);
            channel.end.reply(Reply::Unlistened { id });
        }
    }

    /// Forgets a half-open connection whose port others go on to serve: a caller that has no answer yet asks again and meets one of them.
    /// False: it is something else.
    pub fn leave_to_others(&mut self, index: ConnIndex) -> bool {
        let leaves = self.conns.get(index).is_some_and(|conn| {
            matches!((conn.bound, conn.who.origin), (Bound::Opening { .. }, Origin::Accepted(_)))
                && self.shared().ports.is_open(conn.who.key.local_port())
        });
        if leaves {
            self.drop_flow(index);
        }
        leaves
    }

    /// A SYN of no flow of this engine, or a good cookie that stands for one. `passed`: how it got here.
    pub fn on_syn(&mut self, key: ConnKey, from: InPath, bytes: &[u8], syn: &Packet<'_>, mut passed: Passed) {
        let Ok(hello) = Hello::parse(syn.payload) else {
            return self.counters().rx_bad_machnet.add(1);
        };
        let refuse = |core: &mut Self, reason| {
            core.router.refuse(from, &syn.header, hello.tag, reason, core.clock.now);
        };
        if self.ending.shutdown {
            self.counters().refused_ending.add(1);
            return refuse(self, wire::Reason::Ending);
        }
        let (now, port) = (self.clock.now, key.local_port());
        let reached = *passed.reached.get_or_insert(self.own.index());
        let (mut full, mut full_engine) = (None, None);
        loop {
            let found = self.shared().ports.find(key, hello.tag, reached, passed.declined, full_engine, now);
            let (engine, listener) = match found {
                Destination::Nobody { waits, full: left_out } => {
                    passed.waits |= waits;
                    full = full.or(left_out.map(|(owner, bound)| (Limit::Connections, bound, owner)));
                    break;
                }
                Destination::Flow(engine) => (engine, None),
                Destination::Listener { owner, sharing, declined, waits } => {
                    passed.waits |= waits;
                    passed.declined = declined;
                    (owner.engine, Some((owner, sharing)))
                }
            };
            if engine != self.own.index() {
                return self.pass_on(engine, from, bytes, passed);
            }
            let Some((owner, sharing)) = listener else {
                // A claim goes with its flow, and there is none.
                return self.counters().rx_no_flow.add(1);
            };
            let shared = sharing != Sharing::NONE;
            match self.accept(key, owner, shared, from, syn, &hello) {
                Ok(()) => return self.counters().cookies_accepted.add(u64::from(brings_cookie(syn))),
                Err(Declined::Unproven) => return self.give_cookie(key, from, syn, &hello),
                Err(Declined::Claimed) => continue,
                Err(Declined::Malformed) => {
                    self.counters().syn_overflow.add(1);
                    return refuse(self, wire::Reason::Protocol);
                }
                Err(Declined::Gone) => {}
                Err(Declined::Backlog) => {
                    passed.waits = true;
                    if shared {
                        self.shared().ports.mark_full(port, owner, None, now);
                    }
                }
                Err(Declined::Channel(why)) => {
                    passed.waits |= sharing.application.is_some() && why.is_new(now);
                    let of_all =
                        if shared { self.shared().ports.mark_full(port, owner, Some(why), now) } else { 0 };
                    full = Some((Limit::Connections, of_all.max(why.bound), owner));
                }
                Err(Declined::Engine(bound)) => {
                    full_engine = Some(owner.engine);
                    full = Some((Limit::EngineConnections, bound, owner));
                }
            }
            passed.declined += 1;
        }
        if passed.waits {
            // Whoever gets a SYN-ACK has a place, and is served. This one asks again sooner than a place is missed.
            return self.counters().syn_backlog.add(1);
        }
        let reason = match full {
            Some((limit, bound, owner)) => {
                self.counters().syn_overflow.add(1);
                let (ip, port) = (from.peer, syn.header.dst);
                self.full(limit, bound, Asked::Connection { channel: owner.channel, ip, port });
                match limit {
                    Limit::EngineConnections => wire::Reason::EngineFull { limit: bound },
                    _ => wire::Reason::AppFull { limit: bound },
                }
            }
            None => {
                self.counters().syn_refused.add(1);
                wire::Reason::Refused
            }
        };
        refuse(self, reason);
    }

    /// Gives a SYN to another engine. One that meets changed listeners again and again is dropped, and the peer asks again.
    fn pass_on(&mut self, to: EngineIndex, from: InPath, bytes: &[u8], mut passed: Passed) {
        if passed.engines > passed.declined + CHANGES {
            return self.counters().rx_no_flow.add(1);
        }
        if passed.declined > 0 {
            self.counters().syn_passed_on.add(1);
        }
        passed.engines += 1;
        self.router.pass_on(to, from, bytes, passed);
    }
}

/// Changes of the listeners of a port that one SYN may meet.
const CHANGES: u16 = 4;

//! What leaves: connections that have something to send, in turn, and control frames.

use machnet_nic::Queue;
use machnet_shm::Reason;
use machnet_wire::Paths;

use crate::conn::Bound;
use crate::conns::{Turn, World};
use crate::engine::Engine;
use crate::ids::ConnHandle;
use crate::neighbor::Lookup;
use crate::path;
use crate::rss::{self, Detour, PairSource};
use crate::state::Core;
use crate::view::News;

impl<Q: Queue> Engine<Q> {
    /// Lets connections send in turn, while there is room. Returns packets built.
    ///
    /// They share by bytes (deficit round robin; Shreedhar and Varghese, SIGCOMM 1995): a turn ends when it has sent a
    /// quantum, be it in many small packets or in few large ones.
    #[inline]
    pub(crate) fn transmit(&mut self) -> usize {
        let mut sent = 0;
        if !self.core.router.send_waiting(&mut self.nic, &mut sent) {
            return self.transmit_local(sent);
        }
        while let Some(handle) = self.core.conns.next_ready() {
            match self.turn(handle, &mut sent) {
                Turn::Done | Turn::Waits(_) | Turn::Over | Turn::NoRoute => {}
                Turn::More => self.core.conns.ready_again(handle),
                Turn::NoRoom => {
                    self.core.conns.ready_first(handle);
                    break;
                }
            }
        }
        sent
    }

    /// The NIC takes nothing: connections within this host go on, and the others keep their order. A NIC may be full for long, when its
    /// link is held up.
    #[cold]
    fn transmit_local(&mut self, mut sent: usize) -> usize {
        for _ in 0..self.core.conns.ready_len().min(LOOKED_AT) {
            let Some(handle) = self.core.conns.next_ready() else { break };
            if self.core.conns.resolve(handle).is_some_and(|conn| !conn.path.is_local()) {
                self.core.conns.ready_again(handle);
                continue;
            }
            match self.turn(handle, &mut sent) {
                Turn::Done | Turn::Waits(_) | Turn::Over | Turn::NoRoute => {}
                Turn::More => self.core.conns.ready_again(handle),
                Turn::NoRoom => {
                    self.core.conns.ready_first(handle);
                    break;
                }
            }
        }
        sent
    }

    /// The turn of one connection.
    #[inline]
    fn turn(&mut self, handle: ConnHandle, sent: &mut usize) -> Turn {
        let Core { conns, router, channels, admission, clock, random, own, ending, .. } = &mut self.core;
        let (nic, burst) = (&mut self.nic, self.burst);
        let world = World { clock, channels, admission };
        let (mut news, mut missing) = (News::default(), Lookup::Asking);
        let called = conns.turn(handle, world, &mut news, ending.shutdown, |flow, io, deficit| {
            let route = match router.route(io.path, io.now()) {
                Ok(route) => route,
                Err(lookup) => {
                    missing = lookup;
                    return Turn::NoRoute;
                }
            };
            if *deficit <= 0 {
                // A turn begins; one that was interrupted goes on with what was left of it.
                *deficit += (burst * usize::from(router.mtu) / 2) as i32;
            }
            loop {
                if *deficit <= 0 {
                    return Turn::More;
                }
                if *sent >= burst * 2 {
                    return Turn::NoRoom;
                }
                // Looked at where it is: moved out, it would be copied.
                let mut next = flow.poll_transmit(io.now(), io);
                let Some(packet) = &mut next else { return Turn::Done };
                packet.header.backlog = router.backlog;
                if !rss::is_plain(packet) {
                    let Some(mut packet) = next.take() else { return Turn::Done };
                    let config = &own.shared().config;
                    let (ports, retry) = (&config.udp_ports, config.rss.search.retry);
                    let source = PairSource { random, ports, now: io.now(), retry };
                    let detour = Detour::of(&mut packet, io.path, source);
                    *deficit -= (path::frame_len(&packet) + Paths::ENTRY * detour.entries.len()) as i32;
                    *sent += 1;
                    let went = router.send_detour(nic, route.as_ref(), packet, &detour);
                    if detour.more {
                        flow.report_pairs();
                    }
                    if !went {
                        return Turn::NoRoom;
                    }
                    continue;
                }
                let len = path::frame_len(packet);
                *deficit -= len as i32;
                *sent += 1;
                if !router.send(nic, route.as_ref(), packet, len, io.units()) {
                    return Turn::NoRoom;
                }
            }
        });
        let Some(turn) = called else { return Turn::Done };
        match turn {
            Turn::Done | Turn::More | Turn::NoRoom => {}
            Turn::Waits(wait) => self.core.wait_for_credit(handle.index, wait),
            Turn::Over => self.core.drop_flow(handle.index),
            Turn::NoRoute => self.core.park(handle, missing),
        }
        if !news.is_none() {
            self.core.on_news(handle.index, news);
        }
        turn
    }
}

impl Core {
    /// The next hop is not known: the connection waits for it, or ends.
    #[cold]
    fn park(&mut self, handle: ConnHandle, lookup: Lookup) {
        let index = handle.index;
        let Some(conn) = self.conns.get(index) else { return };
        match conn.bound {
            // Over, and what it would still say cannot be said.
            Bound::Free => self.drop_flow(index),
            Bound::Opening { .. } if lookup == Lookup::Unreachable => {
                self.end_with(index, Reason::Unreachable);
                self.drop_flow(index);
            }
            Bound::Opening { .. } | Bound::Open { .. } => {
                self.conns.schedule(index);
                self.conns.park(handle);
            }
        }
    }
}

/// Connections that are looked at in a round in which the NIC takes nothing.
const LOOKED_AT: usize = 256;

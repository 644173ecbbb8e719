//! What leaves: connections that have something to send, in turn, and control frames.

use machnet_nic::Queue;
use machnet_shm::Reason;
use machnet_wire::Paths;

use crate::conn::Bound;
use crate::conns::{TurnEnd, World};
use crate::engine::Engine;
use crate::ids::{ConnHandle, ConnIndex};
use crate::neighbor::Lookup;
use crate::path;
use crate::rss::{self, Detour, PairSource};
use crate::state::Core;

/// How a connection's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has nothing more to send now.
    Done,
    /// It has, and waits for its next turn.
    More,
    /// The NIC, or the local loop, is full, or this round has sent enough; the turn goes on in the next.
    NoRoom,
}

impl<Q: Queue> Engine<Q> {
    /// Lets connections send in turn, while there is room. Returns packets built.
    ///
    /// They share by bytes (deficit round robin; Shreedhar and Varghese, SIGCOMM 1995): a turn ends when it has sent a
    /// quantum, be it in many small packets or in few large ones.
    #[inline]
    pub(crate) fn transmit(&mut self) -> usize {
        let mut sent = 0;
        if !self.core.router.send_waiting(&mut self.nic, &mut sent) {
            return sent;
        }
        while let Some(handle) = self.core.conns.next_ready() {
            match self.turn(handle, &mut sent) {
                Turn::Done => {}
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
        let Core { conns, router, channels, admission, clock, random, own, .. } = &mut self.core;
        let Some(conn) = conns.resolve_mut(handle) else { return Turn::Done };
        if !conn.queued {
            // It was filed twice (`Core::on_closed`) and has had its turn. Another one would file it again, without end.
            return Turn::Done;
        }
        let route = match router.route(&mut conn.path, clock.now) {
            Ok(route) => route,
            Err(lookup) => return self.core.park(handle, lookup),
        };
        let mut deficit = conn.deficit;
        if deficit <= 0 {
            // A turn begins; one that was interrupted goes on with what was left of it.
            deficit += (self.burst * usize::from(router.mtu) / 2) as i32;
        }
        let (nic, most) = (&mut self.nic, self.burst * 2);
        let world = World { clock, channels, admission };
        let called = conns.with(handle.index, world, |flow, io| {
            loop {
                if deficit <= 0 {
                    return Turn::More;
                }
                if *sent >= most {
                    return Turn::NoRoom;
                }
                let Some(mut packet) = flow.poll_transmit(io.now(), io) else { return Turn::Done };
                packet.header.backlog = router.backlog;
                if !rss::is_plain(&packet) {
                    let config = &own.shared().config;
                    let (ports, retry) = (&config.udp_ports, config.rss.search.retry);
                    let source = PairSource { random, ports, now: io.now(), retry };
                    let detour = Detour::of(&mut packet, io.path, source);
                    deficit -= (path::frame_len(&packet) + Paths::ENTRY * detour.entries.len()) as i32;
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
                let len = path::frame_len(&packet);
                deficit -= len as i32;
                *sent += 1;
                if !router.send(nic, route.as_ref(), &packet, len, io.units()) {
                    return Turn::NoRoom;
                }
            }
        });
        let Some((turn, news)) = called else { return Turn::Done };
        match turn {
            Turn::Done => self.core.end_turn(handle.index, deficit),
            Turn::More | Turn::NoRoom => {
                if let Some(conn) = self.core.conns.get_mut(handle.index) {
                    conn.deficit = deficit;
                }
            }
        }
        if !news.is_none() {
            self.core.on_news(handle.index, news);
        }
        turn
    }
}

impl Core {
    /// A connection has nothing more to send.
    #[inline]
    fn end_turn(&mut self, index: ConnIndex, deficit: i32) {
        match self.conns.end_turn(index, deficit, self.ending.shutdown) {
            TurnEnd::Done => {}
            TurnEnd::Waits(wait) => self.wait_for_credit(index, wait),
            TurnEnd::Over => self.drop_flow(index),
        }
    }

    /// The next hop is not known: the connection waits for it, or ends.
    #[cold]
    fn park(&mut self, handle: ConnHandle, lookup: Lookup) -> Turn {
        let index = handle.index;
        let Some(conn) = self.conns.get(index) else { return Turn::Done };
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
        Turn::Done
    }
}

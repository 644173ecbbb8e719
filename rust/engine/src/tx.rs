//! What leaves: flows that have something to send, in turn, and control frames.

use machnet_flow::{Body, CreditWait, Transmit};
use machnet_nic::{Offload, Queue};
use machnet_shm::{EngineEnd, Reason};
use machnet_wire::frame::{self, Route};

use crate::conn::{Bound, Hop, Token, View, Waits};
use crate::engine::Engine;
use crate::neighbor::Lookup;
use crate::packet::{Handed, Origin};
use crate::state::Core;

/// How a flow's turn ended.
enum Turn {
    /// It has nothing more to send now.
    Done,
    /// It has, and waits for its next turn.
    More,
    /// The NIC, or the local loop, is full, or this round has sent enough; the turn goes on in the next.
    NoRoom,
}

impl<Q: Queue> Engine<Q> {
    /// Lets flows send in turn, while there is room. Returns packets built.
    ///
    /// They share by bytes (deficit round robin; Shreedhar and Varghese, SIGCOMM 1995): a flow's turn ends when it has sent a
    /// quantum, be it in many small packets or in few large ones.
    #[inline]
    pub(crate) fn transmit(&mut self) -> usize {
        let mut sent = 0;
        if !self.send_waiting(&mut sent) {
            return sent;
        }
        while let Some(handle) = self.core.ready.pop_front() {
            let Some(index) = self.core.flows.resolve(handle) else { continue };
            match self.send_flow(index, handle, &mut sent) {
                Turn::Done => {}
                Turn::More => self.core.ready.push_back(handle),
                Turn::NoRoom => {
                    self.core.ready.push_front(handle);
                    break;
                }
            }
        }
        sent
    }

    /// Sends what waits from earlier: a flow's packet that found no descriptor, then control frames. False: no room.
    #[inline]
    fn send_waiting(&mut self, sent: &mut usize) -> bool {
        if let Some(built) = self.stash.take() {
            if self.nic.transmit(built.len(), Offload::Udp4, |out| out.copy_from_slice(&built)).is_err() {
                self.stash = Some(built);
                self.core.counters().tx_full.add(1);
                return false;
            }
            self.core.counters().tx_frames.add(1);
            *sent += 1;
        }
        while let Some(control) = self.core.control.pop_front() {
            let offload = if control.udp { Offload::Udp4 } else { Offload::None };
            let len = control.frame.len();
            if self.nic.transmit(len, offload, |out| out.copy_from_slice(&control.frame)).is_err() {
                self.core.control.push_front(control);
                self.core.counters().tx_full.add(1);
                return false;
            }
            self.core.counters().tx_frames.add(1);
            *sent += 1;
        }
        true
    }

    #[inline]
    fn send_flow(&mut self, index: u32, handle: u64, sent: &mut usize) -> Turn {
        let core = &mut self.core;
        let Some(hop) = core.flows.get(index).map(|conn| conn.hop) else { return Turn::Done };
        let hop = match hop {
            Hop::Loop => hop,
            Hop::Known { version, .. } if version == core.neighbor_version => hop,
            _ => match core.resolve(hop) {
                Ok(hop) => hop,
                Err(lookup) => return core.park(index, handle, lookup),
            },
        };
        let quantum = (self.burst * usize::from(self.core.mtu) / 2) as i64;
        if let Some(conn) = self.core.flows.get_mut(index)
            && conn.deficit <= 0
        {
            // A turn begins; one that was interrupted goes on with what was left of it.
            conn.deficit += quantum;
        }
        loop {
            let core = &mut self.core;
            let Some(conn) = core.flows.get_mut(index) else { return Turn::Done };
            if conn.deficit <= 0 {
                return Turn::More;
            }
            if *sent >= self.burst * 2 {
                return Turn::NoRoom;
            }
            conn.hop = hop;
            let lane = conn.bound.place().and_then(|(at, id)| {
                let channel = core.channels.get_mut(at as usize)?.as_mut()?;
                Some((&mut channel.end, id))
            });
            let mut view = View {
                lane,
                counters: &core.shared.inboxes[usize::from(core.index)].counts.engine,
                about: &conn.about,
                silent: conn.closed,
                peers: &core.peers,
                peer: conn.peer,
                gap: core.gap,
                phase: core.phase.now(),
                budget: (hop != Hop::Loop).then_some(&mut core.budget),
                promise: &mut conn.promise,
                established: false,
                closed: None,
            };
            let Some(mut packet) = conn.flow.poll_transmit(core.now, &mut view) else {
                return core.turn_ends(index);
            };
            packet.header.backlog = core.backlog;
            let len = packet.len();
            conn.deficit -= (frame::UDP_HEADERS + len) as i64;
            let end = match conn.bound.place() {
                Some((at, _)) => core.channels.get(at as usize).and_then(Option::as_ref).map(|c| &c.end),
                None => None,
            };
            *sent += 1;
            let counters = &core.shared.inboxes[usize::from(core.index)].counts.engine;
            let Hop::Known { mac, .. } = hop else {
                let mut bytes = core.spare.pop().unwrap_or_default();
                bytes.resize(len, 0);
                write(&packet, end, &mut bytes);
                counters.local_packets.add(1);
                core.looped.push_back(Handed { from: Origin { ip: core.ip, ports: (0, 0) }, bytes });
                if core.looped.len() >= LOOPED {
                    counters.local_full.add(1);
                    return Turn::NoRoom;
                }
                continue;
            };
            let route = Route {
                src_mac: core.mac,
                dst_mac: mac,
                src_ip: core.ip,
                dst_ip: conn.about.peer.0,
                src_port: conn.ports.0,
                dst_port: conn.ports.1,
            };
            let fill = |out: &mut [u8]| {
                let at = frame::emit_udp(&route, len, out);
                write(&packet, end, &mut out[at..]);
            };
            let total = frame::UDP_HEADERS + len;
            if self.nic.transmit(total, Offload::Udp4, fill).is_err() {
                // The flow counts it as sent, so it is built all the same and goes first in the next round.
                let mut built = vec![0; total];
                fill(&mut built);
                self.stash = Some(built);
                counters.tx_full.add(1);
                return Turn::NoRoom;
            }
            counters.tx_frames.add(1);
        }
    }
}

impl Core {
    /// A flow has nothing more to send: files its timer, or forgets it when that was all.
    #[inline]
    fn turn_ends(&mut self, index: u32) -> Turn {
        let Some(conn) = self.flows.get_mut(index) else { return Turn::Done };
        conn.queued = false;
        conn.deficit = conn.deficit.min(0);
        // A sidecar that ends does not stay to acknowledge repetitions.
        if conn.flow.is_done() || self.shutdown && conn.flow.is_lingering() {
            self.drop_flow(index);
            return Turn::Done;
        }
        if let Some(wait) = conn.flow.credit_wait()
            && (conn.waits == Waits::No || wait == CreditWait::Reader && conn.waits != Waits::Reader)
        {
            self.begin_waiting(index, wait);
        }
        self.schedule(index);
        Turn::Done
    }

    /// The next hop is not known: the flow waits for it, or ends.
    #[cold]
    fn park(&mut self, index: u32, handle: u64, lookup: Lookup) -> Turn {
        let Some(conn) = self.flows.get_mut(index) else { return Turn::Done };
        if conn.bound == Bound::Free {
            // Over, and what it would still say cannot be said.
            self.drop_flow(index);
            return Turn::Done;
        }
        if lookup == Lookup::Unreachable && matches!(conn.bound, Bound::Opening { .. }) {
            self.end_with(index, Reason::Unreachable);
            self.drop_flow(index);
            return Turn::Done;
        }
        self.schedule(index);
        self.waiting.push(handle);
        Turn::Done
    }

    /// Takes packets that go from one application of this host to another.
    #[inline]
    pub fn take_looped(&mut self, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let Some(Handed { from, bytes }) = self.looped.pop_front() else { break };
            taken += 1;
            self.on_machnet(from, &bytes, crate::rx::Came::Here);
            if self.spare.len() < LOOPED {
                self.spare.push(bytes);
            }
        }
        taken
    }

    /// Takes packets that other engines believe to be ours.
    #[inline]
    pub fn take_handed(&mut self, most: usize) -> usize {
        // An empty queue is told by two loads; `pop` would fence.
        if self.shared.inboxes[usize::from(self.index)].packets.is_empty() {
            return 0;
        }
        let mut taken = 0;
        while taken < most {
            let Some(Handed { from, bytes }) = self.shared.inboxes[usize::from(self.index)].packets.pop()
            else {
                break;
            };
            taken += 1;
            self.counters().handover_in.add(1);
            self.on_machnet(from, &bytes, crate::rx::Came::Handed);
            // A full store of spares is no loss.
            let _ = self.shared.inboxes[usize::from(self.index)].spare.push(bytes);
        }
        taken
    }
}

/// Writes one Machnet packet: header, SACK words, and what follows them.
#[inline]
fn write(packet: &Transmit<'_, Token>, end: Option<&EngineEnd>, out: &mut [u8]) {
    let at = packet.header.emit(packet.sack, out);
    let out = &mut out[at..];
    match &packet.body {
        Body::None => {}
        Body::Unit { tx: Token::Unit(unit), offset, len } => {
            if let Some(end) = end {
                end.read_tx(unit, *offset as usize, &mut out[..*len as usize]);
            }
        }
        Body::Unit { .. } => {}
        Body::Hello(hello) => out.copy_from_slice(&hello.emit()),
        Body::Reset(reset) => out.copy_from_slice(&reset.emit()),
    }
}

/// Local packets that may wait.
const LOOPED: usize = 256;

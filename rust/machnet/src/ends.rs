//! The ends of the shared channel as the two directions see them.
use crate::code::*;
use crate::conns::{handle, index};
use crate::inbox::{Inline, Kind, Units};
use crate::outbox::Submit;
use crate::rx;
use crate::rx::ReceiveHalf;
use crate::tx::SendHalf;
use crate::types::{machnet_conn, machnet_peer, machnet_ring_view};
use core::mem::MaybeUninit;
use machnet_shm::{
    Delivery, FlowId, Fragment, Limit, PeerFault, Reason, Reply, Request, RingView, Rx, RxToken, Tx,
};

/// The receiving end.
pub struct DeliverEnd {
    rx: Rx,
    fault: Option<PeerFault>,
}

/// The sending end.
pub struct SubmitEnd {
    tx: Tx,
    fault: Option<PeerFault>,
    /// Something was submitted since the engine was rung last.
    dirty: bool,
}

impl DeliverEnd {
    /// Around the shared one.
    pub fn new(rx: Rx) -> Self {
        Self { rx, fault: None }
    }

    /// What the sidecar wrote that no sidecar writes; nothing is taken from the rings after that.
    #[inline]
    pub fn fault(&self) -> Option<PeerFault> {
        self.fault
    }

    /// The next reply.
    pub fn reply(&mut self) -> Option<Reply> {
        if self.fault.is_some() {
            return None;
        }
        self.rx.reply().unwrap_or_else(|fault| {
            self.fault = Some(fault);
            None
        })
    }

    /// Whether a delivery or a reply is there.
    pub fn ready(&self) -> bool {
        self.rx.ready()
    }

    /// Whether a request would find room.
    pub fn has_room(&self) -> bool {
        self.rx.has_room()
    }

    /// Arms the doorbell; false when there is something. See [`Rx::arm`].
    pub fn arm(&mut self, more: u32, requests_wait: impl FnOnce() -> bool) -> bool {
        self.rx.arm(more, requests_wait)
    }

    /// Takes that back.
    pub fn disarm(&mut self) {
        self.rx.disarm();
    }
}

impl Units for DeliverEnd {
    type Token = RxToken;

    #[inline]
    fn read(&self, token: RxToken, at: usize, out: &mut [MaybeUninit<u8>]) {
        self.rx.read_into(token, at, out);
    }

    #[inline]
    fn give_back(&mut self, token: RxToken) {
        self.rx.give_back(token);
    }
}

impl ReceiveHalf for DeliverEnd {
    #[inline]
    fn on_read_to_the_end(&mut self, conn: machnet_conn) {
        if self.fault.is_none() {
            self.rx.on_read_to_the_end(index(conn) as u32);
        }
    }

    fn accepted(&mut self, conn: machnet_conn) {
        if self.fault.is_none() {
            self.rx.accepted(flow(conn));
        }
    }

    #[inline]
    fn pop(&mut self, inline: &mut Inline) -> Option<rx::Delivery<RxToken>> {
        if self.fault.is_some() {
            return None;
        }
        let delivery = match self.rx.delivery() {
            Ok(delivery) => delivery?,
            Err(fault) => {
                self.fault = Some(fault);
                return None;
            }
        };
        let mark = |flow, kind, token| {
            rx::Delivery::Unit(rx::Unit { conn: conn(flow), kind, len: 0, inline: false, token })
        };
        Some(match delivery {
            Delivery::Data(data) => {
                inline.0 = data.inline;
                rx::Delivery::Unit(rx::Unit {
                    conn: conn(data.flow),
                    kind: Kind::Data(data.fragment),
                    len: data.len.into(),
                    inline: !data.token.has_buffer(),
                    token: data.token,
                })
            }
            Delivery::Aborted { flow, token } => mark(flow, Kind::Aborted, token),
            Delivery::Fin { flow, token } => mark(flow, Kind::Fin, token),
            Delivery::Established(made) => rx::Delivery::Established {
                conn: conn(made.flow),
                origin: made.origin,
                peer: machnet_peer {
                    local_ip: made.local.0.to_bits(),
                    remote_ip: made.peer.0.to_bits(),
                    local_port: made.local.1,
                    remote_port: made.peer.1,
                },
            },
            Delivery::Reset { flow, reason } => {
                rx::Delivery::Reset { conn: conn(flow), code: code_of(reason).0 }
            }
        })
    }
}

impl SubmitEnd {
    /// Around the shared one.
    pub fn new(tx: Tx) -> Self {
        Self { tx, fault: None, dirty: false }
    }

    /// As of the receiving end.
    #[inline]
    pub fn fault(&self) -> Option<PeerFault> {
        self.fault
    }

    /// Rings the engine, if it sleeps and something was submitted.
    #[inline]
    pub fn publish(&mut self) {
        if self.dirty {
            self.dirty = false;
            self.tx.flush();
        }
    }

    /// Whether completions are there.
    pub fn ready(&self) -> bool {
        self.tx.ready()
    }

    /// Arms the doorbell of this half; false when there are completions, the connection is over, or (with `room`) there is room for a
    /// request.
    pub fn arm(&mut self, conn: machnet_conn, room: bool) -> bool {
        self.tx.arm(flow(conn), room)
    }

    /// Takes that back.
    pub fn disarm(&mut self) {
        self.tx.disarm();
    }

    /// The doorbell of this half.
    pub fn doorbell(&self) -> i32 {
        self.tx.doorbell()
    }

    /// Sends a request; false when too many wait.
    pub fn request(&mut self, request: Request) -> bool {
        self.dirty = true;
        self.tx.request(request)
    }
}

impl Submit for SubmitEnd {
    #[inline]
    fn unit_size(&self) -> usize {
        self.tx.geometry().unit_size as usize
    }

    #[inline]
    fn free(&self, conn: machnet_conn) -> u32 {
        self.tx.tokens(flow(conn))
    }

    #[inline]
    fn has_free(&self, conn: machnet_conn, units: u32) -> bool {
        if units == 1 { self.tx.has_token(flow(conn)) } else { self.free(conn) >= units }
    }

    #[inline]
    fn under_way(&self, conn: machnet_conn) -> u32 {
        self.tx.under_way(flow(conn))
    }

    fn all_under_way(&self) -> u32 {
        self.tx.all_under_way()
    }

    fn reach(&self, conn: machnet_conn) -> u32 {
        self.tx.reach(flow(conn))
    }

    #[inline]
    fn data(&mut self, conn: machnet_conn, fragment: Fragment, bytes: &[u8]) -> bool {
        self.dirty = true;
        self.tx.data(flow(conn), fragment, bytes).is_ok()
    }

    fn abort(&mut self, conn: machnet_conn) -> bool {
        self.dirty = true;
        self.tx.abort(flow(conn)).is_ok()
    }

    fn fin(&mut self, conn: machnet_conn) -> bool {
        self.dirty = true;
        self.tx.fin(flow(conn)).is_ok()
    }
}

impl SendHalf for SubmitEnd {
    fn reclaim(&mut self) -> bool {
        if self.fault.is_some() || !self.tx.ready() {
            return false;
        }
        match self.tx.reclaim(|_| {}) {
            Ok(units) => units > 0,
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }

    #[inline]
    fn would_grow(&self, units: u32) -> bool {
        self.tx.would_grow(units)
    }

    #[inline]
    fn ended(&mut self, conn: machnet_conn) -> Option<i32> {
        match self.tx.ended(flow(conn)) {
            Ok(reason) => reason.map(|reason| code_of(reason).0),
            Err(fault) => {
                self.fault = Some(fault);
                Some(MACHNET_ENETDOWN)
            }
        }
    }

    fn close(&mut self, conn: machnet_conn) {
        self.dirty = true;
        self.tx.close(flow(conn));
    }

    fn reset(&mut self, conn: machnet_conn) {
        self.dirty = true;
        self.tx.reset(flow(conn));
    }
}

/// A shared view in the C ABI's struct.
pub fn view(of: RingView) -> machnet_ring_view {
    machnet_ring_view { slots: of.slots, head: of.head, mask: of.mask, stride: of.stride }
}

/// The code of a reason, and the limit that goes with it, or 0.
pub fn code_of(reason: Reason) -> (i32, u32) {
    let code = match reason {
        Reason::Full(limit, bound) => return (full(limit), bound),
        Reason::Refused => MACHNET_EREFUSED,
        Reason::Timeout => MACHNET_ETIMEDOUT,
        Reason::Reset | Reason::Gone => MACHNET_ERESET,
        Reason::Unreachable => MACHNET_EUNREACHABLE,
        Reason::InUse => MACHNET_EINUSE,
        Reason::NoResources => MACHNET_ENOBUFS,
        Reason::Canceled => MACHNET_ECANCELED,
        Reason::NotLocal => MACHNET_EADDR,
        Reason::Invalid => MACHNET_EINVAL,
        Reason::Protocol => MACHNET_EPROTO,
        Reason::NotPermitted => MACHNET_EACCES,
        Reason::Local => MACHNET_ECLOSED,
        Reason::Clean => 0,
        Reason::Ending => MACHNET_EENDING,
        Reason::PeerEnding => MACHNET_EPEER_ENDING,
    };
    (code, 0)
}

fn full(limit: Limit) -> i32 {
    match limit {
        Limit::Connections => MACHNET_EFULL_CONNS,
        Limit::EngineConnections => MACHNET_EFULL_ENGINE,
        Limit::Listeners => MACHNET_EFULL_LISTENERS,
        Limit::Ports => MACHNET_EFULL_PORTS,
        Limit::PeerConnections => MACHNET_EPEER_FULL_CONNS,
        Limit::PeerEngineConnections => MACHNET_EPEER_FULL_ENGINE,
    }
}

fn conn(flow: FlowId) -> machnet_conn {
    handle(flow.index, flow.generation)
}

/// The connection of a handle, as the channel names it.
pub fn flow(conn: machnet_conn) -> FlowId {
    FlowId { index: index(conn) as u32, generation: (conn >> 32) as u32 }
}

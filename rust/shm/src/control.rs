//! Requests of an application and the sidecar's replies. They are not ordered against data: what has to be travels in the submit and
//! deliver rings.

use crate::Reason;
use crate::fault::PeerFault;
use crate::layout::CONTROL_SLOTS;
use crate::memory::Region;
use crate::ring::{Consumer, Slots};
use crate::slot::{Head, kind};
use crate::sync::Ordering;
use core::net::Ipv4Addr;

/// What an application asks for. Ids are its own choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Listen at an address (0.0.0.0: the sidecar's) and a port (0: any). No more than `backlog` connections are begun or
    /// wait at a time until the application [has taken them](crate::Rx::accepted). A port has one listener, or several of one user
    /// that all ask to share it.
    Listen {
        /// Names the listener from now on.
        id: u32,
        /// Own address.
        ip: Ipv4Addr,
        /// Own port.
        port: u16,
        /// At least 1.
        backlog: u32,
        /// Whether other listeners of this user may have the port, too.
        reuse_port: bool,
    },
    /// Listen no more.
    Unlisten {
        /// The listener.
        id: u32,
    },
    /// Connect. Success is announced in the deliver ring, where no data can overtake it.
    Connect {
        /// Names the dial.
        id: u32,
        /// The other end's address.
        ip: Ipv4Addr,
        /// The other end's port.
        port: u16,
        /// Own port, or 0: any.
        local_port: u16,
        /// Milliseconds; 0: the sidecar's default.
        timeout_ms: u32,
    },
    /// Give a dial up. One answer to the dial still comes: that it failed, or that it was established just before.
    Cancel {
        /// The dial.
        id: u32,
    },
}

/// What the sidecar answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The listener listens.
    Listening {
        /// The listener.
        id: u32,
        /// Its port.
        port: u16,
    },
    /// It cannot.
    ListenFailed {
        /// The listener.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// It does not listen any more.
    Unlistened {
        /// The listener.
        id: u32,
    },
    /// No connection came of a dial.
    ConnectFailed {
        /// The dial.
        id: u32,
        /// Why.
        reason: Reason,
    },
}

impl Request {
    pub(crate) fn encode(self) -> Head {
        let head = |kind, a, b: Ipv4Addr, c, d| Head { kind, a, b: b.to_bits(), c, d, ..Head::default() };
        match self {
            Request::Listen { id, ip, port, backlog, reuse_port } => Head {
                flags: if reuse_port { REUSE_PORT } else { 0 },
                ..head(kind::LISTEN, id, ip, port.into(), backlog)
            },
            Request::Unlisten { id } => head(kind::UNLISTEN, id, Ipv4Addr::UNSPECIFIED, 0, 0),
            Request::Connect { id, ip, port, local_port, timeout_ms } => {
                head(kind::CONNECT, id, ip, u32::from(local_port) << 16 | u32::from(port), timeout_ms)
            }
            Request::Cancel { id } => head(kind::CANCEL, id, Ipv4Addr::UNSPECIFIED, 0, 0),
        }
    }

    #[cfg(feature = "engine")]
    pub(crate) fn decode(h: &Head) -> Result<Request, PeerFault> {
        let ip = Ipv4Addr::from_bits(h.b);
        Ok(match h.kind {
            kind::LISTEN => {
                if h.c > 0xffff {
                    return Err(PeerFault::Bound { what: "port to listen at", value: h.c, bound: 0x10000 });
                }
                if h.flags & !REUSE_PORT != 0 {
                    let what = "flags of a request to listen";
                    return Err(PeerFault::Bound {
                        what,
                        value: h.flags.into(),
                        bound: u32::from(REUSE_PORT) + 1,
                    });
                }
                let reuse_port = h.flags & REUSE_PORT != 0;
                Request::Listen { id: h.a, ip, port: h.c as u16, backlog: h.d, reuse_port }
            }
            kind::UNLISTEN => Request::Unlisten { id: h.a },
            kind::CONNECT => Request::Connect {
                id: h.a,
                ip,
                port: h.c as u16,
                local_port: (h.c >> 16) as u16,
                timeout_ms: h.d,
            },
            kind::CANCEL => Request::Cancel { id: h.a },
            kind => return Err(PeerFault::Kind { ring: "request", kind }),
        })
    }
}

impl Reply {
    #[cfg(feature = "engine")]
    pub(crate) fn encode(self) -> Head {
        let head = |kind, a, (b, c)| Head { kind, a, b, c, ..Head::default() };
        match self {
            Reply::Listening { id, port } => head(kind::LISTEN, id, (0, port.into())),
            Reply::ListenFailed { id, reason } => head(kind::LISTEN_FAILED, id, reason.to_words()),
            Reply::Unlistened { id } => head(kind::UNLISTEN, id, (0, 0)),
            Reply::ConnectFailed { id, reason } => head(kind::CANCEL, id, reason.to_words()),
        }
    }

    pub(crate) fn decode(h: &Head) -> Result<Reply, PeerFault> {
        let reason = || Reason::checked(h.b, h.c);
        Ok(match h.kind {
            kind::LISTEN => Reply::Listening { id: h.a, port: h.c as u16 },
            kind::LISTEN_FAILED => Reply::ListenFailed { id: h.a, reason: reason()? },
            kind::UNLISTEN => Reply::Unlistened { id: h.a },
            kind::CANCEL => Reply::ConnectFailed { id: h.a, reason: reason()? },
            kind => return Err(PeerFault::Kind { ring: "reply", kind }),
        })
    }
}

/// Flag of LISTEN.
const REUSE_PORT: u8 = 1;

/// Whether a control ring has room, by what its consumer says it took. If it lies, it harms only itself: in a ring
/// that it calls emptier than it is, slots meant for it are overwritten.
pub(crate) fn has_room(written: u32, region: &Region, taken_at: usize) -> bool {
    let taken = region.word(taken_at).load(Ordering::Acquire);
    written.wrapping_sub(taken) < CONTROL_SLOTS
}

/// Takes a slot of a control ring and publishes that there is room. The caller rings the producer if it waits for [`crate::sleep::ROOM`].
pub(crate) fn take<S: Slots>(ring: &mut Consumer<S>, region: &Region, taken_at: usize) -> Option<Head> {
    let record = ring.pop()?;
    region.word(taken_at).store(ring.taken(), Ordering::Release);
    Some(record.head)
}

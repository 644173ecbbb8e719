//! Requests of an application and the sidecar's replies. They are not ordered against data: what has to be travels in the submit and
//! deliver rings.

use crate::fault::PeerFault;
use crate::layout::CONTROL_SLOTS;
use crate::memory::Region;
use crate::ring::{Consumer, Slots};
use crate::slot::{Head, INLINE, Record, kind};
use crate::sync::Ordering;
use crate::{FlowId, FlowStats, Reason};
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
        /// Whether other listeners of this application may, on whichever of its channels.
        group: bool,
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
    /// Tell about a connection that was announced. One answer comes.
    Stats {
        /// Names the question.
        id: u32,
        /// The connection.
        flow: FlowId,
    },
    /// From now on ask the peer of a connection after so much silence whether it lives. No answer comes; of a connection that is over it
    /// means nothing.
    KeepAlive {
        /// The connection.
        flow: FlowId,
        /// How long.
        after: KeepAlive,
    },
}

/// After how much silence the peer of a connection is asked whether it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepAlive {
    /// As the sidecar does with all.
    Default,
    /// Never: a peer that has gone is found out by the next thing sent to it.
    Never,
    /// After so many milliseconds, [`KeepAlive::LEAST_MS`] to [`KeepAlive::MOST_MS`].
    Millis(u32),
}

impl KeepAlive {
    /// The shortest silence, milliseconds.
    pub const LEAST_MS: u32 = 10;
    /// The longest, milliseconds.
    pub const MOST_MS: u32 = 600_000;

    /// From the word that stands for it: 0 never, `u32::MAX` the sidecar's own, else milliseconds; `None` where those are out of range.
    pub fn from_word(word: u32) -> Option<KeepAlive> {
        match word {
            0 => Some(KeepAlive::Never),
            u32::MAX => Some(KeepAlive::Default),
            Self::LEAST_MS..=Self::MOST_MS => Some(KeepAlive::Millis(word)),
            _ => None,
        }
    }

    fn to_word(self) -> u32 {
        match self {
            KeepAlive::Default => u32::MAX,
            KeepAlive::Never => 0,
            KeepAlive::Millis(ms) => ms,
        }
    }
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
    /// What there is to tell about a connection.
    Stats {
        /// The question.
        id: u32,
        /// `None`: there is no such connection any more.
        stats: Option<FlowStats>,
    },
}

impl Request {
    pub(crate) fn encode(self) -> Head {
        let head = |kind, a, b: Ipv4Addr, c, d| Head { kind, a, b: b.to_bits(), c, d, ..Head::default() };
        match self {
            Request::Listen { id, ip, port, backlog, reuse_port, group } => Head {
                flags: if reuse_port { REUSE_PORT } else { 0 } | if group { GROUP } else { 0 },
                ..head(kind::LISTEN, id, ip, port.into(), backlog)
            },
            Request::Unlisten { id } => head(kind::UNLISTEN, id, Ipv4Addr::UNSPECIFIED, 0, 0),
            Request::Connect { id, ip, port, local_port, timeout_ms } => {
                head(kind::CONNECT, id, ip, u32::from(local_port) << 16 | u32::from(port), timeout_ms)
            }
            Request::Cancel { id } => head(kind::CANCEL, id, Ipv4Addr::UNSPECIFIED, 0, 0),
            Request::Stats { id, flow } => Head { kind: kind::STATS, a: id, ..Head::of(flow) },
            Request::KeepAlive { flow, after } => {
                Head { kind: kind::OPTION, a: KEEP_ALIVE, b: after.to_word(), ..Head::of(flow) }
            }
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
                let (value, bound) = (h.flags.into(), u32::from(REUSE_PORT | GROUP) + 1);
                if value >= bound {
                    return Err(PeerFault::Bound { what: "flags of a request to listen", value, bound });
                }
                let (reuse_port, group) = (h.flags & REUSE_PORT != 0, h.flags & GROUP != 0);
                Request::Listen { id: h.a, ip, port: h.c as u16, backlog: h.d, reuse_port, group }
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
            kind::STATS => Request::Stats { id: h.a, flow: h.flow_id() },
            kind::OPTION => {
                if h.a != KEEP_ALIVE {
                    return Err(PeerFault::Bound {
                        what: "option of a connection",
                        value: h.a,
                        bound: KEEP_ALIVE + 1,
                    });
                }
                let bound = KeepAlive::MOST_MS;
                let after = KeepAlive::from_word(h.b).ok_or(PeerFault::Bound {
                    what: "milliseconds of silence",
                    value: h.b,
                    bound,
                })?;
                Request::KeepAlive { flow: h.flow_id(), after }
            }
            kind => return Err(PeerFault::Kind { ring: "request", kind }),
        })
    }
}

impl Reply {
    #[cfg(feature = "engine")]
    pub(crate) fn encode(self) -> Record {
        let head = |kind, a, (b, c)| Head { kind, a, b, c, ..Head::default() };
        let head = match self {
            Reply::Listening { id, port } => head(kind::LISTEN, id, (0, port.into())),
            Reply::ListenFailed { id, reason } => head(kind::LISTEN_FAILED, id, reason.to_words()),
            Reply::Unlistened { id } => head(kind::UNLISTEN, id, (0, 0)),
            Reply::ConnectFailed { id, reason } => head(kind::CANCEL, id, reason.to_words()),
            Reply::Stats { id, stats: None } => head(kind::STATS, id, (0, 0)),
            Reply::Stats { id, stats: Some(stats) } => {
                let head = Head { len: INLINE as u16, ..head(kind::STATS, id, (0, 0)) };
                return Record { head, inline: stats.encode() };
            }
        };
        Record { head, inline: [0; INLINE] }
    }

    pub(crate) fn decode(record: &Record) -> Result<Reply, PeerFault> {
        let h = &record.head;
        let reason = || Reason::checked(h.b, h.c);
        Ok(match h.kind {
            kind::LISTEN => Reply::Listening { id: h.a, port: h.c as u16 },
            kind::LISTEN_FAILED => Reply::ListenFailed { id: h.a, reason: reason()? },
            kind::UNLISTEN => Reply::Unlistened { id: h.a },
            kind::CANCEL => Reply::ConnectFailed { id: h.a, reason: reason()? },
            kind::STATS => Reply::Stats {
                id: h.a,
                stats: match usize::from(h.len) {
                    0 => None,
                    INLINE => Some(FlowStats::decode(&record.inline)?),
                    _ => {
                        let (value, bound) = (h.len.into(), INLINE as u32);
                        return Err(PeerFault::Bound { what: "bytes of a record", value, bound });
                    }
                },
            },
            kind => return Err(PeerFault::Kind { ring: "reply", kind }),
        })
    }
}

/// Flags of LISTEN.
const REUSE_PORT: u8 = 1;
const GROUP: u8 = 2;
/// The option of OPTION that there is.
const KEEP_ALIVE: u32 = 1;

/// Whether a control ring has room, by what its consumer says it took. If it lies, it harms only itself: in a ring
/// that it calls emptier than it is, slots meant for it are overwritten.
pub(crate) fn has_room(written: u32, region: &Region, taken_at: usize) -> bool {
    let taken = region.word(taken_at).load(Ordering::Acquire);
    written.wrapping_sub(taken) < CONTROL_SLOTS
}

/// Takes a slot of a control ring and publishes that there is room. The caller rings the producer if it waits for [`crate::sleep::ROOM`].
pub(crate) fn take<S: Slots>(ring: &mut Consumer<S>, region: &Region, taken_at: usize) -> Option<Record> {
    let (head, slot) = ring.pop_head()?;
    let mut inline = [0; INLINE];
    if head.kind == kind::STATS {
        ring.inline(slot, usize::from(head.len).min(INLINE), &mut inline);
    }
    region.word(taken_at).store(ring.taken(), Ordering::Release);
    Some(Record { head, inline })
}

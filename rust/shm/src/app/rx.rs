//! The half that receives, and the tokens that it gives back.

use super::view::{WaitView, view, waits};
use crate::channel::{ChannelRef, head as heads};
use crate::control::{Reply, has_room, take};
use crate::doorbell::Rung;
use crate::fault::PeerFault;
use crate::layout::{Geometry, MAX_MESSAGE, word};
use crate::ring::{Consumer, Producer};
use crate::sleep;
use crate::slot::{ACCEPTED, Batch, Entry, Head, INLINE, NO_BUFFER, kind};
use crate::slots::SharedSlots;
use crate::sync::Ordering;
use crate::{Established, FlowId, Fragment, Origin, Reason};
use core::mem::MaybeUninit;
use core::net::Ipv4Addr;

/// The half that receives. One thread at a time.
pub struct Rx {
    channel: ChannelRef,
    geometry: Geometry,
    deliver: Consumer<SharedSlots>,
    returns: Producer<SharedSlots>,
    replies: Consumer<SharedSlots>,
    /// Looked at before sleeping; [`Tx`] consumes it.
    complete: SharedSlots,
    return_batch: Batch,
    /// Tokens in it.
    returned: u32,
    /// Units that each connection has for its own.
    own: u32,
}

/// Something delivered, checked.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    /// A connection is there.
    Established(Established),
    /// One unit of a message.
    Data(Data),
    /// The message under way was given up by its sender. The token goes back by [`Rx::give_back`].
    Aborted {
        /// The connection.
        flow: FlowId,
        /// The token.
        token: RxToken,
    },
    /// The peer sends no more. The token goes back by [`Rx::give_back`].
    Fin {
        /// The connection.
        flow: FlowId,
        /// The token.
        token: RxToken,
    },
    /// The connection is over.
    Reset {
        /// The connection.
        flow: FlowId,
        /// Why.
        reason: Reason,
    },
}

/// A unit received.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// The connection.
    pub flow: FlowId,
    /// Its place in the message.
    pub fragment: Fragment,
    /// Its bytes.
    pub len: u16,
    /// Its token, to be given back when the bytes are no longer needed.
    pub token: RxToken,
    /// The bytes themselves, where the token has no buffer.
    pub inline: [u8; INLINE],
}

/// What a received unit holds of the engine's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxToken {
    flow: u32,
    buffer: u32,
}

impl RxToken {
    /// Whether the bytes are in a buffer of the channel's, to be read by [`Rx::read`].
    pub fn has_buffer(&self) -> bool {
        self.buffer != NO_BUFFER
    }
}

/// After so many tokens the engine gets them without waiting for more.
const RETURN_BATCH: u32 = 8;

impl Rx {
    pub(super) fn new(channel: ChannelRef) -> Rx {
        let g = channel.geometry();
        Rx {
            deliver: Consumer::new(SharedSlots::new(&channel, |map| map.deliver)),
            returns: Producer::new(SharedSlots::new(&channel, |map| map.returns)),
            replies: Consumer::new(SharedSlots::new(&channel, |map| map.replies)),
            complete: SharedSlots::new(&channel, |map| map.complete),
            return_batch: Batch::new(),
            returned: 0,
            own: g.own(),
            geometry: g,
            channel,
        }
    }

    /// The sizes of the channel.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Takes the next delivery. When there is none, the tokens given back so far go to the engine.
    #[inline]
    pub fn delivery(&mut self) -> Result<Option<Delivery>, PeerFault> {
        let Some((head, slot)) = self.deliver.pop_head() else {
            self.flush_returns();
            return Ok(None);
        };
        self.channel.head(heads::DELIVER).store(self.deliver.taken(), Ordering::Relaxed);
        self.check(head, slot).map(Some)
    }

    #[inline]
    fn check(&self, head: Head, slot: u32) -> Result<Delivery, PeerFault> {
        let flow = head.flow_id();
        if flow.index >= self.geometry.flows || flow.generation == 0 {
            return Err(PeerFault::Flow { index: flow.index, generation: flow.generation });
        }
        let token = RxToken { flow: flow.index, buffer: NO_BUFFER };
        match head.kind {
            kind::DATA => {
                let len = u32::from(head.len);
                let bound = if head.a == NO_BUFFER { INLINE as u32 } else { self.geometry.unit_size };
                if len > bound {
                    return Err(PeerFault::Bound { what: "length of a unit", value: len, bound });
                }
                if head.a != NO_BUFFER && head.a >= self.geometry.units {
                    return Err(PeerFault::Buffer { index: head.a });
                }
                if head.b > MAX_MESSAGE {
                    return Err(PeerFault::Bound {
                        what: "length of a message",
                        value: head.b,
                        bound: MAX_MESSAGE,
                    });
                }
                let token = RxToken { flow: flow.index, buffer: head.a };
                let mut inline = [0; INLINE];
                if head.a == NO_BUFFER {
                    self.deliver.inline(slot, len as usize, &mut inline);
                }
                Ok(Delivery::Data(Data { flow, fragment: head.fragment(), len: head.len, token, inline }))
            }
            kind::ABORT => Ok(Delivery::Aborted { flow, token }),
            kind::FIN => Ok(Delivery::Fin { flow, token }),
            kind::RESET => Ok(Delivery::Reset { flow, reason: Reason::checked(head.a, head.b)? }),
            kind::ESTABLISHED => {
                let origin = if head.flags & ACCEPTED != 0 {
                    Origin::Accepted(head.a)
                } else {
                    Origin::Dialled(head.a)
                };
                let (local, peer) = ((head.d >> 16) as u16, head.d as u16);
                let address = Ipv4Addr::from_bits;
                Ok(Delivery::Established(Established {
                    flow,
                    origin,
                    local: (address(head.b), local),
                    peer: (address(head.c), peer),
                }))
            }
            kind => Err(PeerFault::Kind { ring: "deliver", kind }),
        }
    }

    /// Copies bytes of a unit that has a buffer, from `at` on. Reads within the buffer only.
    #[inline]
    pub fn read(&self, token: RxToken, at: usize, out: &mut [u8]) {
        if let Some(from) = self.within_buffer(token, at, out.len()) {
            self.channel.region().read(from, out);
        }
    }

    /// The same, to memory that need not be initialised.
    #[inline]
    pub fn read_into(&self, token: RxToken, at: usize, out: &mut [MaybeUninit<u8>]) {
        if let Some(from) = self.within_buffer(token, at, out.len()) {
            self.channel.region().read_into(from, out);
        }
    }

    /// Where `len` bytes of the token's buffer are, from `at` on. `None`: it has no buffer, or they reach beyond it, which is a fault of
    /// the caller's, and harmless.
    #[inline]
    fn within_buffer(&self, token: RxToken, at: usize, len: usize) -> Option<usize> {
        let stride = self.geometry.stride();
        if token.buffer >= self.geometry.units || at > stride || len > stride - at {
            return None;
        }
        Some(self.channel.map().rx_pool + token.buffer as usize * stride + at)
    }

    /// Gives a token back. Tokens go to the engine eight at a time, or when nothing more is there to be received, or by
    /// [`Rx::on_read_to_the_end`].
    #[inline]
    pub fn give_back(&mut self, token: RxToken) {
        let entry = if token.buffer == NO_BUFFER {
            Entry::Inline { flow: token.flow, count: 1 }
        } else {
            Entry::Buffer(token.buffer)
        };
        self.returned += 1;
        if self.return_batch.add(entry) || self.returned >= RETURN_BATCH.min(self.geometry.quota()) {
            self.flush_returns();
        }
    }

    /// A receive has left this connection with nothing to read. If the tokens gathered are as many as a connection has for its own, they
    /// go to the engine now, so that the peer can go on sending even if nobody ever receives on this channel again; while they are fewer,
    /// at least one of the connection's own is free. Where its next unit is in the ring already, a receive will take that, and the tokens
    /// may wait for it.
    #[inline]
    pub fn on_read_to_the_end(&mut self, flow: u32) {
        if self.returned >= self.own && self.deliver.peek().is_none_or(|next| next.flow != flow) {
            self.flush_returns();
        }
    }

    /// Hands the tokens gathered to the engine.
    #[inline]
    pub fn flush_returns(&mut self) {
        if self.returned == 0 {
            return;
        }
        let (head, inline) = self.return_batch.take();
        self.returned = 0;
        self.returns.push(&head, &inline[..usize::from(head.len) * 8]);
        self.channel.ring_if_armed(sleep::TOKENS);
    }

    /// Says that the application has taken a connection of a listener's: its place in the backlog is another's. Once for
    /// each. Nobody is rung: the engine looks when it wants a place.
    pub fn accepted(&mut self, flow: FlowId) {
        self.returns.push(&Head { kind: kind::ACCEPTED, ..Head::of(flow) }, &[]);
    }

    /// Takes the next reply.
    pub fn reply(&mut self) -> Result<Option<Reply>, PeerFault> {
        let Some(record) = take(&mut self.replies, self.channel.region(), word::REPLIES_TAKEN) else {
            return Ok(None);
        };
        self.channel.head(heads::REPLIES).store(self.replies.taken(), Ordering::Relaxed);
        self.channel.ring_if_armed(sleep::ROOM);
        Reply::decode(&record).map(Some)
    }

    /// Whether a delivery or a reply waits.
    #[inline]
    pub fn ready(&self) -> bool {
        self.deliver.ready() || self.replies.ready()
    }

    /// Whether another request would find room.
    pub fn has_room(&self) -> bool {
        let written = self.channel.head(heads::REQUESTS).load(Ordering::Relaxed);
        has_room(written, self.channel.region(), word::REQUESTS_TAKEN)
    }

    /// Before sleeping on [`Rx::doorbell`]: true when no delivery and no reply waits, nor what `more` asks for, and the next
    /// such thing will ring. `more` is [`sleep::TOKENS`] for completions, [`sleep::ROOM`] for room for a request, both or
    /// neither; what it does not name does not ring. Room is usually there: it counts only where a request waits for it, which is
    /// asked of `requests_wait` once armed, so that one that begins to wait in another thread is seen or rung for.
    pub fn arm(&mut self, more: u32, requests_wait: impl FnOnce() -> bool) -> bool {
        self.flush_returns();
        self.channel.arm(sleep::EVENTS | more, || {
            self.ready()
                || more & sleep::TOKENS != 0 && waits(&self.channel, &self.complete, heads::COMPLETE)
                || more & sleep::ROOM != 0 && requests_wait() && self.has_room()
        })
    }

    /// After sleeping.
    pub fn disarm(&self) {
        self.channel.disarm(sleep::RECEIVER);
    }

    /// The descriptor to poll for input; it hangs up when the sidecar is gone.
    pub fn doorbell(&self) -> i32 {
        self.channel.doorbell()
    }

    /// Empties the doorbell. False: the sidecar's end is closed.
    pub fn drain_doorbell(&self) -> bool {
        self.channel.drain() != Rung::HungUp
    }

    /// Where a waiter may look for deliveries and replies.
    pub fn view(&self) -> WaitView {
        WaitView {
            deliver: view(&self.channel, &self.deliver, heads::DELIVER),
            replies: view(&self.channel, &self.replies, heads::REPLIES),
        }
    }
}

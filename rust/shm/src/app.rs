//! The application's end, in two halves for two threads. It checks the sidecar as the sidecar checks it, so that a
//! broken sidecar gives an error and not a crash.

use crate::channel::{Rung, Shared, head as heads};
use crate::control::{Reply, Request, has_room, take};
use crate::fault::PeerFault;
use crate::layout::{CONTROL_SLOTS, Geometry, INLINE, MAX_MESSAGE, SLOT, word};
use crate::memory::{Array, SharedSlots, SharedWords, SystemError};
use crate::ring::{Consumer, Producer, Slots};
use crate::share::Share;
use crate::sleep;
use crate::slot::{ACCEPTED, BEGIN, Batch, END, Entry, Head, NO_BUFFER, entries, kind};
use crate::sync::Ordering;
use crate::{Established, FlowId, Fragment, Origin, Reason};
use core::net::Ipv4Addr;

/// The application's end of a channel.
pub struct AppEnd {
    /// What sends.
    pub tx: Tx,
    /// What receives.
    pub rx: Rx,
}

impl AppEnd {
    pub(crate) fn new(shared: Shared) -> Result<AppEnd, SystemError> {
        Ok(AppEnd { tx: Tx::new(shared.clone())?, rx: Rx::new(shared) })
    }
}

/// There is no token for another unit now; completions bring some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoToken;

/// The half that submits. One thread at a time.
pub struct Tx {
    shared: Shared,
    geometry: Geometry,
    submit: Producer<SharedSlots>,
    complete: Consumer<SharedSlots>,
    requests: Producer<SharedSlots>,
    /// Per connection: why it is over; 0 while it is not.
    ends: SharedWords,
    /// A stack of free buffers.
    free: Array,
    free_len: usize,
    /// Per buffer: the connection it is lent for, or nobody.
    holder: Array,
    /// Per connection: units under way, and of these those without a buffer.
    units: Array,
    inline: Array,
    share: Share,
}

const NOBODY: u32 = u32::MAX;

impl Tx {
    fn new(shared: Shared) -> Result<Tx, SystemError> {
        let g = shared.geometry();
        let map = shared.map();
        let (units, flows) = (g.units as usize, g.flows as usize);
        Ok(Tx {
            submit: Producer::new(SharedSlots::new(&shared, map.submit, g.ring_slots())),
            complete: Consumer::new(SharedSlots::new(&shared, map.complete, g.ring_slots())),
            requests: Producer::new(SharedSlots::new(&shared, map.requests, CONTROL_SLOTS)),
            ends: SharedWords::new(&shared, map.ends, g.flows),
            free: Array::new(units, |i| (units - 1 - i) as u32)?,
            free_len: units,
            holder: Array::new(units, |_| NOBODY)?,
            units: Array::new(flows, |_| 0)?,
            inline: Array::new(flows, |_| 0)?,
            share: Share::new(g),
            geometry: g,
            shared,
        })
    }

    /// The sizes of the channel.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How many units could be submitted for a connection now: what is left of its share. That grows also as units of others
    /// come back.
    #[inline]
    pub fn tokens(&self, flow: FlowId) -> u32 {
        self.units.get(flow.index as usize).map_or(0, |held| self.share.room(held))
    }

    /// How many units a connection has under way.
    #[inline]
    pub fn under_way(&self, flow: FlowId) -> u32 {
        self.units.get(flow.index as usize).unwrap_or(0)
    }

    /// How many units a connection could have under way, once its own have come back, if those of others do not.
    pub fn reach(&self, flow: FlowId) -> u32 {
        self.units.get(flow.index as usize).map_or(0, |held| self.share.reach(held))
    }

    /// Why a connection is over, if it is: its peer or the sidecar ended it, and nothing submitted for it goes anywhere. The deliver ring
    /// tells the same, but only once somebody receives, and behind the data.
    #[inline]
    pub fn ended(&self, flow: FlowId) -> Result<Option<Reason>, PeerFault> {
        match self.end_of(flow) {
            0 => Ok(None),
            // Nobody is told of a clean end here.
            word if word == Reason::Clean.to_words().0 => {
                Err(PeerFault::Bound { what: "reason of an end", value: word, bound: 0 })
            }
            word => reason(word, 0).map(Some),
        }
    }

    #[inline]
    fn end_of(&self, flow: FlowId) -> u32 {
        self.ends.get(flow.index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Submits one unit, at most the unit size. Its bytes are copied. Nothing is rung: see [`Tx::flush`].
    #[inline]
    pub fn data(&mut self, flow: FlowId, fragment: Fragment, bytes: &[u8]) -> Result<(), NoToken> {
        if bytes.len() > self.geometry.unit_size as usize || !self.has_token(flow) {
            return Err(NoToken);
        }
        let flags = if fragment.begin { BEGIN } else { 0 } | if fragment.end { END } else { 0 };
        let mut head = Head {
            kind: kind::DATA,
            flags,
            len: bytes.len() as u16,
            a: NO_BUFFER,
            b: fragment.message_len,
            ..of(flow)
        };
        if bytes.len() <= INLINE {
            self.inline.all()[flow.index as usize] += 1;
            self.count(flow);
            self.submit.push(&head, bytes);
            return Ok(());
        }
        let last = self.free_len.checked_sub(1).ok_or(NoToken)?;
        let buffer = self.free.all()[last];
        self.free_len = last;
        self.holder.all()[buffer as usize] = flow.index;
        let start = self.shared.map().tx_pool + buffer as usize * self.geometry.stride();
        self.shared.region().write(start, bytes);
        head.a = buffer;
        self.count(flow);
        self.submit.push(&head, &[]);
        Ok(())
    }

    /// Whether a unit could be submitted for a connection now.
    #[inline]
    pub fn has_token(&self, flow: FlowId) -> bool {
        self.units.get(flow.index as usize).is_some_and(|held| self.share.has_room(held))
    }

    #[inline]
    fn count(&mut self, flow: FlowId) {
        let held = &mut self.units.all()[flow.index as usize];
        self.share.take(*held, 1);
        *held += 1;
    }

    /// Gives up the message under way. Takes a token.
    pub fn abort(&mut self, flow: FlowId) -> Result<(), NoToken> {
        self.mark(flow, kind::ABORT)
    }

    /// Finishes this direction, after the data. Takes a token.
    pub fn fin(&mut self, flow: FlowId) -> Result<(), NoToken> {
        self.mark(flow, kind::FIN)
    }

    fn mark(&mut self, flow: FlowId, kind: u8) -> Result<(), NoToken> {
        if !self.has_token(flow) {
            return Err(NoToken);
        }
        self.inline.all()[flow.index as usize] += 1;
        self.count(flow);
        self.submit.push(&Head { kind, ..of(flow) }, &[]);
        Ok(())
    }

    /// Forgets a connection: what was submitted is sent, then FIN. Nothing may be submitted for it afterwards.
    pub fn close(&mut self, flow: FlowId) {
        self.submit.push(&Head { kind: kind::CLOSE, ..of(flow) }, &[]);
    }

    /// Ends and forgets a connection at once.
    pub fn reset(&mut self, flow: FlowId) {
        self.submit.push(&Head { kind: kind::RESET, a: Reason::Local.to_words().0, ..of(flow) }, &[]);
    }

    /// Asks for something; false when too many requests wait already. [`Rx::arm`] can wait for room.
    pub fn request(&mut self, request: Request) -> bool {
        let room = self.has_room();
        if room {
            self.requests.push(&request.encode(), &[]);
            self.shared.head(heads::REQUESTS).store(self.requests.written(), Ordering::Relaxed);
        }
        room
    }

    /// Rings the engine if it sleeps. After a batch of submissions, returns or requests.
    #[inline]
    pub fn flush(&self) {
        self.shared.ring_if_armed(sleep::EVENTS);
    }

    /// Rings the engine though it does not wait, or though there is nothing. An honest application has no use for it; tests have.
    pub fn ring(&self) {
        self.shared.ring(sleep::EVENTS);
    }

    /// Whether completions wait.
    #[inline]
    pub fn ready(&self) -> bool {
        self.complete.ready()
    }

    /// Whether another request would find room.
    pub fn has_room(&self) -> bool {
        has_room(self.requests.written(), self.shared.region(), word::REQUESTS_TAKEN)
    }

    /// Before sleeping on [`Tx::doorbell`] for a connection's tokens: true when no completion waits and the connection is not over, nor
    /// (with `room`) is there room for a request, and the next such thing will ring.
    pub fn arm(&self, flow: FlowId, room: bool) -> bool {
        let wants = sleep::SENDER_TOKENS | if room { sleep::SENDER_ROOM } else { 0 };
        self.shared.arm(wants, || self.ready() || self.end_of(flow) != 0 || room && self.has_room())
    }

    /// After sleeping.
    pub fn disarm(&self) {
        self.shared.disarm(sleep::SENDER);
    }

    /// The descriptor of this half's own sleep, apart from whoever receives; it hangs up when the sidecar is gone.
    pub fn doorbell(&self) -> i32 {
        self.shared.sender_doorbell()
    }

    /// Takes completions, and tells for which connection (index) each of them is. How many units came back.
    pub fn reclaim(&mut self, mut freed: impl FnMut(u32)) -> Result<u32, PeerFault> {
        let mut sum = 0;
        while let Some(record) = self.complete.pop() {
            self.shared.head(heads::COMPLETE).store(self.complete.taken(), Ordering::Relaxed);
            for entry in entries(&record, "complete")? {
                let (index, count) = self.take_back(entry)?;
                freed(index);
                sum += count;
            }
        }
        Ok(sum)
    }

    fn take_back(&mut self, entry: Entry) -> Result<(u32, u32), PeerFault> {
        let (index, count) = match entry {
            Entry::Buffer(buffer) => {
                let holder =
                    self.holder.all().get_mut(buffer as usize).ok_or(PeerFault::Buffer { index: buffer })?;
                let index = core::mem::replace(holder, NOBODY);
                if index == NOBODY || self.free_len >= self.geometry.units as usize {
                    return Err(PeerFault::Buffer { index: buffer });
                }
                self.free.all()[self.free_len] = buffer;
                self.free_len += 1;
                (index, 1)
            }
            Entry::Inline { flow, count } => {
                let inline = self
                    .inline
                    .all()
                    .get_mut(flow as usize)
                    .ok_or(PeerFault::Flow { index: flow, generation: 0 })?;
                if count == 0 || count > *inline {
                    return Err(PeerFault::Tokens { index: flow, value: count, bound: *inline });
                }
                *inline -= count;
                (flow, count)
            }
        };
        let held = &mut self.units.all()[index as usize];
        self.share.give(*held, count);
        *held -= count;
        Ok((index, count))
    }

    /// Where a waiter may look for completions.
    pub fn view(&self) -> RingView {
        view(&self.shared, &self.complete, heads::COMPLETE)
    }
}

/// The half that receives. One thread at a time.
pub struct Rx {
    shared: Shared,
    geometry: Geometry,
    deliver: Consumer<SharedSlots>,
    giveback: Producer<SharedSlots>,
    replies: Consumer<SharedSlots>,
    /// Looked at before sleeping; [`Tx`] consumes it.
    complete: SharedSlots,
    returns: Batch,
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
    fn new(shared: Shared) -> Rx {
        let g = shared.geometry();
        let map = shared.map();
        Rx {
            deliver: Consumer::new(SharedSlots::new(&shared, map.deliver, g.ring_slots())),
            giveback: Producer::new(SharedSlots::new(&shared, map.giveback, g.ring_slots())),
            replies: Consumer::new(SharedSlots::new(&shared, map.replies, CONTROL_SLOTS)),
            complete: SharedSlots::new(&shared, map.complete, g.ring_slots()),
            returns: Batch::new(),
            returned: 0,
            own: g.own(),
            geometry: g,
            shared,
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
        self.shared.head(heads::DELIVER).store(self.deliver.taken(), Ordering::Relaxed);
        self.check(head, slot).map(Some)
    }

    #[inline]
    fn check(&self, head: Head, slot: u32) -> Result<Delivery, PeerFault> {
        let flow = FlowId { index: head.flow, generation: head.generation };
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
                let fragment = Fragment {
                    begin: head.flags & BEGIN != 0,
                    end: head.flags & END != 0,
                    message_len: head.b,
                };
                let token = RxToken { flow: flow.index, buffer: head.a };
                let mut inline = [0; INLINE];
                if head.a == NO_BUFFER {
                    self.deliver.inline(slot, len as usize, &mut inline);
                }
                Ok(Delivery::Data(Data { flow, fragment, len: head.len, token, inline }))
            }
            kind::ABORT => Ok(Delivery::Aborted { flow, token }),
            kind::FIN => Ok(Delivery::Fin { flow, token }),
            kind::RESET => Ok(Delivery::Reset { flow, reason: reason(head.a, head.b)? }),
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
        let stride = self.geometry.stride();
        if token.buffer >= self.geometry.units || at > stride || out.len() > stride - at {
            return; // not a token with a buffer, or beyond it: a fault of the caller's, and harmless
        }
        self.shared.region().read(self.shared.map().rx_pool + token.buffer as usize * stride + at, out);
    }

    /// Gives a token back. Tokens go to the engine eight at a time, or when nothing more is there to be received, or by
    /// [`Rx::settle`].
    #[inline]
    pub fn give_back(&mut self, token: RxToken) {
        let entry = if token.buffer == NO_BUFFER {
            Entry::Inline { flow: token.flow, count: 1 }
        } else {
            Entry::Buffer(token.buffer)
        };
        self.returned += 1;
        if self.returns.add(entry) || self.returned >= RETURN_BATCH.min(self.geometry.quota()) {
            self.flush_returns();
        }
    }

    /// After a receive that has left its connection with nothing to read: sees to it that its peer can go on, even if nobody
    /// ever receives on this channel again. The returns gathered go to the engine if they are as many as a connection has for
    /// its own; one unit fewer leaves the connection one. Nothing is to be done where its next unit is in the ring already.
    #[inline]
    pub fn settle(&mut self, flow: u32) {
        if self.returned >= self.own && self.deliver.peek().is_none_or(|next| next.flow != flow) {
            self.flush_returns();
        }
    }

    /// Sends on what was given back.
    #[inline]
    pub fn flush_returns(&mut self) {
        if self.returned == 0 {
            return;
        }
        let (head, inline) = self.returns.take();
        self.returned = 0;
        self.giveback.push(&head, &inline[..usize::from(head.len) * 8]);
        self.shared.ring_if_armed(sleep::TOKENS);
    }

    /// Says that the application has taken a connection of a listener's: its place in the backlog is another's. Once for
    /// each. Nobody is rung: the engine looks when it wants a place.
    pub fn accepted(&mut self, flow: FlowId) {
        self.giveback.push(&Head { kind: kind::ACCEPTED, ..of(flow) }, &[]);
    }

    /// Takes the next reply.
    pub fn reply(&mut self) -> Result<Option<Reply>, PeerFault> {
        let Some(head) = take(&mut self.replies, self.shared.region(), word::REPLIES_TAKEN) else {
            return Ok(None);
        };
        self.shared.head(heads::REPLIES).store(self.replies.taken(), Ordering::Relaxed);
        self.shared.ring_if_armed(sleep::ROOM);
        Reply::decode(&head).map(Some)
    }

    /// Whether a delivery or a reply waits.
    #[inline]
    pub fn ready(&self) -> bool {
        self.deliver.ready() || self.replies.ready()
    }

    /// Whether another request would find room.
    pub fn has_room(&self) -> bool {
        let written = self.shared.head(heads::REQUESTS).load(Ordering::Relaxed);
        has_room(written, self.shared.region(), word::REQUESTS_TAKEN)
    }

    /// Before sleeping on [`Rx::doorbell`]: true when no delivery and no reply waits, nor what `more` asks for, and the next
    /// such thing will ring. `more` is [`sleep::TOKENS`] for completions, [`sleep::ROOM`] for room for a request, both or
    /// neither; what it does not name does not ring. Room is usually there: it counts only where a request waits for it, which is
    /// asked of `requests_wait` once armed, so that one that begins to wait in another thread is seen or rung for.
    pub fn arm(&mut self, more: u32, requests_wait: impl FnOnce() -> bool) -> bool {
        self.flush_returns();
        self.shared.arm(sleep::EVENTS | more, || {
            self.ready()
                || more & sleep::TOKENS != 0 && waits(&self.shared, &self.complete, heads::COMPLETE)
                || more & sleep::ROOM != 0 && requests_wait() && self.has_room()
        })
    }

    /// After sleeping.
    pub fn disarm(&self) {
        self.shared.disarm(sleep::RECEIVER);
    }

    /// The descriptor to poll for input; it hangs up when the sidecar is gone.
    pub fn doorbell(&self) -> i32 {
        self.shared.doorbell()
    }

    /// Empties the doorbell. False: the sidecar's end is closed.
    pub fn drain_doorbell(&self) -> bool {
        self.shared.drain() != Rung::HungUp
    }

    /// Where a waiter may look for deliveries and replies.
    pub fn view(&self) -> WaitView {
        WaitView {
            deliver: view(&self.shared, &self.deliver, heads::DELIVER),
            replies: view(&self.shared, &self.replies, heads::REPLIES),
        }
    }
}

/// Where a waiter may look without a call: something waits when the 32-bit word at `slots + (*head & mask) * stride`
/// equals `*head + 1`. The addresses live as long as the half that gave them.
#[derive(Clone, Copy, Debug)]
pub struct RingView {
    /// First slot.
    pub slots: *const u8,
    /// Number of the next slot to be taken.
    pub head: *const u32,
    /// Slots - 1.
    pub mask: u32,
    /// Bytes from slot to slot.
    pub stride: u32,
}

/// The rings that a receiver waits for.
#[derive(Clone, Copy, Debug)]
pub struct WaitView {
    /// Deliveries.
    pub deliver: RingView,
    /// Replies.
    pub replies: RingView,
}

/// Whether something waits in the other half's ring.
fn waits(shared: &Shared, ring: &SharedSlots, head: usize) -> bool {
    let next = shared.head(head).load(Ordering::Relaxed);
    ring.sequence(next) == next.wrapping_add(1)
}

fn view(shared: &Shared, ring: &Consumer<SharedSlots>, head: usize) -> RingView {
    let slots = ring.slots();
    RingView {
        slots: slots.base(),
        head: shared.head(head).as_ptr(),
        mask: slots.mask(),
        stride: SLOT as u32,
    }
}

#[cold]
fn reason(word: u32, bound: u32) -> Result<Reason, PeerFault> {
    Reason::from_words(word, bound).ok_or(PeerFault::Bound {
        what: "reason",
        value: word,
        bound: Reason::END,
    })
}

fn of(flow: FlowId) -> Head {
    Head { flow: flow.index, generation: flow.generation, ..Head::default() }
}

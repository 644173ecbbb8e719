//! The half that submits, and the tokens that say how much it may.

use super::view::{RingView, view};
use crate::channel::{ChannelRef, head as heads};
use crate::control::{Request, has_room};
use crate::fault::PeerFault;
use crate::layout::{Geometry, word};
use crate::memory::{Array, SystemError};
use crate::ring::{Consumer, Producer};
use crate::share::Share;
use crate::sleep;
use crate::slot::{Entry, Head, INLINE, NO_BUFFER, entries, kind};
use crate::slots::{SharedSlots, SharedWords};
use crate::sync::Ordering;
use crate::{FlowId, Fragment, Reason};

/// There is no token for another unit now; completions bring some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoToken;

/// The half that submits. One thread at a time.
pub struct Tx {
    channel: ChannelRef,
    geometry: Geometry,
    submit: Producer<SharedSlots>,
    complete: Consumer<SharedSlots>,
    requests: Producer<SharedSlots>,
    /// Per connection: why it is over; 0 while it is not.
    ends: SharedWords,
    /// A stack of free buffers. Those that were never used lie at its bottom, the lowest number on top.
    free: Array,
    free_len: usize,
    /// No buffer from this number on was ever used.
    fresh: u32,
    /// Per buffer: the connection it is lent for, or nobody.
    holder: Array,
    /// Per connection: units under way, and of these those without a buffer.
    units: Array,
    inline: Array,
    share: Share,
}

const NOBODY: u32 = u32::MAX;
/// Buffers that are used before completions are looked for so that no more of them have to be.
const GATHER: u32 = 16;

impl Tx {
    pub(super) fn new(channel: ChannelRef) -> Result<Tx, SystemError> {
        let g = channel.geometry();
        let (units, flows) = (g.units as usize, g.flows as usize);
        Ok(Tx {
            submit: Producer::new(SharedSlots::new(&channel, |map| map.submit)),
            complete: Consumer::new(SharedSlots::new(&channel, |map| map.complete)),
            requests: Producer::new(SharedSlots::new(&channel, |map| map.requests)),
            ends: SharedWords::ends(&channel),
            free: Array::new(units, |i| (units - 1 - i) as u32)?,
            free_len: units,
            fresh: 0,
            holder: Array::new(units, |_| NOBODY)?,
            units: Array::new(flows, |_| 0)?,
            inline: Array::new(flows, |_| 0)?,
            share: Share::new(g),
            geometry: g,
            channel,
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

    /// Whether so many units with buffers would take some that have no pages yet, though others have come back: after [`Tx::reclaim`] they
    /// may not. False while only a few were ever used, so that completions may gather.
    #[inline]
    pub fn would_grow(&self, units: u32) -> bool {
        let unused = self.geometry.units - self.fresh;
        self.fresh >= GATHER
            && self.free_len < (unused + units) as usize
            && unused > 0
            && self.complete.ready()
    }

    /// How many units a connection has under way.
    #[inline]
    pub fn under_way(&self, flow: FlowId) -> u32 {
        self.units.get(flow.index as usize).unwrap_or(0)
    }

    /// How many units all connections have under way, those included that the application has closed.
    pub fn all_under_way(&self) -> u32 {
        self.share.held()
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
            // The engine never stores a clean end here.
            word if word == Reason::Clean.to_words().0 => {
                Err(PeerFault::Bound { what: "reason of an end", value: word, bound: 0 })
            }
            word => Reason::checked(word, 0).map(Some),
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
        let mut head = Head::data(flow, fragment, NO_BUFFER, bytes.len());
        if bytes.len() <= INLINE {
            self.inline.all()[flow.index as usize] += 1;
            self.count(flow);
            self.submit.push(&head, bytes);
            return Ok(());
        }
        let last = self.free_len.checked_sub(1).ok_or(NoToken)?;
        let buffer = self.free.all()[last];
        self.free_len = last;
        self.fresh = self.fresh.max(buffer + 1);
        self.holder.all()[buffer as usize] = flow.index;
        let start = self.channel.map().tx_pool + buffer as usize * self.geometry.stride();
        self.channel.region().write(start, bytes);
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
        self.submit.push(&Head { kind, ..Head::of(flow) }, &[]);
        Ok(())
    }

    /// Forgets a connection: what was submitted is sent, then FIN. Nothing may be submitted for it afterwards.
    pub fn close(&mut self, flow: FlowId) {
        self.submit.push(&Head { kind: kind::CLOSE, ..Head::of(flow) }, &[]);
    }

    /// Ends and forgets a connection at once.
    pub fn reset(&mut self, flow: FlowId) {
        self.submit.push(&Head { kind: kind::RESET, a: Reason::Local.to_words().0, ..Head::of(flow) }, &[]);
    }

    /// Asks for something; false when too many requests wait already. [`super::Rx::arm`] can wait for room.
    pub fn request(&mut self, request: Request) -> bool {
        let room = self.has_room();
        if room {
            self.requests.push(&request.encode(), &[]);
            self.channel.head(heads::REQUESTS).store(self.requests.written(), Ordering::Relaxed);
        }
        room
    }

    /// Rings the engine if it sleeps. After a batch of submissions, returns or requests.
    #[inline]
    pub fn flush(&self) {
        self.channel.ring_if_armed(sleep::EVENTS);
    }

    /// Rings the engine though it does not wait, or though there is nothing. An honest application has no use for it; tests have.
    pub fn ring(&self) {
        self.channel.ring(sleep::EVENTS);
    }

    /// Whether completions wait.
    #[inline]
    pub fn ready(&self) -> bool {
        self.complete.ready()
    }

    /// Whether another request would find room.
    pub fn has_room(&self) -> bool {
        has_room(self.requests.written(), self.channel.region(), word::REQUESTS_TAKEN)
    }

    /// Before sleeping on [`Tx::doorbell`] for a connection's tokens: true when no completion waits and the connection is not over, nor
    /// (with `room`) is there room for a request, and the next such thing will ring.
    pub fn arm(&self, flow: FlowId, room: bool) -> bool {
        let wants = sleep::SENDER_TOKENS | if room { sleep::SENDER_ROOM } else { 0 };
        self.channel.arm(wants, || self.ready() || self.end_of(flow) != 0 || room && self.has_room())
    }

    /// After sleeping.
    pub fn disarm(&self) {
        self.channel.disarm(sleep::SENDER);
    }

    /// The descriptor that this half sleeps on, apart from the receiving half's; it hangs up when the sidecar is gone.
    pub fn doorbell(&self) -> i32 {
        self.channel.sender_doorbell()
    }

    /// Takes completions, and tells for which connection (index) each of them is. How many units came back.
    pub fn reclaim(&mut self, mut freed: impl FnMut(u32)) -> Result<u32, PeerFault> {
        let mut sum = 0;
        while let Some(record) = self.complete.pop() {
            self.channel.head(heads::COMPLETE).store(self.complete.taken(), Ordering::Relaxed);
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
        view(&self.channel, &self.complete, heads::COMPLETE)
    }
}

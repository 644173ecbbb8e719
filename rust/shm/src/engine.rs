//! The engine's end: the rings between it and an application, and what rings and sleeps at its doorbell. Every claim in what the application
//! wrote goes through the [`Ledger`].

mod ledger;
mod units;

pub use units::{HeldUnit, Returned, Submission, TxUnit};

use crate::channel::ChannelRef;
use crate::control::{Reply, Request, has_room, take};
use crate::doorbell::Rung;
use crate::fault::PeerFault;
use crate::layout::{Geometry, word};
use crate::ring::{Consumer, Producer};
use crate::sleep;
use crate::slot::{ACCEPTED, Batch, Head, INLINE, NO_BUFFER, entries, kind};
use crate::slots::{SharedSlots, SharedWords};
use crate::sync::Ordering;
use crate::{Established, FlowId, Fragment, Origin, Reason};
use alloc::collections::VecDeque;
use ledger::Ledger;

/// The engine's end of a channel. Its notions of indices, of geometry and of who holds what are its own.
pub struct EngineEnd {
    channel: ChannelRef,
    geometry: Geometry,
    submit: Consumer<SharedSlots>,
    complete: Producer<SharedSlots>,
    deliver: Producer<SharedSlots>,
    returns: Consumer<SharedSlots>,
    requests: Consumer<SharedSlots>,
    replies: Producer<SharedSlots>,
    /// Why a connection is over, for its sender: the deliver ring reaches only those who receive.
    ends: SharedWords,
    ledger: Ledger,
    completions: Batch,
    pending_replies: VecDeque<Reply>,
    /// What the application has not been rung for yet: bits of [`sleep`]. Whatever publishes, or will at the next flush, says so
    /// here, so that no caller has to remember it.
    dirty: u32,
}

impl EngineEnd {
    pub(crate) fn new(channel: ChannelRef) -> EngineEnd {
        let g = channel.geometry();
        EngineEnd {
            submit: Consumer::new(SharedSlots::new(&channel, |map| map.submit)),
            complete: Producer::new(SharedSlots::new(&channel, |map| map.complete)),
            deliver: Producer::new(SharedSlots::new(&channel, |map| map.deliver)),
            returns: Consumer::new(SharedSlots::new(&channel, |map| map.returns)),
            requests: Consumer::new(SharedSlots::new(&channel, |map| map.requests)),
            replies: Producer::new(SharedSlots::new(&channel, |map| map.replies)),
            ends: SharedWords::ends(&channel),
            ledger: Ledger::new(g),
            completions: Batch::new(),
            pending_replies: VecDeque::new(),
            dirty: 0,
            geometry: g,
            channel,
        }
    }

    /// Gives the memory back in steps of `step` bytes, with `between` after each: to drop it unmaps it at once, which takes up to
    /// a hundred times as long.
    pub fn release(self, step: usize, between: &mut dyn FnMut()) {
        self.channel.region().forget_in_steps(step, between);
    }

    /// The sizes of the channel.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    // ---- connections

    /// Makes a connection; `None` when all are taken.
    pub fn open_flow(&mut self) -> Option<FlowId> {
        let flow = self.ledger.open()?;
        // The application has closed the connection that was here before, and learns of the new one by the deliver ring: its release and
        // acquire order this store before whatever the application does with the new one.
        self.tell_sender(flow.index, 0);
        Some(flow)
    }

    /// Forgets a connection that was never announced to the application.
    pub fn discard_flow(&mut self, flow: FlowId) {
        self.ledger.never_announced(flow);
        self.flow_done(flow);
    }

    /// The engine has no more use for a connection: its units are completed, its grants given back. Its index is used
    /// anew once the application has closed it, too, and has returned what it holds.
    pub fn flow_done(&mut self, flow: FlowId) {
        self.ledger.done(flow);
    }

    /// Connections that are open or not yet forgotten by both sides.
    pub fn flows(&self) -> usize {
        self.ledger.open_flows()
    }

    // ---- from the application

    /// Takes the next submission.
    #[inline]
    pub fn submission(&mut self) -> Result<Option<Submission>, PeerFault> {
        let Some((head, slot)) = self.submit.pop_head() else { return Ok(None) };
        let inline = |len, out: &mut [u8; INLINE]| self.submit.inline(slot, len, out);
        self.ledger.submitted(&head, inline).map(Some)
    }

    /// Copies bytes of a unit from `at` on; `at + out.len()` is at most the unit's length.
    #[inline]
    pub fn read_tx(&self, unit: &TxUnit, at: usize, out: &mut [u8]) {
        debug_assert!(at + out.len() <= unit.len());
        if unit.buffer == NO_BUFFER {
            out.copy_from_slice(&unit.inline[at..at + out.len()]);
        } else {
            let start = self.channel.map().tx_pool + unit.buffer as usize * self.geometry.stride();
            self.channel.region().read(start + at, out);
        }
    }

    /// Gives a unit back: it was acknowledged, or will not be sent.
    // Never inlined: its caller then grows beyond what is inlined itself, and the unit is copied on the way.
    #[inline(never)]
    pub fn complete(&mut self, unit: TxUnit) {
        let entry = self.ledger.completed(&unit);
        self.dirty |= sleep::TOKENS | sleep::SENDER_TOKENS;
        if self.completions.add(entry) {
            self.publish_completions();
        }
    }

    fn publish_completions(&mut self) {
        let (head, inline) = self.completions.take();
        self.complete.push(&head, &inline[..usize::from(head.len) * 8]);
    }

    /// Takes what the application has returned, and tells of each.
    pub fn returns(&mut self, mut back: impl FnMut(Returned)) -> Result<usize, PeerFault> {
        let mut work = 0;
        while let Some(record) = self.returns.pop() {
            if record.head.kind == kind::ACCEPTED {
                if let Some(flow) = self.ledger.accepted(record.head.flow_id())? {
                    back(Returned::Place(flow));
                }
                work += 1;
                continue;
            }
            for entry in entries(&record, "return")? {
                let (index, count) = self.ledger.returned(entry)?;
                back(Returned::Units(index, count));
                work += 1;
            }
        }
        Ok(work)
    }

    /// Takes the next request. None also while replies wait for room, so that they stay few.
    #[inline]
    pub fn request(&mut self) -> Result<Option<Request>, PeerFault> {
        if self.pending_replies.is_empty() && !self.requests.ready() {
            return Ok(None);
        }
        self.take_request()
    }

    #[cold]
    fn take_request(&mut self) -> Result<Option<Request>, PeerFault> {
        if !self.pending_replies.is_empty() {
            self.publish_replies();
            if !self.pending_replies.is_empty() {
                return Ok(None);
            }
        }
        match take(&mut self.requests, self.channel.region(), word::REQUESTS_TAKEN) {
            None => Ok(None),
            Some(record) => {
                self.dirty |= sleep::ROOM | sleep::SENDER_ROOM;
                let request = Request::decode(&record.head)?;
                if let Request::Stats { flow, .. } | Request::KeepAlive { flow, .. } = request {
                    self.ledger.asked_about(flow)?;
                }
                Ok(Some(request))
            }
        }
    }

    // ---- to the application

    /// Answers a request. An answer that finds no room goes out, in its turn, with a later [`EngineEnd::request`].
    pub fn reply(&mut self, reply: Reply) {
        self.pending_replies.push_back(reply);
        self.publish_replies();
    }

    fn publish_replies(&mut self) {
        while let Some(reply) = self.pending_replies.front() {
            if !self.room_for_reply() {
                return;
            }
            let record = reply.encode();
            self.replies.push(&record.head, &record.inline[..usize::from(record.head.len)]);
            self.pending_replies.pop_front();
            self.dirty |= sleep::EVENTS;
        }
    }

    fn room_for_reply(&self) -> bool {
        has_room(self.replies.written(), self.channel.region(), word::REPLIES_TAKEN)
    }

    /// Reserves up to `more` units for what a connection may receive; how many it got. What is reserved over all
    /// connections and what is delivered never exceeds the channel's units, and no connection's part of that its share.
    #[inline]
    pub fn grant(&mut self, flow: FlowId, more: u32) -> u32 {
        self.ledger.grant(flow, more)
    }

    /// Gives `n` reserved units back.
    pub fn ungrant(&mut self, flow: FlowId, n: u32) {
        self.ledger.ungrant(flow, n);
    }

    /// Units neither delivered nor reserved, for any connection to have. Those that connections have for their own do not
    /// count: only one that holds all of its own is ever refused, and when these grow it may get more.
    pub fn free_units(&self) -> u32 {
        self.ledger.shared_units()
    }

    /// Delivers a unit straight from its packet, using up one reserved unit. False: nothing is reserved, or the payload
    /// is longer than a unit.
    #[inline]
    pub fn deliver(&mut self, flow: FlowId, fragment: Fragment, payload: &[u8]) -> bool {
        if payload.len() <= INLINE.min(self.geometry.unit_size as usize) {
            let delivered = self.ledger.deliver_inline(flow);
            if delivered {
                self.push(&Head::data(flow, fragment, NO_BUFFER, payload.len()), payload);
            }
            return delivered;
        }
        if payload.len() > self.geometry.unit_size as usize || !self.ledger.has_grant(flow) {
            return false;
        }
        let Some(held) = self.hold(payload) else { return false };
        self.deliver_held(flow, fragment, held);
        true
    }

    /// Keeps room for a unit of `len` bytes that comes in parts; as [`EngineEnd::hold`].
    pub fn hold_parts(&mut self, len: usize) -> Option<HeldUnit> {
        if len > self.geometry.unit_size as usize {
            return None;
        }
        Some(HeldUnit { buffer: self.ledger.take_buffer()?, len: len as u16 })
    }

    /// Fills in a part of it, from byte `at` on; what would lie beyond the unit is left out.
    pub fn write_part(&self, held: &HeldUnit, at: usize, part: &[u8]) {
        if at + part.len() <= usize::from(held.len) {
            let start = self.channel.map().rx_pool + held.buffer as usize * self.geometry.stride();
            self.channel.region().write(start + at, part);
        }
    }

    /// Keeps a unit that arrived ahead of its turn. There is a buffer as long as held units stay within what is reserved.
    pub fn hold(&mut self, payload: &[u8]) -> Option<HeldUnit> {
        if payload.len() > self.geometry.unit_size as usize {
            return None;
        }
        let buffer = self.ledger.take_buffer()?;
        let start = self.channel.map().rx_pool + buffer as usize * self.geometry.stride();
        self.channel.region().write(start, payload);
        Some(HeldUnit { buffer, len: payload.len() as u16 })
    }

    /// Delivers a kept unit, using up one reserved unit.
    pub fn deliver_held(&mut self, flow: FlowId, fragment: Fragment, held: HeldUnit) {
        self.push_data(flow, fragment, held.buffer, usize::from(held.len), &[]);
    }

    /// Drops a kept unit.
    pub fn discard_held(&mut self, held: HeldUnit) {
        self.ledger.free_buffer(held.buffer);
    }

    #[inline]
    fn push_data(&mut self, flow: FlowId, fragment: Fragment, buffer: u32, len: usize, inline: &[u8]) {
        let head = Head::data(flow, fragment, buffer, len);
        self.ledger.delivered(flow, buffer);
        self.push(&head, inline);
    }

    #[inline]
    fn push(&mut self, head: &Head, inline: &[u8]) {
        self.deliver.push(head, inline);
        self.dirty |= sleep::EVENTS;
    }

    /// Tells of a connection.
    pub fn established(&mut self, e: &Established) {
        let (flags, id) = match e.origin {
            Origin::Dialled(id) => (0, id),
            Origin::Accepted(id) => (ACCEPTED, id),
        };
        self.ledger.announced(e.flow, flags == ACCEPTED);
        let ports = u32::from(e.local.1) << 16 | u32::from(e.peer.1);
        let head = Head {
            kind: kind::ESTABLISHED,
            flags,
            a: id,
            b: e.local.0.to_bits(),
            c: e.peer.0.to_bits(),
            d: ports,
            ..Head::of(e.flow)
        };
        self.push(&head, &[]);
    }

    /// Tells that the message being delivered was given up by its sender. Uses up one reserved unit.
    pub fn aborted(&mut self, flow: FlowId) {
        self.deliver_mark(flow, kind::ABORT);
    }

    /// Tells that the peer sends no more. Uses up one reserved unit.
    pub fn fin(&mut self, flow: FlowId) {
        self.deliver_mark(flow, kind::FIN);
    }

    fn deliver_mark(&mut self, flow: FlowId, kind: u8) {
        self.ledger.delivered(flow, NO_BUFFER);
        self.push(&Head { kind, ..Head::of(flow) }, &[]);
    }

    /// Tells that the connection is over. At most once.
    pub fn reset(&mut self, flow: FlowId, reason: Reason) {
        let (a, b) = reason.to_words();
        // A sender of whom nothing more is taken has finished already, and needs no other reason.
        if reason != Reason::Clean {
            self.tell_sender(flow.index, a);
            self.dirty |= sleep::SENDER_TOKENS;
        }
        self.push(&Head { kind: kind::RESET, a, b, ..Head::of(flow) }, &[]);
    }

    fn tell_sender(&self, index: u32, reason: u32) {
        if let Some(word) = self.ends.get(index) {
            word.store(reason, Ordering::Release);
        }
    }

    /// Whether the next flush has something to tell.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.dirty != 0
    }

    /// Publishes what is batched, and rings the application if it sleeps and something is new. Once per round; it costs next
    /// to nothing where there is nothing.
    #[inline]
    pub fn flush(&mut self) {
        if self.dirty == 0 {
            return;
        }
        if !self.completions.is_empty() {
            self.publish_completions();
        }
        self.channel.ring_if_armed(core::mem::take(&mut self.dirty));
    }

    // ---- sleeping

    /// Before sleeping on [`EngineEnd::doorbell`]: false when the application has work for us.
    pub fn arm(&self) -> bool {
        self.arm_for(true)
    }

    /// The same; without `returns`, units that come back neither ring nor keep awake. Right while no flow waits for units: else
    /// an application that reads wakes the engine for every few units.
    pub fn arm_for(&self, returns: bool) -> bool {
        // While replies wait for room no request is taken, so that room is awaited instead.
        let stuck = !self.pending_replies.is_empty();
        let wants =
            sleep::EVENTS | if returns { sleep::TOKENS } else { 0 } | if stuck { sleep::ROOM } else { 0 };
        self.channel.arm(wants, || {
            self.submit.ready()
                || if stuck { self.room_for_reply() } else { self.requests.ready() }
                || (returns && self.returns.ready())
        })
    }

    /// After sleeping.
    pub fn disarm(&self) {
        self.channel.disarm(sleep::RECEIVER);
    }

    /// Whether the application has done something that was not seen to: what an armed end is rung for.
    #[inline]
    pub fn pending(&self) -> bool {
        let room = !self.pending_replies.is_empty() && self.room_for_reply();
        self.submit.ready() || self.returns.ready() || self.requests.ready() || room
    }

    /// The descriptor to poll for input; it hangs up when the application is gone.
    pub fn doorbell(&self) -> i32 {
        self.channel.doorbell()
    }

    /// Empties the doorbell, and says what there was.
    pub fn drain_doorbell(&self) -> Rung {
        self.channel.drain()
    }

    /// Units delivered to a connection and not returned.
    #[inline]
    pub fn unread(&self, flow: FlowId) -> u32 {
        self.ledger.unread(flow)
    }

    /// Units by who has them: (submitted and not completed, delivered and not returned, reserved). For tests and counters.
    pub fn usage(&self) -> (u32, u32, u32) {
        self.ledger.usage()
    }
}

impl core::fmt::Debug for EngineEnd {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EngineEnd")
            .field("geometry", &self.geometry)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

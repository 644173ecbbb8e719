//! The engine's end: every check on what an application wrote.

use crate::channel::{Rung, Shared};
use crate::control::{Reply, Request, has_room, take};
use crate::fault::PeerFault;
use crate::layout::{CONTROL_SLOTS, Geometry, INLINE, MAX_MESSAGE, word};
use crate::memory::{SharedSlots, SharedWords};
use crate::ring::{Consumer, Producer};
use crate::share::Share;
use crate::sleep;
use crate::slot::{ACCEPTED, BEGIN, Batch, END, Entry, Head, NO_BUFFER, Record, entries, kind};
use crate::sync::Ordering;
use crate::{Established, FlowId, Fragment, Origin, Reason};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The engine's end of a channel. Its notions of indices, of geometry and of who holds what are its own.
pub struct EngineEnd {
    shared: Shared,
    geometry: Geometry,
    submit: Consumer<SharedSlots>,
    complete: Producer<SharedSlots>,
    deliver: Producer<SharedSlots>,
    giveback: Consumer<SharedSlots>,
    requests: Consumer<SharedSlots>,
    replies: Producer<SharedSlots>,
    /// Why a connection is over, for its sender: the deliver ring tells only those who receive.
    ends: SharedWords,
    flows: Vec<FlowState>,
    free_flows: Vec<u32>,
    /// Per TX buffer: the connection that lent it to us, or nobody.
    tx_holder: Vec<u32>,
    /// Per RX buffer: the connection it is delivered to, or nobody.
    rx_holder: Vec<u32>,
    rx_free: Vec<u32>,
    /// Units submitted and not completed.
    tx_units: u32,
    /// Units delivered and not returned.
    rx_units: u32,
    /// RX units by connection: delivered, or reserved for credit.
    share: Share,
    completions: Batch,
    pending_replies: VecDeque<Reply>,
    /// What the application has not been rung for yet: bits of [`sleep`]. Whatever publishes, or will at the next flush, says so
    /// here, so that no caller has to remember it.
    dirty: u32,
}

const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct FlowState {
    generation: u32,
    open: bool,
    /// The application has forgotten it: it submits nothing more.
    closed: bool,
    /// The engine has forgotten it.
    done: bool,
    finished: bool,
    /// A listener was told of it, and the application has neither taken nor forgotten it.
    offered: bool,
    /// The generation that was last forgotten while it was `offered`; 0: none. The word that it was taken may still come,
    /// for what is submitted overtakes what is returned.
    late: u32,
    /// Bytes of the message under way that were not submitted yet; `None` between messages.
    left: Option<u32>,
    tx_units: u32,
    rx_units: u32,
    /// Of `rx_units`, those without a buffer.
    rx_inline: u32,
    granted: u32,
}

/// A unit to send: the engine's own copy of an inline one, or a buffer that stays lent until completion.
#[derive(Clone, Copy, Debug)]
pub struct TxUnit {
    flow: u32,
    buffer: u32,
    len: u16,
    inline: [u8; INLINE],
}

impl TxUnit {
    /// Bytes of payload.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A received unit kept in a buffer until its turn.
#[derive(Debug)]
pub struct HeldUnit {
    buffer: u32,
    len: u16,
}

/// What an application submitted, checked.
#[derive(Clone, Copy, Debug)]
pub enum Submission {
    /// One unit of a message.
    Data {
        /// The connection.
        flow: FlowId,
        /// Its place in the message.
        fragment: Fragment,
        /// Its bytes.
        unit: TxUnit,
    },
    /// The message under way is given up. The token goes back by [`EngineEnd::complete`].
    Abort {
        /// The connection.
        flow: FlowId,
        /// The token.
        unit: TxUnit,
    },
    /// No more data. The token goes back by [`EngineEnd::complete`].
    Fin {
        /// The connection.
        flow: FlowId,
        /// The token.
        unit: TxUnit,
    },
    /// The application forgets the connection: send what there is, then FIN.
    Close {
        /// The connection.
        flow: FlowId,
    },
    /// The connection is over at once.
    Reset {
        /// The connection.
        flow: FlowId,
    },
}

/// What an application gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// So many units of the connection with this index.
    Units(u32, u32),
    /// The place in its listener's backlog: the application has taken this connection.
    Place(FlowId),
}

impl EngineEnd {
    pub(crate) fn new(shared: Shared) -> EngineEnd {
        let g = shared.geometry();
        let map = shared.map();
        let ring = |at| SharedSlots::new(&shared, at, g.ring_slots());
        let control = |at| SharedSlots::new(&shared, at, CONTROL_SLOTS);
        let flow = FlowState {
            generation: 0,
            open: false,
            closed: false,
            done: false,
            finished: false,
            offered: false,
            late: 0,
            left: None,
            tx_units: 0,
            rx_units: 0,
            rx_inline: 0,
            granted: 0,
        };
        EngineEnd {
            submit: Consumer::new(ring(map.submit)),
            complete: Producer::new(ring(map.complete)),
            deliver: Producer::new(ring(map.deliver)),
            giveback: Consumer::new(ring(map.giveback)),
            requests: Consumer::new(control(map.requests)),
            replies: Producer::new(control(map.replies)),
            ends: SharedWords::new(&shared, map.ends, g.flows),
            flows: alloc::vec![flow; g.flows as usize],
            free_flows: (0..g.flows).rev().collect(),
            tx_holder: alloc::vec![NOBODY; g.units as usize],
            rx_holder: alloc::vec![NOBODY; g.units as usize],
            rx_free: (0..g.units).rev().collect(),
            tx_units: 0,
            rx_units: 0,
            share: Share::new(g),
            completions: Batch::new(),
            pending_replies: VecDeque::new(),
            dirty: 0,
            geometry: g,
            shared,
        }
    }

    /// Gives the memory back in steps of `step` bytes, with `between` after each: to drop it unmaps it at once, which takes up to
    /// a hundred times as long.
    pub fn release(self, step: usize, between: &mut dyn FnMut()) {
        self.shared.region().forget_in_steps(step, between);
    }

    /// The sizes of the channel.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    // ---- connections

    /// Makes a connection; `None` when all are taken.
    pub fn open_flow(&mut self) -> Option<FlowId> {
        let index = self.free_flows.pop()?;
        let flow = &mut self.flows[index as usize];
        let generation = flow.generation.wrapping_add(1).max(1);
        *flow = FlowState {
            generation,
            open: true,
            closed: false,
            done: false,
            finished: false,
            left: None,
            ..*flow
        };
        // The application has closed whoever was here before, and learns of the new one by the deliver ring, which orders this.
        self.tell_sender(index, 0);
        Some(FlowId { index, generation })
    }

    /// Forgets a connection that was never announced to the application.
    pub fn discard_flow(&mut self, flow: FlowId) {
        self.flows[flow.index as usize].closed = true;
        self.flow_done(flow);
    }

    /// The engine has no more use for a connection: its units are completed, its grants given back. Its index is used
    /// anew once the application has closed it, too, and has returned what it holds.
    pub fn flow_done(&mut self, flow: FlowId) {
        self.flows[flow.index as usize].done = true;
        self.reuse_if_over(flow.index);
    }

    fn reuse_if_over(&mut self, index: u32) {
        let flow = &mut self.flows[index as usize];
        if flow.open
            && flow.closed
            && flow.done
            && flow.tx_units == 0
            && flow.rx_units == 0
            && flow.granted == 0
        {
            flow.open = false;
            self.free_flows.push(index);
        }
    }

    /// Connections that are open or not yet forgotten by both sides.
    pub fn flows(&self) -> usize {
        self.flows.len() - self.free_flows.len()
    }

    // ---- from the application

    /// Takes the next submission.
    #[inline]
    pub fn submission(&mut self) -> Result<Option<Submission>, PeerFault> {
        match self.submit.pop_head() {
            None => Ok(None),
            Some((head, slot)) => self.check(head, slot).map(Some),
        }
    }

    #[inline]
    fn check(&mut self, head: Head, slot: u32) -> Result<Submission, PeerFault> {
        let id = FlowId { index: head.flow, generation: head.generation };
        let quota = self.geometry.quota();
        let unit_size = self.geometry.unit_size;
        let unknown = PeerFault::Flow { index: id.index, generation: id.generation };
        let flow = self.flows.get_mut(head.flow as usize).ok_or(unknown)?;
        if !flow.open || flow.generation != id.generation || flow.closed {
            return Err(unknown);
        }
        let mut unit = TxUnit { flow: head.flow, buffer: NO_BUFFER, len: 0, inline: [0; INLINE] };
        match head.kind {
            kind::DATA => {
                let len = u32::from(head.len);
                let bound = if head.a == NO_BUFFER { INLINE as u32 } else { unit_size };
                if len > bound {
                    return Err(PeerFault::Bound { what: "length of a unit", value: len, bound });
                }
                let (begin, end) = (head.flags & BEGIN != 0, head.flags & END != 0);
                let framing = PeerFault::Framing { index: head.flow, left: flow.left.unwrap_or(0), len };
                let left = match (begin, flow.left) {
                    (true, None) if head.b <= MAX_MESSAGE => head.b,
                    (true, None) => {
                        return Err(PeerFault::Bound {
                            what: "length of a message",
                            value: head.b,
                            bound: MAX_MESSAGE,
                        });
                    }
                    (false, Some(left)) if head.b == 0 => left,
                    _ => return Err(framing),
                };
                let left = left.checked_sub(len).ok_or(framing)?;
                if flow.finished || end != (left == 0) || (!end && len == 0) {
                    return Err(framing);
                }
                flow.left = if end { None } else { Some(left) };
                unit.len = head.len;
                if head.a == NO_BUFFER {
                    self.submit.inline(slot, len as usize, &mut unit.inline);
                } else {
                    let holder = self.tx_holder.get_mut(head.a as usize);
                    match holder {
                        Some(holder) if *holder == NOBODY => *holder = head.flow,
                        _ => return Err(PeerFault::Buffer { index: head.a }),
                    }
                    unit.buffer = head.a;
                }
                self.count_tx(head.flow, quota)?;
                let fragment = Fragment { begin, end, message_len: head.b };
                Ok(Submission::Data { flow: id, fragment, unit })
            }
            kind::ABORT => {
                if flow.left.take().is_none() {
                    return Err(PeerFault::Framing { index: head.flow, left: 0, len: 0 });
                }
                self.count_tx(head.flow, quota)?;
                Ok(Submission::Abort { flow: id, unit })
            }
            kind::FIN => {
                if flow.finished || flow.left.is_some() {
                    return Err(PeerFault::Framing {
                        index: head.flow,
                        left: flow.left.unwrap_or(0),
                        len: 0,
                    });
                }
                flow.finished = true;
                self.count_tx(head.flow, quota)?;
                Ok(Submission::Fin { flow: id, unit })
            }
            kind::CLOSE => {
                self.forgotten(id);
                Ok(Submission::Close { flow: id })
            }
            kind::RESET => {
                self.forgotten(id);
                Ok(Submission::Reset { flow: id })
            }
            kind => Err(PeerFault::Kind { ring: "submit", kind }),
        }
    }

    fn forgotten(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.index as usize];
        flow.closed = true;
        if core::mem::take(&mut flow.offered) {
            flow.late = id.generation;
        }
        self.reuse_if_over(id.index);
    }

    #[inline(always)] // one call site for each kind of slot, and DATA is what counts
    fn count_tx(&mut self, index: u32, quota: u32) -> Result<(), PeerFault> {
        let flow = &mut self.flows[index as usize];
        flow.tx_units += 1;
        self.tx_units += 1;
        if flow.tx_units > quota {
            return Err(PeerFault::Tokens { index, value: flow.tx_units, bound: quota });
        }
        if self.tx_units > self.geometry.units {
            return Err(PeerFault::Tokens { index, value: self.tx_units, bound: self.geometry.units });
        }
        Ok(())
    }

    /// Copies bytes of a unit from `at` on; `at + out.len()` is at most the unit's length.
    #[inline]
    pub fn read_tx(&self, unit: &TxUnit, at: usize, out: &mut [u8]) {
        debug_assert!(at + out.len() <= unit.len());
        if unit.buffer == NO_BUFFER {
            out.copy_from_slice(&unit.inline[at..at + out.len()]);
        } else {
            let start = self.shared.map().tx_pool + unit.buffer as usize * self.geometry.stride();
            self.shared.region().read(start + at, out);
        }
    }

    /// Gives a unit back: it was acknowledged, or will not be sent.
    #[inline]
    pub fn complete(&mut self, unit: TxUnit) {
        let entry = if unit.buffer == NO_BUFFER {
            Entry::Inline { flow: unit.flow, count: 1 }
        } else {
            self.tx_holder[unit.buffer as usize] = NOBODY;
            Entry::Buffer(unit.buffer)
        };
        self.tx_units -= 1;
        let flow = &mut self.flows[unit.flow as usize];
        flow.tx_units -= 1;
        let over = flow.closed && flow.done;
        self.dirty |= sleep::TOKENS | sleep::SENDER_TOKENS;
        if self.completions.add(entry) {
            self.publish_completions();
        }
        if over {
            self.reuse_if_over(unit.flow);
        }
    }

    fn publish_completions(&mut self) {
        let (head, inline) = self.completions.take();
        self.complete.push(&head, &inline[..usize::from(head.len) * 8]);
    }

    /// Takes what the application has returned, and tells of each.
    pub fn returns(&mut self, mut back: impl FnMut(Returned)) -> Result<usize, PeerFault> {
        let mut work = 0;
        while let Some(record) = self.giveback.pop() {
            if record.head.kind == kind::ACCEPTED {
                if let Some(flow) = self.accepted(&record)? {
                    back(Returned::Place(flow));
                }
                work += 1;
                continue;
            }
            for entry in entries(&record, "return")? {
                let (index, count) = self.take_back(entry)?;
                back(Returned::Units(index, count));
                work += 1;
            }
        }
        Ok(work)
    }

    /// A connection that the application has taken. None: it has forgotten it since. Each can be taken once, so that these
    /// slots have an end, too.
    #[cold]
    fn accepted(&mut self, record: &Record) -> Result<Option<FlowId>, PeerFault> {
        let id = FlowId { index: record.head.flow, generation: record.head.generation };
        let unknown = PeerFault::Flow { index: id.index, generation: id.generation };
        let flow = self.flows.get_mut(id.index as usize).ok_or(unknown)?;
        if flow.offered && flow.generation == id.generation {
            flow.offered = false;
            return Ok(Some(id));
        }
        if flow.late == id.generation && id.generation != 0 {
            flow.late = 0;
            return Ok(None);
        }
        Err(unknown)
    }

    fn take_back(&mut self, entry: Entry) -> Result<(u32, u32), PeerFault> {
        let (index, count) = match entry {
            Entry::Buffer(buffer) => {
                let holder =
                    self.rx_holder.get_mut(buffer as usize).ok_or(PeerFault::Buffer { index: buffer })?;
                if *holder == NOBODY {
                    return Err(PeerFault::Buffer { index: buffer });
                }
                let index = core::mem::replace(holder, NOBODY);
                self.rx_free.push(buffer);
                (index, 1)
            }
            Entry::Inline { flow, count } => {
                let state = self
                    .flows
                    .get_mut(flow as usize)
                    .ok_or(PeerFault::Flow { index: flow, generation: 0 })?;
                if count == 0 || count > state.rx_inline {
                    return Err(PeerFault::Tokens { index: flow, value: count, bound: state.rx_inline });
                }
                state.rx_inline -= count;
                (flow, count)
            }
        };
        let flow = &mut self.flows[index as usize];
        self.share.give(flow.rx_units + flow.granted, count);
        flow.rx_units -= count;
        self.rx_units -= count;
        self.reuse_if_over(index);
        Ok((index, count))
    }

    /// Takes the next request. None also while replies wait for room, so that they stay few.
    pub fn request(&mut self) -> Result<Option<Request>, PeerFault> {
        if !self.pending_replies.is_empty() {
            self.publish_replies();
            if !self.pending_replies.is_empty() {
                return Ok(None);
            }
        }
        match take(&mut self.requests, self.shared.region(), word::REQUESTS_TAKEN) {
            None => Ok(None),
            Some(head) => {
                self.dirty |= sleep::ROOM | sleep::SENDER_ROOM;
                Request::decode(&head).map(Some)
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
            self.replies.push(&reply.encode(), &[]);
            self.pending_replies.pop_front();
            self.dirty |= sleep::EVENTS;
        }
    }

    fn room_for_reply(&self) -> bool {
        has_room(self.replies.written(), self.shared.region(), word::REPLIES_TAKEN)
    }

    /// Reserves up to `more` units for what a connection may receive; how many it got. What is reserved over all
    /// connections and what is delivered never exceeds the channel's units, and no connection's part of that its share.
    #[inline]
    pub fn grant(&mut self, flow: FlowId, more: u32) -> u32 {
        let state = &mut self.flows[flow.index as usize];
        let held = state.rx_units + state.granted;
        let n = more.min(self.share.room(held));
        state.granted += n;
        self.share.take(held, n);
        n
    }

    /// Gives `n` reserved units back.
    pub fn ungrant(&mut self, flow: FlowId, n: u32) {
        let state = &mut self.flows[flow.index as usize];
        debug_assert!(n <= state.granted);
        self.share.give(state.rx_units + state.granted, n);
        state.granted -= n;
        self.reuse_if_over(flow.index);
    }

    /// Units neither delivered nor reserved, for any connection to have. Those that connections have for their own do not
    /// count: only one that holds all of its own is ever refused, and when these grow it may get more.
    pub fn free_units(&self) -> u32 {
        self.share.shared()
    }

    /// Delivers a unit straight from its packet, using up one reserved unit. False: nothing is reserved, or the payload
    /// is longer than a unit.
    #[inline]
    pub fn deliver(&mut self, flow: FlowId, fragment: Fragment, payload: &[u8]) -> bool {
        if payload.len() > self.geometry.unit_size as usize || self.flows[flow.index as usize].granted == 0 {
            return false;
        }
        if payload.len() <= INLINE {
            self.flows[flow.index as usize].rx_inline += 1;
            self.push_data(flow, fragment, NO_BUFFER, payload.len(), payload);
            return true;
        }
        let Some(held) = self.hold(payload) else { return false };
        self.deliver_held(flow, fragment, held);
        true
    }

    /// Keeps a unit that arrived ahead of its turn. There is a buffer as long as held units stay within what is reserved.
    pub fn hold(&mut self, payload: &[u8]) -> Option<HeldUnit> {
        if payload.len() > self.geometry.unit_size as usize {
            return None;
        }
        let buffer = self.rx_free.pop()?;
        let start = self.shared.map().rx_pool + buffer as usize * self.geometry.stride();
        self.shared.region().write(start, payload);
        Some(HeldUnit { buffer, len: payload.len() as u16 })
    }

    /// Delivers a kept unit, using up one reserved unit.
    pub fn deliver_held(&mut self, flow: FlowId, fragment: Fragment, held: HeldUnit) {
        self.rx_holder[held.buffer as usize] = flow.index;
        self.push_data(flow, fragment, held.buffer, usize::from(held.len), &[]);
    }

    /// Drops a kept unit.
    pub fn discard_held(&mut self, held: HeldUnit) {
        self.rx_free.push(held.buffer);
    }

    #[inline]
    fn push_data(&mut self, flow: FlowId, fragment: Fragment, buffer: u32, len: usize, inline: &[u8]) {
        let flags = if fragment.begin { BEGIN } else { 0 } | if fragment.end { END } else { 0 };
        let head =
            Head { kind: kind::DATA, flags, len: len as u16, a: buffer, b: fragment.message_len, ..of(flow) };
        self.use_grant(flow);
        self.push(&head, inline);
    }

    #[inline]
    fn use_grant(&mut self, flow: FlowId) {
        let state = &mut self.flows[flow.index as usize];
        debug_assert!(state.granted > 0, "a unit is delivered only within what was reserved");
        match state.granted.checked_sub(1) {
            Some(left) => state.granted = left,
            None => self.share.take(state.rx_units, 1),
        }
        state.rx_units += 1;
        self.rx_units += 1;
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
        self.flows[e.flow.index as usize].offered = flags == ACCEPTED;
        let ports = u32::from(e.local.1) << 16 | u32::from(e.peer.1);
        let head = Head {
            kind: kind::ESTABLISHED,
            flags,
            a: id,
            b: e.local.0.to_bits(),
            c: e.peer.0.to_bits(),
            d: ports,
            ..of(e.flow)
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
        self.flows[flow.index as usize].rx_inline += 1;
        self.use_grant(flow);
        self.push(&Head { kind, ..of(flow) }, &[]);
    }

    /// Tells that the connection is over. At most once.
    pub fn reset(&mut self, flow: FlowId, reason: Reason) {
        let (a, b) = reason.to_words();
        // A sender of whom nothing more is taken has finished already, and needs no other reason.
        if reason != Reason::Clean {
            self.tell_sender(flow.index, a);
            self.dirty |= sleep::SENDER_TOKENS;
        }
        self.push(&Head { kind: kind::RESET, a, b, ..of(flow) }, &[]);
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
        self.shared.ring_if_armed(core::mem::take(&mut self.dirty));
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
        self.shared.arm(wants, || {
            self.submit.ready()
                || if stuck { self.room_for_reply() } else { self.requests.ready() }
                || (returns && self.giveback.ready())
        })
    }

    /// After sleeping.
    pub fn disarm(&self) {
        self.shared.disarm(sleep::RECEIVER);
    }

    /// Whether the application has done something that was not seen to: what an armed end is rung for.
    #[inline]
    pub fn pending(&self) -> bool {
        let room = !self.pending_replies.is_empty() && self.room_for_reply();
        self.submit.ready() || self.giveback.ready() || self.requests.ready() || room
    }

    /// The descriptor to poll for input; it hangs up when the application is gone.
    pub fn doorbell(&self) -> i32 {
        self.shared.doorbell()
    }

    /// Empties the doorbell, and says what there was.
    pub fn drain_doorbell(&self) -> Rung {
        self.shared.drain()
    }

    /// Units delivered to a connection and not returned.
    #[inline]
    pub fn unread(&self, flow: FlowId) -> u32 {
        self.flows[flow.index as usize].rx_units
    }

    /// Units by who has them: (submitted and not completed, delivered and not returned, reserved). For tests and counters.
    pub fn usage(&self) -> (u32, u32, u32) {
        (self.tx_units, self.rx_units, self.share.held() - self.rx_units)
    }
}

fn of(flow: FlowId) -> Head {
    Head { flow: flow.index, generation: flow.generation, ..Head::default() }
}

impl core::fmt::Debug for EngineEnd {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EngineEnd")
            .field("geometry", &self.geometry)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

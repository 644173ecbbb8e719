//! Who holds what of a channel, as its engine knows it: connections, units, buffers. Whatever an application claims about them is checked
//! here against numbers that only the engine writes; the shared memory is not looked at.

use super::units::{Submission, TxUnit};
use crate::fault::PeerFault;
use crate::layout::{Geometry, MAX_MESSAGE};
use crate::share::Share;
use crate::slot::{Entry, Head, INLINE, NO_BUFFER, kind};
use crate::{FlowId, Fragment};
use alloc::vec::Vec;

/// The engine's side of the accounts of one channel.
pub(super) struct Ledger {
    geometry: Geometry,
    flows: Vec<FlowState>,
    free_flows: Vec<u32>,
    /// Per TX buffer: the connection for which the application has lent it to us, or nobody.
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
}

const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy, Default)]
struct FlowState {
    generation: u32,
    open: bool,
    /// The application has forgotten it: it submits nothing more.
    closed: bool,
    /// The engine has forgotten it.
    done: bool,
    finished: bool,
    /// It was announced to a listener, and the application has neither accepted nor forgotten it.
    offered: bool,
    /// The generation that was last forgotten while it was `offered`; 0: none. The slot that says it was accepted may still come: the
    /// submit ring, which says that it is forgotten, is not ordered against the return ring.
    late: u32,
    /// Bytes of the message under way that were not submitted yet; `None` between messages.
    left: Option<u32>,
    tx_units: u32,
    rx_units: u32,
    /// Of `rx_units`, those without a buffer.
    rx_inline: u32,
    granted: u32,
}

impl Ledger {
    /// Of a channel that nobody has used yet.
    pub fn new(g: Geometry) -> Ledger {
        Ledger {
            flows: alloc::vec![FlowState::default(); g.flows as usize],
            free_flows: (0..g.flows).rev().collect(),
            tx_holder: alloc::vec![NOBODY; g.units as usize],
            rx_holder: alloc::vec![NOBODY; g.units as usize],
            rx_free: (0..g.units).rev().collect(),
            tx_units: 0,
            rx_units: 0,
            share: Share::new(g),
            geometry: g,
        }
    }

    // ---- connections

    /// Makes a connection; `None` when all are taken.
    pub fn open(&mut self) -> Option<FlowId> {
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
        Some(FlowId { index, generation })
    }

    /// A connection is announced to the application; `offered`: to a listener, where it waits to be accepted.
    pub fn announced(&mut self, flow: FlowId, offered: bool) {
        self.flows[flow.index as usize].offered = offered;
    }

    /// The application has not heard of the connection, and never will.
    pub fn never_announced(&mut self, flow: FlowId) {
        self.flows[flow.index as usize].closed = true;
    }

    /// The engine has no more use for the connection.
    pub fn done(&mut self, flow: FlowId) {
        self.flows[flow.index as usize].done = true;
        self.reuse_if_over(flow.index);
    }

    /// Connections that are open or not yet forgotten by both sides.
    pub fn open_flows(&self) -> usize {
        self.flows.len() - self.free_flows.len()
    }

    /// Frees the index of a connection that both sides have forgotten, once nothing of it is under way.
    #[inline]
    fn reuse_if_over(&mut self, index: u32) {
        let flow = &self.flows[index as usize];
        if flow.closed && flow.done {
            self.reuse_if_empty(index);
        }
    }

    #[cold]
    fn reuse_if_empty(&mut self, index: u32) {
        let flow = &mut self.flows[index as usize];
        if flow.open && flow.tx_units == 0 && flow.rx_units == 0 && flow.granted == 0 {
            flow.open = false;
            self.free_flows.push(index);
        }
    }

    // ---- sending

    /// Checks a slot of the submit ring and enters it. `inline` copies so many bytes out of the slot, where they are in it.
    #[inline]
    pub fn submitted(
        &mut self,
        head: &Head,
        inline: impl FnOnce(usize, &mut [u8; INLINE]),
    ) -> Result<Submission, PeerFault> {
        let id = head.flow_id();
        let unit_size = self.geometry.unit_size;
        let unknown = PeerFault::Flow { index: id.index, generation: id.generation };
        let flow = self.flows.get_mut(head.flow as usize).ok_or(unknown)?;
        if !flow.open || flow.generation != id.generation || flow.closed {
            return Err(unknown);
        }
        let mut unit = TxUnit::empty(head.flow);
        match head.kind {
            kind::DATA => {
                let len = u32::from(head.len);
                let bound = if head.a == NO_BUFFER { INLINE as u32 } else { unit_size };
                if len > bound {
                    return Err(PeerFault::Bound { what: "length of a unit", value: len, bound });
                }
                let fragment = head.fragment();
                let Fragment { begin, end, .. } = fragment;
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
                    inline(len as usize, &mut unit.inline);
                } else {
                    let holder = self.tx_holder.get_mut(head.a as usize);
                    match holder {
                        Some(holder) if *holder == NOBODY => *holder = head.flow,
                        _ => return Err(PeerFault::Buffer { index: head.a }),
                    }
                    unit.buffer = head.a;
                }
                self.count_tx(head.flow)?;
                Ok(Submission::Data { flow: id, fragment, unit })
            }
            kind::ABORT => {
                if flow.left.take().is_none() {
                    return Err(PeerFault::Framing { index: head.flow, left: 0, len: 0 });
                }
                self.count_tx(head.flow)?;
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
                self.count_tx(head.flow)?;
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

    /// The application has forgotten the connection.
    fn forgotten(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.index as usize];
        flow.closed = true;
        if core::mem::take(&mut flow.offered) {
            flow.late = id.generation;
        }
        self.reuse_if_over(id.index);
    }

    #[inline(always)] // one call site for each kind of slot, and DATA is what counts
    fn count_tx(&mut self, index: u32) -> Result<(), PeerFault> {
        let quota = self.geometry.quota();
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

    /// A unit goes back to the application; the entry that says so.
    #[inline]
    pub fn completed(&mut self, unit: &TxUnit) -> Entry {
        let entry = if unit.buffer == NO_BUFFER {
            Entry::Inline { flow: unit.flow, count: 1 }
        } else {
            self.tx_holder[unit.buffer as usize] = NOBODY;
            Entry::Buffer(unit.buffer)
        };
        self.tx_units -= 1;
        let flow = &mut self.flows[unit.flow as usize];
        flow.tx_units -= 1;
        self.reuse_if_over(unit.flow);
        entry
    }

    // ---- receiving

    /// Reserves up to `more` units for a connection, within its share; how many.
    #[inline]
    pub fn grant(&mut self, flow: FlowId, more: u32) -> u32 {
        let state = &mut self.flows[flow.index as usize];
        let held = state.rx_units + state.granted;
        let n = more.min(self.share.room(held));
        state.granted += n;
        self.share.take(held, n);
        n
    }

    /// Takes `n` reserved units back.
    pub fn ungrant(&mut self, flow: FlowId, n: u32) {
        let state = &mut self.flows[flow.index as usize];
        debug_assert!(n <= state.granted);
        self.share.give(state.rx_units + state.granted, n);
        state.granted -= n;
        self.reuse_if_over(flow.index);
    }

    /// Whether a unit is reserved for the connection.
    #[inline]
    pub fn has_grant(&self, flow: FlowId) -> bool {
        self.flows[flow.index as usize].granted != 0
    }

    /// Free units that no connection has for its own.
    pub fn shared_units(&self) -> u32 {
        self.share.shared()
    }

    /// A free RX buffer.
    #[inline]
    pub fn take_buffer(&mut self) -> Option<u32> {
        self.rx_free.pop()
    }

    /// An RX buffer that was not delivered is free once more.
    pub fn free_buffer(&mut self, buffer: u32) {
        self.rx_free.push(buffer);
    }

    /// A unit without a buffer is delivered, and uses up one that was reserved. False: none is.
    #[inline]
    pub fn deliver_inline(&mut self, flow: FlowId) -> bool {
        let state = &mut self.flows[flow.index as usize];
        let Some(left) = state.granted.checked_sub(1) else { return false };
        state.granted = left;
        state.rx_inline += 1;
        state.rx_units += 1;
        self.rx_units += 1;
        true
    }

    /// A unit is delivered and uses up one that was reserved; `buffer` may be [`NO_BUFFER`].
    #[inline]
    pub fn delivered(&mut self, flow: FlowId, buffer: u32) {
        let state = &mut self.flows[flow.index as usize];
        if buffer == NO_BUFFER {
            state.rx_inline += 1;
        } else {
            self.rx_holder[buffer as usize] = flow.index;
        }
        debug_assert!(state.granted > 0, "a unit is delivered only within what was reserved");
        match state.granted.checked_sub(1) {
            Some(left) => state.granted = left,
            None => self.share.take(state.rx_units, 1),
        }
        state.rx_units += 1;
        self.rx_units += 1;
    }

    /// Checks an entry of the return ring and enters it: the index of the connection, and how many of its units came back.
    pub fn returned(&mut self, entry: Entry) -> Result<(u32, u32), PeerFault> {
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

    /// The application says that it has accepted a connection. None: it has forgotten it since. Each can be accepted once, which bounds
    /// the number of such slots, too.
    #[cold]
    pub fn accepted(&mut self, id: FlowId) -> Result<Option<FlowId>, PeerFault> {
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

    /// Checks a connection that a request names. It may be over, since requests are not ordered against what is submitted; one that never
    /// was is a fault.
    pub fn asked_about(&self, id: FlowId) -> Result<(), PeerFault> {
        let last = self.flows.get(id.index as usize).map_or(0, |flow| flow.generation);
        // Generations count up and wrap: one that is half the way round behind the last one was before it.
        if last != 0 && id.generation != 0 && last.wrapping_sub(id.generation) <= u32::MAX / 2 {
            return Ok(());
        }
        Err(PeerFault::Flow { index: id.index, generation: id.generation })
    }

    /// Units delivered to a connection and not returned.
    #[inline]
    pub fn unread(&self, flow: FlowId) -> u32 {
        self.flows[flow.index as usize].rx_units
    }

    /// Units by who has them: (submitted and not completed, delivered and not returned, reserved).
    pub fn usage(&self) -> (u32, u32, u32) {
        (self.tx_units, self.rx_units, self.share.held() - self.rx_units)
    }
}

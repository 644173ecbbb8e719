//! Applications: what they submit, return and ask for, in turn and a burst at a time.

use std::collections::HashMap;

use machnet_flow::{CreditWait, Flow, SendError, Unit};
use machnet_shm::{EngineEnd, FlowId, HeldUnit, PeerFault, Reason, Returned, Submission, TxUnit};
use machnet_wire::{self as wire, Nanos};

use crate::admission::{self, Waiting};
use crate::attention::Ear;
use crate::conn::{Bound, Token, View};
use crate::ids::{ChannelIndex, ChannelNumber, ConnHandle, ConnIndex};
use crate::shared::{End, Note};
use crate::state::Core;

/// A channel as its engine serves it.
pub(crate) struct Channel {
    /// Its number within the sidecar.
    pub number: ChannelNumber,
    pub end: EngineEnd,
    /// By index of the application's handle: the connection that it names, unless that is over.
    pub places: Vec<Option<ConnIndex>>,
    /// How many of them name a flow.
    pub live: u32,
    pub listeners: HashMap<u32, Listener>,
    /// By index of the handle: the listener in whose backlog it has a place.
    pub offered: Vec<Option<u32>>,
    /// Nobody is served any more: what was submitted is still delivered.
    pub gone: bool,
    /// Until then, once nobody is.
    pub until: Nanos,
    /// Why the channel ends, once nobody is served.
    pub why: End,
    /// How it is attended to.
    pub ear: Ear,
}

impl Channel {
    /// A channel that nobody serves yet. Made and dropped outside of the engine's thread: both take their time.
    pub fn new(number: ChannelNumber, end: EngineEnd) -> Box<Self> {
        let flows = end.geometry().flows as usize;
        Box::new(Self {
            number,
            end,
            places: vec![None; flows],
            live: 0,
            listeners: HashMap::new(),
            offered: vec![None; flows],
            gone: false,
            until: Nanos::MAX,
            why: End::Left,
            ear: Ear::new(Nanos::ZERO),
        })
    }
}

/// A listener of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listener {
    pub backlog: u32,
    /// Connections that the application has not taken: half-open ones, and those that wait for it.
    pub waiting: u32,
}

impl Core {
    /// Reads what other threads had to say, a few things at a time: applications that leave together have much to be read and
    /// finished, while packets come.
    pub fn read_notes(&mut self) -> usize {
        let mut work = 0;
        while work < NOTES
            && let Some(note) = self.shared.inboxes[self.index.place()].notes.pop()
        {
            work += 1;
            match note {
                Note::Attach(channel) => self.attach(channel),
                Note::Detach(number, why) => {
                    if let Some(at) = self.place_of(number) {
                        self.detach(at, why);
                    }
                }
                Note::Query(number, query) => self.queries.ask(number, query),
                Note::Shutdown => self.begin_shutdown(),
            }
        }
        work
    }

    fn attach(&mut self, channel: Box<Channel>) {
        if self.shutdown {
            return self.shared.report_over(self.index, channel, End::Shutdown);
        }
        self.counters().channels_attached.add(1);
        let at = match self.channels.iter().position(Option::is_none) {
            Some(at) => at,
            None => {
                self.channels.push(None);
                self.channels.len() - 1
            }
        };
        self.numbers.insert(channel.number, at);
        self.channels[at] = Some(channel);
        self.admission.open(ChannelIndex(at as u32));
        self.attend_to(at as u32);
    }

    /// Where the channel of this number is.
    pub fn place_of(&self, number: ChannelNumber) -> Option<usize> {
        self.numbers.get(&number).copied()
    }

    /// Serves each channel once, at most `burst` submissions each. Returns what there was to do.
    #[inline]
    pub fn serve_channels(&mut self, burst: usize) -> usize {
        let mut work = 0;
        let mut turn = 0;
        // One that ends leaves the list, and another takes its turn in the next round.
        while let Some(&at) = self.attention.busy.get(turn) {
            turn += 1;
            let at = at as usize;
            match self.serve(at, burst) {
                Ok(0) => {}
                Ok(n) => {
                    work += n;
                    if let Some(Some(channel)) = self.channels.get_mut(at) {
                        channel.ear.worked = self.now;
                    }
                }
                Err(fault) => self.cut(at, End::Fault(fault)),
            }
        }
        work
    }

    #[inline]
    fn serve(&mut self, at: usize, burst: usize) -> Result<usize, PeerFault> {
        let Some(Some(channel)) = self.channels.get_mut(at) else { return Ok(0) };
        if channel.gone {
            return Ok(0);
        }
        let mut work = 0;
        if let Some(request) = channel.end.request()? {
            self.on_request(at, request);
            work += 1;
        }
        work += self.take_submissions(at, burst)?;
        work += self.take_returns(at)?;
        Ok(work)
    }

    #[inline]
    pub fn take_submissions(&mut self, at: usize, most: usize) -> Result<usize, PeerFault> {
        let mut taken = 0;
        while taken < most {
            let Some(Some(channel)) = self.channels.get_mut(at) else { break };
            let Some(submission) = channel.end.submission()? else { break };
            taken += 1;
            self.on_submission(at, submission)?;
        }
        self.counters().tx_units.add(taken as u64);
        Ok(taken)
    }

    #[expect(
        clippy::result_large_err,
        reason = "a unit that was not taken comes back with its inline bytes; rare"
    )]
    #[inline]
    fn on_submission(&mut self, at: usize, submission: Submission) -> Result<(), PeerFault> {
        match submission {
            Submission::Data { flow, fragment, unit } => {
                let len = unit.len() as u32;
                self.submit(at, flow, unit, |flow, _, tx| flow.send(Unit { fragment, len, tx }))
            }
            Submission::Fin { flow, unit } => self.submit(at, flow, unit, |flow, _, tx| flow.fin(tx)),
            Submission::Abort { flow, unit } => {
                self.submit(at, flow, unit, |flow, view, tx| flow.abort(tx, view))
            }
            Submission::Close { flow } => {
                self.app_closed(at, flow);
                Ok(())
            }
            Submission::Reset { flow } => {
                if let Some(index) = self.let_go(at, flow) {
                    self.drive(index, |flow, _, view| flow.reset(wire::Reason::Aborted, view));
                }
                Ok(())
            }
        }
    }

    /// Gives a unit to its flow; a unit that comes too late completes at once.
    #[expect(clippy::result_large_err, reason = "as above")]
    #[inline]
    fn submit(
        &mut self,
        at: usize,
        id: FlowId,
        unit: TxUnit,
        give: impl FnOnce(
            &mut Flow<Token, HeldUnit>,
            &mut View<'_>,
            Token,
        ) -> Result<(), machnet_flow::NotSent<Token>>,
    ) -> Result<(), PeerFault> {
        let Some(Some(channel)) = self.channels.get_mut(at) else { return Ok(()) };
        let Some(index) = channel.place(id) else {
            channel.end.complete(unit);
            self.counters().stale_submissions.add(1);
            return Ok(());
        };
        let given = self.drive(index, |flow, _, view| give(flow, view, Token::Unit(unit)));
        match given {
            Some(Err(not)) => self.not_sent(at, index, id, not),
            _ => Ok(()),
        }
    }

    #[cold]
    fn not_sent(
        &mut self,
        at: usize,
        index: ConnIndex,
        id: FlowId,
        not: machnet_flow::NotSent<Token>,
    ) -> Result<(), PeerFault> {
        self.counters().stale_submissions.add(1);
        if let (Some(Some(channel)), Token::Unit(unit)) = (self.channels.get_mut(at), not.tx) {
            channel.end.complete(unit);
        }
        match not.why {
            SendError::NotOpen => Ok(()),
            SendError::Malformed(_) => Err(PeerFault::Flow { index: id.index, generation: id.generation }),
            SendError::Full => {
                self.drive(index, |flow, _, view| flow.reset(wire::Reason::NoResources, view));
                Ok(())
            }
        }
    }

    /// The application closed a connection: what it sent goes out, then a FIN; it reads no more.
    fn app_closed(&mut self, at: usize, id: FlowId) {
        let Some(index) = self.let_go(at, id) else { return };
        self.drive(index, |flow, now, view| {
            if flow.fin(Token::Own).is_err() {
                // Within a message: the peer must not wait for the rest of it.
                let _ = flow.abort(Token::Own, view);
                let _ = flow.fin(Token::Own);
            }
            flow.stop_reading(now, view);
        });
    }

    /// The application's handle ends. The flow that it named, if that is not over.
    fn let_go(&mut self, at: usize, id: FlowId) -> Option<ConnIndex> {
        let channel = self.channels.get_mut(at)?.as_mut()?;
        channel.free_place(id);
        let index = channel.place(id)?;
        self.flows.get_mut(index)?.closed = true;
        Some(index)
    }

    /// Whether a listener's backlog is full, by what the application has said until now: it does not ring when it takes a
    /// connection.
    pub fn is_full(&mut self, at: usize, listener: u32) -> bool {
        let full = |core: &Self| {
            let listener = core.channels.get(at)?.as_ref()?.listeners.get(&listener)?;
            Some(listener.waiting >= listener.backlog)
        };
        if full(self) != Some(true) {
            return false;
        }
        if let Err(fault) = self.take_returns(at) {
            self.cut(at, End::Fault(fault));
        }
        full(self) == Some(true)
    }

    #[inline]
    fn take_returns(&mut self, at: usize) -> Result<usize, PeerFault> {
        let Some(Some(channel)) = self.channels.get_mut(at) else { return Ok(0) };
        let mut returned = core::mem::take(&mut self.returned);
        let taken = channel.end.returns(|back| match (back, returned.last_mut()) {
            (Returned::Units(index, n), Some(Returned::Units(last, sum))) if *last == index => *sum += n,
            _ => returned.push(back),
        })?;
        for &back in &returned {
            let Some(Some(channel)) = self.channels.get_mut(at) else { break };
            match back {
                Returned::Place(id) => channel.free_place(id),
                Returned::Units(index, n) => {
                    let Some(&Some(index)) = channel.places.get(index as usize) else { continue };
                    if let Some(conn) = self.flows.get_mut(index) {
                        self.admission.has_read(&mut conn.claim);
                    }
                    self.drive(index, |flow, now, view| flow.credit_returned(now, n, view));
                }
            }
        }
        returned.clear();
        self.returned = returned;
        self.serve_unit_waiters(at);
        Ok(taken)
    }

    /// When units of a channel have become free, connections whose peers wait for some have their turns, a few at a time.
    #[inline]
    fn serve_unit_waiters(&mut self, at: usize) {
        if self.admission.awaits_units(ChannelIndex(at as u32)) {
            self.take_unit_turns(at);
        }
    }

    #[cold]
    fn take_unit_turns(&mut self, at: usize) {
        let free = |core: &Self| Some(core.channels.get(at)?.as_ref()?.end.free_units());
        let place = ChannelIndex(at as u32);
        if !free(self).is_some_and(|free| self.admission.look(place, free)) {
            return;
        }
        for _ in 0..admission::TURNS {
            let Some(handle) = self.admission.next_for_units(place) else { break };
            self.take_turn(handle);
        }
        if let Some(free) = free(self) {
            self.admission.looked(place, free);
        }
    }

    /// When there is room in a receive ring again, connections whose peers wait for it have their turns.
    #[inline]
    pub fn serve_ring_waiters(&mut self) {
        if self.admission.rings_due() {
            self.take_ring_turns();
        }
    }

    #[cold]
    fn take_ring_turns(&mut self) {
        for _ in 0..admission::TURNS {
            let Some(handle) = self.admission.next_for_ring() else { break };
            self.take_turn(handle);
        }
    }

    /// Lets a flow have what it waits for, as far as there is any.
    fn take_turn(&mut self, handle: ConnHandle) {
        let index = handle.index;
        let Some(conn) = self.flows.resolve(handle) else { return };
        self.admission.begin_turn(&mut conn.claim);
        self.drive(index, |flow, now, view| flow.credit_returned(now, 0, view));
        if let Some(conn) = self.flows.get_mut(index) {
            self.admission.end_turn(&mut conn.claim);
        }
    }

    /// A flow's peer waits: it is called when that changes.
    #[cold]
    pub fn wait_for_credit(&mut self, index: ConnIndex, wait: CreditWait) {
        let Some((handle, conn)) = self.flows.entry(index) else { return };
        let Some((at, _)) = conn.bound.place() else { return };
        let Some(Some(channel)) = self.channels.get(at as usize) else { return };
        let free = channel.end.free_units();
        if self.admission.wait(&mut conn.claim, handle, wait, free) == Waiting::ReceiveRing {
            self.counters().budget_waits.add(1);
        }
    }

    /// Publishes what was delivered and completed, and wakes who sleeps.
    #[inline]
    pub fn flush_channels(&mut self) {
        for &at in &self.attention.busy {
            if let Some(Some(channel)) = self.channels.get_mut(at as usize) {
                channel.end.flush();
            }
        }
    }

    /// A flow has ended: its handle is the application's until it lets go, or free at once.
    pub fn end_place(&mut self, bound: Bound, let_go: bool, why: Reason) {
        let Some((at, id)) = bound.place() else { return };
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        self.attention.touch(at, channel);
        if let Some(place) = channel.places.get_mut(id.index as usize)
            && place.take().is_some()
        {
            channel.live -= 1;
        }
        if matches!(bound, Bound::Opening { .. }) {
            channel.free_place(id);
            channel.end.discard_flow(id);
        } else {
            if !let_go {
                channel.end.reset(id, why);
            }
            channel.end.flow_done(id);
        }
        self.drop_if_idle(at as usize);
    }
}

impl Channel {
    /// The connection that an application's handle names, unless it is over.
    #[inline]
    pub fn place(&self, id: FlowId) -> Option<ConnIndex> {
        self.places.get(id.index as usize).copied().flatten()
    }

    /// Gives a connection that begins a place in a listener's backlog.
    pub fn take_place(&mut self, id: FlowId, number: u32) {
        if let (Some(slot), Some(listener)) =
            (self.offered.get_mut(id.index as usize), self.listeners.get_mut(&number))
        {
            listener.waiting += 1;
            *slot = Some(number);
        }
    }

    /// The application has taken or forgotten a connection, or it never came to be: its place, if it has one, is free.
    pub fn free_place(&mut self, id: FlowId) {
        if let Some(number) = self.offered.get_mut(id.index as usize).and_then(Option::take)
            && let Some(listener) = self.listeners.get_mut(&number)
        {
            listener.waiting -= 1;
        }
    }
}

/// Notes read in one round.
const NOTES: usize = 8;

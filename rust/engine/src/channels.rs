//! Applications: what they submit, return and ask for, in turn and a burst at a time.

use std::collections::{HashMap, VecDeque};

use machnet_flow::{CreditWait, Flow, SendError, Unit};
use machnet_shm::{EngineEnd, FlowId, HeldUnit, PeerFault, Reason, Returned, Submission, TxUnit};
use machnet_wire::{self as wire, Nanos};

use crate::attention::Ear;
use crate::conn::{Bound, Token, View, Waits};
use crate::shared::{End, Note};
use crate::state::Core;

/// A channel as its engine serves it.
pub(crate) struct Channel {
    /// Its number within the sidecar.
    pub number: u64,
    pub end: EngineEnd,
    /// By index of the handle: the flow's number, `NONE` when it is over or there is none.
    pub places: Vec<u32>,
    /// How many of them name a flow.
    pub live: u32,
    pub listeners: HashMap<u32, Listener>,
    /// By index of the handle: the listener in whose backlog it has a place.
    pub offered: Vec<Option<u32>>,
    /// Handles of flows that could not reserve the receive units their peers wait for, longest first.
    pub starved: VecDeque<u64>,
    /// Units that were free when those were last given a chance.
    pub free_seen: u32,
    /// How many of them have not had theirs since.
    pub hungry: usize,
    /// Connections whose peers wait for the application to read.
    pub unread: u32,
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
    pub fn new(number: u64, end: EngineEnd) -> Box<Self> {
        let flows = end.geometry().flows as usize;
        Box::new(Self {
            number,
            end,
            places: vec![NONE; flows],
            live: 0,
            listeners: HashMap::new(),
            offered: vec![None; flows],
            starved: VecDeque::new(),
            free_seen: 0,
            hungry: 0,
            unread: 0,
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
            && let Some(note) = self.shared.inboxes[usize::from(self.index)].notes.pop()
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
        self.attend_to(at as u32);
    }

    /// Where the channel of this number is.
    pub fn place_of(&self, number: u64) -> Option<usize> {
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
        let index = channel.place(id);
        if index == NONE {
            channel.end.complete(unit);
            self.counters().stale_submissions.add(1);
            return Ok(());
        }
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
        index: u32,
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
    fn let_go(&mut self, at: usize, id: FlowId) -> Option<u32> {
        let channel = self.channels.get_mut(at)?.as_mut()?;
        channel.free_place(id);
        let index = channel.place(id);
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
                    let index = channel.places.get(index as usize).copied().unwrap_or(NONE);
                    self.stop_waiting(index, Waits::Reader);
                    self.drive(index, |flow, now, view| flow.credit_returned(now, n, view));
                }
            }
        }
        returned.clear();
        self.returned = returned;
        self.feed_starved(at);
        Ok(taken)
    }

    /// When units have become free, flows whose peers wait for some get another chance, a few at a time and in turn.
    #[inline]
    fn feed_starved(&mut self, at: usize) {
        let Some(Some(channel)) = self.channels.get_mut(at) else { return };
        if channel.starved.is_empty() {
            return;
        }
        let free = channel.end.free_units();
        if free > channel.free_seen {
            channel.hungry = channel.starved.len();
        }
        channel.free_seen = free;
        if free == 0 {
            return;
        }
        let mut fed = 0;
        while fed < FED {
            let Some(Some(channel)) = self.channels.get_mut(at) else { return };
            if channel.hungry == 0 {
                break;
            }
            channel.hungry -= 1;
            let Some(handle) = channel.starved.pop_front() else { break };
            let Some(index) = self.flows.resolve(handle) else { continue };
            fed += 1;
            self.stop_waiting(index, Waits::Units);
            // One that is still hungry goes to the back when its turn to send is over.
            self.drive(index, |flow, now, view| flow.credit_returned(now, 0, view));
        }
        if let Some(Some(channel)) = self.channels.get_mut(at) {
            channel.free_seen = channel.end.free_units();
        }
    }

    /// A flow's peer waits: notes for what, so that it is served when that changes.
    #[cold]
    pub fn begin_waiting(&mut self, index: u32, wait: CreditWait) {
        let handle = self.flows.handle_of(index);
        let Some(conn) = self.flows.get_mut(index) else { return };
        let Some((at, _)) = conn.bound.place() else { return };
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        conn.waits = match wait {
            CreditWait::Reader => Waits::Reader,
            CreditWait::Units if conn.promise.is_denied() => Waits::Ring,
            CreditWait::Units => Waits::Units,
        };
        match conn.waits {
            Waits::No => {}
            Waits::Reader => channel.unread += 1,
            Waits::Units => {
                // Units that come free from now on are news.
                channel.free_seen = channel.free_seen.min(channel.end.free_units());
                channel.starved.push_back(handle);
            }
            Waits::Ring => {
                self.budget.wait(&mut conn.promise, handle);
                self.counters().budget_waits.add(1);
            }
        }
    }

    /// What a flow's peer waited for has changed.
    #[inline]
    fn stop_waiting(&mut self, index: u32, what: Waits) {
        let Some(conn) = self.flows.get_mut(index) else { return };
        if conn.waits != what {
            return;
        }
        conn.waits = Waits::No;
        if what == Waits::Reader
            && let Some((at, _)) = conn.bound.place()
            && let Some(Some(channel)) = self.channels.get_mut(at as usize)
        {
            channel.unread -= 1;
        }
    }

    /// When there is room in the receive ring again, flows whose peers wait for it get some, in turn.
    #[inline]
    pub fn feed_hungry(&mut self) {
        let mut fed = 0;
        while fed < FED {
            let Some(handle) = self.budget.feed() else { return };
            if let Some(index) = self.flows.resolve(handle) {
                fed += 1;
                if let Some(conn) = self.flows.get_mut(index) {
                    conn.promise.served();
                }
                self.stop_waiting(index, Waits::Ring);
                self.drive(index, |flow, now, view| flow.credit_returned(now, 0, view));
            }
            self.budget.fed();
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
    pub fn end_place(&mut self, bound: Bound, waits: Waits, let_go: bool, why: Reason) {
        let Some((at, id)) = bound.place() else { return };
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        self.attention.touch(at, channel);
        channel.unread -= u32::from(waits == Waits::Reader);
        if let Some(place) = channel.places.get_mut(id.index as usize)
            && *place != NONE
        {
            *place = NONE;
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
    /// The number of the flow that a handle names, or `NONE`.
    #[inline]
    pub fn place(&self, id: FlowId) -> u32 {
        self.places.get(id.index as usize).copied().unwrap_or(NONE)
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
/// Hungry flows that get a chance in one round.
const FED: usize = 16;
/// No flow.
pub(crate) const NONE: u32 = u32::MAX;

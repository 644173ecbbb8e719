//! Serving applications: what they submit, return and ask for, in turn and a burst at a time.

use machnet_flow::{Flow, NotSent, SendError, Unit};
use machnet_shm::{FlowId, HeldUnit, PeerFault, Returned, Submission, TxUnit};
use machnet_wire as wire;

use crate::channel::{Channel, End};
use crate::ids::{ChannelIndex, ConnIndex};
use crate::rss::Paper;
use crate::shared::Note;
use crate::state::Core;
use crate::view::{Outgoing, View};

impl Core {
    /// Reads what other threads had to say, a few things at a time: applications that leave together have much to be read and
    /// finished, while packets come.
    pub fn read_notes(&mut self) -> usize {
        let mut work = 0;
        while work < NOTES
            && let Some(note) = self.own.inbox().notes.pop()
        {
            work += 1;
            match note {
                Note::Attach(channel) => self.attach(channel),
                Note::Detach(number, why) => {
                    if let Some(at) = self.channels.find(number) {
                        self.detach(at, why);
                    }
                }
                Note::Query(number, query) => self.queries.ask(number, query),
                Note::TooLong(hint) => self.on_hint(hint),
                Note::Shutdown => self.begin_shutdown(),
            }
        }
        work
    }

    fn attach(&mut self, channel: Box<Channel>) {
        if self.ending.shutdown {
            return self.own.report_over(channel, End::Shutdown);
        }
        self.counters().channels_attached.add(1);
        let at = self.channels.insert(channel, self.clock.now);
        self.admission.open(at);
    }

    /// Serves each channel once, at most `burst` submissions each. Returns what there was to do.
    #[inline]
    pub fn serve_channels(&mut self, burst: usize) -> usize {
        let mut work = 0;
        let mut turn = 0;
        let requests = self.paper.is_none_or(|paper| paper.look_at <= self.clock.now);
        if let (true, Some(paper)) = (requests, &mut self.paper) {
            *paper = Paper::at(self.clock.now);
        }
        // One that ends leaves the list, and another takes its turn in the next round.
        while let Some(at) = self.channels.polled_at(turn) {
            turn += 1;
            match self.serve(at, burst, requests) {
                Ok(0) => {}
                Ok(n) => {
                    work += n;
                    if let Some(channel) = self.channels.get_mut(at) {
                        channel.watch.worked = self.clock.now;
                    }
                }
                Err(fault) => self.cut(at, End::Fault(fault)),
            }
        }
        work
    }

    #[inline]
    fn serve(&mut self, at: ChannelIndex, burst: usize, requests: bool) -> Result<usize, PeerFault> {
        let Some(channel) = self.channels.get_mut(at) else { return Ok(0) };
        if channel.draining {
            return Ok(0);
        }
        let mut work = 0;
        if requests && let Some(request) = channel.end.request()? {
            self.on_request(at, request);
            work += 1;
        }
        work += self.take_submissions(at, burst)?;
        work += self.take_returns(at)?;
        Ok(work)
    }

    #[inline]
    pub fn take_submissions(&mut self, at: ChannelIndex, most: usize) -> Result<usize, PeerFault> {
        let mut taken = 0;
        while taken < most {
            let Some(channel) = self.channels.get_mut(at) else { break };
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
    fn on_submission(&mut self, at: ChannelIndex, submission: Submission) -> Result<(), PeerFault> {
        match submission {
            Submission::Data { flow, fragment, unit } => {
                let len = unit.len() as u32;
                self.submit(at, flow, unit, |flow, _, tx| flow.send(Unit { fragment, len, tx }))
            }
            Submission::Fin { flow, unit } => self.submit(at, flow, unit, |flow, _, tx| flow.fin(tx)),
            Submission::Abort { flow, unit } => {
                self.submit(at, flow, unit, |flow, io, tx| flow.abort(tx, io))
            }
            Submission::Close { flow } => {
                self.app_closed(at, flow);
                Ok(())
            }
            Submission::Reset { flow } => {
                if let Some(index) = self.let_go(at, flow) {
                    self.with(index, |flow, io| flow.reset(wire::Reason::Aborted, io));
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
        at: ChannelIndex,
        id: FlowId,
        unit: TxUnit,
        give: impl FnOnce(&mut Flow<Outgoing, HeldUnit>, &mut View<'_>, Outgoing) -> Result<(), NotSent<Outgoing>>,
    ) -> Result<(), PeerFault> {
        let Some(channel) = self.channels.get_mut(at) else { return Ok(()) };
        let Some(index) = channel.conn(id) else {
            channel.end.complete(unit);
            self.counters().stale_submissions.add(1);
            return Ok(());
        };
        let given = self.with(index, |flow, io| give(flow, io, Outgoing::Unit(unit)));
        match given {
            Some(Err(not)) => self.not_sent(at, index, id, not),
            _ => Ok(()),
        }
    }

    #[cold]
    fn not_sent(
        &mut self,
        at: ChannelIndex,
        index: ConnIndex,
        id: FlowId,
        not: NotSent<Outgoing>,
    ) -> Result<(), PeerFault> {
        self.counters().stale_submissions.add(1);
        if let (Some(channel), Outgoing::Unit(unit)) = (self.channels.get_mut(at), not.tx) {
            channel.end.complete(unit);
        }
        match not.why {
            SendError::NotOpen => Ok(()),
            SendError::Malformed(_) => Err(PeerFault::Flow { index: id.index, generation: id.generation }),
            SendError::Full => {
                self.with(index, |flow, io| flow.reset(wire::Reason::NoResources, io));
                Ok(())
            }
        }
    }

    /// The application closed a connection: what it sent goes out, then a FIN; it reads no more.
    fn app_closed(&mut self, at: ChannelIndex, id: FlowId) {
        let Some(index) = self.let_go(at, id) else { return };
        self.with(index, |flow, io| {
            if flow.fin(Outgoing::End).is_err() {
                // Within a message: the peer must not wait for the rest of it.
                let _ = flow.abort(Outgoing::End, io);
                let _ = flow.fin(Outgoing::End);
            }
            flow.stop_reading(io.now(), io);
        });
    }

    /// The application's handle ends. The flow that it named, if that is not over.
    fn let_go(&mut self, at: ChannelIndex, id: FlowId) -> Option<ConnIndex> {
        let channel = self.channels.get_mut(at)?;
        channel.free_place(id);
        channel.forget_last(id);
        let index = channel.conn(id)?;
        self.conns.get_mut(index)?.who.released = true;
        Some(index)
    }

    /// Whether a listener's backlog is full, by what the application has said until now: it does not ring when it takes a
    /// connection.
    pub fn is_full(&mut self, at: ChannelIndex, listener: u32) -> bool {
        let full = |core: &Self| core.channels.get(at).and_then(|channel| channel.is_full(listener));
        if full(self) != Some(true) {
            return false;
        }
        if let Err(fault) = self.take_returns(at) {
            self.cut(at, End::Fault(fault));
        }
        full(self) == Some(true)
    }

    #[inline]
    fn take_returns(&mut self, at: ChannelIndex) -> Result<usize, PeerFault> {
        let Some(channel) = self.channels.get_mut(at) else { return Ok(0) };
        let mut returned = core::mem::take(&mut self.returned);
        let taken = channel.end.returns(|back| match (back, returned.last_mut()) {
            (Returned::Units(index, n), Some(Returned::Units(last, sum))) if *last == index => *sum += n,
            _ => returned.push(back),
        })?;
        for &back in &returned {
            let Some(channel) = self.channels.get_mut(at) else { break };
            match back {
                Returned::Place(id) => channel.free_place(id),
                Returned::Units(index, n) => {
                    let Some(index) = channel.conn_at(index) else { continue };
                    self.with(index, |flow, io| {
                        io.has_read();
                        flow.credit_returned(io.now(), n, io);
                    });
                }
            }
        }
        returned.clear();
        self.returned = returned;
        self.serve_unit_waiters(at);
        Ok(taken)
    }
}

/// Notes read in one round.
const NOTES: usize = 8;

//! Why a peer may not send now, and whose turn it is when it may again.
//!
//! A unit that a peer is to send needs two things on this side: a descriptor of the receive ring that its packet arrives in, and
//! a unit of the channel that it is delivered to. Four owners have a part in that, and each answers one question:
//!
//! | owner | question |
//! |---|---|
//! | `Credit` (rust/flow) | How many units does this peer know that it may send, and does it need more? |
//! | `Share` (rust/shm) | How many units of its channel may this connection hold? |
//! | [`Budget`] | How many units may be promised to peers that send to this receive ring? |
//! | [`Claim`] | What does this connection hold of the budget, and what does its peer wait for? |
//!
//! [`Admission`] is where they meet. A flow whose credit runs low asks for more ([`Admission::grant`]): the budget says how much
//! it may have, and the channel's share how much of that there is. If there is nothing, the connection waits
//! ([`Admission::wait`]) for one of three things, and its flow is called when that has changed: for its application to read, for
//! units of the channel, or for room in the receive ring.
//!
//! Waiting for a ring and waiting for units are queues, in the order of arrival. Waiting for a reader is none: the units that come back
//! say whose they are.

mod budget;
mod channel;
#[cfg(test)]
mod tests;
mod waiting_list;

use machnet_flow::{Arriving, CreditWait};

use budget::Budget;
use channel::ChannelQueue;

use crate::ids::{ChannelIndex, ConnHandle, QueueIndex};

/// What the peers of one engine may send, and which connections wait for what.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Of each receive queue by which packets come to this engine: of one, as long as each engine has its own.
    budgets: Vec<(QueueIndex, Budget)>,
    /// By place of the channel in its engine.
    channels: Vec<ChannelQueue>,
    /// Where the budget is that somebody last had a turn at.
    served: usize,
}

/// What one connection holds, and what its peer waits for. To be ended ([`Admission::end`]) with it.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The place of the channel that it takes units of.
    channel: ChannelIndex,
    /// The receive queue that the peer's packets arrive on; none if they never see one.
    queue: Option<QueueIndex>,
    /// Units promised to the peer that have not come yet.
    promised: u32,
    /// How many of them may come while the ring goes unattended.
    arriving: Arriving,
    /// When it last asked for more, the budget had nothing to give, whatever the channel had.
    denied: bool,
    waiting: Option<Waiting>,
    /// Its ticket in the queue that it waits in.
    ticket: u64,
}

/// What a peer waits for that has something to send and may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The application, which does not read.
    Reader,
    /// Units of the channel, which other connections have.
    Units,
    /// Room in the receive ring, all of which is promised.
    ReceiveRing,
}

impl Claim {
    /// For a connection that begins, which holds nothing.
    pub fn new(channel: ChannelIndex, queue: Option<QueueIndex>) -> Self {
        Self { channel, queue, promised: 0, arriving: Arriving::ALL, denied: false, waiting: None, ticket: 0 }
    }

    /// What the peer waits for.
    pub fn waiting(&self) -> Option<Waiting> {
        self.waiting
    }

    /// Whether [`Admission::wait`] has something to note for a connection whose peer waits. A reader that does not read comes
    /// before everything else: nothing that others leave would help.
    #[inline]
    pub fn has_to_wait(&self, wait: CreditWait) -> bool {
        match self.waiting {
            None => true,
            Some(Waiting::Reader) => false,
            Some(Waiting::Units | Waiting::ReceiveRing) => wait == CreditWait::Reader,
        }
    }
}

/// Promises.
impl Admission {
    /// For these receive queues, whose rings have so many descriptors.
    pub fn new(queues: &[(QueueIndex, u16)]) -> Self {
        let budgets = queues.iter().map(|&(queue, descriptors)| (queue, Budget::new(descriptors))).collect();
        Self { budgets, channels: Vec::new(), served: 0 }
    }

    /// Promises up to `more` units to a connection whose peer has `known` of them ready; `reserve` takes units of its channel,
    /// at most as many as it is given, and returns how many. How many are promised. `arriving`: what may come of its promise while the
    /// ring goes unattended.
    #[inline]
    pub fn grant(
        &mut self,
        claim: &mut Claim,
        arriving: Arriving,
        more: u32,
        known: u32,
        reserve: impl FnOnce(u32) -> u32,
    ) -> u32 {
        let Some(budget) = self.budget(claim) else { return reserve(more) };
        budget.reckon(claim, arriving);
        let reserved = reserve(budget.allow(claim, more, known));
        budget.add(claim, reserved);
        reserved
    }

    /// The same for units that are on their way already: the budget is not asked. True: it was spent.
    pub fn take(&mut self, claim: &mut Claim, n: u32, reserve: impl FnOnce(u32) -> u32) -> (u32, bool) {
        let reserved = reserve(n);
        let Some(budget) = self.budget(claim) else { return (reserved, false) };
        budget.add(claim, reserved);
        (reserved, budget.is_exceeded())
    }

    /// `n` promised units came, or are not promised any more.
    #[inline]
    pub fn came(&mut self, claim: &mut Claim, n: u32) {
        if let Some(budget) = self.budget(claim) {
            budget.sub(claim, n);
        }
    }

    /// Units promised and not yet come, at all rings.
    pub fn promised(&self) -> u32 {
        self.budgets.iter().map(|(_, budget)| budget.promised()).sum()
    }

    #[inline]
    fn budget(&mut self, claim: &Claim) -> Option<&mut Budget> {
        let queue = claim.queue?;
        self.budgets.iter_mut().find(|(of, _)| *of == queue).map(|(_, budget)| budget)
    }
}

/// Waiting.
impl Admission {
    /// A channel has come to this place: nobody waits there.
    pub fn open(&mut self, channel: ChannelIndex) {
        let at = channel.place();
        if self.channels.len() <= at {
            self.channels.resize_with(at + 1, ChannelQueue::default);
        }
        self.channels[at] = ChannelQueue::default();
    }

    /// The peer of a connection waits; `free` units of its channel are free. Returns for what: if not for a reader, then for whichever of
    /// ring and channel had nothing when the connection last asked for more.
    pub fn wait(
        &mut self,
        claim: &mut Claim,
        handle: ConnHandle,
        wait: CreditWait,
        free: u32,
    ) -> Option<Waiting> {
        self.leave(claim);
        let channel = self.channels.get_mut(claim.channel.place())?;
        let waiting = match wait {
            CreditWait::Reader => {
                channel.readers += 1;
                Waiting::Reader
            }
            CreditWait::Units if claim.denied => {
                claim.ticket = self.budget(claim)?.waiting.join(handle);
                Waiting::ReceiveRing
            }
            CreditWait::Units => {
                claim.ticket = channel.join(handle, free);
                Waiting::Units
            }
        };
        claim.waiting = Some(waiting);
        claim.waiting
    }

    /// A connection waits for nothing any more.
    pub fn leave(&mut self, claim: &mut Claim) {
        let ticket = claim.ticket;
        let channel = self.channels.get_mut(claim.channel.place());
        match (claim.waiting.take(), channel) {
            (Some(Waiting::Reader), Some(channel)) => channel.readers -= 1,
            (Some(Waiting::Units), Some(channel)) => channel.units.leave(ticket),
            (Some(Waiting::ReceiveRing), _) => {
                if let Some(budget) = self.budget(claim) {
                    budget.waiting.leave(ticket);
                }
            }
            (None | Some(Waiting::Reader | Waiting::Units), _) => {}
        }
    }

    /// A connection is over, or has no application any more: it waits for nothing, and nothing is promised to its peer.
    pub fn end(&mut self, claim: &mut Claim) {
        self.leave(claim);
        self.came(claim, claim.promised);
    }

    /// The application has read something of a connection.
    #[inline]
    pub fn has_read(&mut self, claim: &mut Claim) {
        if claim.waiting == Some(Waiting::Reader) {
            self.leave(claim);
        }
    }

    /// Whether connections wait on a channel for what its application gives back, be it their own units or others'. The application
    /// has to wake the engine for that.
    pub fn awaits_returns(&self, channel: ChannelIndex) -> bool {
        self.channels.get(channel.place()).is_some_and(|c| c.readers > 0 || !c.units.is_empty())
    }
}

/// Turns. A connection whose turn it is is asked whether it still needs something, between [`Admission::begin_turn`] and
/// [`Admission::end_turn`]; if it gets too little, it waits again, behind all others.
impl Admission {
    /// Whether connections wait for units of a channel.
    #[inline]
    pub fn awaits_units(&self, channel: ChannelIndex) -> bool {
        self.channels.get(channel.place()).is_some_and(|c| !c.units.is_empty())
    }

    /// Whether there are connections whose turn it is to get units of a channel.
    #[inline]
    pub fn units_due(&self, channel: ChannelIndex) -> bool {
        self.channels.get(channel.place()).is_some_and(ChannelQueue::is_due)
    }

    /// `free` units of a channel are free now. If those are more than before, everybody who waits has a turn. False: there is nothing to
    /// give.
    pub fn begin_unit_turns(&mut self, channel: ChannelIndex, free: u32) -> bool {
        let Some(channel) = self.channels.get_mut(channel.place()) else { return false };
        channel.begin_turns(free);
        free > 0
    }

    /// The handle of the connection whose turn it is to get units of a channel.
    pub fn next_for_units(&mut self, channel: ChannelIndex) -> Option<ConnHandle> {
        self.channels.get_mut(channel.place())?.next()
    }

    /// The turns on a channel are over for now. The `free` units that are left give nobody another one.
    pub fn end_unit_turns(&mut self, channel: ChannelIndex, free: u32) {
        if let Some(channel) = self.channels.get_mut(channel.place()) {
            channel.end_turns(free);
        }
    }

    /// Whether there is room in a ring that somebody waits for.
    #[inline]
    pub fn rings_due(&self) -> bool {
        self.budgets.iter().any(|(_, budget)| budget.is_due())
    }

    /// The handle of the connection whose turn it is to get room in the ring that it waits for. Rings take turns, too.
    pub fn next_for_ring(&mut self) -> Option<ConnHandle> {
        let all = self.budgets.len();
        let next = (1..=all).map(|i| (self.served + i) % all).find(|&at| self.budgets[at].1.is_due())?;
        self.served = next;
        self.budgets[next].1.waiting.pop()
    }

    /// A connection that was next has its turn.
    pub fn begin_turn(&mut self, claim: &mut Claim) {
        let turn = claim.waiting.take() == Some(Waiting::ReceiveRing);
        if let Some(budget) = self.budget(claim) {
            budget.turn = turn;
        }
    }

    /// It has had it.
    pub fn end_turn(&mut self, claim: &mut Claim) {
        if let Some(budget) = self.budget(claim) {
            budget.turn = false;
        }
    }
}

/// Turns of one queue in one round, so that packets do not wait for them.
pub(crate) const TURNS: usize = 16;

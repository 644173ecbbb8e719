//! The two directions of a channel, each behind a gate of its own, before attaching and after.
use crate::attach::Attach;
use crate::code::{MACHNET_ENOBUFS, MACHNET_ENOTATTACHED};
use crate::conns::Conns;
use crate::ends::{DeliverEnd, SubmitEnd};
use crate::kept::Kept;
use crate::replies::{Answers, Stash, event_of};
use crate::rx::Receiver;
use crate::tx::Sender;
use crate::types::machnet_event;
use core::mem::MaybeUninit;
use machnet_shm::{Reply, Request};

/// The receiving direction, and attaching before that.
pub struct RxSide {
    /// Until attached.
    pub attach: Option<Attach>,
    /// Once attached.
    pub receiver: Option<Receiver<DeliverEnd>>,
    /// Replies that a call which waits took from the ring while it looked for its own.
    pub stash: Stash,
    /// Answers to questions about connections, until they are taken.
    pub answers: Answers,
    /// Attaching has ended with this code; 0: it has not.
    pub failed: i32,
}

/// The sending direction.
pub struct TxSide {
    /// Once attached.
    pub sender: Option<Sender<SubmitEnd>>,
    /// Requests that wait for room in the ring.
    pub kept: Kept,
    /// Room for one unit, where the parts of a message are gathered.
    pub scratch: &'static mut [u8],
    /// The address and port that machnet_bind set.
    pub bound: (u32, u16),
}

impl RxSide {
    /// The direction, once attached.
    #[inline]
    pub fn open(&mut self) -> Result<&mut Receiver<DeliverEnd>, i32> {
        self.receiver.as_mut().ok_or(MACHNET_ENOTATTACHED)
    }

    /// Events to hand out.
    pub fn pending(&self) -> u32 {
        self.stash.len() + self.receiver.as_ref().map_or(0, Receiver::pending)
    }

    /// Hands out events, those set aside first.
    pub fn poll(&mut self, conns: &Conns, out: &mut [MaybeUninit<machnet_event>]) -> Result<usize, i32> {
        let mut have = 0;
        while let Some(event) = out.get_mut(have) {
            match self.stash.take(|_| true) {
                Some(stashed) => event.write(stashed),
                None => match self.next_reply()? {
                    Some(reply) => event.write(reply),
                    None => break,
                },
            };
            have += 1;
        }
        Ok(have + self.open()?.poll(conns, out.get_mut(have..).unwrap_or_default()))
    }

    /// The next reply in the ring, as an event.
    fn next_reply(&mut self) -> Result<Option<machnet_event>, i32> {
        let Some(reply) = self.open()?.channel.reply() else { return Ok(None) };
        if let Reply::Stats { id, stats: Some(stats) } = &reply {
            self.answers.put(*id, stats);
        }
        Ok(Some(event_of(&reply)))
    }

    /// The reply that `wanted` picks; others are kept for machnet_poll.
    pub fn reply(&mut self, wanted: impl Fn(&machnet_event) -> bool) -> Result<Option<machnet_event>, i32> {
        if let Some(event) = self.stash.take(&wanted) {
            return Ok(Some(event));
        }
        while self.stash.has_room() {
            let Some(event) = self.next_reply()? else { return Ok(None) };
            if wanted(&event) {
                return Ok(Some(event));
            }
            self.stash.put(event);
        }
        // Only a program that mixes the blocking calls with dozens of begun ones and never polls comes here.
        Err(MACHNET_ENOBUFS)
    }
}

impl TxSide {
    /// The direction, once attached.
    #[inline]
    pub fn open(&mut self) -> Result<&mut Sender<SubmitEnd>, i32> {
        self.sender.as_mut().ok_or(MACHNET_ENOTATTACHED)
    }

    /// Sends a request behind those that were kept: one that listens on a port must not overtake the one that gives the port up. False:
    /// there is no room.
    pub fn request(&mut self, request: Request) -> Result<bool, i32> {
        let TxSide { sender, kept, .. } = self;
        let channel = &mut sender.as_mut().ok_or(MACHNET_ENOTATTACHED)?.channel;
        Ok(kept.send(|request| channel.request(request)) && channel.request(request))
    }
}

//! The sending direction of a channel: sends, closes, and the completions that give tokens back.
use crate::code::{MACHNET_EAGAIN, MACHNET_EVENT_WRITABLE};
use crate::conns::{Conns, index};
use crate::inbox::INLINE;
use crate::outbox::{Bytes, Outbox, Submit};
use crate::types::{machnet_conn, machnet_event};
use core::mem::MaybeUninit;

/// The sending half of a channel.
pub trait SendHalf: Submit {
    /// Takes completions; whether there were any.
    fn reclaim(&mut self) -> bool;
    /// Whether so many units would take buffers that were never used, though there are completions.
    fn would_grow(&self, units: u32) -> bool;
    /// Code with which the peer or the sidecar has ended the flow, whether or not anybody has received since.
    fn ended(&mut self, flow: machnet_conn) -> Option<i32>;
    /// The application forgets the flow: flush, then FIN.
    fn close(&mut self, flow: machnet_conn);
    /// The flow ends at once.
    fn reset(&mut self, flow: machnet_conn);
}

/// One connection, as the sending side sees it.
#[derive(Clone, Copy, Default)]
pub struct TxConn {
    handle: machnet_conn,
    outbox: Outbox,
    /// Tokens that a send lacked, until an event has said that there are so many; 0: no send waits.
    wants: u32,
}

/// The sending direction.
pub struct Sender<R> {
    /// The channel's half.
    pub channel: R,
    conns: &'static mut [TxConn],
    /// Connections with `wants`.
    blocked: u32,
    /// Where the search for writable connections goes on, so that all get their turn.
    turn: u32,
    /// Units that one connection may have under way, when others leave it so many.
    most: u32,
    /// Completions came since `poll` looked at the blocked connections last.
    news: bool,
}

impl<R: SendHalf> Sender<R> {
    /// Over memory made at attach.
    pub fn new(channel: R, conns: &'static mut [TxConn], most: u32) -> Self {
        Self { channel, conns, blocked: 0, turn: 0, most, news: false }
    }

    /// Not 0 when `poll` would give something.
    pub fn pending(&self) -> u32 {
        if self.news { self.blocked } else { 0 }
    }

    /// Whether some send waits for tokens.
    pub fn waits(&self) -> bool {
        self.blocked != 0
    }

    /// Sends a message or its rest; see `Outbox::send`.
    pub fn send(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        bytes: &mut impl Bytes,
        go_on: bool,
    ) -> Result<usize, i32> {
        let at = self.open(shared, conn)?;
        let want = self.units(bytes.left());
        // Completions are left to gather while few units are under way and there is room: the ring's line stays with the engine. But not
        // while they are what keeps buffers from being used again.
        if self.channel.under_way(conn) > self.most / 2
            || !self.channel.has_free(conn, want)
            || bytes.left() > INLINE && self.channel.would_grow(want)
        {
            self.reap();
        }
        let Some(c) = self.conns.get_mut(at) else { return Err(MACHNET_EAGAIN) };
        let sent = c.outbox.send(&mut self.channel, conn, bytes, go_on);
        if sent == Err(MACHNET_EAGAIN) || (sent.is_ok() && c.outbox.begun) {
            self.block(at, 1);
        }
        sent
    }

    /// Sends all of a message, or nothing and `MACHNET_EAGAIN`.
    pub fn send_whole(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        bytes: &mut impl Bytes,
    ) -> Result<usize, i32> {
        let at = self.open(shared, conn)?;
        self.reap();
        let units = self.units(bytes.left());
        if !self.channel.has_free(conn, units) {
            self.block(at, units);
            return Err(MACHNET_EAGAIN);
        }
        self.send(shared, conn, bytes, false)
    }

    /// Sends all of a message. Nothing and `MACHNET_EAGAIN` while the connection's own units, once they are back, make room
    /// for it; a part, where others hold so many that it might wait for ever.
    pub fn send_together(
        &mut self,
        shared: &Conns,
        conn: machnet_conn,
        bytes: &mut impl Bytes,
    ) -> Result<usize, i32> {
        let at = self.open(shared, conn)?;
        self.reap();
        let units = self.units(bytes.left());
        if !self.channel.has_free(conn, units) && units <= self.channel.reach(conn) {
            self.block(at, units);
            return Err(MACHNET_EAGAIN);
        }
        self.send(shared, conn, bytes, false)
    }

    /// Whether a message of this length could ever go at once; where others hold much, it may be long before it does.
    pub fn fits(&self, len: usize) -> bool {
        self.units(len) <= self.most
    }

    /// Units of a message, at least 1.
    fn units(&self, len: usize) -> u32 {
        u32::try_from(len.div_ceil(self.channel.unit_size().max(1))).unwrap_or(u32::MAX).max(1)
    }

    /// Gives up the message under way.
    pub fn abort(&mut self, shared: &Conns, conn: machnet_conn) -> Result<(), i32> {
        let at = self.open(shared, conn)?;
        self.with_token(at, |c, channel| c.outbox.abort(channel, conn))
    }

    /// Half close.
    pub fn finish(&mut self, shared: &Conns, conn: machnet_conn) -> Result<(), i32> {
        let at = self.open(shared, conn)?;
        self.with_token(at, |c, channel| c.outbox.finish(channel, conn))
    }

    /// Units of the connection that were not acknowledged yet; of connection 0 those of all, closed ones included.
    pub fn unacked(&mut self, shared: &Conns, conn: machnet_conn) -> Result<u32, i32> {
        if conn == 0 {
            self.reap();
            return Ok(self.channel.all_under_way());
        }
        shared.check(conn)?;
        self.reap();
        Ok(self.channel.under_way(conn))
    }

    /// Forgets the connection, flushing or (`reset`) not.
    pub fn close(&mut self, shared: &Conns, conn: machnet_conn, reset: bool) -> Result<(), i32> {
        shared.check(conn)?;
        let at = self.adopt(conn);
        if !reset {
            // Where there is no token for the abort, the engine sees a close inside a message, and the reader's end of it is the same.
            let _ = self.with_token(at, |c, channel| c.outbox.abort(channel, conn));
        }
        self.unblock(at);
        if let Some(c) = self.conns.get_mut(at) {
            *c = TxConn::default();
        }
        // Before the engine hears of it: it may use the index again at once.
        shared.close(conn);
        if reset {
            self.channel.reset(conn)
        } else {
            self.channel.close(conn)
        }
        Ok(())
    }

    /// The caller that sends on this connection waits for its tokens by itself: no event for it.
    pub fn waits_itself(&mut self, conn: machnet_conn) {
        let at = index(conn);
        if self.conns.get(at).is_some_and(|c| c.handle == conn) {
            self.unblock(at);
        }
    }

    /// Writes an event for each blocked connection whose send may be tried again; how many.
    pub fn poll(&mut self, out: &mut [MaybeUninit<machnet_event>]) -> usize {
        self.reap();
        let mut have = 0;
        let count = self.conns.len() as u32;
        if self.news {
            for _ in 0..count {
                if self.blocked == 0 {
                    break;
                }
                let at = self.turn;
                let Some(&c) = self.conns.get(at as usize) else { break };
                if c.wants > 0 && self.may_go_on(c.handle, c.wants) {
                    let Some(event) = out.get_mut(have) else { return have };
                    event.write(machnet_event {
                        kind: MACHNET_EVENT_WRITABLE,
                        conn: c.handle,
                        ..machnet_event::default()
                    });
                    have += 1;
                    self.unblock(at as usize);
                }
                self.turn = if at + 1 < count { at + 1 } else { 0 };
            }
            self.news = false;
        }
        have
    }

    /// Whether a send that wants so many units should be tried again. Other connections' completions count as much as its own:
    /// its share grows by both. One that wants more than its share can be now need not wait, since it may go in parts.
    fn may_go_on(&self, conn: machnet_conn, wants: u32) -> bool {
        let free = self.channel.free(conn);
        free >= wants || free > 0 && self.channel.reach(conn) < wants
    }

    /// Takes completions.
    pub fn reap(&mut self) {
        self.news |= self.channel.reclaim();
    }

    /// The index of an open connection that the other end has not ended.
    fn open(&mut self, shared: &Conns, conn: machnet_conn) -> Result<usize, i32> {
        match shared.check(conn)?.or_else(|| self.channel.ended(conn)) {
            Some(code) => Err(code),
            None => Ok(self.adopt(conn)),
        }
    }

    /// Makes the entry that of `conn`, forgetting the connection that had its index before.
    fn adopt(&mut self, conn: machnet_conn) -> usize {
        let at = index(conn);
        if self.conns.get(at).is_some_and(|c| c.handle != conn) {
            self.unblock(at);
            if let Some(c) = self.conns.get_mut(at) {
                *c = TxConn { handle: conn, ..TxConn::default() };
            }
        }
        at
    }

    /// Notes that this connection wants to hear of `units` tokens, at least 1.
    fn block(&mut self, at: usize, units: u32) {
        if let Some(c) = self.conns.get_mut(at) {
            self.blocked += u32::from(c.wants == 0);
            c.wants = units;
        }
    }

    fn unblock(&mut self, at: usize) {
        if let Some(c) = self.conns.get_mut(at)
            && c.wants > 0
        {
            c.wants = 0;
            self.blocked = self.blocked.saturating_sub(1);
        }
    }

    fn with_token(
        &mut self,
        at: usize,
        mut what: impl FnMut(&mut TxConn, &mut R) -> Result<(), i32>,
    ) -> Result<(), i32> {
        if self.conns.get(at).is_none_or(|c| self.channel.free(c.handle) == 0) {
            self.reap();
        }
        let Some(c) = self.conns.get_mut(at) else { return Err(MACHNET_EAGAIN) };
        let done = what(c, &mut self.channel);
        if done == Err(MACHNET_EAGAIN) {
            self.block(at, 1);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{MACHNET_ECLOSED, MACHNET_EINVAL, MACHNET_ERESET};
    use crate::conns::{Entry, handle};
    use crate::memory::room;
    use crate::outbox::Flat;
    use core::sync::atomic::AtomicU64;
    use machnet_shm::Fragment;
    use std::boxed::Box;
    use std::vec::Vec;

    #[derive(Default)]
    struct Fake {
        free: u32,
        most: u32,
        under_way: Vec<machnet_conn>,
        done: Vec<machnet_conn>,
        ended: Option<machnet_conn>,
        log: Vec<(&'static str, machnet_conn)>,
    }

    impl Fake {
        fn unit(&mut self, what: &'static str, flow: machnet_conn) -> bool {
            if self.free(flow) == 0 {
                return false;
            }
            self.free -= 1;
            self.under_way.push(flow);
            self.log.push((what, flow));
            true
        }

        /// The engine acknowledges the oldest units.
        fn acknowledge(&mut self, count: usize) {
            self.done.extend(self.under_way.drain(..count));
        }
    }

    impl Submit for Fake {
        fn unit_size(&self) -> usize {
            10
        }
        fn free(&self, flow: u64) -> u32 {
            self.free.min(self.most - self.under_way(flow))
        }
        fn under_way(&self, flow: u64) -> u32 {
            let all = self.under_way.iter().chain(&self.done);
            all.filter(|conn| index(**conn) == index(flow)).count() as u32
        }
        fn all_under_way(&self) -> u32 {
            (self.under_way.len() + self.done.len()) as u32
        }
        fn reach(&self, flow: u64) -> u32 {
            self.most.min(self.free + self.under_way(flow))
        }
        fn data(&mut self, flow: u64, _: Fragment, _: &[u8]) -> bool {
            self.unit("data", flow)
        }
        fn abort(&mut self, flow: u64) -> bool {
            self.unit("abort", flow)
        }
        fn fin(&mut self, flow: u64) -> bool {
            self.unit("fin", flow)
        }
    }

    impl SendHalf for Fake {
        fn reclaim(&mut self) -> bool {
            let units = self.done.drain(..).count() as u32;
            self.free += units;
            units > 0
        }
        fn would_grow(&self, _: u32) -> bool {
            false
        }
        fn ended(&mut self, flow: machnet_conn) -> Option<i32> {
            (self.ended == Some(flow)).then_some(MACHNET_ERESET)
        }
        fn close(&mut self, flow: machnet_conn) {
            self.log.push(("close", flow));
        }
        fn reset(&mut self, flow: machnet_conn) {
            self.log.push(("reset", flow));
        }
    }

    fn sender(free: u32, most: u32) -> (Sender<Fake>, Conns) {
        let entries: Vec<_> = (0..8).map(|_| Entry::default()).collect();
        let shared = Conns::new(Box::leak(entries.into()), Box::leak(std::vec![AtomicU64::new(0)].into()));
        let conns = Box::leak(std::vec![TxConn::default(); 8].into());
        (Sender::new(Fake { free, most, ..Fake::default() }, conns, most), shared)
    }

    fn writable(tx: &mut Sender<Fake>) -> Vec<machnet_conn> {
        let mut out = [machnet_event::default(); 8];
        let have = tx.poll(room(&mut out));
        out[..have].iter().map(|event| event.conn).collect()
    }

    #[test]
    fn one_connection_has_at_most_its_share_and_hears_when_it_may_go_on() {
        let (mut tx, shared) = sender(16, 4);
        let (a, b) = (handle(1, 1), handle(2, 1));
        shared.announce(a);
        shared.announce(b);
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 100]), false), Ok(40));
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 60]), true), Err(MACHNET_EAGAIN));
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 10]), false), Ok(10), "b does not suffer");
        assert_eq!((writable(&mut tx), tx.pending()), (std::vec![], 0));
        tx.channel.under_way.reverse();
        tx.channel.acknowledge(1);
        assert_eq!(writable(&mut tx), [], "a token of b's is none of a's");
        tx.channel.acknowledge(3);
        assert_eq!(writable(&mut tx), [a]);
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 60]), true), Ok(30));
        tx.channel.acknowledge(1);
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 10]), false), Ok(10));
        assert!(tx.waits());
    }

    #[test]
    fn what_a_closed_connection_has_under_way_is_counted_until_it_is_back() {
        let (mut tx, shared) = sender(16, 4);
        let (a, b) = (handle(1, 1), handle(2, 1));
        [a, b].iter().for_each(|conn| shared.announce(*conn));
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 30]), false), Ok(30));
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 10]), false), Ok(10));
        assert_eq!(tx.close(&shared, a, false), Ok(()));
        assert_eq!((tx.unacked(&shared, a), tx.unacked(&shared, b)), (Err(MACHNET_ECLOSED), Ok(1)));
        assert_eq!(tx.unacked(&shared, 0), Ok(4));
        tx.channel.acknowledge(4);
        assert_eq!(tx.unacked(&shared, 0), Ok(0));
    }

    #[test]
    fn a_whole_message_that_finds_no_room_is_told_when_to_try_again() {
        let (mut tx, shared) = sender(16, 4);
        let a = handle(1, 1);
        shared.announce(a);
        assert_eq!(tx.send_whole(&shared, a, &mut Flat(&[0; 30])), Ok(30));
        assert_eq!(tx.send_whole(&shared, a, &mut Flat(&[0; 30])), Err(MACHNET_EAGAIN));
        assert!(tx.waits());
        tx.channel.acknowledge(2);
        assert_eq!(writable(&mut tx), [a]);
        assert_eq!(tx.send_whole(&shared, a, &mut Flat(&[0; 30])), Ok(30));
        assert!(!tx.waits());
    }

    #[test]
    fn a_connection_that_others_left_no_token_hears_of_theirs() {
        let (mut tx, shared) = sender(4, 4);
        let (a, b, c) = (handle(1, 1), handle(2, 1), handle(3, 1));
        [a, b, c].iter().for_each(|conn| shared.announce(*conn));
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 40]), false), Ok(40));
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 10]), false), Err(MACHNET_EAGAIN));
        assert_eq!(tx.finish(&shared, c), Err(MACHNET_EAGAIN));
        assert_eq!(writable(&mut tx), []);
        tx.channel.acknowledge(1);
        // Whichever call takes the completion, and however often it is looked for more: that there was one is not lost.
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 10]), false), Ok(10));
        tx.reap();
        assert_eq!((tx.pending(), writable(&mut tx)), (2, std::vec![]));
        tx.channel.acknowledge(1);
        assert_eq!(writable(&mut tx), [b, c]);
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 10]), false), Ok(10));
        assert_eq!(tx.finish(&shared, c), Err(MACHNET_EAGAIN), "b was faster");
        tx.channel.acknowledge(1);
        assert_eq!(writable(&mut tx), [c]);
        assert_eq!(tx.finish(&shared, c), Ok(()));
        assert!(!tx.waits());
    }

    #[test]
    fn a_message_goes_together_if_its_own_units_make_room_and_in_parts_if_others_never_might() {
        let (mut tx, shared) = sender(8, 6);
        let (a, b) = (handle(1, 1), handle(2, 1));
        shared.announce(a);
        shared.announce(b);
        let together = |tx: &mut Sender<Fake>, conn| tx.send_together(&shared, conn, &mut Flat(&[0; 50]));
        assert_eq!(together(&mut tx, a), Ok(50));
        assert_eq!(together(&mut tx, a), Err(MACHNET_EAGAIN));
        tx.channel.acknowledge(3);
        assert_eq!(writable(&mut tx), [], "four are free, and five are needed");
        tx.channel.acknowledge(1);
        assert_eq!(writable(&mut tx), [a]);
        assert_eq!(together(&mut tx, a), Ok(50));
        // Two are free for b, and none will be more until a's come back.
        assert_eq!(tx.channel.reach(b), 2);
        assert_eq!(together(&mut tx, b), Ok(20));
        assert!(tx.waits());
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 30]), true), Err(MACHNET_EAGAIN));
        tx.channel.acknowledge(1);
        assert_eq!(writable(&mut tx), [b]);
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 30]), true), Ok(10));
        assert_eq!(together(&mut tx, b), Err(MACHNET_EINVAL), "a message is under way");
    }

    #[test]
    fn a_message_that_waits_to_go_together_is_tried_again_when_others_have_taken_its_room() {
        let (mut tx, shared) = sender(6, 6);
        let (a, b) = (handle(1, 1), handle(2, 1));
        shared.announce(a);
        shared.announce(b);
        assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 30]), false), Ok(30));
        assert_eq!(tx.send_together(&shared, a, &mut Flat(&[0; 50])), Err(MACHNET_EAGAIN));
        assert_eq!(tx.send(&shared, b, &mut Flat(&[0; 30]), false), Ok(30));
        tx.channel.acknowledge(1);
        assert_eq!(writable(&mut tx), [a], "it has three at most now");
        assert_eq!(tx.send_together(&shared, a, &mut Flat(&[0; 50])), Ok(10));
    }

    #[test]
    fn a_send_takes_the_completions_that_it_needs() {
        let (mut tx, shared) = sender(2, 2);
        let a = handle(1, 1);
        shared.announce(a);
        for _ in 0..100 {
            assert_eq!(tx.send(&shared, a, &mut Flat(&[0; 20]), false), Ok(20));
            tx.channel.acknowledge(2);
        }
        assert!(!tx.waits());
    }

    #[test]
    fn a_close_aborts_the_message_under_way_and_frees_the_index_for_the_next() {
        let (mut tx, shared) = sender(16, 2);
        let (old, new) = (handle(1, 1), handle(1, 2));
        shared.announce(old);
        assert_eq!(tx.send(&shared, old, &mut Flat(&[0; 15]), false), Ok(15));
        assert_eq!(tx.send(&shared, old, &mut Flat(&[0; 30]), false), Err(MACHNET_EAGAIN));
        tx.channel.acknowledge(1);
        assert_eq!(tx.send(&shared, old, &mut Flat(&[0; 30]), false), Ok(10));
        tx.channel.acknowledge(1);
        assert_eq!(tx.close(&shared, old, false), Ok(()));
        assert_eq!(tx.close(&shared, old, false), Err(MACHNET_ECLOSED));
        let log: Vec<_> = tx.channel.log.iter().map(|entry| entry.0).collect();
        assert_eq!((log, tx.waits()), (std::vec!["data", "data", "data", "abort", "close"], false));
        tx.channel.acknowledge(2);
        shared.announce(new);
        assert_eq!(tx.send(&shared, new, &mut Flat(&[0; 20]), false), Ok(20), "its share is whole");
        assert_eq!(tx.send(&shared, old, &mut Flat(&[0; 1]), false), Err(MACHNET_ECLOSED));
    }

    #[test]
    fn an_ended_connection_refuses_sends_and_can_still_be_closed() {
        let (mut tx, shared) = sender(16, 4);
        let a = handle(1, 1);
        shared.announce(a);
        shared.end(a, MACHNET_ERESET);
        assert_eq!(tx.send(&shared, a, &mut Flat(b"x"), false), Err(MACHNET_ERESET));
        assert_eq!(tx.finish(&shared, a), Err(MACHNET_ERESET));
        assert_eq!(tx.close(&shared, a, true), Ok(()));
        assert_eq!(tx.channel.log, [("reset", a)]);
    }
}

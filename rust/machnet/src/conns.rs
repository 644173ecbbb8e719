//! What both directions of a channel know of its connections, by atomics: the receiving side announces and ends them,
//! the sending side closes them. Everything else of a connection belongs to one direction alone.
use crate::code::MACHNET_ECLOSED;
use crate::types::machnet_conn;
use core::sync::atomic::{
    AtomicI32, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// One entry, at the index that the engine gave the flow.
#[derive(Default)]
pub struct Entry {
    /// The handle, once the engine announced the connection; 0 before. Written by the receiving side.
    handle: AtomicU64,
    /// The handle that the application closed last. Written by the sending side.
    closed: AtomicU64,
    /// Code with which the peer or the sidecar ended the connection; 0 while it lives. Written by the receiving side.
    ended: AtomicI32,
}

/// All of them, and the news from the sending side to the receiving side.
pub struct Conns {
    entries: &'static [Entry],
    /// One bit per entry: closed since the receiving side looked last.
    closed: &'static [AtomicU64],
    /// Not 0 while a bit of `closed` may be set, so that looking costs one load.
    news: AtomicU32,
}

/// The handle of a flow; never 0 because generations begin at 1.
pub const fn handle(index: u32, generation: u32) -> machnet_conn {
    (generation as u64) << 32 | index as u64
}

/// The index in a handle.
pub const fn index(handle: machnet_conn) -> usize {
    handle as u32 as usize
}

impl Conns {
    /// Over zeroed memory; `closed` has a bit for each entry.
    pub fn new(entries: &'static [Entry], closed: &'static [AtomicU64]) -> Self {
        Self { entries, closed, news: AtomicU32::new(0) }
    }

    /// Words that `new` wants for the bits of `entries`.
    pub const fn words(entries: usize) -> usize {
        entries.div_ceil(64)
    }

    /// Whether `handle` is open here; the code with which the other end closed it, if it did.
    pub fn check(&self, handle: machnet_conn) -> Result<Option<i32>, i32> {
        let entry = self.entries.get(index(handle)).ok_or(MACHNET_ECLOSED)?;
        if handle == 0 || entry.handle.load(Acquire) != handle || entry.closed.load(Relaxed) == handle {
            return Err(MACHNET_ECLOSED);
        }
        let ended = entry.ended.load(Acquire);
        Ok((ended != 0).then_some(ended))
    }

    /// Whether the application closed `handle`.
    pub fn is_closed(&self, handle: machnet_conn) -> bool {
        self.entries.get(index(handle)).is_none_or(|entry| entry.closed.load(Acquire) == handle)
    }

    /// [receiving side] A new connection at its index.
    pub fn announce(&self, handle: machnet_conn) {
        if let Some(entry) = self.entries.get(index(handle)) {
            entry.ended.store(0, Relaxed);
            entry.handle.store(handle, Release);
        }
    }

    /// [receiving side] The other end is gone.
    pub fn end(&self, handle: machnet_conn, code: i32) {
        if let Some(entry) = self.entries.get(index(handle)) {
            entry.ended.store(code, Release);
        }
    }

    /// [sending side] The application forgets it.
    pub fn close(&self, handle: machnet_conn) {
        let at = index(handle);
        if let (Some(entry), Some(word)) = (self.entries.get(at), self.closed.get(at / 64)) {
            entry.closed.store(handle, Release);
            word.fetch_or(1 << (at % 64), Release);
            self.news.store(1, Release);
        }
    }

    /// [receiving side] Calls `each` for every index closed since the last call.
    pub fn take_closed(&self, mut each: impl FnMut(usize)) {
        if self.news.load(Relaxed) == 0 || self.news.swap(0, Acquire) == 0 {
            return;
        }
        for (at, word) in self.closed.iter().enumerate() {
            let mut bits = if word.load(Relaxed) == 0 { 0 } else { word.swap(0, Acquire) };
            while bits != 0 {
                each(at * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn conns(count: usize) -> Conns {
        let entries: Vec<_> = (0..count).map(|_| Entry::default()).collect();
        let words: Vec<_> = (0..Conns::words(count)).map(|_| AtomicU64::new(0)).collect();
        Conns::new(Box::leak(entries.into()), Box::leak(words.into()))
    }

    #[test]
    fn a_handle_is_good_from_its_announcement_to_its_close_and_never_again() {
        let conns = conns(100);
        let old = handle(70, 1);
        assert_eq!(conns.check(old), Err(MACHNET_ECLOSED));
        conns.announce(old);
        assert_eq!(conns.check(old), Ok(None));
        conns.end(old, -5);
        assert_eq!(conns.check(old), Ok(Some(-5)));
        conns.close(old);
        assert_eq!(conns.check(old), Err(MACHNET_ECLOSED));
        let new = handle(70, 2);
        conns.announce(new);
        assert_eq!((conns.check(old), conns.check(new)), (Err(MACHNET_ECLOSED), Ok(None)));
        for bad in [0, handle(100, 1), handle(99, 1), u64::MAX] {
            assert_eq!(conns.check(bad), Err(MACHNET_ECLOSED), "handle {bad:x}");
        }
    }

    #[test]
    fn the_receiving_side_hears_of_each_close_once() {
        let conns = conns(200);
        for at in [3, 64, 199] {
            conns.announce(handle(at, 1));
            conns.close(handle(at, 1));
        }
        let mut heard = Vec::new();
        conns.take_closed(|at| heard.push(at));
        conns.take_closed(|at| heard.push(at));
        assert_eq!(heard, [3, 64, 199]);
        conns.close(handle(65, 1));
        conns.take_closed(|at| heard.push(at));
        assert_eq!(heard[3..], [65], "64 shares a word with it, and was heard of");
    }
}

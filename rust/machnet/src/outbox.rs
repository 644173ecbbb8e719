//! The sending half of a connection: messages are cut into units, as many as there are tokens; the rest waits for
//! completions, and the state of a message half sent is kept here.
use crate::code::{MACHNET_EAGAIN, MACHNET_EINVAL, MACHNET_EPIPE, MACHNET_ETOOBIG, MACHNET_MAX_MESSAGE};
use machnet_shm::Fragment;

/// Where units go: the submit ring of the channel, or a test.
pub trait Submit {
    /// Payload bytes of one unit.
    fn unit_size(&self) -> usize;
    /// Units that could be submitted now for this connection.
    fn free(&self, flow: u64) -> u32;
    /// Whether these are so many.
    fn has_free(&self, flow: u64, units: u32) -> bool {
        self.free(flow) >= units
    }
    /// Units of this connection submitted and not come back.
    fn under_way(&self, flow: u64) -> u32;
    /// How many units all flows have under way, closed ones included.
    fn all_under_way(&self) -> u32;
    /// Units that could be submitted for this connection if those under way had come back, and those of no other.
    fn reach(&self, flow: u64) -> u32;
    /// Submits one unit. `false`: no token or no buffer, nothing happened.
    fn data(&mut self, flow: u64, fragment: Fragment, bytes: &[u8]) -> bool;
    /// Gives up the message under way.
    fn abort(&mut self, flow: u64) -> bool;
    /// Half close.
    fn fin(&mut self, flow: u64) -> bool;
}

/// The bytes of one message, from a given place on.
pub trait Bytes {
    /// How many are left.
    fn left(&self) -> usize;
    /// The next `len` bytes (at most `left()`), in one piece.
    fn take(&mut self, len: usize) -> &[u8];
}

/// Bytes that lie together.
pub struct Flat<'a>(pub &'a [u8]);

impl Bytes for Flat<'_> {
    fn left(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let (now, later) = self.0.split_at_checked(len).unwrap_or((self.0, &[]));
        self.0 = later;
        now
    }
}

/// Bytes in several parts, gathered unit by unit in `scratch`.
pub struct Gather<'a, 'b, I> {
    /// The parts not yet begun.
    pub parts: I,
    /// What is left of the part begun.
    pub part: &'a [u8],
    /// Bytes left in all.
    pub left: usize,
    /// Room for one unit.
    pub scratch: &'b mut [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Bytes for Gather<'a, '_, I> {
    fn left(&self) -> usize {
        self.left
    }

    fn take(&mut self, len: usize) -> &[u8] {
        let mut have = 0;
        let len = len.min(self.scratch.len());
        while have < len {
            if self.part.is_empty() {
                let Some(next) = self.parts.next() else { break };
                self.part = next;
                continue;
            }
            let here = self.part.len().min(len - have);
            let (now, later) = self.part.split_at_checked(here).unwrap_or((self.part, &[]));
            if let Some(to) = self.scratch.get_mut(have..have + here) {
                to.copy_from_slice(now);
            }
            self.part = later;
            have += here;
        }
        self.left -= have.min(self.left);
        self.scratch.get(..have).unwrap_or_default()
    }
}

/// The state of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outbox {
    /// A message is under way.
    pub begun: bool,
    /// Bytes of it not yet submitted.
    pub left: u32,
    /// Half closed here.
    pub finished: bool,
}

impl Outbox {
    /// Submits what tokens allow of `bytes`: a new message, or (`go_on`) the rest of the one under way. Returns how many
    /// bytes; fewer than asked, or `MACHNET_EAGAIN`, when tokens ran out.
    pub fn send(
        &mut self,
        to: &mut impl Submit,
        flow: u64,
        bytes: &mut impl Bytes,
        go_on: bool,
    ) -> Result<usize, i32> {
        let len = bytes.left();
        if self.finished {
            return Err(MACHNET_EPIPE);
        }
        if go_on != self.begun || (go_on && len != self.left as usize) {
            return Err(MACHNET_EINVAL);
        }
        if len > MACHNET_MAX_MESSAGE as usize {
            return Err(MACHNET_ETOOBIG);
        }
        let message_len = len as u32;
        let unit = to.unit_size().max(1);
        let mut sent = 0;
        loop {
            let begin = !self.begun;
            let left = len - sent;
            let end = left <= unit;
            let fragment = Fragment { begin, end, message_len: if begin { message_len } else { 0 } };
            if !to.data(flow, fragment, bytes.take(left.min(unit))) {
                // The bytes taken are not lost: `sent` does not count them, and the caller has them still.
                return if sent == 0 { Err(MACHNET_EAGAIN) } else { Ok(sent) };
            }
            sent += left.min(unit);
            self.begun = !end;
            self.left = (len - sent) as u32;
            if end {
                return Ok(sent);
            }
        }
    }

    /// Gives up the message under way, if any.
    pub fn abort(&mut self, to: &mut impl Submit, flow: u64) -> Result<(), i32> {
        if !self.begun {
            return Ok(());
        }
        if !to.abort(flow) {
            return Err(MACHNET_EAGAIN);
        }
        self.begun = false;
        self.left = 0;
        Ok(())
    }

    /// Half close.
    pub fn finish(&mut self, to: &mut impl Submit, flow: u64) -> Result<(), i32> {
        if self.finished {
            return Ok(());
        }
        if self.begun {
            return Err(MACHNET_EINVAL);
        }
        if !to.fin(flow) {
            return Err(MACHNET_EAGAIN);
        }
        self.finished = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[derive(Default)]
    struct Fake {
        free: u32,
        units: Vec<(bool, bool, u32, Vec<u8>)>,
        other: Vec<&'static str>,
    }

    impl Submit for Fake {
        fn unit_size(&self) -> usize {
            10
        }
        fn free(&self, _: u64) -> u32 {
            self.free
        }
        fn all_under_way(&self) -> u32 {
            0
        }
        fn under_way(&self, _: u64) -> u32 {
            0
        }
        fn reach(&self, _: u64) -> u32 {
            self.free
        }
        fn data(&mut self, _: u64, fragment: Fragment, bytes: &[u8]) -> bool {
            let Fragment { begin, end, message_len } = fragment;
            self.token(|fake| fake.units.push((begin, end, message_len, bytes.to_vec())))
        }
        fn abort(&mut self, _: u64) -> bool {
            self.token(|fake| fake.other.push("abort"))
        }
        fn fin(&mut self, _: u64) -> bool {
            self.token(|fake| fake.other.push("fin"))
        }
    }

    impl Fake {
        fn with(free: u32) -> Self {
            Self { free, ..Self::default() }
        }

        fn token(&mut self, then: impl FnOnce(&mut Self)) -> bool {
            let Some(free) = self.free.checked_sub(1) else { return false };
            self.free = free;
            then(self);
            true
        }
    }

    fn send(outbox: &mut Outbox, to: &mut Fake, bytes: &[u8], go_on: bool) -> Result<usize, i32> {
        outbox.send(to, 1, &mut Flat(bytes), go_on)
    }

    #[test]
    fn a_message_is_cut_into_full_units() {
        let (mut outbox, mut to) = (Outbox::default(), Fake::with(9));
        assert_eq!(send(&mut outbox, &mut to, b"0123456789abcdefghij!", false), Ok(21));
        assert_eq!(send(&mut outbox, &mut to, b"", false), Ok(0));
        assert_eq!(send(&mut outbox, &mut to, b"0123456789", false), Ok(10));
        let want: Vec<(bool, bool, u32, Vec<u8>)> = vec![
            (true, false, 21, b"0123456789".to_vec()),
            (false, false, 0, b"abcdefghij".to_vec()),
            (false, true, 0, b"!".to_vec()),
            (true, true, 0, b"".to_vec()),
            (true, true, 10, b"0123456789".to_vec()),
        ];
        assert_eq!(to.units, want);
    }

    #[test]
    fn a_message_waits_for_tokens_and_goes_on_where_it_stopped() {
        let (mut outbox, mut to) = (Outbox::default(), Fake::with(2));
        let bytes = b"0123456789abcdefghijklmno";
        assert_eq!(send(&mut outbox, &mut to, bytes, false), Ok(20));
        assert_eq!(send(&mut outbox, &mut to, &bytes[20..], true), Err(MACHNET_EAGAIN));
        to.free = 1;
        assert_eq!(send(&mut outbox, &mut to, &bytes[20..], false), Err(MACHNET_EINVAL), "a second message");
        assert_eq!(send(&mut outbox, &mut to, &bytes[21..], true), Err(MACHNET_EINVAL), "another length");
        assert_eq!(send(&mut outbox, &mut to, &bytes[20..], true), Ok(5));
        assert_eq!(send(&mut outbox, &mut to, b"", true), Err(MACHNET_EINVAL), "nothing is under way");
        assert_eq!(to.units.last(), Some(&(false, true, 0, b"klmno".to_vec())));
    }

    #[test]
    fn an_abort_ends_the_message_under_way_and_needs_a_token() {
        let (mut outbox, mut to) = (Outbox::default(), Fake::with(1));
        assert_eq!(outbox.abort(&mut to, 1), Ok(()), "nothing to abort is no error");
        assert_eq!(send(&mut outbox, &mut to, b"0123456789abc", false), Ok(10));
        assert_eq!(outbox.abort(&mut to, 1), Err(MACHNET_EAGAIN));
        assert_eq!(outbox.finish(&mut to, 1), Err(MACHNET_EINVAL));
        to.free = 3;
        assert_eq!(outbox.abort(&mut to, 1), Ok(()));
        assert_eq!(send(&mut outbox, &mut to, b"new", false), Ok(3));
        assert_eq!(outbox.finish(&mut to, 1), Ok(()));
        assert_eq!(send(&mut outbox, &mut to, b"late", false), Err(MACHNET_EPIPE));
        assert_eq!(to.other, ["abort", "fin"]);
    }

    #[test]
    fn a_message_above_the_limit_sends_nothing() {
        let (mut outbox, mut to) = (Outbox::default(), Fake::with(9));
        let long = vec![0; MACHNET_MAX_MESSAGE as usize + 1];
        assert_eq!(send(&mut outbox, &mut to, &long, false), Err(MACHNET_ETOOBIG));
        assert!(to.units.is_empty() && !outbox.begun);
    }

    #[test]
    fn parts_are_gathered_into_full_units() {
        let (mut outbox, mut to) = (Outbox::default(), Fake::with(9));
        let parts: [&[u8]; 5] = [b"01", b"", b"23456789ab", b"c", b""];
        let mut scratch = [0; 10];
        let mut bytes = Gather { parts: parts.into_iter(), part: &[], left: 13, scratch: &mut scratch };
        assert_eq!(outbox.send(&mut to, 1, &mut bytes, false), Ok(13));
        let sent: Vec<u8> = to.units.iter().flat_map(|unit| unit.3.clone()).collect();
        assert_eq!((sent.as_slice(), to.units.len()), (&b"0123456789abc"[..], 2));
    }
}

//! What was taken from the deliver ring and not yet read: one queue per connection, over one pool of nodes.
//!
//! The ring carries all connections of a channel in one order; readers want them apart. A node holds a small unit's bytes
//! itself or names the shared buffer of a larger one, which goes back to the engine when it was read to its end.
use crate::memory::Growing;
use core::mem::MaybeUninit;
use machnet_shm::Fragment;

/// Bytes that a unit carries without a buffer.
pub const INLINE: usize = machnet_shm::INLINE;

/// Those bytes. Aligned, so that copies of them (and of whatever holds them) go in the same pieces one after the other: a load that
/// spans two stores just made waits for both.
#[repr(align(16))]
#[derive(Clone, Copy)]
pub struct Inline(pub [u8; INLINE]);

impl Inline {
    /// Nothing in it.
    pub const EMPTY: Self = Self([0; INLINE]);
}

/// Where the bytes of units are, and whom to give them back to; the ring's consumer, or a test.
pub trait Units {
    /// What has to be given back for each unit: a token, with a buffer or without.
    type Token: Copy;
    /// Copies from the buffer of `token`, beginning `at` bytes in.
    fn read(&self, token: Self::Token, at: usize, out: &mut [MaybeUninit<u8>]);
    /// The unit was read or dropped.
    fn give_back(&mut self, token: Self::Token);
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a message.
    Data(Fragment),
    /// The sender gave up the message that is under way.
    Aborted,
    /// The peer will send nothing more.
    Fin,
}

/// One unit in the queue of a connection.
#[derive(Clone, Copy)]
pub struct Node<T> {
    kind: Kind,
    len: u32,
    at: u32,
    next: u32,
    token: Option<T>,
    /// The bytes are in `bytes`, not in a buffer.
    inline: bool,
    bytes: Inline,
}

impl<T> Node<T> {
    /// A free node.
    const FREE: Self =
        Self { kind: Kind::Fin, len: 0, at: 0, next: NONE, token: None, inline: false, bytes: Inline::EMPTY };
}

/// The pool.
pub struct Nodes<T: 'static> {
    nodes: Growing<Node<T>>,
    /// The first of those that were used and are free, the one freed last, linked by `next`.
    free: u32,
}

/// The queue of one connection, and where in a message its reader stands.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
    /// Length of the message being read; `None` between messages.
    message: Option<u32>,
    /// Bytes of it read so far.
    offset: u32,
    /// The rest of the message being read was aborted by its sender, or lost its end: the next read returns `Aborted`, once.
    cut: bool,
    /// The end of the peer's data was reached.
    ended: bool,
}

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes, across the ends of messages.
    Stream,
    /// A message is begun only when all of it fits.
    Message,
    /// Bytes of one message.
    One,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Got {
    /// Bytes copied.
    pub bytes: usize,
    /// Length of the message of the last byte.
    pub message_len: u32,
    /// Bytes of that message read before this call.
    pub offset: u32,
    /// The first byte begins a message.
    pub begin: bool,
    /// The last byte ends one.
    pub end: bool,
    /// More is queued.
    pub more: bool,
}

/// Why a read gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// Nothing is queued.
    Empty,
    /// The message being read was aborted.
    Aborted,
    /// The peer has finished, and all is read.
    End,
    /// The next message, or the rest of the one being read, is longer than the buffer.
    TooShort {
        /// Its length, or that of the rest.
        message_len: u32,
    },
}

impl Queue {
    /// Of a new connection.
    pub const fn new() -> Self {
        Self { head: NONE, tail: NONE, message: None, offset: 0, cut: false, ended: false }
    }

    /// Whether something is queued, or a message is being read: what comes in must queue behind it.
    pub fn busy(&self) -> bool {
        self.readable() || self.message.is_some()
    }

    /// Whether units are queued.
    pub fn holds(&self) -> bool {
        self.head != NONE
    }

    /// Whether a read would give something else than `Nothing::Empty`.
    pub fn readable(&self) -> bool {
        self.head != NONE || self.cut || self.ended
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Nodes<T> {
    /// A pool of as many nodes as there is room for.
    pub const fn new(room: &'static mut [MaybeUninit<Node<T>>]) -> Self {
        Self { nodes: Growing::new(room), free: NONE }
    }

    /// Queues a unit. `bytes`: of an inline unit; `len`: of its payload. `false` when the pool is empty, which the number of
    /// tokens rules out for an honest engine; the caller gives the token back then.
    pub fn push(
        &mut self,
        queue: &mut Queue,
        kind: Kind,
        len: u32,
        token: T,
        bytes: Option<&Inline>,
    ) -> bool {
        if self.free == NONE {
            let Some(made) = self.nodes.add(Node::FREE) else { return false };
            self.free = made as u32;
        }
        let index = self.free;
        let Some(node) = self.nodes.get_mut(index as usize) else { return false };
        self.free = node.next;
        (node.kind, node.len, node.at, node.next) = (kind, len, 0, NONE);
        (node.token, node.inline) = (Some(token), bytes.is_some());
        if let Some(bytes) = bytes {
            node.bytes = *bytes;
        }
        match self.nodes.get_mut(queue.tail as usize) {
            Some(last) if queue.head != NONE => last.next = index,
            _ => queue.head = index,
        }
        queue.tail = index;
        true
    }

    /// Takes the first node off and gives its token back.
    fn pop(&mut self, queue: &mut Queue, units: &mut impl Units<Token = T>) {
        let index = queue.head;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some(token) = node.token.take() {
            units.give_back(token);
        }
        queue.head = node.next;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        node.next = self.free;
        self.free = index;
    }

    /// Drops all that is queued.
    pub fn clear(&mut self, queue: &mut Queue, units: &mut impl Units<Token = T>) {
        while queue.head != NONE {
            self.pop(queue, units);
        }
        *queue = Queue::new();
    }

    /// Drops from the front of the queue what is no bytes to read: aborts, the end, and in stream mode empty messages; `cut` and `ended`
    /// keep what a read has to return for them. Afterwards the front is a unit with bytes (or an empty message), or the queue is empty.
    fn skip_to_data(&mut self, queue: &mut Queue, units: &mut impl Units<Token = T>, mode: Mode) {
        while let Some(node) = self.nodes.get(queue.head as usize) {
            match node.kind {
                Kind::Aborted | Kind::Fin => {
                    // A message that nobody began to read may vanish; the reader of one half read must learn of it.
                    queue.cut |= queue.message.take().is_some();
                    queue.ended |= node.kind == Kind::Fin;
                    self.pop(queue, units);
                    if queue.cut {
                        return;
                    }
                }
                Kind::Data(Fragment { begin, end, message_len }) => {
                    if begin && node.at == 0 && queue.message.is_some() {
                        // A new message in the middle of one: its end never comes.
                        queue.message = None;
                        queue.cut = true;
                        return;
                    }
                    if !begin && queue.message.is_none() {
                        // The rest of a message whose beginning was dropped.
                        self.pop(queue, units);
                        continue;
                    }
                    if mode == Mode::Stream && begin && end && message_len == 0 {
                        self.pop(queue, units);
                        continue;
                    }
                    return;
                }
            }
        }
    }

    /// Reads into `out`.
    pub fn read(
        &mut self,
        queue: &mut Queue,
        units: &mut impl Units<Token = T>,
        mode: Mode,
        out: &mut [MaybeUninit<u8>],
    ) -> Result<Got, Nothing> {
        let mut got = Got { offset: queue.offset, ..Got::default() };
        let mut took = false;
        loop {
            if !queue.cut {
                self.skip_to_data(queue, units, mode);
            }
            if queue.cut {
                if took {
                    break;
                }
                queue.cut = false;
                queue.offset = 0;
                return Err(Nothing::Aborted);
            }
            let Some(node) = self.nodes.get_mut(queue.head as usize) else {
                if took {
                    break;
                }
                return Err(if queue.ended { Nothing::End } else { Nothing::Empty });
            };
            let Kind::Data(Fragment { begin, end, message_len }) = node.kind else { break };
            if begin && node.at == 0 {
                if mode == Mode::Message && message_len as usize > out.len() {
                    return Err(Nothing::TooShort { message_len });
                }
            } else if mode == Mode::Message && !took {
                // The rest of a message that was begun by another kind of read fits, or stays, as a message does.
                let left = queue.message.unwrap_or(0).saturating_sub(queue.offset);
                if left as usize > out.len() {
                    return Err(Nothing::TooShort { message_len: left });
                }
            }
            let room = out.get_mut(got.bytes..).unwrap_or_default();
            let here = (node.len.saturating_sub(node.at) as usize).min(room.len());
            if here == 0 && node.at < node.len {
                break; // the buffer is full
            }
            if begin && node.at == 0 {
                queue.message = Some(message_len);
                queue.offset = 0;
                got.begin |= !took;
                got.offset = 0;
            }
            let total = queue.message.unwrap_or(0);
            let (to, _) = room.split_at_mut(here);
            let at = node.at as usize;
            match (node.inline, node.token) {
                (true, _) => {
                    if let Some(from) = node.bytes.0.get(at..at + here) {
                        to.write_copy_of_slice(from);
                    }
                }
                (false, Some(token)) => units.read(token, at, to),
                (false, None) => {}
            }
            node.at += here as u32;
            queue.offset = queue.offset.saturating_add(here as u32);
            got.bytes += here;
            got.message_len = total;
            took = true;
            if node.at >= node.len {
                self.pop(queue, units);
                got.end = end;
                if end {
                    queue.message = None;
                    queue.offset = 0;
                    if mode != Mode::Stream {
                        break;
                    }
                }
            } else {
                got.end = false;
            }
        }
        got.more = queue.readable();
        Ok(got)
    }
}

/// No node.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{leaked, room};
    use std::vec;
    use std::vec::Vec;

    /// Buffers by number; the tokens that came back.
    #[derive(Default)]
    struct Fake {
        buffers: Vec<Vec<u8>>,
        back: Vec<usize>,
    }

    impl Units for Fake {
        type Token = usize;
        fn read(&self, token: usize, at: usize, out: &mut [MaybeUninit<u8>]) {
            out.write_copy_of_slice(&self.buffers[token][at..at + out.len()]);
        }
        fn give_back(&mut self, token: usize) {
            self.back.push(token);
        }
    }

    struct Rig {
        units: Fake,
        nodes: Nodes<usize>,
        queue: Queue,
    }

    impl Rig {
        fn new(nodes: usize) -> Self {
            Self { units: Fake::default(), nodes: Nodes::new(leaked(nodes)), queue: Queue::new() }
        }

        fn push(&mut self, kind: Kind, bytes: &[u8]) -> bool {
            let token = self.units.buffers.len();
            self.units.buffers.push(bytes.to_vec());
            let inline = (bytes.len() <= INLINE).then(|| {
                let mut inline = Inline::EMPTY;
                inline.0[..bytes.len()].copy_from_slice(bytes);
                inline
            });
            self.nodes.push(&mut self.queue, kind, bytes.len() as u32, token, inline.as_ref())
        }

        fn message(&mut self, bytes: &[u8], unit: usize) {
            let len = bytes.len();
            let mut at = 0;
            loop {
                let next = (at + unit).min(len);
                let kind = Kind::Data(Fragment {
                    begin: at == 0,
                    end: next == len,
                    message_len: if at == 0 { len as u32 } else { 0 },
                });
                assert!(self.push(kind, &bytes[at..next]), "the pool is too small for this test");
                at = next;
                if at == len {
                    return;
                }
            }
        }

        fn read(&mut self, mode: Mode, cap: usize) -> Result<(Vec<u8>, Got), Nothing> {
            let mut out = vec![0xee; cap];
            let got = self.nodes.read(&mut self.queue, &mut self.units, mode, room(&mut out))?;
            assert!(out[got.bytes..].iter().all(|b| *b == 0xee), "bytes beyond the count were written");
            out.truncate(got.bytes);
            Ok((out, got))
        }
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn a_stream_keeps_the_rest_and_runs_across_messages() {
        let mut rig = Rig::new(64);
        rig.message(b"hello world", 96);
        rig.message(b"", 96);
        rig.message(b"XY", 96);
        assert_eq!(rig.read(Mode::Stream, 5).expect("bytes").0, b"hello");
        let (bytes, got) = rig.read(Mode::Stream, 100).expect("bytes");
        assert_eq!((bytes.as_slice(), got.end, got.more), (&b" worldXY"[..], true, false));
        assert_eq!(rig.read(Mode::Stream, 5), Err(Nothing::Empty));
        assert_eq!(rig.units.back, [0, 1, 2]);
    }

    #[test]
    fn a_message_that_does_not_fit_is_kept_and_its_length_told() {
        let mut rig = Rig::new(64);
        let sent = pattern(3000);
        rig.message(&sent, 1424);
        assert_eq!(rig.read(Mode::Message, 2999), Err(Nothing::TooShort { message_len: 3000 }));
        let (bytes, got) = rig.read(Mode::Message, 3000).expect("a message");
        assert_eq!(
            (bytes, got),
            (sent, Got { bytes: 3000, message_len: 3000, offset: 0, begin: true, end: true, more: false })
        );
    }

    #[test]
    fn messages_stay_apart_in_message_mode_and_an_empty_one_is_one() {
        let mut rig = Rig::new(64);
        rig.message(b"a", 96);
        rig.message(b"", 96);
        rig.message(b"bc", 96);
        for want in [&b"a"[..], b"", b"bc"] {
            let (bytes, got) = rig.read(Mode::Message, 10).expect("a message");
            assert_eq!((bytes.as_slice(), got.begin, got.end), (want, true, true));
        }
        assert_eq!(rig.read(Mode::Message, 10), Err(Nothing::Empty));
    }

    #[test]
    fn a_long_message_comes_in_pieces_with_its_offsets() {
        let mut rig = Rig::new(64);
        let sent = pattern(3000);
        let kind =
            |begin, end| Kind::Data(Fragment { begin, end, message_len: if begin { 3000 } else { 0 } });
        rig.push(kind(true, false), &sent[..1424]);
        let (bytes, got) = rig.read(Mode::Message, 4000).expect("the first piece");
        assert_eq!(
            (bytes.len(), got.begin, got.end, got.offset, got.message_len),
            (1424, true, false, 0, 3000)
        );
        rig.push(kind(false, true), &sent[1424..]);
        rig.message(b"next", 96);
        let (bytes, got) = rig.read(Mode::Message, 2576).expect("the rest");
        assert_eq!((bytes.as_slice(), got.end, got.offset, got.more), (&sent[1424..], true, 1424, true));
        assert_eq!(got.message_len, 3000);
    }

    #[test]
    fn the_rest_of_a_message_that_does_not_fit_is_kept_too() {
        let mut rig = Rig::new(64);
        let sent = pattern(3000);
        rig.message(&sent, 1424);
        assert_eq!(rig.read(Mode::Stream, 10).expect("bytes").0, &sent[..10]);
        assert_eq!(rig.read(Mode::Message, 2989), Err(Nothing::TooShort { message_len: 2990 }));
        let (bytes, got) = rig.read(Mode::Message, 2990).expect("the rest");
        assert_eq!((bytes.as_slice(), got.end), (&sent[10..], true));
    }

    #[test]
    fn an_aborted_message_is_told_only_to_a_reader_who_began_it() {
        let mut rig = Rig::new(64);
        let begun = Kind::Data(Fragment { begin: true, end: false, message_len: 500 });
        rig.push(begun, b"half");
        assert_eq!(rig.read(Mode::Stream, 10).expect("bytes").0, b"half");
        rig.push(Kind::Aborted, b"");
        rig.message(b"whole", 96);
        rig.push(Kind::Aborted, b"");
        rig.push(Kind::Fin, b"");
        assert_eq!(rig.read(Mode::Stream, 10), Err(Nothing::Aborted));
        assert_eq!(rig.read(Mode::Stream, 10).expect("bytes").0, b"whole");
        assert_eq!(rig.read(Mode::Stream, 10), Err(Nothing::End));
        assert_eq!(rig.read(Mode::Message, 10), Err(Nothing::End));
        assert_eq!(rig.units.back.len(), 5);
    }

    #[test]
    fn an_end_in_the_middle_of_a_message_is_a_cut_and_then_the_end() {
        let mut rig = Rig::new(64);
        rig.push(Kind::Data(Fragment { begin: true, end: false, message_len: 500 }), b"half");
        rig.push(Kind::Fin, b"");
        assert_eq!(rig.read(Mode::One, 10).expect("bytes").0, b"half");
        assert_eq!(rig.read(Mode::One, 10), Err(Nothing::Aborted));
        assert_eq!(rig.read(Mode::One, 10), Err(Nothing::End));
    }

    #[test]
    fn clearing_gives_every_token_and_node_back() {
        let mut rig = Rig::new(3);
        for _ in 0..3 {
            assert!(
                rig.push(Kind::Data(Fragment { begin: true, end: true, message_len: 200 }), &pattern(200))
            );
        }
        assert!(!rig.push(Kind::Fin, b""), "a pool of three gave a fourth node");
        rig.nodes.clear(&mut rig.queue, &mut rig.units);
        assert_eq!((rig.units.back.as_slice(), rig.queue.readable()), (&[0, 1, 2][..], false));
        for _ in 0..3 {
            assert!(rig.push(Kind::Fin, b""));
        }
    }

    #[test]
    fn any_cuts_of_the_stream_give_the_same_bytes() {
        let sent = pattern(20_000);
        for (unit, cap) in [(1, 3), (96, 7), (97, 1000), (1424, 1), (1424, 1424), (1424, 20_000)] {
            let mut rig = Rig::new(20_000);
            for message in sent.chunks(1900) {
                rig.message(message, unit);
            }
            let mut read = Vec::new();
            while let Ok((bytes, _)) = rig.read(Mode::Stream, cap) {
                assert!(!bytes.is_empty(), "a stream read gave nothing");
                read.extend(bytes);
            }
            assert!(read == sent, "unit {unit}, buffer {cap}");
            assert_eq!(rig.units.back.len(), rig.units.buffers.len());
        }
    }
}

//! Units that come in parts, because a path has become narrower than they are, until they are whole.
//!
//! A unit that comes in parts lies in one buffer from its first part on, and takes one of the units reserved, as any other. Its bytes may come in any
//! order and more than once; what two parts say of the same bytes is not compared, since only whole units are delivered and the peer
//! harms nobody but itself. What parts say of the unit has to agree.

use alloc::boxed::Box;
use alloc::vec::Vec;

use machnet_wire::{Fragment, Packet, Part, Seq};

use crate::Io;

/// The units under way in parts. Few connections ever have any, so there is no memory before.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Parts<H>(Option<Box<Units<H>>>);

#[derive(Debug, Clone, Hash)]
struct Units<H> {
    all: Vec<Partial<H>>,
}

/// One unit, of which some bytes have come.
#[derive(Debug, Clone, Hash)]
struct Partial<H> {
    unit: Seq,
    fragment: Fragment,
    len: u16,
    held: H,
    came: Spans,
}

/// What a part made of its unit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<H> {
    /// More of it is to come.
    More,
    /// All bytes of this part had come before.
    Known,
    /// It is whole: so many bytes.
    Whole(u32, H),
    /// The part is not kept: there is no buffer, or the unit is in too many pieces.
    Dropped,
}

impl<H> Parts<H> {
    pub fn new() -> Self {
        Parts(None)
    }

    /// Whether no unit is under way in parts.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Takes a part of a unit for which one of the reserved is set aside.
    pub fn take<I: Io<Held = H>>(
        &mut self,
        packet: &Packet<'_>,
        part: Part,
        io: &mut I,
    ) -> Result<Taken<H>, &'static str> {
        let (unit, fragment) = (packet.header.unit, packet.header.fragment());
        let units = &mut self.0.get_or_insert_with(|| Box::new(Units { all: Vec::new() })).all;
        let at = match units.iter().position(|partial| partial.unit == unit) {
            Some(at) => at,
            None => {
                let room = units.len() < UNITS_MAX;
                let Some(held) = room.then(|| io.hold_parts(part.unit_len.into())).flatten() else {
                    self.tidy();
                    return Ok(Taken::Dropped);
                };
                units.push(Partial { unit, fragment, len: part.unit_len, held, came: Spans::default() });
                units.len() - 1
            }
        };
        let partial = &mut units[at];
        if (partial.len, partial.fragment) != (part.unit_len, fragment) {
            return Err("parts of one unit do not agree");
        }
        let end = part.offset + packet.payload.len() as u16;
        match partial.came.add(part.offset, end) {
            None => return Ok(Taken::Dropped),
            Some(false) => return Ok(Taken::Known),
            Some(true) => io.write_part(&mut partial.held, part.offset.into(), packet.payload),
        }
        if !partial.came.is_all(partial.len) {
            return Ok(Taken::More);
        }
        let whole = units.swap_remove(at);
        self.tidy();
        Ok(Taken::Whole(whole.len.into(), whole.held))
    }

    /// What has come of a unit is not wanted any more: it came in one piece.
    #[cold]
    pub fn discard<I: Io<Held = H>>(&mut self, unit: Seq, io: &mut I) {
        let Some(Units { all: units }) = self.0.as_deref_mut() else { return };
        if let Some(at) = units.iter().position(|partial| partial.unit == unit) {
            io.discard_held(units.swap_remove(at).held);
        }
        self.tidy();
    }

    /// Nor of any unit: what was set aside for them goes back, and the peer sends them again as a whole.
    pub fn discard_all<I: Io<Held = H>>(&mut self, io: &mut I) {
        for partial in self.0.take().into_iter().flat_map(|units| units.all) {
            io.discard_held(partial.held);
        }
    }

    fn tidy(&mut self) {
        self.0.take_if(|units| units.all.is_empty());
    }
}

/// Which bytes of a unit have come: spans in ascending order that do not touch.
#[derive(Debug, Clone, Default, Hash)]
struct Spans(Vec<(u16, u16)>);

impl Spans {
    /// Bytes from `start` to before `end` have come. False: they had all come before. `None`: that would be too many spans.
    fn add(&mut self, start: u16, end: u16) -> Option<bool> {
        let Spans(spans) = self;
        let from = spans.partition_point(|span| span.1 < start);
        let to = spans.partition_point(|span| span.0 <= end);
        let touched = &spans[from..to];
        let (Some(first), Some(last)) = (touched.first(), touched.last()) else {
            if spans.len() >= SPANS_MAX {
                return None;
            }
            spans.insert(from, (start, end));
            return Some(true);
        };
        let joined = (first.0.min(start), last.1.max(end));
        if touched.len() == 1 && joined == *first {
            return Some(false);
        }
        spans.splice(from..to, [joined]);
        Some(true)
    }

    /// Whether these are all of `len` bytes.
    fn is_all(&self, len: u16) -> bool {
        self.0 == [(0, len)]
    }
}

/// Units of one connection that may be under way in parts: those that were in flight when its path became narrower.
const UNITS_MAX: usize = 256;
/// Spans of one unit: a unit of 8925 bytes in parts of 492, every other of which was lost, has 10.
const SPANS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_the_set_of_the_bytes_that_came() {
        let mut seed = 7u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (seed >> 33) % n
        };
        for _ in 0..2_000 {
            let mut spans = Spans::default();
            let mut bytes = [false; 40];
            for _ in 0..12 {
                let start = draw(39) as u16;
                let end = start + 1 + draw(u64::from(40 - start)) as u16;
                let end = end.min(40);
                let of = usize::from(start)..usize::from(end);
                let news = bytes[of.clone()].iter().any(|came| !came);
                bytes[of].fill(true);
                assert_eq!(spans.add(start, end), Some(news));
                let told: Vec<u16> = spans.0.iter().flat_map(|span| span.0..span.1).collect();
                let want: Vec<u16> = (0..40).filter(|i| bytes[usize::from(*i)]).collect();
                assert_eq!(told, want);
                assert!(spans.0.windows(2).all(|of| of[0].1 < of[1].0), "{:?}", spans.0);
                assert_eq!(spans.is_all(40), bytes.iter().all(|came| *came));
            }
        }
    }

    #[test]
    fn a_unit_in_too_many_pieces_takes_no_more() {
        let mut spans = Spans::default();
        for i in 0..SPANS_MAX as u16 {
            assert_eq!(spans.add(4 * i, 4 * i + 1), Some(true));
        }
        assert_eq!(spans.add(4000, 4001), None);
        assert_eq!(spans.add(0, 4 * SPANS_MAX as u16), Some(true), "one that joins them is welcome");
    }
}

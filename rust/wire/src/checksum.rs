//! The Internet checksum (RFC 1071): sums of bytes. What it covers in UDP is in `frame`.

/// Sum of 16-bit words that is not yet folded. Sums of several ranges may be added as long as each range but the last
/// has an even length.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Adds a range of bytes. Eight bytes at a time in native byte order: the sum commutes with swapping bytes
    /// (RFC 1071 §2B), so one swap at the end serves.
    #[inline]
    pub fn plus(self, b: &[u8]) -> Sum {
        // Four lanes of 32-bit halves: no carry is lost within 2^32 words, and the compiler makes vectors of it.
        let (blocks, rest) = b.as_chunks::<32>();
        let mut lanes = [0u64; 8];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let (words, tail) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        if !tail.is_empty() {
            let mut last = [0u8; 4];
            last[..tail.len()].copy_from_slice(tail);
            sum += u64::from(u32::from_ne_bytes(last));
        }
        Sum(self.0 + sum)
    }

    /// Adds one word, given in host order.
    #[inline]
    pub fn plus_word(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(u16::from_ne_bytes(word.to_be_bytes())))
    }

    /// The sum folded to 16 bits and complemented, in host order.
    #[inline]
    pub fn complement(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be_bytes((!(sum as u16)).to_ne_bytes())
    }
}

/// The Internet checksum of one range.
#[inline]
pub fn ones_complement(b: &[u8]) -> u16 {
    Sum::default().plus(b).complement()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 as written: 16 bits at a time, big endian.
    fn slow(b: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in b.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(ones_complement(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    proptest::proptest! {
        #[test]
        fn lanes_agree_with_the_definition(b in proptest::collection::vec(proptest::num::u8::ANY, 0..3000)) {
            proptest::prop_assert_eq!(ones_complement(&b), slow(&b));
        }

        #[test]
        fn ranges_add_up(a in proptest::collection::vec(proptest::num::u8::ANY, 0..200), b in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let even = &a[..a.len() & !1];
            let whole: alloc::vec::Vec<u8> = even.iter().chain(&b).copied().collect();
            proptest::prop_assert_eq!(Sum::default().plus(even).plus(&b).complement(), slow(&whole));
        }
    }
    extern crate alloc;
}

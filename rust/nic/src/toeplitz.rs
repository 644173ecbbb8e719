//! The Toeplitz hash that NICs spread flows with (Microsoft, "Verifying the RSS Hash Calculation").

use core::net::Ipv4Addr;

/// A NIC's hash under one key, over the IPv4 four-tuple. Which queue a hash leads to is the NIC's own table's affair, and no size of
/// that is assumed. Tables for each byte make it 12 look-ups instead of 96 shifts.
#[derive(Clone)]
pub struct Toeplitz {
    tables: Box<[[u32; 256]; 12]>,
}

impl Toeplitz {
    /// From a key of 40 bytes, the length that NICs take; 16 of them matter for IPv4.
    pub fn new(key: &[u8; 40]) -> Toeplitz {
        let mut tables = Box::new([[0u32; 256]; 12]);
        for (byte, table) in tables.iter_mut().enumerate() {
            for (value, entry) in table.iter_mut().enumerate() {
                for bit in 0..8 {
                    if value & (0x80 >> bit) != 0 {
                        *entry ^= window(key, byte * 8 + bit);
                    }
                }
            }
        }
        Toeplitz { tables }
    }

    /// From a secret seed: what a NIC does that draws its key when it starts.
    pub fn secret(seed: u64) -> Toeplitz {
        let mut key = [0; 40];
        let mut state = seed;
        for chunk in key.chunks_mut(8) {
            chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes());
        }
        Toeplitz::new(&key)
    }

    /// The hash of a four-tuple.
    #[inline]
    pub fn hash(&self, src: Ipv4Addr, dst: Ipv4Addr, src_port: u16, dst_port: u16) -> u32 {
        let mut input = [0; 12];
        input[..4].copy_from_slice(&src.octets());
        input[4..8].copy_from_slice(&dst.octets());
        input[8..10].copy_from_slice(&src_port.to_be_bytes());
        input[10..].copy_from_slice(&dst_port.to_be_bytes());
        self.fold(&input)
    }

    /// The hash of a frame over addresses and ports; `None` for what is not UDP over IPv4, which NICs do not spread.
    #[inline]
    pub fn of_frame(&self, frame: &[u8]) -> Option<u32> {
        let mut input = [0; 12];
        input.copy_from_slice(tuple(frame)?);
        Some(self.fold(&input))
    }

    /// The same over addresses alone.
    pub fn of_addresses(&self, frame: &[u8]) -> Option<u32> {
        let mut input = [0; 12];
        input[..8].copy_from_slice(&tuple(frame)?[..8]);
        Some(self.fold(&input))
    }

    #[inline]
    fn fold(&self, input: &[u8; 12]) -> u32 {
        self.tables.iter().zip(input).fold(0, |hash, (table, byte)| hash ^ table[usize::from(*byte)])
    }
}

/// Where addresses and ports stand in a frame that is UDP over IPv4 without options.
#[inline]
fn tuple(frame: &[u8]) -> Option<&[u8]> {
    const UDP: u8 = 17;
    let is_udp = frame.len() >= 42 && frame[12..15] == [0x08, 0x00, 0x45] && frame[23] == UDP;
    is_udp.then(|| &frame[26..38])
}

/// 32 bits of the key from bit `at` on.
fn window(key: &[u8; 40], at: usize) -> u32 {
    let byte = at / 8;
    let five = key[byte..byte + 5].iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
    (five >> (8 - at % 8)) as u32
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to draw keys and faults from a seed.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published verification suite, IPv4 with ports.
    #[test]
    fn published_vectors() {
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
            0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
            0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let toeplitz = Toeplitz::new(&key);
        for (src, src_port, dst, dst_port, hash) in [
            ([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766, 0x51cc_c178u32),
            ([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739, 0xc626_b0ea),
            ([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024, 0x5c2b_394a),
            ([38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217, 0xafc7_327f),
            ([153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303, 0x10e8_28a2),
        ] {
            assert_eq!(toeplitz.hash(Ipv4Addr::from(src), Ipv4Addr::from(dst), src_port, dst_port), hash);
        }
    }
}

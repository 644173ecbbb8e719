//! Big-endian fields at fixed offsets. The header arrives as an array of known length, so that no access can miss.

use crate::ParseError;

/// The first `N` bytes as an array, and the rest.
#[inline]
pub fn split<'a, const N: usize>(
    what: &'static str,
    b: &'a [u8],
) -> Result<(&'a [u8; N], &'a [u8]), ParseError> {
    b.split_first_chunk::<N>().ok_or(ParseError::Short { what, have: b.len(), need: N })
}

/// The first `N` bytes as a writable array, and the rest. A caller offers the room that the format's `LEN` asks for.
///
/// # Panics
/// If `b` is shorter than `N`: a fault of the caller, never of input.
#[inline]
pub fn split_mut<const N: usize>(b: &mut [u8]) -> (&mut [u8; N], &mut [u8]) {
    b.split_first_chunk_mut::<N>().expect("room for the header")
}

/// 16 bits at `at`.
#[inline]
pub const fn u16_at<const N: usize>(b: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

/// 32 bits at `at`.
#[inline]
pub const fn u32_at<const N: usize>(b: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// 64 bits at `at`.
#[inline]
pub const fn u64_at<const N: usize>(b: &[u8; N], at: usize) -> u64 {
    (u32_at(b, at) as u64) << 32 | u32_at(b, at + 4) as u64
}

/// Writes 16 bits at `at`.
#[inline]
pub fn put16<const N: usize>(b: &mut [u8; N], at: usize, v: u16) {
    b[at..at + 2].copy_from_slice(&v.to_be_bytes());
}

/// Writes 32 bits at `at`.
#[inline]
pub fn put32<const N: usize>(b: &mut [u8; N], at: usize, v: u32) {
    b[at..at + 4].copy_from_slice(&v.to_be_bytes());
}

/// Writes 64 bits at `at`.
#[inline]
pub fn put64<const N: usize>(b: &mut [u8; N], at: usize, v: u64) {
    b[at..at + 8].copy_from_slice(&v.to_be_bytes());
}

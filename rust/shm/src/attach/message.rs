//! The messages of attaching: their kinds, their lengths, and the checks on what the other side sent. docs/channel.md has them as tables.

use super::outcome::AttachError;
use crate::text::TEXT;

const MAGIC: u64 = u64::from_le_bytes(*b"MACHNETA");
pub(super) const HELLO: u32 = 1;
pub(super) const WELCOME: u32 = 2;
pub(super) const MAPPED: u32 = 3;
pub(super) const READY: u32 = 4;

pub(super) const HELLO_LEN: usize = 32;
pub(super) const WELCOME_LEN: usize = 64 + TEXT;
pub(super) const SHORT_LEN: usize = 16;
/// Bytes that a message of another version may have at most to be understood as one.
pub(super) const LONGEST: usize = 512;

/// A message: magic, kind, and fields in little endian.
pub(super) struct Message<const N: usize>(pub [u8; N]);

impl<const N: usize> Message<N> {
    pub fn new(kind: u32) -> Self {
        let mut m = Message([0; N]);
        m.put64(0, MAGIC).put32(8, kind);
        m
    }

    pub fn put32(&mut self, at: usize, v: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&v.to_le_bytes());
        self
    }

    pub fn put64(&mut self, at: usize, v: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&v.to_le_bytes());
        self
    }
}

/// Checks magic, kind and length.
pub(super) fn check(b: &[u8], kind: u32, len: usize) -> Result<(), AttachError> {
    check_kind(b, kind)?;
    check_len(b, len)
}

/// Checks magic and kind, and that the first 32 bytes are there, which every version has: so that a difference of versions is told as such
/// whatever else became of the message.
pub(super) fn check_kind(b: &[u8], kind: u32) -> Result<(), AttachError> {
    if b.len() < SHORT_LEN || (kind <= WELCOME && b.len() < HELLO_LEN) {
        return Err(AttachError::Message { what: "length of a message", value: b.len() as u64 });
    }
    if get64(b, 0) != MAGIC {
        return Err(AttachError::Message { what: "first bytes of a message", value: get64(b, 0) });
    }
    if get32(b, 8) != kind {
        return Err(AttachError::Message { what: "kind of a message", value: get32(b, 8).into() });
    }
    Ok(())
}

pub(super) fn check_len(b: &[u8], len: usize) -> Result<(), AttachError> {
    if b.len() == len {
        return Ok(());
    }
    Err(AttachError::Message { what: "length of a message", value: b.len() as u64 })
}

/// `b` is long enough: [`check_kind`] said so.
pub(super) fn get32(b: &[u8], at: usize) -> u32 {
    b.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

pub(super) fn get64(b: &[u8], at: usize) -> u64 {
    b.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

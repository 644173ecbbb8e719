//! Descriptors to the words of a slot and back.
/// Entries of a slot of the complete and return rings.
pub(crate) const BATCH: usize = 24;
pub(crate) const KINDS: u64 = 0;
pub(crate) const WORDS: u64 = 0;

//! The fence of the sleep protocol, by the name that loom's has. Words in shared memory are always the machine's atomics: in loom's
//! tests the rings and the sleep words are loom's own, through `ring::Slots` and `sleep::Word`.

pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;

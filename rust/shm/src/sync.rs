//! Atomics, by the names that loom's have, so that the sleep protocol can be checked in every interleaving.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

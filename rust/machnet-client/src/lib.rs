//! The Machnet client as a static library: exports `machnet_*` and nothing else, and needs only libc.
//!
//! A leaf of its own because it has what a library cannot have: a panic handler, and panic = "abort" (profile
//! `archive`). Under any other profile it is an ordinary crate with std, so that `cargo check --workspace` can read it.
#![cfg_attr(panic = "abort", no_std)]

pub use machnet::abi::*;

/// Nothing in `machnet` panics on purpose; should it happen, the process must not go on in an unknown state.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes nothing and does not return.
    unsafe { libc::abort() }
}

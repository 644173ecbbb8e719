//! What the C functions have in common: from pointers to references, and from results to codes. "The contract of this module" is that of
//! `abi`, which stands at its head.
use crate::client::machnet_channel;
use crate::code::{MACHNET_EFORK, MACHNET_EINVAL};
use core::ffi::c_int;
use core::mem::MaybeUninit;

/// The channel behind a pointer.
///
/// # Safety
/// The contract of this module; the reference ends with the C function.
pub(super) unsafe fn channel<'a>(ch: *const machnet_channel) -> Result<&'a machnet_channel, i32> {
    // SAFETY: null, or a live channel as promised; all of its fields are atomics, gates or set once, so that shared
    // references from several threads are sound.
    let ch = unsafe { ch.as_ref() }.ok_or(MACHNET_EINVAL)?;
    if ch.mark.wiped() { Err(MACHNET_EFORK) } else { Ok(ch) }
}

/// A call on a channel; `what` begins the sentence about its failure.
///
/// # Safety
/// The contract of this module.
#[inline]
pub(super) unsafe fn call<T>(
    ch: *const machnet_channel,
    what: &str,
    body: impl FnOnce(&machnet_channel) -> Result<T, i32>,
) -> Result<T, i32> {
    // SAFETY: the same contract.
    let ch = unsafe { channel(ch) }?;
    let done = body(ch);
    ch.last_error.call_ended(what, done.as_ref().err().copied().unwrap_or(0));
    done
}

/// Writes a result, unless the caller does not want it.
///
/// # Safety
/// `out` is null or writable.
pub(super) unsafe fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: writable, as promised.
        unsafe { out.write(value) };
    }
}

/// The caller's buffer to read from; empty where `len` is 0, whatever the pointer.
///
/// # Safety
/// `base` is readable for `len` bytes until `'a` ends, and nobody writes there meanwhile.
pub(super) unsafe fn bytes<'a>(base: *const u8, len: usize) -> Result<&'a [u8], i32> {
    if len == 0 {
        return Ok(&[]);
    }
    if base.is_null() || len > isize::MAX as usize {
        return Err(MACHNET_EINVAL);
    }
    // SAFETY: readable as promised, and shorter than `isize::MAX`.
    Ok(unsafe { core::slice::from_raw_parts(base, len) })
}

/// The caller's buffer to write to, which need not be initialised; empty where `len` is 0, whatever the pointer.
///
/// # Safety
/// `base` is writable for `len` values until `'a` ends, and nobody else uses it meanwhile.
pub(super) unsafe fn room<'a, T>(base: *mut T, len: usize) -> Result<&'a mut [MaybeUninit<T>], i32> {
    if len == 0 {
        return Ok(&mut []);
    }
    if base.is_null() || len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(MACHNET_EINVAL);
    }
    // SAFETY: writable as promised, and at most `isize::MAX` bytes; a `MaybeUninit` may hold anything.
    Ok(unsafe { core::slice::from_raw_parts_mut(base.cast(), len) })
}

/// A result without a value as a code.
pub(super) fn code(result: Result<(), i32>) -> c_int {
    result.err().unwrap_or(0)
}

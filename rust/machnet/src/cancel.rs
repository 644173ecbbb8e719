//! Cancellation of threads (pthread_cancel) held off while many calls of the system are made, some of which the C library would end the
//! thread in: its stack would be unwound through Rust, with a lock held. The calls that wait make plain calls of the system
//! instead (`patience`).
use core::ffi::c_int;

/// Held off until dropped.
pub struct Uncancelled(c_int);

impl Uncancelled {
    /// From here on, in this thread.
    pub fn begin() -> Self {
        let mut before = 0;
        // SAFETY: `before` is writable.
        unsafe { pthread_setcancelstate(DISABLE, &mut before) };
        Self(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: the state that `begin` got.
        unsafe { pthread_setcancelstate(self.0, core::ptr::null_mut()) };
    }
}

unsafe extern "C" {
    /// Not in the libc crate. POSIX; glibc's and musl's PTHREAD_CANCEL_DISABLE is 1, and both take null for `old`.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

const DISABLE: c_int = 1;

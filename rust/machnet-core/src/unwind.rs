//! What std asks of an unwinder, without one: the archive carries no unwind tables, so there is nothing to walk through, and
//! the one of GCC would tie it to glibc (its static library refers to `_dl_find_object`, which musl lacks).
//!
//! Only in the archive, whose panics abort; scripts/archives.sh makes these names local to it.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI: the walk is over. A panic is told without a backtrace.
const END_OF_STACK: c_int = 5;

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_trace: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetIP(_context: *mut c_void) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    std::process::abort()
}

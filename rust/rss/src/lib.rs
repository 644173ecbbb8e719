//! RSS--: spraying port pairs until they hit.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

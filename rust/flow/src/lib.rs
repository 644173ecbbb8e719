//! One Machnet connection, sans-IO.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

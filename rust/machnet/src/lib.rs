//! The Machnet client and its C ABI.
#![no_std]

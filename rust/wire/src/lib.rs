//! Bytes to typed headers and back.
#![no_std]
#![forbid(unsafe_code)]

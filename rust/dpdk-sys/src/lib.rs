//! Bindings to DPDK through a shim of our own.
//!
//! `shim.h` is the reference: about forty functions with plain C types, bursts instead of packets. It is linked
//! dynamically; drivers are plugins that EAL loads at run time.
#![allow(non_camel_case_types, missing_docs)]
// bindgen's `Default` zeroes plain C structures without saying why it may.
#![allow(clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

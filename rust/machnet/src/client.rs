//! A channel as the C ABI sees it.
#![allow(non_camel_case_types, reason = "the name that C and Go see")]

/// One attachment to a sidecar.
pub struct machnet_channel {
    _todo: u8,
}

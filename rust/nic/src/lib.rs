//! The least-common-denominator NIC.

#[cfg(feature = "dpdk")]
pub mod dpdk;

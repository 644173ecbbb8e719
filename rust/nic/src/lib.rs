//! The least-common-denominator NIC.

//! The whole stack on a simulated NIC.

//! The Machnet sidecar.
fn main() {}

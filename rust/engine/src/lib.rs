//! The run-to-completion loop.
#![forbid(unsafe_code)]

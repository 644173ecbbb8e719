//! The memory that an application and an engine share.
#![no_std]

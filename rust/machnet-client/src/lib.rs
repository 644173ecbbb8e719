//! The Machnet client as a static library.


//! Why bytes were refused.

use core::fmt;

/// Why a packet was refused. The values are those that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// Fewer bytes than the format needs.
    Short {
        /// The header or body that was being read.
        what: &'static str,
        /// Bytes there were.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A field has a value that means nothing here.
    Field {
        /// Name of the format and the field.
        what: &'static str,
        /// What it held.
        value: u32,
    },
    /// A checksum does not fit its data.
    Checksum {
        /// The protocol whose checksum it is.
        what: &'static str,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ParseError::Short { what, have, need } => write!(f, "{what}: {have} bytes, needs {need}"),
            ParseError::Field { what, value } => write!(f, "{what}: value {value:#x} is not understood"),
            ParseError::Checksum { what } => write!(f, "{what}: wrong checksum"),
        }
    }
}

impl core::error::Error for ParseError {}

//! Where a unit stands in its message: the same three values on the wire, in a channel, and in every program between.

/// What a unit is within its message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Fragment {
    /// It begins the message.
    pub begin: bool,
    /// It ends the message.
    pub end: bool,
    /// Bytes of the whole message where it begins, 0 to 8 MiB; else 0.
    pub message_len: u32,
}

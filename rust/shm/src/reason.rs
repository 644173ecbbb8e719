//! Why a connection ended, or a request was refused: one list for both ends of a channel.

/// A reason as it stands in slots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// Nobody listens at the remote port.
    Refused = 1,
    /// Nothing was heard in the configured time.
    Timeout = 2,
    /// The peer's application reset the connection.
    Reset = 3,
    /// The peer's application or sidecar is gone.
    Gone = 4,
    /// The remote host, or the gateway to it, does not answer ARP.
    Unreachable = 5,
    /// The local port is in use.
    InUse = 6,
    /// No room for another connection, listener or request.
    NoResources = 7,
    /// Given up by the application that asked.
    Canceled = 8,
    /// The address is not this host's.
    NotLocal = 9,
    /// An argument is out of range.
    Invalid = 10,
    /// The peer broke the protocol.
    Protocol = 11,
    /// Not permitted to this application.
    NotPermitted = 12,
    /// This application's own reset.
    Local = 13,
    /// Both directions were finished and everything was acknowledged.
    Clean = 14,
}

impl Reason {
    /// From a slot's word.
    pub fn from_word(word: u32) -> Option<Reason> {
        use Reason::*;
        const ALL: [Reason; 14] = [
            Refused,
            Timeout,
            Reset,
            Gone,
            Unreachable,
            InUse,
            NoResources,
            Canceled,
            NotLocal,
            Invalid,
            Protocol,
            NotPermitted,
            Local,
            Clean,
        ];
        ALL.into_iter().find(|reason| *reason as u32 == word)
    }
}

//! Why a connection ended, or a request was refused: one list for both ends of a channel.

use crate::fault::PeerFault;

/// A reason, as both ends of a channel know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// Nobody listens at the remote port.
    Refused,
    /// Nothing was heard in the configured time.
    Timeout,
    /// The peer's application reset the connection.
    Reset,
    /// The peer's application or sidecar is gone.
    Gone,
    /// The remote host, or the gateway to it, does not answer ARP.
    Unreachable,
    /// The local port is in use.
    InUse,
    /// More was asked of one connection than there is room for.
    NoResources,
    /// Given up by the application that asked.
    Canceled,
    /// The address is not this host's.
    NotLocal,
    /// An argument is out of range.
    Invalid,
    /// The peer broke the protocol.
    Protocol,
    /// Not permitted to this application.
    NotPermitted,
    /// This application's own reset.
    Local,
    /// Both directions were finished and everything was acknowledged.
    Clean,
    /// There are as many of something as there may be: of what, and how many.
    Full(Limit, u32),
    /// This sidecar is ending and takes no more.
    Ending,
    /// The peer's sidecar is.
    PeerEnding,
}

/// What there may be only so many of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Limit {
    /// Connections of this application ([`crate::Geometry::flows`]).
    Connections,
    /// Connections of the engine that serves it.
    EngineConnections,
    /// Listeners of this application.
    Listeners,
    /// Ports that the sidecar chooses from where none is named.
    Ports,
    /// Connections of the application that listens at the other end.
    PeerConnections,
    /// Connections of the engine there.
    PeerEngineConnections,
}

impl Reason {
    /// The two words that a slot has for it: its number, and how many there may be, or 0.
    pub fn to_words(self) -> (u32, u32) {
        use Reason::*;
        match self {
            Refused => (1, 0),
            Timeout => (2, 0),
            Reset => (3, 0),
            Gone => (4, 0),
            Unreachable => (5, 0),
            InUse => (6, 0),
            NoResources => (7, 0),
            Canceled => (8, 0),
            NotLocal => (9, 0),
            Invalid => (10, 0),
            Protocol => (11, 0),
            NotPermitted => (12, 0),
            Local => (13, 0),
            Clean => (14, 0),
            Full(Limit::Connections, bound) => (15, bound),
            Full(Limit::EngineConnections, bound) => (16, bound),
            Full(Limit::Listeners, bound) => (17, bound),
            Full(Limit::Ports, bound) => (18, bound),
            Full(Limit::PeerConnections, bound) => (19, bound),
            Full(Limit::PeerEngineConnections, bound) => (20, bound),
            Ending => (21, 0),
            PeerEnding => (22, 0),
        }
    }

    /// From a slot's words. The second means nothing where the reason has no bound.
    pub fn from_words(number: u32, bound: u32) -> Option<Reason> {
        use Reason::*;
        Some(match number {
            1 => Refused,
            2 => Timeout,
            3 => Reset,
            4 => Gone,
            5 => Unreachable,
            6 => InUse,
            7 => NoResources,
            8 => Canceled,
            9 => NotLocal,
            10 => Invalid,
            11 => Protocol,
            12 => NotPermitted,
            13 => Local,
            14 => Clean,
            15 => Full(Limit::Connections, bound),
            16 => Full(Limit::EngineConnections, bound),
            17 => Full(Limit::Listeners, bound),
            18 => Full(Limit::Ports, bound),
            19 => Full(Limit::PeerConnections, bound),
            20 => Full(Limit::PeerEngineConnections, bound),
            21 => Ending,
            22 => PeerEnding,
            _ => return None,
        })
    }

    /// From a slot's words, where a number that is no reason is a fault of the peer's.
    #[cold]
    pub(crate) fn checked(number: u32, bound: u32) -> Result<Reason, PeerFault> {
        let unknown = PeerFault::Bound { what: "reason", value: number, bound: Reason::END };
        Reason::from_words(number, bound).ok_or(unknown)
    }

    /// The first number that is no reason.
    pub(crate) const END: u32 = 23;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_one_reason_and_no_other() {
        for number in 1..Reason::END {
            let reason = Reason::from_words(number, 77).expect("a reason");
            let bound = if matches!(reason, Reason::Full(..)) { 77 } else { 0 };
            assert_eq!(reason.to_words(), (number, bound));
        }
        assert_eq!((Reason::from_words(0, 0), Reason::from_words(Reason::END, 0)), (None, None));
    }
}

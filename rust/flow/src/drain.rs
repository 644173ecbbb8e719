//! Which drain epoch both engines are in. When either changes its own, all flows between them that have met congestion hold back
//! together (`congestion`).

/// The epochs, one bit each, as the flow last heard.
#[derive(Debug, Clone, Hash)]
pub(crate) struct DrainEpochs {
    own: bool,
    peer: bool,
}

impl DrainEpochs {
    pub fn new(own: bool, peer: bool) -> Self {
        DrainEpochs { own, peer }
    }

    /// Whether this engine's epoch has changed since the last question.
    #[inline]
    pub fn own_changed(&mut self, own: bool) -> bool {
        core::mem::replace(&mut self.own, own) != own
    }

    /// Whether the peer's epoch has changed since the last question.
    #[inline]
    pub fn peer_changed(&mut self, peer: bool) -> bool {
        core::mem::replace(&mut self.peer, peer) != peer
    }
}

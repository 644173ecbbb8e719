//! Who the two ends of a flow are.

use machnet_wire::{Hello, Reason, Reset, unit_size};

use crate::Setup;

/// This end, the other once it has said who it is, and what follows from both.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Ends {
    local: Setup,
    peer: Option<Hello>,
    unit_size: u32,
}

impl Ends {
    pub fn new(local: Setup) -> Self {
        Ends { local, peer: None, unit_size: unit_size(local.hello.mtu, 0).max(1) as u32 }
    }

    /// The peer said who it is.
    pub fn meet(&mut self, peer: Hello) {
        self.peer = Some(peer);
        let own = &self.local.hello;
        self.unit_size = unit_size(peer.mtu.min(own.mtu), peer.seal.min(own.seal)).max(1) as u32;
    }

    #[inline]
    pub fn local(&self) -> &Setup {
        &self.local
    }

    #[inline]
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Our tag.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.local.hello.tag
    }

    /// Most payload of one packet, bytes: the smaller MTU of both ends, less the authentication tag agreed on.
    #[inline]
    pub fn unit_size(&self) -> u32 {
        self.unit_size
    }

    /// What the peer, which has kept nothing of us, is to be told until it answers; `None`: it has asked for no such thing.
    pub fn hello_with_cookie(&self) -> Option<Hello> {
        let cookie = self.peer.map_or(0, |peer| peer.cookie);
        (cookie != 0).then_some(Hello { cookie, ..self.local.hello })
    }

    /// Whether the peer is known by this tag.
    pub fn is_peer(&self, tag: u32) -> bool {
        self.peer.is_some_and(|peer| peer.tag == tag)
    }

    /// The peer's tag; 0: it has not said who it is.
    #[inline]
    pub fn peer_tag(&self) -> u32 {
        self.peer.map_or(0, |peer| peer.tag)
    }

    /// An RST that the peer believes, if it has told us its tag.
    pub fn reset(&self, reason: Reason) -> Reset {
        let Hello { epoch, tag: echo, .. } = self.local.hello;
        Reset { epoch, echo, reason }
    }
}

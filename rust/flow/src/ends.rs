//! Who the two ends of a flow are.

use alloc::boxed::Box;

use machnet_wire::{Hello, Reason, Reset, unit_size};

use crate::{Setup, Syns};

/// This end, the other once it has said who it is, and what follows from both.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Ends {
    tag: u32,
    local_port: u16,
    remote_port: u16,
    epoch: u64,
    peer: Option<Hello>,
    unit_size: u32,
    /// What the handshake needs beside that, until it is over.
    opening: Option<Box<Setup>>,
}

impl Ends {
    pub fn new(mut local: Setup) -> Self {
        local.hello.parts = true;
        let Setup { local_port, remote_port, hello, .. } = local;
        let unit_size = unit_size(hello.mtu, 0).max(1) as u32;
        let Hello { tag, epoch, .. } = hello;
        Ends { tag, local_port, remote_port, epoch, peer: None, unit_size, opening: Some(Box::new(local)) }
    }

    /// The peer knows of the connection: what only the handshake needed goes.
    pub fn on_confirmed(&mut self) {
        self.opening = None;
    }

    /// The peer said who it is.
    pub fn meet(&mut self, peer: Hello) {
        self.peer = Some(peer);
        if let Some(own) = self.hello() {
            self.unit_size = unit_size(peer.mtu.min(own.mtu), peer.seal.min(own.seal)).max(1) as u32;
        }
    }

    /// Our Machnet port, and the peer's.
    #[inline]
    pub fn ports(&self) -> (u16, u16) {
        (self.local_port, self.remote_port)
    }

    /// What we say of ourselves; `None` once the handshake is over.
    pub fn hello(&self) -> Option<&Hello> {
        self.opening.as_ref().map(|setup| &setup.hello)
    }

    /// How many copies the packets of the handshake go out in.
    pub fn syns(&self) -> Syns {
        self.opening.as_ref().map_or(Syns::ONE, |setup| setup.syns)
    }

    #[inline]
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Our tag.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Most payload of one packet, bytes: the smaller MTU of both ends, less the authentication tag agreed on.
    #[inline]
    pub fn unit_size(&self) -> u32 {
        self.unit_size
    }

    /// What the peer, which has kept nothing of us, is to be told until it answers; `None`: it has asked for no such thing.
    pub fn hello_with_cookie(&self) -> Option<Hello> {
        let cookie = self.peer.map_or(0, |peer| peer.cookie);
        self.hello().filter(|_| cookie != 0).map(|own| Hello { cookie, ..*own })
    }

    /// Whether the peer puts units together that come in parts.
    pub fn takes_parts(&self) -> bool {
        self.peer.is_some_and(|peer| peer.parts)
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
        Reset { epoch: self.epoch, echo: self.tag, reason }
    }
}

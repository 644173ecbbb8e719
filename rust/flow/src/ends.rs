//! Who the two ends of a flow are.

use alloc::boxed::Box;

use machnet_wire::{Hello, Reason, Reset, Seq, unit_size};

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
    opening: Option<Box<Opening>>,
}

#[derive(Debug, Clone, Hash)]
struct Opening {
    setup: Setup,
    ticket: Option<Ticket>,
}

/// What a peer gave us that keeps nothing of our SYN: it is to be brought back with all that the SYN said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    /// The tag that goes with it.
    pub tag: u32,
    /// The `unit` of the SYN-ACK that it came in.
    pub unit: Seq,
    pub cookie: u64,
}

impl Ends {
    pub fn new(mut local: Setup) -> Self {
        local.hello.parts = true;
        let Setup { local_port, remote_port, hello, .. } = local;
        let unit_size = unit_size(hello.mtu, 0).max(1) as u32;
        let Hello { tag, epoch, .. } = hello;
        Ends {
            tag,
            local_port,
            remote_port,
            epoch,
            peer: None,
            unit_size,
            opening: Some(Box::new(Opening { setup: local, ticket: None })),
        }
    }

    /// The peer knows of the connection: what only the handshake needed goes.
    pub fn on_confirmed(&mut self) {
        self.opening = None;
    }

    /// The peer said who it is.
    pub fn meet(&mut self, peer: Hello) {
        // A cookie is not the peer's, and what it was for is over.
        self.peer = Some(Hello { cookie: 0, ..peer });
        if let Some(opening) = &mut self.opening {
            opening.ticket = None;
        }
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
        self.opening.as_ref().map(|opening| &opening.setup.hello)
    }

    /// How many copies the packets of the handshake go out in.
    pub fn syns(&self) -> Syns {
        self.opening.as_ref().map_or(Syns::ONE, |opening| opening.setup.syns)
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

    /// What is to be brought back to a peer that keeps nothing of us; `None`: there is none that has asked for that.
    pub fn ticket(&self) -> Option<Ticket> {
        self.opening.as_ref()?.ticket
    }

    /// Keeps what is to be brought back, in place of what there was.
    pub fn keep_ticket(&mut self, ticket: Ticket) {
        if let Some(opening) = &mut self.opening {
            opening.ticket = Some(ticket);
        }
    }

    /// The peer does not take it. Whether it was the one with this tag.
    pub fn drop_ticket(&mut self, tag: u32) -> bool {
        self.opening.as_mut().and_then(|opening| opening.ticket.take_if(|ticket| ticket.tag == tag)).is_some()
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

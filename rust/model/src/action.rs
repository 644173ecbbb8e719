//! What can happen: the steps from one state to the next.

use std::sync::Arc;

use machnet_wire::{Kind, Packet};

/// A packet under way. Their order is only for the list of them: any may arrive next. One that never arrives is a
/// packet lost, so there is no step for that.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flying {
    pub to: usize,
    pub bytes: Arc<[u8]>,
}

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    Deliver(Flying),
    /// It arrives, and stays under way.
    Copy(Flying),
    Timeout(usize),
    /// The engine sends what its flow has to send: a step of its own only in bursts.
    Transmit(usize),
    Connect(usize),
    Send(usize),
    Fin(usize),
    Close(usize),
    Reset(usize),
    Leave(usize),
    Restart(usize),
    /// The application takes a connection from its listener.
    Accept(usize),
    /// The engine looks for another pair: it asks where a packet leads.
    Probe(usize),
    /// One of several listeners of the port closes; the others go on.
    Unlisten(usize),
}

impl Action {
    /// The end that does something.
    pub fn actor(&self) -> usize {
        match self {
            Action::Deliver(packet) | Action::Copy(packet) => packet.to,
            Action::Timeout(i)
            | Action::Transmit(i)
            | Action::Connect(i)
            | Action::Send(i)
            | Action::Fin(i)
            | Action::Close(i)
            | Action::Reset(i)
            | Action::Leave(i)
            | Action::Restart(i)
            | Action::Accept(i)
            | Action::Probe(i)
            | Action::Unlisten(i) => *i,
        }
    }
}

/// Kind of a packet that was built here.
pub fn kind(bytes: &[u8]) -> Kind {
    Packet::parse(bytes).expect("what is sent can be read").header.kind
}

//! One end's channel: it keeps book of every token and every reservation, and of what was told and delivered.

use machnet_flow::{Closed, Event, Io};
use machnet_wire::{Fragment, Nanos};

use crate::rule::{Fault, Rule};

/// What one end knows of one connection, for the rules to compare with what the other end knows.
#[derive(Clone, Hash, Debug, Default)]
pub struct Record {
    /// Our tag; 0 before the first connection.
    pub tag: u32,
    /// The application called, and knows the connection before it is established.
    pub dialled: bool,
    /// Tags that the peer was believed to have; the last one counts.
    pub peers: Vec<u32>,
    /// Messages that the application sent, each of one unit.
    pub sent: u32,
    /// The application has finished sending.
    pub fin: bool,
    /// The application reads no more.
    pub stopped: bool,
    /// The application is gone: what it has sent goes out, and a reset behind that.
    pub left: bool,
    pub established: bool,
    /// The application has it: it called, or was given the connection by its listener.
    pub taken: bool,
    /// Messages delivered.
    pub delivered: u32,
    pub peer_fin: bool,
    /// The peer has told where a packet led.
    pub reported: bool,
    /// The listener that answered, of several.
    pub listener: u8,
    /// Units of the peer's that we acknowledged in a packet.
    pub acked: u32,
    pub closed: Option<Closed>,
}

impl Record {
    /// The tag that the peer is believed to have, 0 for none.
    pub fn peer(&self) -> u32 {
        self.peers.last().copied().unwrap_or(0)
    }
}

/// Books of the present connection.
#[derive(Clone, Hash, Debug)]
pub struct Channel {
    pub reserved: u32,
    /// Units that the application has and has not given back.
    pub lent: u32,
    held: u32,
    tokens: Vec<(u64, Vec<u8>)>,
    next_token: u64,
    pub record: Record,
    /// Delivered by the present call.
    pub came: Vec<Vec<u8>>,
    /// Rules broken in the present step.
    pub faults: Vec<Fault>,
}

impl Channel {
    pub fn new(record: Record) -> Channel {
        Channel {
            reserved: 0,
            lent: 0,
            held: 0,
            tokens: Vec::new(),
            next_token: 0,
            record,
            came: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// A token for a unit with this payload.
    pub fn token(&mut self, payload: Vec<u8>) -> u64 {
        self.next_token += 1;
        self.tokens.push((self.next_token, payload));
        self.next_token
    }

    pub fn payload(&self, token: u64) -> &[u8] {
        self.tokens.iter().find(|(t, _)| *t == token).map_or(&[], |(_, payload)| payload)
    }

    /// Whether nothing is reserved, kept or owed.
    pub fn is_balanced(&self) -> bool {
        self.reserved == 0 && self.held == 0 && self.tokens.is_empty()
    }

    pub fn fault(&mut self, rule: Rule, what: impl Into<String>) {
        self.faults.push(Fault::new(rule, what));
    }

    fn consume(&mut self) {
        if self.reserved == 0 {
            return self.fault(Rule::Books, "a unit was consumed that was not reserved");
        }
        self.reserved -= 1;
        self.lent += 1;
        self.within();
    }

    fn came(&mut self, payload: Vec<u8>) {
        if self.record.peer_fin || self.record.stopped {
            self.fault(Rule::OwnData, "a message was delivered after the end");
        }
        self.consume();
        self.came.push(payload);
    }

    fn within(&mut self) {
        if self.held > self.reserved {
            self.fault(Rule::Books, "more is held than is reserved");
        }
        if self.reserved + self.lent > UNITS {
            self.fault(Rule::Books, "more is reserved than there is");
        }
        if self.record.closed.is_some() {
            self.fault(Rule::ToldOnce, "a unit moved after Closed");
        }
    }
}

impl Io for Channel {
    type Tx = u64;
    type Held = Vec<u8>;

    fn deliver(&mut self, _: Fragment, payload: &[u8]) -> bool {
        self.came(payload.to_vec());
        true
    }

    fn hold(&mut self, _: Fragment, payload: &[u8]) -> Option<Vec<u8>> {
        self.held += 1;
        self.within();
        Some(payload.to_vec())
    }

    fn hold_parts(&mut self, len: u32) -> Option<Vec<u8>> {
        self.held += 1;
        self.within();
        Some(vec![0; len as usize])
    }

    fn write_part(&mut self, held: &mut Vec<u8>, at: u32, part: &[u8]) {
        held[at as usize..at as usize + part.len()].copy_from_slice(part);
    }

    fn deliver_held(&mut self, _: Fragment, held: Vec<u8>) {
        self.held -= 1;
        self.came(held);
    }

    fn discard_held(&mut self, _: Vec<u8>) {
        self.held -= 1;
    }

    fn complete(&mut self, tx: u64) {
        match self.tokens.iter().position(|(t, _)| *t == tx) {
            Some(at) => drop(self.tokens.remove(at)),
            None => self.fault(Rule::Books, format!("token {tx} was completed twice")),
        }
    }

    fn grant(&mut self, more: u32, _known: u32, _round: Nanos) -> u32 {
        self.take(more)
    }

    fn take(&mut self, more: u32) -> u32 {
        let n = more.min(UNITS - (self.reserved + self.lent).min(UNITS));
        self.reserved += n;
        self.within();
        n
    }

    fn unread(&self) -> u32 {
        self.lent
    }

    fn ungrant(&mut self, n: u32) {
        match self.reserved.checked_sub(n) {
            Some(left) => self.reserved = left,
            None => self.fault(Rule::Books, format!("gave back {n} of {}", self.reserved)),
        }
    }

    fn event(&mut self, event: Event) {
        if self.record.closed.is_some() {
            self.fault(Rule::ToldOnce, format!("{event:?} after Closed"));
        }
        match event {
            Event::Established if self.record.established => {
                self.fault(Rule::ToldOnce, "Established twice");
            }
            Event::Established => self.record.established = true,
            Event::PeerFin if self.record.peer_fin => self.fault(Rule::ToldOnce, "PeerFin twice"),
            Event::PeerFin => {
                self.consume();
                self.record.peer_fin = true;
            }
            Event::Aborted => self.fault(Rule::Honest, "a message was aborted that nobody aborted"),
            Event::Closed(closed) => {
                if !self.is_balanced() {
                    let tokens = self.tokens.len();
                    let what = format!(
                        "closed with {} reserved, {} held, {tokens} tokens out",
                        self.reserved, self.held
                    );
                    self.fault(Rule::Books, what);
                }
                self.record.closed = Some(closed);
            }
        }
    }
}

/// Receive units of a channel: more than these few packets ever need, so that credit is not the subject.
const UNITS: u32 = 64;

//! A channel that keeps book: every token and every reservation is accounted for at every call.

use std::collections::BTreeMap;

use machnet_flow::{Closed, Event, Io};
use machnet_wire::{Fragment, Nanos};

/// One end's channel: pools, books, and what the application has got.
#[derive(Debug)]
pub struct Channel {
    pub rx_units: u32,
    pub rx_free: u32,
    pub reserved: u32,
    /// Units that the application has and has not given back.
    pub lent: u32,
    pub held: u32,
    pub tokens: BTreeMap<u64, Vec<u8>>,
    next_token: u64,
    pub messages: Vec<Vec<u8>>,
    partial: Option<(u32, Vec<u8>)>,
    pub events: Vec<Event>,
    pub aborted: u32,
    pub peer_heard: Nanos,
    /// What other flows have found of the path, and what this one has.
    pub known_mtu: Option<u16>,
    pub learned_mtu: Option<u16>,
    /// How long the ring is not looked at, as the engine says.
    pub gap: Nanos,
    /// Takes nothing although it promised: an engine that is being torn down.
    pub broken: bool,
}

impl Channel {
    pub fn new(rx_units: u32) -> Self {
        Channel {
            rx_units,
            rx_free: rx_units,
            reserved: 0,
            lent: 0,
            held: 0,
            tokens: BTreeMap::new(),
            next_token: 0,
            messages: Vec::new(),
            partial: None,
            events: Vec::new(),
            aborted: 0,
            peer_heard: Nanos::ZERO,
            known_mtu: None,
            learned_mtu: None,
            gap: Nanos::ZERO,
            broken: false,
        }
    }

    pub fn token(&mut self, payload: &[u8]) -> u64 {
        self.next_token += 1;
        self.tokens.insert(self.next_token, payload.to_vec());
        self.next_token
    }

    fn consume(&mut self) {
        assert!(self.reserved > 0, "a unit was consumed that was not reserved");
        assert!(self.closed().is_none(), "told after Closed");
        assert!(self.told(Event::PeerFin) == 0, "told after PeerFin");
        self.reserved -= 1;
        self.lent += 1;
        self.check();
    }

    fn append(&mut self, unit: Fragment, payload: &[u8]) {
        if unit.begin {
            assert!(self.partial.is_none(), "a message begins within another");
            self.partial = Some((unit.message_len, Vec::new()));
        }
        let (len, bytes) = self.partial.as_mut().expect("a unit belongs to a message");
        bytes.extend_from_slice(payload);
        if unit.end {
            assert_eq!(bytes.len(), *len as usize, "message as long as announced");
            let (_, bytes) = self.partial.take().unwrap();
            self.messages.push(bytes);
        }
    }

    pub fn closed(&self) -> Option<Closed> {
        self.events.iter().find_map(|e| match e {
            Event::Closed(closed) => Some(*closed),
            _ => None,
        })
    }

    pub fn told(&self, event: Event) -> usize {
        self.events.iter().filter(|e| **e == event).count()
    }

    fn check(&self) {
        assert_eq!(self.rx_free + self.reserved + self.lent, self.rx_units, "receive units add up");
        assert!(self.held <= self.reserved, "what is held lies on reserved units");
    }
}

impl Io for Channel {
    type Tx = u64;
    type Held = Vec<u8>;

    fn deliver(&mut self, unit: Fragment, payload: &[u8]) -> bool {
        if self.broken {
            return false;
        }
        self.consume();
        self.append(unit, payload);
        true
    }
    fn hold(&mut self, _unit: Fragment, payload: &[u8]) -> Option<Vec<u8>> {
        if self.broken {
            return None;
        }
        self.held += 1;
        self.check();
        Some(payload.to_vec())
    }
    fn hold_parts(&mut self, len: u32) -> Option<Vec<u8>> {
        if self.broken {
            return None;
        }
        self.held += 1;
        self.check();
        Some(vec![0; len as usize])
    }
    fn write_part(&mut self, held: &mut Vec<u8>, at: u32, part: &[u8]) {
        held[at as usize..at as usize + part.len()].copy_from_slice(part);
    }
    fn deliver_held(&mut self, unit: Fragment, held: Vec<u8>) {
        self.held -= 1;
        self.consume();
        self.append(unit, &held);
    }
    fn discard_held(&mut self, _held: Vec<u8>) {
        self.held -= 1;
    }
    fn complete(&mut self, tx: u64) {
        assert!(self.closed().is_none(), "completed after Closed");
        assert!(self.tokens.remove(&tx).is_some(), "token {tx} was completed twice");
    }
    fn grant(&mut self, more: u32, known: u32, _round: Nanos) -> u32 {
        assert!(known <= more, "{known} of {more}");
        self.take(more)
    }
    fn take(&mut self, more: u32) -> u32 {
        assert!(self.closed().is_none(), "granted after Closed");
        let quarter = (self.rx_units / 4).max(1);
        let n = more.min(self.rx_free).min(quarter.saturating_sub(self.reserved + self.lent));
        self.rx_free -= n;
        self.reserved += n;
        n
    }
    fn unread(&self) -> u32 {
        self.lent
    }
    fn ungrant(&mut self, n: u32) {
        assert!(n <= self.reserved, "gave back {n} of {}", self.reserved);
        self.reserved -= n;
        self.rx_free += n;
    }
    fn event(&mut self, event: Event) {
        match event {
            Event::PeerFin => self.consume(),
            Event::Aborted => {
                self.consume();
                assert!(self.partial.take().is_some(), "aborted without a message");
                self.aborted += 1;
            }
            Event::Established => {}
            Event::Closed(_) => {
                assert!(self.closed().is_none(), "closed twice");
                assert_eq!((self.reserved, self.held), (0, 0), "reservations at the end");
                assert!(self.tokens.is_empty(), "tokens at the end");
            }
        }
        self.events.push(event);
    }
    fn gap(&self) -> Nanos {
        self.gap
    }
    fn known_mtu(&self) -> Option<u16> {
        self.known_mtu
    }
    fn learned_mtu(&mut self, mtu: u16) {
        self.learned_mtu = Some(mtu);
    }
    fn peer_heard(&self) -> Nanos {
        self.peer_heard
    }
}

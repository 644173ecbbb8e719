//! What whoever does not know a connection's tags can send to it, and that it changes nothing.

use machnet_wire::{Flags, Header, Hello, Kind, Reason, Reset, header};

use crate::end::{End, FIRST};
use crate::rule::{Fault, Rule};
use crate::scenario::Scenario;
use crate::world::{digest, unless_panics};

/// The first forged packet that changes `end`'s connection, if there is one.
pub fn check(scenario: &Scenario, end: &End) -> Option<Fault> {
    unless_panics(|| try_all(scenario, end)).unwrap_or_else(Some)
}

fn try_all(scenario: &Scenario, end: &End) -> Option<Fault> {
    let flow = end.flow.as_ref()?;
    let before = digest(&(Some(flow), &end.channel));
    let mut forged = Vec::new();
    forge(end, &mut forged);
    for (what, bytes) in forged {
        let mut copy = end.clone();
        copy.give(scenario, &bytes, &mut Vec::new());
        if digest(&(copy.flow.as_ref(), &copy.channel)) != before {
            return Some(Fault::new(Rule::Blind, format!("a forged {what} changed the connection")));
        }
    }
    // A SYN proves nothing: an open connection may ask its peer, and stays as it is.
    if flow.is_established() {
        let mut copy = end.clone();
        let mut h = Header::new(Kind::Syn);
        h.unit = FIRST;
        copy.give(scenario, &packet(h, &hello(WRONG)), &mut Vec::new());
        if !copy.is_established() || digest(&copy.channel) != digest(&end.channel) {
            return Some(Fault::new(Rule::Blind, "a SYN changed an open connection"));
        }
    }
    None
}

fn forge(end: &End, out: &mut Vec<(&'static str, Vec<u8>)>) {
    let record = &end.channel.record;
    // Tags that are wrong, among them those of this end's and its peer's earlier connections.
    let old = end.records().filter(|r| r.tag != record.tag).map(|r| r.tag);
    let past = end.records().flat_map(|r| r.peers.iter().copied()).filter(|tag| *tag != record.peer());
    let wrong: Vec<u32> = [0, WRONG, record.peer()].into_iter().chain(old).chain(past).collect();
    let next = FIRST + record.delivered;
    for &tag in wrong.iter().filter(|tag| **tag != record.tag) {
        let of =
            |kind| Header { tag, unit: next, ack: FIRST + record.sent, tx: FIRST + 100, ..Header::new(kind) };
        out.push(("SYN-ACK", packet(Header { ack: FIRST, ..of(Kind::SynAck) }, &hello(WRONG))));
        let flags = Flags::BEGIN | Flags::END;
        out.push(("DATA", packet(Header { flags, message_len: 1, ..of(Kind::Data) }, b"x")));
        out.push(("FIN", packet(Header { flags: Flags::FIN, ..of(Kind::Data) }, b"")));
        out.push(("ACK", packet(Header { credit: 9, ..of(Kind::Ack) }, b"")));
        out.push(("ACK", packet(Header { flags: Flags::PROBE, ..of(Kind::Ack) }, b"")));
        let knock = Header { flags: Flags::PROBE | Flags::HELLO, unit: FIRST, ..of(Kind::Ack) };
        for caller in [WRONG, record.peer()].into_iter().filter(|caller| *caller != 0) {
            let hello = Hello { cookie: 99, ..Hello::new(caller, 1, 1500) };
            out.push(("ACK with a hello", packet(knock, &hello.emit())));
        }
        out.push(("PING", packet(of(Kind::Ping), b"")));
        out.push(("PING", packet(Header { flags: Flags::REPORT, ..of(Kind::Ping) }, b"")));
        out.push(("PATHS", packet(of(Kind::Paths), &[0, 1, 0, 2, 0, 0])));
        for echo in [0, WRONG, record.tag, record.peer()] {
            // With tag 0 an echo of what we send is proof; while our SYN is out that is our own tag, in its body.
            let calling = record.dialled && !record.established;
            let proof = tag == 0 && echo != 0 && (echo == record.peer() || calling && echo == record.tag);
            if !proof {
                let reset = Reset { epoch: 1, echo, reason: Reason::Closed };
                out.push(("RST", packet(of(Kind::Rst), &reset.emit())));
            }
        }
    }
}

fn hello(tag: u32) -> [u8; Hello::LEN] {
    Hello::new(tag, 1, 1500).emit()
}

fn packet(h: Header, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; header::LEN + body.len()];
    let at = h.emit(&[], &mut bytes);
    bytes[at..].copy_from_slice(body);
    bytes
}

/// A tag that nobody has ever drawn.
const WRONG: u32 = 0xdead_beef;

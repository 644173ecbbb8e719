//! The rules that compare a step's state with the one before, and one end with the other. What an end can judge alone
//! it does where it happens (end.rs, channel.rs).

use machnet_flow::Closed;
use machnet_wire::{Kind, Reason};

use crate::action::{Action, kind};
use crate::channel::Record;
use crate::end::End;
use crate::rule::{Fault, Rule};

/// The first rule that the step of end `i` broke, which was as `before` says; the `ends` are as they are now.
pub fn after(before: &End, ends: [&End; 2], i: usize, action: &Action, out: &[Vec<u8>]) -> Option<Fault> {
    let (end, other) = (ends[i], ends[1 - i]);
    if let Action::Deliver(packet) | Action::Copy(packet) = action
        && let Some(fault) = answer(&packet.bytes, out)
    {
        return Some(fault);
    }
    if let Some(fault) = served(ends).or_else(|| places(end)) {
        return Some(fault);
    }
    for record in end.records() {
        let old = before.record(record.tag);
        if record.established
            && !old.is_some_and(|old| old.established)
            && let Some(fault) = established(record, other)
        {
            return Some(fault);
        }
        if record.peer_fin
            && !old.is_some_and(|old| old.peer_fin)
            && !other.record(record.peer()).is_some_and(|peer| peer.fin && peer.sent == record.delivered)
        {
            let what = format!("{:x} was told the end before all that was sent", record.tag);
            return Some(Fault::new(Rule::OwnData, what));
        }
        if let Some(closed) = record.closed
            && old.is_none_or(|old| old.closed.is_none())
            && let Some(fault) = self::closed(record, closed, end, other)
        {
            return Some(fault);
        }
    }
    None
}

/// Whether each caller that believes to be connected, with an end that lives, has a place there or was taken.
fn served(ends: [&End; 2]) -> Option<Fault> {
    [0, 1].into_iter().find_map(|i| {
        let (caller, listener) = (&ends[i].channel.record, ends[1 - i]);
        let peer = listener.record(caller.peer()).filter(|peer| listener.lives(peer.tag))?;
        let believes = caller.dialled && caller.established && caller.closed.is_none();
        let has_place = peer.taken || listener.places.iter().any(|place| place.tag == peer.tag);
        (believes && !has_place).then(|| {
            Fault::new(
                Rule::Served,
                format!("{:x} is connected to {:x}, which nobody takes", caller.tag, peer.tag),
            )
        })
    })
}

/// Whether each place is that of a connection which is half-open, or established and not taken.
fn places(end: &End) -> Option<Fault> {
    let lost = end.places.iter().find(|place| {
        !end.record(place.tag)
            .is_some_and(|record| !record.taken && (record.established || end.lives(record.tag)))
    })?;
    Some(Fault::new(Rule::Places, format!("{:x} has a place, and is no more", lost.tag)))
}

/// What a packet may be answered with.
fn answer(came: &[u8], out: &[Vec<u8>]) -> Option<Fault> {
    let went = |wanted: Kind| out.iter().filter(|bytes| kind(bytes) == wanted).count();
    match kind(came) {
        Kind::Rst if went(Kind::Rst) > 0 => Some(Fault::new(Rule::NoRstForRst, "an RST was answered by one")),
        Kind::Syn | Kind::Ack if went(Kind::SynAck) > 1 => {
            Some(Fault::new(Rule::OneSynAck, "two SYN-ACKs for one SYN"))
        }
        Kind::Ack if went(Kind::SynAck) > 0 && out.iter().map(Vec::len).sum::<usize>() > came.len() => {
            Some(Fault::new(Rule::OneSynAck, "a cookie was answered by more bytes than it came in"))
        }
        Kind::Syn if out.iter().map(Vec::len).sum::<usize>() > came.len() => {
            Some(Fault::new(Rule::OneSynAck, "a SYN was answered by more bytes than it has"))
        }
        Kind::Paths if went(Kind::Paths) > 0 => {
            Some(Fault::new(Rule::OnePaths, "PATHS were answered by some"))
        }
        _ if went(Kind::Paths) > 1 => Some(Fault::new(Rule::OnePaths, "two PATHS for one packet")),
        _ => None,
    }
}

fn established(record: &Record, other: &End) -> Option<Fault> {
    let peer = other.record(record.peer()).filter(|peer| peer.peers.contains(&record.tag));
    let Some(peer) = peer else {
        let what = format!("{:x} is established with {:x}, which never knew it", record.tag, record.peer());
        return Some(Fault::new(Rule::KnownPeer, what));
    };
    (!record.dialled && !peer.established).then(|| {
        let what =
            format!("{:x} accepts {:x}, which was never told that it is connected", record.tag, peer.tag);
        Fault::new(Rule::NoGhost, what)
    })
}

fn closed(record: &Record, closed: Closed, end: &End, other: &End) -> Option<Fault> {
    let peer = other.record(record.peer());
    match closed {
        Closed::Clean => clean(record, peer, end.due).map(|what| {
            Fault::new(Rule::CleanIsTrue, format!("{:x} was told Clean, and {what}", record.tag))
        }),
        Closed::ByUs(Reason::Protocol) | Closed::ByPeer(Reason::Protocol) => {
            Some(Fault::new(Rule::Honest, format!("{:x} found the protocol broken", record.tag)))
        }
        Closed::ByPeer(Reason::AppGone) if !record.stopped && !had_all(record, peer) => {
            let what = format!(
                "{:x} was told that the peer's application is gone before all that it sent",
                record.tag
            );
            Some(Fault::new(Rule::Behind, what))
        }
        Closed::ByUs(Reason::AppGone) if !record.left => {
            let what = format!("{:x} was ended, though its application is here", record.tag);
            Some(Fault::new(Rule::ClosedForCause, what))
        }
        // True when it was said: the peer had not called yet.
        Closed::ByPeer(Reason::Refused) if !record.established => None,
        Closed::ByPeer(reason) if other.lives(record.peer()) => {
            let what = format!("{:x} was told {reason:?} by its peer, which lives", record.tag);
            Some(Fault::new(Rule::ClosedForCause, what))
        }
        Closed::ByUs(Reason::Closed) if !record.stopped => {
            let what = format!("{:x} was ended, though its application reads", record.tag);
            Some(Fault::new(Rule::ClosedForCause, what))
        }
        Closed::ByPeer(_) | Closed::ByUs(_) | Closed::Timeout | Closed::NoProgress => None,
    }
}

/// Whether all that the peer sent was delivered, its end included if it had finished.
fn had_all(record: &Record, peer: Option<&Record>) -> bool {
    peer.is_some_and(|peer| record.delivered == peer.sent && record.peer_fin == peer.fin)
}

/// Why a clean end is none. `due`: its own last acknowledgement has still to go.
fn clean(record: &Record, peer: Option<&Record>, due: bool) -> Option<&'static str> {
    let Some(peer) = peer else { return Some("its peer is nobody") };
    if peer.peer() != record.tag {
        return Some("its peer has another peer");
    }
    if !record.fin || !peer.fin {
        return Some("not both ends have finished");
    }
    // A peer that had finished, had everything but our FIN and then ended the connection itself is a clean end, too:
    // of its RST and of its end the same remains, "no such connection". One that restarted is not.
    let ended = peer.closed.is_some() && peer.acked >= record.sent;
    if peer.acked < record.sent + 1 && !ended {
        return Some("its FIN was not acknowledged");
    }
    if record.acked < peer.sent + 1 && !due {
        return Some("the peer's FIN was not acknowledged");
    }
    if peer.delivered < record.sent && !peer.stopped {
        return Some("not all that it sent arrived");
    }
    if record.delivered < peer.sent && !record.stopped {
        return Some("not all that it was sent arrived");
    }
    None
}

//! What packets that came say about UDP ports and queues, and how they came.

use machnet_rss::Pair;
use machnet_wire::{Flags, Hello, Kind, Packet, PathEntry, Paths, Reset};

use super::{COMPLAINT, COMPLAINT_MAX, OWED};
use crate::ids::ConnIndex;
use crate::path::{Form, InPath};
use crate::state::Core;

/// Whether a packet is about pairs, wherever it came: it has a hello, a reset, reports or a path word, asks for a report, or asks again.
#[inline]
pub(crate) fn is_about_pairs(packet: &Packet<'_>) -> bool {
    const FLAGS: u16 = Flags::REPORT.0 | Flags::HIT.0 | Flags::PROBE.0;
    !matches!(packet.header.kind, Kind::Data | Kind::Ack) || packet.header.flags.0 & FLAGS != 0
}

impl Core {
    /// A packet that [is about pairs](is_about_pairs), or that came on another queue than this engine's, was taken by its connection.
    #[cold]
    pub fn on_pairs(&mut self, index: ConnIndex, from: InPath, packet: &Packet<'_>) {
        let (now, own) = (self.clock.now, self.router.queue);
        let header = &packet.header;
        let Some(conn) = self.conns.get_mut(index) else { return };
        if conn.path.is_local() {
            return;
        }
        let established = conn.flow.is_established();
        let asks = header.flags.has(Flags::REPORT);
        match header.kind {
            Kind::Syn => return self.on_syn_copy(index, from),
            Kind::SynAck => return self.on_syn_ack(index, from, packet),
            Kind::Rst => return self.on_reset(index, packet),
            Kind::Paths => {
                let Ok(paths) = Paths::parse(packet.payload) else {
                    return self.counters().rx_bad_machnet.add(1);
                };
                self.counters().paths_received.add(1);
                paths.iter().for_each(|entry| self.on_report(index, entry, from));
            }
            Kind::Data | Kind::Ack | Kind::Ping => {}
        }
        if let Some(hit) = packet.hit {
            self.on_report(index, hit, from);
        }
        if !established {
            return;
        }
        let Some(conn) = self.conns.get_mut(index) else { return };
        if asks {
            // In place of the acknowledgement, which the sender wants at once.
            conn.path.rss_or_new(now).owe(from.entry(), from.queue == own, now);
            self.with(index, |flow, _| flow.report_pairs());
        } else {
            if conn.path.form() == Form::Mirror {
                conn.path.set_pair(from.pair.mirrored(), true);
            }
            if from.queue != own {
                self.on_misdirected(index, from);
            }
        }
        let unanswered = self.with(index, |flow, _| flow.take_repeats(REPEATS));
        if unanswered == Some(true) {
            self.repath(index, true);
        }
        if let Some(conn) = self.conns.get_mut(index) {
            conn.path.tidy();
        }
    }

    /// Another copy of a SYN, which perhaps bought a SYN-ACK.
    pub fn on_syn_copy(&mut self, index: ConnIndex, from: InPath) {
        let (now, queues) = (self.clock.now, self.router.queues());
        let Some(conn) = self.conns.get_mut(index) else { return };
        if conn.flow.take_asked_again() {
            self.doubt_next_hop(index);
        }
        let Some(conn) = self.conns.get_mut(index) else { return };
        let due = usize::from(conn.flow.syn_acks_due());
        let Some(peer) = conn.flow.peer() else { return };
        if due == 0 || queues <= 1 && peer.queues <= 1 && conn.path.form() == Form::Own {
            return;
        }
        let asks = peer.queues > 1 && conn.path.form() == Form::Own;
        let rss = conn.path.rss_or_new(now);
        rss.asks |= asks;
        if rss.syns.len() < due.min(OWED) {
            rss.syns.push_back(from.entry());
        }
    }

    /// A SYN-ACK tells where a SYN of ours led; and it came by a pair of the peer's.
    fn on_syn_ack(&mut self, index: ConnIndex, from: InPath, packet: &Packet<'_>) {
        let (now, own) = (self.clock.now, self.router.queue);
        let rss = &self.shared().config.rss;
        let (paper, silent) = (rss.paper, rss.paper || rss.off);
        let Ok(hello) = Hello::parse(packet.payload) else { return };
        let Some(conn) = self.conns.get_mut(index) else { return };
        if !conn.flow.is_established() || conn.flow.peer().is_none_or(|peer| peer.tag != hello.tag) {
            return;
        }
        let own_form = conn.path.form() == Form::Own;
        if let Some(hit) = hello.hit {
            if !conn.path.is_heard() && conn.path.pair() != (Pair { src: hit.src, dst: hit.dst }) {
                // A SYN by another pair was answered, and perhaps the first one never arrived.
                let pair = conn.path.pair();
                self.doubt(index, pair);
            }
            self.on_report(index, hit, from);
        }
        let (asks, right) = (packet.header.flags.has(Flags::REPORT), from.queue == own);
        let Some(conn) = self.conns.get_mut(index) else { return };
        let tells = own_form && !silent && (asks || !right);
        let now_due = tells && conn.path.rss_or_new(now).owe(from.entry(), right, now);
        self.with(index, |flow, _| {
            if right && (asks || paper) {
                flow.set_hit(from.entry());
            }
            if now_due {
                flow.report_pairs();
            }
        });
        if let Some(conn) = self.conns.get_mut(index) {
            conn.path.tidy();
        }
    }

    /// A reset that was believed: a peer that has started anew has another key.
    fn on_reset(&mut self, index: ConnIndex, packet: &Packet<'_>) {
        let now = self.clock.now;
        let Ok(reset) = Reset::parse(packet.payload) else { return };
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(peer) = conn.flow.peer() else { return };
        if peer.epoch != reset.epoch && peer.queues > 1 {
            self.own.shared().pool().meet(conn.path.peer(), reset.epoch, peer.queues, now);
        }
    }

    /// A packet of an established connection came on another queue than the one that we asked for.
    fn on_misdirected(&mut self, index: ConnIndex, from: InPath) {
        let now = self.clock.now;
        self.counters().misdirected.add(1);
        if self.shared().config.rss.off {
            return;
        }
        let Some(conn) = self.conns.get_mut(index) else { return };
        let mirrored = conn.path.form() == Form::Mirrored;
        let rss = conn.path.rss_or_new(now);
        rss.misdirected += 1;
        if now < rss.complain_at {
            return;
        }
        rss.pause = match rss.misdirected_by == from.pair {
            true => (rss.pause * 2).min(COMPLAINT_MAX),
            false => COMPLAINT,
        };
        rss.misdirected_by = from.pair;
        rss.complain_at = now + rss.pause;
        if mirrored {
            // The peer only mirrors our pair, so it is ours to change.
            if let (pair, Some(peer)) = (conn.path.pair(), conn.flow.peer()) {
                let entry = PathEntry { src: pair.src, dst: pair.dst, queue: peer.queue };
                self.on_report(index, entry, from);
            }
            return;
        }
        rss.owe(from.entry(), false, now);
        self.with(index, |flow, _| flow.report_pairs());
    }
}

/// Questions that come again, until our answers count as lost.
const REPEATS: u8 = 3;

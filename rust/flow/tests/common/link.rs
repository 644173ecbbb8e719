//! The link: what happens to a packet between the ends.

use std::cmp::Reverse;

use machnet_wire::{Header, Kind, Nanos, Packet, Reason, header};

use super::Sim;
use super::trace::Line;

/// One direction of the link.
#[derive(Debug, Clone)]
pub struct Link {
    pub delay: Nanos,
    /// Per mille.
    pub loss: u64,
    /// Per million, beside it.
    pub loss_ppm: u64,
    pub duplicate: u64,
    pub reorder: u64,
    /// Up to so much more delay, for packets reordered.
    pub jitter: Nanos,
    /// Each packet takes up to so much longer, and none overtakes another by it.
    pub wobble: Nanos,
    /// Packets arrive at multiples of this only; zero: whenever they are due.
    pub tick: Nanos,
    /// When the last one that was not reordered arrives.
    pub last: Nanos,
    /// Time one byte takes, picoseconds; 0: none.
    pub ps_per_byte: u64,
    /// Packets that may wait for the link.
    pub queue: u64,
    /// Drops the next packets that this holds of.
    pub drop_if: Option<fn(&Packet<'_>) -> bool>,
    pub drops: u32,
    pub down: bool,
    /// The longest IP packet that it takes; longer ones vanish.
    pub mtu: usize,
    pub free_at: Nanos,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Nanos::micros(10),
            loss: 0,
            loss_ppm: 0,
            duplicate: 0,
            reorder: 0,
            jitter: Nanos::micros(60),
            wobble: Nanos::ZERO,
            tick: Nanos::ZERO,
            last: Nanos::ZERO,
            ps_per_byte: 0,
            queue: 256,
            drop_if: None,
            drops: 0,
            down: false,
            mtu: usize::MAX,
            free_at: Nanos::ZERO,
        }
    }
}

impl Sim {
    /// Puts a packet of end `i` on the link.
    pub fn put(&mut self, i: usize, bytes: Vec<u8>) {
        let packet = Packet::parse(&bytes).expect("what is sent can be read");
        if let Some(record) = &mut self.record {
            record.push((i, bytes.clone()));
        }
        self.sent[packet.header.kind as usize] += 1;
        self.sent_by[i] += 1;
        self.ends[i].newest = Some(packet.header);
        let mut line = Line {
            at: self.now,
            from: i,
            header: packet.header,
            sack_words: packet.sack.words(),
            payload: packet.payload.len(),
            lost: false,
        };
        let link = &mut self.links[i];
        let mut drop = link.down
            || bytes.len() + 28 > link.mtu
            || self.rng.chance(link.loss)
            || link.loss_ppm > 0 && self.rng.below(1_000_000) < link.loss_ppm;
        if link.drops > 0 && link.drop_if.is_none_or(|f| f(&packet)) {
            link.drops -= 1;
            drop = true;
        }
        drop &= self.mercy.is_none_or(|mercy| self.now - self.ends[1 - i].heard_at <= mercy);
        let wire = bytes.len() as u64 + 28 + 38;
        let start = link.free_at.max(self.now);
        let each = Nanos(wire * link.ps_per_byte / 1000);
        if link.ps_per_byte > 0 && (start - self.now).0 > link.queue * each.0 {
            drop = true;
        }
        if !drop {
            link.free_at = start + each;
        }
        let leaves = start + each;
        line.lost = drop;
        self.note(line);
        if drop {
            self.dropped += 1;
            return;
        }
        let link = self.links[i].clone();
        let copies = 1 + u64::from(self.rng.chance(link.duplicate));
        for copy in 0..copies {
            let mut at = leaves + link.delay;
            if copy > 0 || self.rng.chance(link.reorder) {
                at += Nanos(self.rng.below(link.jitter.0));
            } else if link.wobble > Nanos::ZERO {
                at = (at + Nanos(self.rng.below(link.wobble.0 + 1))).max(self.links[i].last);
                self.links[i].last = at;
            }
            if link.tick > Nanos::ZERO {
                at = Nanos(at.0.next_multiple_of(link.tick.0));
            }
            self.order += 1;
            self.queue.push(Reverse((at.0, self.order, 1 - i, bytes.clone())));
        }
    }

    fn note(&mut self, line: Line) {
        if self.trace.len() == 300 {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// An RST of an engine that knows no flow.
    pub fn put_reset(&mut self, i: usize, reason: Reason, echo: u32) {
        let mut h = Header::new(Kind::Rst);
        let setup = self.setup(i);
        (h.src, h.dst) = (setup.local_port, setup.remote_port);
        let mut bytes = vec![0; header::LEN + 16];
        let at = h.emit(&[], &mut bytes);
        bytes[at..].copy_from_slice(&machnet_wire::Reset { epoch: 7, echo, reason }.emit());
        self.put(i, bytes);
    }
}

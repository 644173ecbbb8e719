//! What a flow does about the length of its packets: it probes a path that is in doubt, and sends what is too long for it in parts.

use machnet_wire::{Flags, Header, Kind, Nanos, OVERHEAD, Part, Seq};

use super::Flow;
use crate::path_mtu::Found;
use crate::{Body, Io, Transmit};

impl<T, H> Flow<T, H> {
    /// A router says that a packet of this flow was too long, and that the next link takes IP packets of `mtu` bytes (0: it does not say). That
    /// is a hint, which anybody may have sent: probes tell whether it is so. False: it cannot be, or is nothing new.
    pub fn on_too_long(&mut self, mtu: u16) -> bool {
        let size = u32::from(mtu).saturating_sub(OVERHEAD as u32);
        let news = self.life.is_open()
            && (mtu == 0 || mtu >= machnet_wire::MTU_MIN)
            && self.sender.path.on_too_long(size);
        if news {
            // Its round, which is not sent yet.
            self.sender.path.set_due(Nanos::MAX);
        }
        news
    }

    /// The largest IP packet that goes to the peer in one piece, as far as this flow knows, bytes.
    pub fn path_mtu(&self) -> u16 {
        (self.sender.path.size() + OVERHEAD as u32) as u16
    }

    /// The connection begins: on a path that is known to be narrow no packet need be lost to find that out.
    pub(super) fn begin_path<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        self.sender.path.set_size(self.ends.unit_size());
        if let Some(size) = self.known_size(io) {
            self.sender.path.set_size(size);
            self.sender.path.set_due(now + self.config.path_raise);
        }
    }

    /// What others know of the way to the peer, where that is less than this flow believes.
    fn known_size<I: Io<Tx = T, Held = H>>(&self, io: &I) -> Option<u32> {
        let size = u32::from(io.known_mtu()?).checked_sub(OVERHEAD as u32)?;
        (size < self.sender.path.size()).then_some(size)
    }

    /// Packets may have been lost for their length.
    #[inline]
    pub(super) fn watch_path(&mut self, now: Nanos) {
        if self.sender.path.is_in_doubt() {
            self.sender.path.set_due(now);
        }
    }

    pub(super) fn on_path_timer<I: Io<Tx = T, Held = H>>(&mut self, now: Nanos, io: &mut I) {
        if !self.life.is_open() {
            return;
        }
        let in_doubt = self.sender.path.is_in_doubt();
        if in_doubt && let Some(size) = self.known_size(io) {
            self.sender.path.set_size(size);
            return self.on_narrower(now, size);
        }
        if self.sender.path.is_due() && !in_doubt {
            // The round is not all sent, and its end is set when it is.
            return;
        }
        match self.sender.path.step(self.ends.unit_size()) {
            Found::Probing => {}
            Found::Narrower(size) => {
                self.counts.rare().pmtu_shrunk += 1;
                io.learned_mtu(self.path_mtu());
                self.on_narrower(now, size);
            }
            Found::Wider(size) => {
                self.counts.rare().pmtu_raised += 1;
                self.sender.path.set_size(size);
                io.learned_mtu(self.path_mtu());
                self.watch_raise(now);
            }
            Found::Nothing => {
                if self.sender.path.size() < self.ends.unit_size() {
                    io.learned_mtu(self.path_mtu());
                }
                self.watch_raise(now);
            }
        }
    }

    /// The path takes less than it did: what is longer goes again at once, in parts, and what waits is cut to fit.
    fn on_narrower(&mut self, now: Nanos, size: u32) {
        self.sender.queue.cut_anew(size);
        self.sender.lose_longer(size);
        // The timeouts were the path's doing, and what goes now is new to it.
        self.loss_timer.progress(now);
        self.watch_losses(now, None);
        self.watch_raise(now);
    }

    /// Longer packets are tried later, if there is anything to gain.
    fn watch_raise(&mut self, now: Nanos) {
        if self.sender.path.size() < self.ends.unit_size() && !self.sender.path.is_searching() {
            self.sender.path.set_due(now + self.config.path_raise);
        }
    }

    /// A PING as long as it takes to find something out about the path.
    #[cold]
    pub(super) fn send_probe<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        io: &mut I,
    ) -> Option<Transmit<'_, T>> {
        let tx = self.numbering.next();
        let padding = self.sender.path.take_probe(tx);
        if let Some(wait) = self.sender.path.wait(self.rtt.timeout(&self.config)) {
            self.sender.path.set_due(now + wait);
        }
        self.counts.pings_sent();
        self.counts.rare().pmtu_probes += 1;
        let ping = self.send_bare(now, Kind::Ping, Flags::NONE, io);
        Some(Transmit { body: Body::Padding(padding), ..ping })
    }

    /// The next part of a unit, from byte `at` of it on.
    #[cold]
    pub(super) fn send_rest<I: Io<Tx = T, Held = H>>(
        &mut self,
        now: Nanos,
        unit: Seq,
        at: u16,
        io: &mut I,
    ) -> Option<Transmit<'_, T>> {
        let mut header = self.header(now, Kind::Data, io);
        let meta = self.sender.queue.meta(unit);
        header.unit = unit;
        header.message_len = meta.message_len;
        header.flags |= meta.flags;
        header.want = super::depart::capped(self.sender.queue.behind(unit));
        self.loss_timer.restart(now);
        Some(self.part(header, unit, at))
    }

    /// A part of a unit that is too long for its path: the packet of this header, which is the unit's but for what parts have of their own.
    #[cold]
    pub(super) fn part(&mut self, mut header: Header, unit: Seq, at: u16) -> Transmit<'_, T> {
        let meta = *self.sender.queue.meta(unit);
        let room = self.sender.path.size().saturating_sub(machnet_wire::header::WORD as u32).max(1);
        let len = u32::from(meta.len - at).min(room);
        let behind = at + len as u16;
        let last = behind == meta.len;
        self.sender.path.set_cut((!last).then_some((unit, behind)));
        self.counts.rare().parts_sent += 1;
        header.flags |= Flags::PART;
        // There is an answer to give when the unit is whole.
        header.flags.0 &= !Flags::PROBE.0;
        if last && meta.retransmitted {
            header.flags |= Flags::PROBE;
        }
        let part = Some(Part { offset: at, unit_len: meta.len });
        let body = match self.sender.queue.token(unit) {
            Some(tx) => Body::Unit { tx, offset: meta.offset + u32::from(at), len },
            None => Body::None,
        };
        Transmit { header, hit: None, part, sack: &[], body }
    }
}

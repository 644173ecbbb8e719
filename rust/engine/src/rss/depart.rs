//! Which UDP ports a packet has that does not simply go by its connection's path.

use core::ops::RangeInclusive;

use machnet_flow::{Body, Transmit};
use machnet_rss::Pair;
use machnet_wire::{Flags, Kind, Nanos, PathEntry, Paths};

use crate::path::{Form, OutPath};
use crate::random::Random;
use crate::view::Outgoing;

/// What a packet that is not [plain](is_plain) has, beside what its flow gave it.
#[derive(Debug, Default)]
pub(crate) struct Detour {
    /// Its UDP ports; `None`: those of the path.
    pub pair: Option<Pair>,
    /// Of PATHS: the entries.
    pub entries: Vec<PathEntry>,
    /// There are more, for another packet.
    pub more: bool,
}

/// What the choice of a pair depends on: randomness, the ports that may be drawn, and time.
pub(crate) struct PairSource<'a> {
    pub random: &'a mut Random,
    pub ports: &'a RangeInclusive<u16>,
    pub now: Nanos,
    pub retry: Nanos,
}

/// Whether a packet goes by its path as it is: all do but those of the handshake, probes and reports.
#[inline]
pub(crate) fn is_plain(packet: &Transmit<'_, Outgoing>) -> bool {
    matches!(packet.header.kind, Kind::Data | Kind::Ack)
}

impl PairSource<'_> {
    fn draw(&mut self) -> Pair {
        Pair::draw(self.random, self.ports)
    }
}

impl Detour {
    /// Completes a packet that is not [plain](is_plain), but for the entries of PATHS.
    #[cold]
    pub fn of(packet: &mut Transmit<'_, Outgoing>, path: &mut OutPath, mut source: PairSource<'_>) -> Self {
        // A flow's first transmission; later ones are copies of it, or follow silence.
        let first = packet.header.tx == packet.header.unit;
        match packet.header.kind {
            Kind::Syn if !first => Self { pair: Some(source.draw()), ..Self::default() },
            Kind::SynAck => syn_ack(packet, path, first, source),
            Kind::Ping if packet.header.flags.has(Flags::REPORT) => {
                let doubted = path.rss_mut().and_then(|rss| rss.doubted.take());
                Self { pair: Some(doubted.unwrap_or_else(|| source.draw())), ..Self::default() }
            }
            Kind::Paths => path.take_report(),
            _ => Self::default(),
        }
    }
}

/// The pair of a SYN-ACK, which tells how the SYN came that it answers.
fn syn_ack(
    packet: &mut Transmit<'_, Outgoing>,
    path: &mut OutPath,
    first: bool,
    mut source: PairSource<'_>,
) -> Detour {
    let by = |pair| Detour { pair: Some(pair), ..Detour::default() };
    let (pair, verified, mirrors) = (path.pair(), path.is_verified(), path.form() == Form::Mirror);
    let Some(rss) = path.rss_mut() else {
        // One queue at each end: every pair does, and a later one may get through where the first did not.
        if !first {
            path.set_pair(source.draw(), true);
        }
        return by(path.pair());
    };
    let syn = rss.syns.pop_front();
    if let (Body::Hello(hello), Some(_)) = (&mut packet.body, syn) {
        hello.hit = syn;
    }
    if mirrors {
        return by(syn.map_or(pair, |syn| Pair { src: syn.src, dst: syn.dst }.mirrored()));
    }
    // A pair that the pool knew is used for all copies that come together; who asks again later has perhaps not got them. Anybody may have
    // sent that SYN, so the pool hears of it only when the peer has shown itself.
    let asks = rss.asks;
    let known = verified && asks;
    let dead = known && !first && source.now >= rss.began + source.retry / 2;
    let chosen = if first || known && !dead { pair } else { source.draw() };
    if asks && (!known || dead) {
        packet.header.flags |= Flags::REPORT;
    }
    if dead {
        rss.doubted = Some(pair);
    }
    if !asks || dead {
        path.set_pair(chosen, !asks);
    }
    by(chosen)
}

impl OutPath {
    /// What the next PATHS packet says, as far as it fits. Of a mirrored connection each report goes on the mirror of the probe, so that
    /// the peer sees where that leads.
    fn take_report(&mut self) -> Detour {
        let mirrors = self.form() == Form::Mirror;
        let Some(rss) = self.rss_mut() else { return Detour::default() };
        let most = if mirrors { 1 } else { Paths::MAX };
        let rest = rss.owed.split_off(rss.owed.len().min(most));
        let entries = core::mem::replace(&mut rss.owed, rest);
        rss.told = true;
        let more = !rss.owed.is_empty();
        if !more {
            rss.tell_at = Nanos::MAX;
        }
        let pair = entries
            .first()
            .filter(|_| mirrors)
            .map(|probe| Pair { src: probe.src, dst: probe.dst }.mirrored());
        Detour { pair, entries, more }
    }
}

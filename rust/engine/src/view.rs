//! What a flow sees of its engine during one call: its channel, what may be promised to its peer, the time.

use machnet_flow::{Closed, Event, Io};
use machnet_shm::{EngineEnd, Established, FlowId, HeldUnit, TxUnit};
use machnet_wire::{Fragment, Nanos};

use crate::admission::{Admission, Claim};
use crate::clock::Clock;
use crate::conn::Who;
use crate::path::OutPath;
use crate::peers::Peers;
use crate::shared::EngineHandle;

/// A unit to send, until it is acknowledged.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The application's. Its token goes back then.
    Unit(TxUnit),
    /// A FIN or an ABORT that the engine sends because the application has closed or left. It costs no token.
    End,
}

/// What a flow sees of its engine during one call. Only `crate::conns` makes one.
pub(crate) struct View<'a> {
    /// The channel and the flow's handle there; none when the application is gone.
    pub lane: Option<(&'a mut EngineEnd, FlowId)>,
    pub own: &'a EngineHandle,
    pub clock: &'a Clock,
    /// Which connection it is.
    pub who: &'a Who,
    /// All peers.
    pub peers: &'a Peers,
    pub drain_epoch: bool,
    /// How its packets go.
    pub path: &'a mut OutPath,
    /// What the flow promises comes out of this, and is noted in its claim.
    pub admission: &'a mut Admission,
    pub claim: &'a mut Claim,
    /// What becomes of it.
    pub news: &'a mut News,
}

/// What became of a flow in a call.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub established: bool,
    pub closed: Option<Closed>,
}

impl News {
    /// Whether nothing did.
    #[inline]
    pub fn is_none(&self) -> bool {
        !self.established && self.closed.is_none()
    }
}

impl Io for View<'_> {
    type Tx = Outgoing;
    type Held = HeldUnit;

    #[inline]
    fn deliver(&mut self, unit: Fragment, payload: &[u8]) -> bool {
        let Some((end, id)) = &mut self.lane else { return false };
        let delivered = end.deliver(*id, unit, payload);
        if delivered {
            self.own.counters().rx_units.add(1);
            self.came(1);
        }
        delivered
    }

    fn hold(&mut self, _unit: Fragment, payload: &[u8]) -> Option<HeldUnit> {
        let held = self.lane.as_mut()?.0.hold(payload)?;
        self.came(1);
        Some(held)
    }

    fn hold_parts(&mut self, len: u32) -> Option<HeldUnit> {
        let held = self.lane.as_mut()?.0.hold_parts(len as usize)?;
        self.came(1);
        Some(held)
    }

    fn write_part(&mut self, held: &mut HeldUnit, at: u32, part: &[u8]) {
        if let Some((end, _)) = &self.lane {
            end.write_part(held, at as usize, part);
        }
    }

    fn deliver_held(&mut self, unit: Fragment, held: HeldUnit) {
        if let Some((end, id)) = &mut self.lane {
            self.own.counters().rx_units.add(1);
            end.deliver_held(*id, unit, held);
        }
    }

    fn discard_held(&mut self, held: HeldUnit) {
        if let Some((end, _)) = &mut self.lane {
            end.discard_held(held);
        }
    }

    #[inline]
    fn complete(&mut self, tx: Outgoing) {
        if let (Some((end, _)), Outgoing::Unit(unit)) = (&mut self.lane, tx) {
            end.complete(unit);
        }
    }

    #[inline]
    fn grant(&mut self, more: u32, known: u32, round: Nanos) -> u32 {
        let Some((end, id)) = &mut self.lane else { return 0 };
        let arriving = self.clock.arriving(round);
        self.admission.grant(self.claim, arriving, more, known, |n| end.grant(*id, n))
    }

    fn take(&mut self, more: u32) -> u32 {
        let Some((end, id)) = &mut self.lane else { return 0 };
        let (taken, exceeds) = self.admission.take(self.claim, more, |n| end.grant(*id, n));
        if exceeds {
            self.own.counters().budget_overruns.add(taken.into());
        }
        taken
    }

    #[inline]
    fn unread(&self) -> u32 {
        self.lane.as_ref().map_or(0, |(end, id)| end.unread(*id))
    }

    fn ungrant(&mut self, n: u32) {
        if let Some((end, id)) = &mut self.lane {
            end.ungrant(*id, n);
            self.came(n);
        }
    }

    #[inline]
    fn drain_epoch(&self) -> bool {
        self.drain_epoch
    }

    fn gap(&self) -> Nanos {
        self.clock.gap
    }

    fn known_mtu(&self) -> Option<u16> {
        let mtus = &self.own.shared().path_mtus;
        if self.path.is_local() { None } else { mtus.of(self.path.peer(), self.clock.now) }
    }

    fn learned_mtu(&mut self, mtu: u16) {
        self.own.shared().path_mtus.learn(self.path.peer(), mtu, self.clock.now);
    }

    fn peer_heard(&self) -> Nanos {
        self.peers.last_heard(self.who.peer)
    }

    fn event(&mut self, event: Event) {
        if let Some((end, id)) = &mut self.lane {
            match event {
                Event::Established => end.established(&established(self.own, self.who, *id)),
                Event::PeerFin | Event::Aborted if self.who.released => end.ungrant(*id, 1),
                Event::PeerFin => end.fin(*id),
                Event::Aborted => end.aborted(*id),
                Event::Closed(_) => {}
            }
            if matches!(event, Event::PeerFin | Event::Aborted) {
                self.came(1);
            }
        }
        match event {
            Event::Established => self.news.established = true,
            Event::Closed(closed) => self.news.closed = Some(closed),
            Event::PeerFin | Event::Aborted => {}
        }
    }
}

/// What the application hears when a connection is established, which it knows as `flow` from then on.
fn established(own: &EngineHandle, who: &Who, flow: FlowId) -> Established {
    let ip = own.shared().config.neighbor.ip;
    Established { flow, origin: who.origin, local: (ip, who.key.local_port()), peer: who.key.peer() }
}

impl View<'_> {
    /// The time.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.clock.now
    }

    /// Where units to send are read from.
    #[inline]
    pub fn units(&self) -> Option<&EngineEnd> {
        self.lane.as_ref().map(|(end, _)| &**end)
    }

    /// Something that only the peer could have sent came from it.
    #[inline]
    pub fn heard_peer(&self) {
        self.peers.heard(self.who.peer, self.clock.now);
    }

    /// The application has read something of the connection.
    #[inline]
    pub fn has_read(&mut self) {
        self.admission.has_read(self.claim);
    }

    /// Promised units have come, or are not promised any more.
    #[inline]
    fn came(&mut self, n: u32) {
        self.admission.came(self.claim, n);
    }
}

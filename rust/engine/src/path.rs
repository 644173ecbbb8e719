//! Paths: by which addresses, UDP ports and next hop the packets of a connection travel, one path for each direction.
//!
//! An [`OutPath`] is ours, and what it makes of itself is the only [`Route`] that a frame is sent by. An [`InPath`] is the
//! path by which a packet came. The two differ: each end draws the UDP ports of its own direction.
//!
//! The bytes of every Machnet packet leave through [`emit`] and arrive through [`parse`], whether they cross a wire, go to
//! another application of this host or answer a packet of no connection. So what is done to all packets is done there.

use core::net::Ipv4Addr;

use machnet_flow::{Body, Transmit};
use machnet_rss::Pair;
use machnet_shm::EngineEnd;
use machnet_wire::frame::{self, Route};
use machnet_wire::{Mac, Nanos, Packet, ParseError, PathEntry, Paths};

use crate::ids::QueueIndex;
use crate::listen::Passed;
use crate::neighbor::{Lookup, Neighbors};
use crate::rss::{Contact, Pairing, Rss};
use crate::view::Outgoing;

/// This host as the network knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Station {
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

/// The path by which a packet came: who sent it, its UDP ports, and the receive queue to which they led it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InPath {
    pub peer: Ipv4Addr,
    /// The station that it came from on the link: the peer, or a router. Any, if it saw no wire.
    pub mac: Mac,
    /// [`Pair::NONE`]: it saw no wire.
    pub pair: Pair,
    /// The queue of the engine that took it from the NIC, whichever engine has it now.
    pub queue: QueueIndex,
}

impl InPath {
    /// Of a packet that an application of this host sent to another.
    pub fn local(station: &Station, own: QueueIndex) -> Self {
        Self { peer: station.ip, mac: station.mac, pair: Pair::NONE, queue: own }
    }

    /// What the peer is told of it.
    pub fn entry(&self) -> PathEntry {
        PathEntry { src: self.pair.src, dst: self.pair.dst, queue: self.queue.0 }
    }

    /// The route of an answer that belongs to no connection: the same ports, the other way round, to the station that it came from, unless
    /// that of the next hop is `fixed`. Nobody is asked for a MAC: whoever sends from addresses that nobody has would have us ask for each.
    /// `None`: no station can have sent it.
    pub fn back(&self, station: &Station, fixed: Option<Mac>) -> Option<Route> {
        let mac = fixed.unwrap_or(self.mac);
        let pair = self.pair.mirrored();
        (!mac.is_multicast() && mac != Mac::default()).then_some(Route {
            src_mac: station.mac,
            dst_mac: mac,
            src_ip: station.ip,
            dst_ip: self.peer,
            src_port: pair.src,
            dst_port: pair.dst,
        })
    }
}

impl Default for InPath {
    fn default() -> Self {
        Self { peer: Ipv4Addr::UNSPECIFIED, mac: Mac::default(), pair: Pair::NONE, queue: QueueIndex(0) }
    }
}

/// A Machnet packet that has come, on its way to another engine of this host or to another application on this one.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Who sent it, and how it came.
    pub from: InPath,
    /// Of a SYN: how far it has come on its way to a listener.
    pub passed: Passed,
    /// Machnet header and payload, as they came.
    pub bytes: Vec<u8>,
}

/// The path of what we send to a peer.
#[derive(Debug)]
pub(crate) struct OutPath {
    peer: Ipv4Addr,
    pair: Pair,
    /// By which pair the peer's last packet came.
    came: Pair,
    /// The pair reaches the queue that the peer wants.
    verified: bool,
    form: Form,
    hop: NextHop,
    /// While there is something to do so that it does, or for the peer's own pair.
    rss: Option<Box<Rss>>,
}

/// Who chooses the pair of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its sender, for that direction alone.
    Own,
    /// We do, for both directions: the peer answers on its mirror.
    Mirrored,
    /// The peer: we answer on the mirror of the pair by which its last packet came.
    Mirror,
}

/// The next hop, as far as a path knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextHop {
    /// The peer is on this host.
    Loop,
    /// Its MAC has not been looked up yet.
    Unknown { ip: Ipv4Addr },
    /// Its MAC as of this version of the table of neighbours.
    Known { ip: Ipv4Addr, mac: Mac, version: u32 },
}

impl NextHop {
    /// The first step on the way to `peer`. `None`: there is no way.
    pub fn toward(peer: Ipv4Addr, station: &Station, neighbors: &Neighbors) -> Option<Self> {
        if peer == station.ip {
            return Some(NextHop::Loop);
        }
        neighbors.next_hop(peer).map(|ip| NextHop::Unknown { ip })
    }

    /// Its address, if it is another host.
    fn ip(self) -> Option<Ipv4Addr> {
        match self {
            NextHop::Loop => None,
            NextHop::Unknown { ip } | NextHop::Known { ip, .. } => Some(ip),
        }
    }
}

impl OutPath {
    /// The path of a connection that begins. The next hop is kept in the table of neighbours until [`OutPath::end`].
    pub fn begin(
        peer: Ipv4Addr,
        hop: NextHop,
        contact: &Contact,
        rss: Option<Box<Rss>>,
        neighbors: &Neighbors,
        now: Nanos,
    ) -> Self {
        if let Some(ip) = hop.ip() {
            neighbors.acquire(ip, now);
        }
        let Contact { pair, verified, form, .. } = *contact;
        Self { peer, pair, came: Pair::NONE, verified, form, hop, rss }
    }

    /// The connection is over.
    pub fn end(&self, neighbors: &Neighbors) {
        if let Some(ip) = self.hop.ip() {
            neighbors.release(ip);
        }
    }

    /// Whether the peer is on this host: what goes there sees neither wire nor receive ring.
    #[inline]
    pub fn is_local(&self) -> bool {
        self.hop == NextHop::Loop
    }

    /// The next hop's address, and its MAC where that is known; `None` for a peer on this host.
    pub fn next_hop(&self) -> Option<(Ipv4Addr, Option<Mac>)> {
        match self.hop {
            NextHop::Loop => None,
            NextHop::Unknown { ip } => Some((ip, None)),
            NextHop::Known { ip, mac, .. } => Some((ip, Some(mac))),
        }
    }

    /// The UDP ports of our direction.
    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// The peer's address.
    pub fn peer(&self) -> Ipv4Addr {
        self.peer
    }

    /// By which pair the peer's last packet came.
    pub fn came(&self) -> Pair {
        self.came
    }

    /// A packet of the peer's came by this pair.
    #[inline]
    pub fn note_came(&mut self, pair: Pair) {
        self.came = pair;
    }

    /// Sends by `pair` from now on; `verified`: it reaches the queue that the peer wants.
    pub fn set_pair(&mut self, pair: Pair, verified: bool) {
        (self.pair, self.verified) = (pair, verified);
    }

    /// The pair reaches the queue that the peer wants.
    pub fn verify(&mut self) {
        self.verified = true;
    }

    /// Whether the pair reaches the queue that the peer wants, as far as is known.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// Who chooses the pair.
    #[inline]
    pub fn form(&self) -> Form {
        self.form
    }

    /// From now on the peer chooses the pair.
    pub fn mirror(&mut self) {
        self.form = Form::Mirror;
    }

    /// Whether anything is known of the pair, or of others that were tried.
    pub fn is_heard(&self) -> bool {
        self.verified || self.rss.as_ref().is_some_and(|rss| rss.is_heard())
    }

    /// How far it is with its pair.
    pub fn pairing(&self) -> Pairing {
        match &self.rss {
            _ if self.verified => Pairing::Verified,
            Some(rss) => rss.pairing(),
            None => Pairing::Unverified,
        }
    }

    /// Packets that came on another queue than this engine's, though their sender could have been told.
    pub fn misdirected(&self) -> u64 {
        self.rss.as_ref().map_or(0, |rss| rss.misdirected())
    }

    /// When RSS-- has something to do for it; `Nanos::MAX`: never.
    #[inline]
    pub fn rss_due(&self) -> Nanos {
        match &self.rss {
            None => Nanos::MAX,
            Some(rss) => rss.due(),
        }
    }

    /// What RSS-- has to do for it, if it has.
    pub fn rss_mut(&mut self) -> Option<&mut Rss> {
        self.rss.as_deref_mut()
    }

    /// The same, where it begins to have.
    pub fn rss_or_new(&mut self, now: Nanos) -> &mut Rss {
        self.rss.get_or_insert_with(|| Box::new(Rss::new(now)))
    }

    /// No other pair is searched for any more.
    pub fn end_search(&mut self) {
        if let Some(rss) = &mut self.rss {
            rss.end_search();
        }
    }

    /// Gives back what is not needed any more.
    pub fn tidy(&mut self) {
        if self.rss.as_ref().is_some_and(|rss| rss.is_idle()) {
            self.rss = None;
        }
    }

    /// Whether the next hop has never been known.
    pub fn is_unknown(&self) -> bool {
        matches!(self.hop, NextHop::Unknown { .. })
    }

    /// The route of what is sent now, by the `version` of the table of neighbours; `None`: the local loop. It is an error while the
    /// next hop is not known.
    #[inline]
    pub fn route(
        &mut self,
        station: &Station,
        neighbors: &Neighbors,
        version: u32,
        now: Nanos,
    ) -> Result<Option<Route>, Lookup> {
        let mac = match self.hop {
            NextHop::Loop => return Ok(None),
            NextHop::Known { mac, version: seen, .. } if seen == version => mac,
            _ => self.look_up(neighbors, version, now)?,
        };
        Ok(Some(Route {
            src_mac: station.mac,
            dst_mac: mac,
            src_ip: station.ip,
            dst_ip: self.peer,
            src_port: self.pair.src,
            dst_port: self.pair.dst,
        }))
    }

    #[cold]
    fn look_up(&mut self, neighbors: &Neighbors, version: u32, now: Nanos) -> Result<Mac, Lookup> {
        let (ip, last) = match self.hop {
            NextHop::Loop => return Err(Lookup::Unreachable),
            NextHop::Unknown { ip } => (ip, None),
            NextHop::Known { ip, mac, .. } => (ip, Some(mac)),
        };
        let mac = match (neighbors.lookup(ip, now), last) {
            (Lookup::Known(mac), _) => mac,
            // It was there a moment ago: the flow's own timers decide how long to believe in it.
            (_, Some(mac)) => mac,
            (other, None) => return Err(other),
        };
        self.hop = NextHop::Known { ip, mac, version };
        Ok(mac)
    }
}

/// Bytes of the frame that carries a packet.
#[inline]
pub(crate) fn frame_len(packet: &Transmit<'_, Outgoing>) -> usize {
    frame::UDP_HEADERS + packet.len()
}

/// Writes a packet with the headers of its frame into `out`, which is as long as [`frame_len`] says.
#[inline]
pub(crate) fn emit_frame(
    route: &Route,
    packet: &Transmit<'_, Outgoing>,
    units: Option<&EngineEnd>,
    out: &mut [u8],
) {
    let at = frame::emit_udp(route, out.len() - frame::UDP_HEADERS, out);
    emit(packet, units, &mut out[at..]);
}

/// Writes a packet into `out`, which is as long as that: header, SACK words, and what follows them, which is a unit of the
/// channel `units` or what the packet says itself.
#[inline]
pub(crate) fn emit(packet: &Transmit<'_, Outgoing>, units: Option<&EngineEnd>, out: &mut [u8]) {
    let at = packet.header.emit_with(packet.hit, packet.part, packet.sack, out);
    let out = &mut out[at..];
    match &packet.body {
        Body::None => {}
        Body::Unit { tx: Outgoing::Unit(unit), offset, len } => {
            if let Some(units) = units {
                units.read_tx(unit, *offset as usize, &mut out[..*len as usize]);
            }
        }
        Body::Unit { .. } => {}
        // What the NIC's buffer held before is nobody's business.
        Body::Padding(_) => out.fill(0),
        Body::Hello(hello) => out.copy_from_slice(&hello.emit()),
        Body::Paths(entries) => {
            Paths::emit(entries, out);
        }
        Body::Reset(reset) => out.copy_from_slice(&reset.emit()),
    }
}

/// Reads a packet that has come. Nothing in it is to be trusted before its connection has checked the tag.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Result<Packet<'_>, ParseError> {
    Packet::parse(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ops::Bound;

    use crate::neighbor::Config;
    use machnet_wire::{Header, Hello, Kind, PathEntry, Reason, Reset};

    const STATION: Station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), ip: Ipv4Addr::new(10, 0, 0, 1) };
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn neighbors() -> Neighbors {
        Neighbors::new(Config::new(STATION.ip, 24, None))
    }

    fn toward(peer: Ipv4Addr, neighbors: &Neighbors) -> OutPath {
        let hop = NextHop::toward(peer, &STATION, neighbors).expect("on the link");
        let contact = Contact { pair: Pair { src: 100, dst: 199 }, ..Contact::LOCAL };
        OutPath::begin(peer, hop, &contact, None, neighbors, Nanos::ZERO)
    }

    #[test]
    fn a_route_is_where_the_path_leads() {
        let table = neighbors();
        table.learn(PEER, PEER_MAC, true, Nanos::ZERO);
        let mut path = toward(PEER, &table);
        let route =
            path.route(&STATION, &table, table.version(), Nanos::ZERO).expect("known").expect("a wire");
        assert_eq!((route.src_mac, route.src_ip), (STATION.mac, STATION.ip));
        assert_eq!((route.dst_mac, route.dst_ip), (PEER_MAC, PEER));
        assert_eq!((route.src_port, route.dst_port), (100, 199));
        assert!(!path.is_local() && !path.is_unknown());
        let mut local = toward(STATION.ip, &table);
        assert_eq!(local.route(&STATION, &table, 0, Nanos::ZERO), Ok(None));
        assert!(local.is_local() && !local.is_unknown());
    }

    #[test]
    fn a_next_hop_is_waited_for_once_and_believed_while_it_is_asked_for_anew() {
        let table = neighbors();
        let mut path = toward(PEER, &table);
        let route = |path: &mut OutPath, version| path.route(&STATION, &table, version, Nanos::ZERO);
        assert_eq!(route(&mut path, 1), Err(Lookup::Asking));
        assert!(path.is_unknown());
        table.learn(PEER, PEER_MAC, true, Nanos::ZERO);
        assert_eq!(route(&mut path, 2).map(|route| route.map(|r| r.dst_mac)), Ok(Some(PEER_MAC)));
        // Nobody answers any more, and the table gives the address up.
        let mut now = Nanos::ZERO;
        while table.lookup(PEER, now) != Lookup::Unreachable {
            now += Nanos::secs(1);
            table.poll(now, 9, |_| {});
        }
        let route = path.route(&STATION, &table, table.version(), now);
        assert_eq!(route.map(|route| route.map(|r| r.dst_mac)), Ok(Some(PEER_MAC)));
        // And where it moved, the path follows.
        let moved = Mac([2, 0, 0, 0, 0, 3]);
        table.learn(PEER, moved, true, now);
        let route = path.route(&STATION, &table, table.version(), now);
        assert_eq!(route.map(|route| route.map(|r| r.dst_mac)), Ok(Some(moved)));
    }

    #[test]
    fn a_path_keeps_its_next_hop_in_the_table_until_it_ends() {
        let table = neighbors();
        table.learn(PEER, PEER_MAC, true, Nanos::ZERO);
        let path = toward(PEER, &table);
        let stale = Nanos::secs(3600);
        table.poll(stale, 9, |_| {});
        assert_eq!(table.lookup(PEER, stale), Lookup::Known(PEER_MAC));
        path.end(&table);
        let (mut now, mut rounds) = (stale, 0);
        while !table.page(Bound::Unbounded, 1).is_empty() {
            (now, rounds) = (now + Nanos::secs(1), rounds + 1);
            table.poll(now, 9, |_| {});
            assert!(rounds < 100, "the entry stays");
        }
    }

    #[test]
    fn an_answer_takes_the_ports_of_its_question_the_other_way_round() {
        let came = InPath { peer: PEER, mac: PEER_MAC, pair: Pair { src: 7, dst: 9 }, queue: QueueIndex(0) };
        let route = came.back(&STATION, None).expect("a station");
        assert_eq!((route.src_mac, route.src_ip), (STATION.mac, STATION.ip));
        assert_eq!((route.dst_mac, route.dst_ip, route.src_port, route.dst_port), (PEER_MAC, PEER, 9, 7));
        let fixed = Mac([2, 0, 0, 0, 0, 9]);
        assert_eq!(came.back(&STATION, Some(fixed)).map(|route| route.dst_mac), Some(fixed));
        for nobody in [Mac::default(), Mac::BROADCAST, Mac([1, 0, 0, 0, 0, 2])] {
            assert_eq!(InPath { mac: nobody, ..came }.back(&STATION, None), None);
        }
    }

    #[test]
    fn what_leaves_arrives_whatever_follows_the_header() {
        let hit = Some(PathEntry { src: 3, dst: 4, queue: 1 });
        let hello = Hello { queues: 2, queue: 1, hit, ..Hello::new(1, 2, 1500) };
        let reset = Reset { epoch: 5, echo: 6, reason: Reason::Refused };
        let words = [1, u64::MAX];
        let each = [
            (Kind::Ack, &words[..], Body::None, Vec::new()),
            (Kind::Syn, &[], Body::Hello(hello), hello.emit().to_vec()),
            (Kind::Rst, &[], Body::Reset(reset), reset.emit().to_vec()),
        ];
        for (kind, sack, body, payload) in each {
            let packet: Transmit<'_, Outgoing> = Transmit {
                header: Header { src: 80, dst: 81, ..Header::new(kind) },
                hit: None,
                part: None,
                sack,
                body,
            };
            let mut bytes = vec![0; packet.len()];
            emit(&packet, None, &mut bytes);
            let read = parse(&bytes).expect("a packet");
            assert_eq!((read.header, read.payload), (packet.header, &payload[..]));
            assert_eq!(read.sack.iter().collect::<Vec<_>>(), sack);
            let route = Route {
                src_mac: STATION.mac,
                dst_mac: PEER_MAC,
                src_ip: STATION.ip,
                dst_ip: PEER,
                src_port: 7,
                dst_port: 9,
            };
            let mut framed = vec![0; frame_len(&packet)];
            emit_frame(&route, &packet, None, &mut framed);
            let Ok(frame::Frame::Udp { udp, payload, .. }) = frame::parse(&framed) else { panic!("no UDP") };
            assert_eq!((udp.src, udp.dst, payload), (7, 9, &bytes[..]));
        }
    }
}

//! What arrives: frames from the NIC, packets from other engines, packets of our own host. Nothing here trusts a byte.

use machnet_flow::FlowError;
use machnet_nic::RxChecksum;
use machnet_rss::Pair;
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Header, Kind, Packet, ParseError, Reason};

use crate::cookies::brings_cookie;
use crate::ids::{ConnIndex, ConnKey};
use crate::listen::Passed;
use crate::path::{self, Form, Handed, InPath};
use crate::random::tag_owner;
use crate::rss::is_about_pairs;
use crate::state::Core;

/// How a packet came to this engine: decides whether it may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the NIC or the local loop.
    Here,
    /// From another engine, which believed it to be ours. Of a SYN: how far it had come.
    Handed(Passed),
}

impl Core {
    /// One frame from the NIC.
    #[inline]
    pub(crate) fn on_frame(&mut self, frame: &[u8], checked: RxChecksum) {
        match frame::parse(frame) {
            Ok(Frame::Udp { ether, ip, udp, datagram, payload }) => {
                if ip.dst != self.router.station.ip {
                    return self.counters().rx_other_address.add(1);
                }
                let good = match checked {
                    RxChecksum::Good => true,
                    RxChecksum::Bad => false,
                    RxChecksum::Unknown => frame::udp_checksum_fits(&ip, datagram),
                    RxChecksum::MaybePartial => {
                        frame::udp_checksum_fits(&ip, datagram)
                            || frame::udp_checksum_is_partial(&ip, datagram)
                    }
                };
                if !good {
                    return self.counters().rx_bad_checksum.add(1);
                }
                if ip.src == self.router.station.ip
                    || ip.src.is_unspecified()
                    || ip.src.is_multicast()
                    || ip.src.is_broadcast()
                {
                    // Our own packets never see the wire; whoever sends from our address is not us.
                    return self.counters().rx_bad_ip.add(1);
                }
                let pair = Pair { src: udp.src, dst: udp.dst };
                let from = InPath { peer: ip.src, mac: ether.src, pair, queue: self.router.queue };
                self.on_machnet(from, payload, Came::Here);
            }
            Ok(Frame::Arp(arp)) => self.router.on_arp(&arp, self.clock.now),
            Ok(Frame::Icmp { ether, ip, echo }) => self.router.on_icmp(&ether, &ip, &echo),
            Ok(Frame::TooLong { ip, said }) => self.on_too_long(&ip, &said),
            Ok(Frame::Other) => self.counters().rx_other_protocol.add(1),
            Err(error) => self.count_malformed(error),
        }
    }

    /// One Machnet packet, wherever it came from.
    #[inline]
    pub(crate) fn on_machnet(&mut self, from: InPath, bytes: &[u8], came: Came) {
        // Looked at where it is: moved out, it would be copied.
        let parsed = path::parse(bytes);
        let Ok(packet) = &parsed else { return self.counters().rx_bad_machnet.add(1) };
        let key = ConnKey::new(from.peer, packet.header.src, packet.header.dst);
        match self.conns.find(key) {
            Some(index) => self.flow_packet(index, key, from, bytes, packet, came),
            None => self.on_unknown(key, from, bytes, packet, came),
        }
    }

    #[inline]
    fn flow_packet(
        &mut self,
        index: ConnIndex,
        key: ConnKey,
        from: InPath,
        bytes: &[u8],
        packet: &Packet<'_>,
        came: Came,
    ) {
        let misdirected = from.queue != self.router.queue;
        let taken = self.with(index, |flow, io| {
            flow.on_packet(io.now(), packet, io)?;
            // A SYN for a connection that is there is answered, but anybody may have sent it.
            if packet.header.tag == flow.tag() {
                io.heard_peer();
                io.path.note_came(from.pair);
            }
            Ok(misdirected || is_about_pairs(packet) || io.path.form() == Form::Mirror)
        });
        match taken {
            Some(Ok(false)) | None => {}
            Some(Ok(true)) => self.on_pairs(index, from, packet),
            Some(Err(error)) => self.not_taken(error, index, key, from, bytes, packet, came),
        }
    }

    #[cold]
    #[expect(clippy::too_many_arguments)]
    fn not_taken(
        &mut self,
        error: FlowError,
        index: ConnIndex,
        key: ConnKey,
        from: InPath,
        bytes: &[u8],
        packet: &Packet<'_>,
        came: Came,
    ) {
        match error {
            FlowError::Tag if brings_cookie(packet) && self.is_proven(key, packet) => {
                if !self.on_proven_syn(index, from, packet) {
                    self.drop_flow(index);
                    self.on_unknown(key, from, bytes, packet, came);
                }
            }
            FlowError::Tag => {
                let (tag, owner) = (packet.header.tag, tag_owner(packet.header.tag, self.shared().engines()));
                if tag != 0 && owner != self.own.index() && came == Came::Here {
                    // Another engine has a flow of this key, too, or had one before.
                    return self.router.hand_over(owner, from, bytes);
                }
                self.counters().cookies_refused.add(u64::from(brings_cookie(packet)));
                self.counters().rx_bad_tag.add(1);
                if packet.header.kind != Kind::Rst {
                    self.refuse(from, &packet.header, packet.header.tag, Reason::Closed);
                }
            }
            FlowError::Superseded => {
                self.drop_flow(index);
                self.on_unknown(key, from, bytes, packet, came);
            }
            FlowError::Protocol(_) => self.counters().rx_broke_protocol.add(1),
            FlowError::Malformed(_) => self.counters().rx_bad_machnet.add(1),
            FlowError::Over => self.counters().rx_over.add(1),
        }
    }

    /// A packet of no flow of this engine: another engine's, a new connection, or refused.
    #[cold]
    fn on_unknown(&mut self, key: ConnKey, from: InPath, bytes: &[u8], packet: &Packet<'_>, came: Came) {
        let header = &packet.header;
        let knocks = brings_cookie(packet);
        if header.kind == Kind::Syn || knocks && self.is_proven(key, packet) {
            let passed = match came {
                Came::Here => Passed::default(),
                Came::Handed(passed) => passed,
            };
            return self.on_syn(key, from, bytes, packet, passed);
        }
        let owner = tag_owner(header.tag, self.shared().engines());
        if header.tag != 0 && owner != self.own.index() && came == Came::Here {
            return self.router.hand_over(owner, from, bytes);
        }
        if header.kind == Kind::Rst {
            // One with no tag is from a peer that knows no connection; its echo, the tag that our packet carried, is the peer's
            // own, so nothing in it names the engine.
            if header.tag == 0 && came == Came::Here {
                self.router.hand_to_others(from, bytes);
            }
            return self.counters().rx_no_flow.add(1);
        }
        self.counters().cookies_refused.add(u64::from(knocks));
        self.counters().rx_no_flow.add(1);
        self.refuse(from, header, header.tag, Reason::Closed);
    }

    fn refuse(&mut self, from: InPath, header: &Header, echo: u32, reason: Reason) {
        self.router.refuse(from, header, echo, reason, self.clock.now);
    }

    /// Takes packets that go from one application of this host to another.
    #[inline]
    pub fn take_looped(&mut self, most: usize) -> usize {
        let mut taken = 0;
        while taken < most
            && let Some(Handed { from, bytes, .. }) = self.router.next_looped()
        {
            taken += 1;
            self.on_machnet(from, &bytes, Came::Here);
            self.router.looped_done(bytes);
        }
        taken
    }

    /// Takes packets that other engines believe to be ours.
    #[inline]
    pub fn take_handed(&mut self, most: usize) -> usize {
        let mut taken = 0;
        while taken < most
            && let Some(Handed { from, passed, bytes }) = self.router.next_handed()
        {
            taken += 1;
            self.counters().handover_in.add(1);
            self.on_machnet(from, &bytes, Came::Handed(passed));
            self.router.handed_done(bytes);
        }
        taken
    }

    #[cold]
    fn count_malformed(&self, error: ParseError) {
        let c = self.counters();
        match error {
            ParseError::Checksum { .. } => &c.rx_bad_checksum,
            ParseError::Short { .. } => &c.rx_short,
            ParseError::Field { what: "ipv4 fragment", .. } => &c.rx_fragment,
            ParseError::Field { what, .. } if what.starts_with("ipv4") => &c.rx_bad_ip,
            ParseError::Field { .. } => &c.rx_bad_transport,
        }
        .add(1);
    }
}

//! What arrives: frames from the NIC, packets from other engines, packets of our own host. Nothing here trusts a byte.

use machnet_flow::FlowError;
use machnet_nic::RxChecksum;
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Flags, Header, Hello, Kind, Packet, ParseError, Reason, Reset, arp, ether, icmp, ipv4};

use crate::packet::{self, Handed, Origin};
use crate::random::tag_owner;
use crate::state::Core;
use crate::table;

/// How a packet came to this engine: decides whether it may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the NIC or the local loop.
    Here,
    /// From another engine, which believed it to be ours.
    Handed,
}

impl Core {
    /// One frame from the NIC.
    #[inline]
    pub(crate) fn on_frame(&mut self, frame: &[u8], checked: RxChecksum) {
        match frame::parse(frame) {
            Ok(Frame::Udp { ip, udp, datagram, payload, .. }) => {
                if ip.dst != self.ip {
                    return self.counters().rx_other_address.add(1);
                }
                let good = match checked {
                    RxChecksum::Good => true,
                    RxChecksum::Bad => false,
                    RxChecksum::Unknown => frame::udp_checksum_fits(&ip, datagram),
                };
                if !good {
                    return self.counters().rx_bad_checksum.add(1);
                }
                if ip.src == self.ip
                    || ip.src.is_unspecified()
                    || ip.src.is_multicast()
                    || ip.src.is_broadcast()
                {
                    // Our own packets never see the wire; whoever sends from our address is not us.
                    return self.counters().rx_bad_ip.add(1);
                }
                self.on_machnet(Origin { ip: ip.src, ports: (udp.src, udp.dst) }, payload, Came::Here);
            }
            Ok(Frame::Arp(arp)) => self.on_arp(&arp),
            Ok(Frame::Icmp { ether, ip, echo }) => self.on_icmp(&ether, &ip, &echo),
            Ok(Frame::Other) => self.counters().rx_other_protocol.add(1),
            Err(error) => self.count_malformed(error),
        }
    }

    /// One Machnet packet, wherever it came from.
    #[inline]
    pub(crate) fn on_machnet(&mut self, from: Origin, bytes: &[u8], came: Came) {
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(_) => return self.counters().rx_bad_machnet.add(1),
        };
        let key = table::key(from.ip, packet.header.src, packet.header.dst);
        match self.flows.find(key) {
            Some(index) => self.flow_packet(index, key, from, bytes, &packet, came),
            None => self.on_stranger(key, from, bytes, &packet, came),
        }
    }

    #[inline]
    fn flow_packet(
        &mut self,
        index: u32,
        key: u64,
        from: Origin,
        bytes: &[u8],
        packet: &Packet<'_>,
        came: Came,
    ) {
        match self.drive(index, |flow, now, view| flow.on_packet(now, packet, view)) {
            Some(Ok(())) => {
                // A SYN for a connection that is there is answered, but anybody may have sent it.
                if let Some(conn) = self.flows.get(index)
                    && packet.header.tag == conn.flow.tag()
                {
                    self.peers.heard(conn.peer, self.now);
                }
            }
            Some(Err(error)) => self.not_taken(error, index, key, from, bytes, packet, came),
            None => {}
        }
    }

    #[cold]
    #[expect(clippy::too_many_arguments)]
    fn not_taken(
        &mut self,
        error: FlowError,
        index: u32,
        key: u64,
        from: Origin,
        bytes: &[u8],
        packet: &Packet<'_>,
        came: Came,
    ) {
        match error {
            FlowError::Tag => {
                self.counters().rx_bad_tag.add(1);
                if packet.header.kind != Kind::Rst {
                    self.refuse(from, &packet.header, packet.header.tag, 0, Reason::Closed);
                }
            }
            FlowError::Superseded => {
                self.drop_flow(index);
                self.on_stranger(key, from, bytes, packet, came);
            }
            FlowError::Protocol(_) => self.counters().rx_broke_protocol.add(1),
            FlowError::Malformed(_) => self.counters().rx_bad_machnet.add(1),
            FlowError::Over => self.counters().rx_over.add(1),
        }
    }

    /// A packet of no flow of this engine: another engine's, a new connection, or refused.
    #[cold]
    fn on_stranger(&mut self, key: u64, from: Origin, bytes: &[u8], packet: &Packet<'_>, came: Came) {
        let header = &packet.header;
        if header.kind == Kind::Syn {
            let Ok(hello) = Hello::parse(packet.payload) else {
                return self.counters().rx_bad_machnet.add(1);
            };
            let refused = match self.shared.ports.owner(header.dst) {
                _ if self.shutdown => {
                    self.counters().refused_ending.add(1);
                    Reason::Ending
                }
                None => {
                    self.counters().syn_refused.add(1);
                    Reason::Refused
                }
                Some(owner) if owner.engine != self.index => {
                    if came == Came::Here {
                        return self.hand_over(owner.engine, from, bytes);
                    }
                    // The listener moved while the packet did; the peer asks again.
                    return self.counters().rx_no_flow.add(1);
                }
                Some(owner) => match self.accept(key, owner, from, packet) {
                    Ok(()) => return,
                    Err(reason) => {
                        self.counters().syn_overflow.add(1);
                        reason
                    }
                },
            };
            return self.refuse(from, header, hello.tag, 0, refused);
        }
        let owner = tag_owner(header.tag, self.engines);
        if header.tag != 0 && owner != self.index && came == Came::Here {
            return self.hand_over(owner, from, bytes);
        }
        if header.kind == Kind::Rst {
            // One with no tag is from a peer that knows no connection; its echo, the tag that our packet carried, is the peer's
            // own, so nothing in it names the engine.
            if header.tag == 0 && came == Came::Here {
                let here = self.index;
                for engine in (0..self.engines).filter(|&engine| engine != here) {
                    self.hand_over(engine, from, bytes);
                }
            }
            return self.counters().rx_no_flow.add(1);
        }
        self.counters().rx_no_flow.add(1);
        self.refuse(from, header, header.tag, 0, Reason::Closed);
    }

    /// Tells the sender of `header` that there is no such connection; `echo` proves that we saw its packet.
    pub(crate) fn refuse(&mut self, to: Origin, header: &Header, echo: u32, tag: u32, reason: Reason) {
        if !self.rst_limit.allow(self.now) {
            return self.counters().rst_limited.add(1);
        }
        let reset = Reset { epoch: self.shared.config.epoch, echo, reason };
        let answer =
            Header { src: header.dst, dst: header.src, tag, flags: Flags::NONE, ..Header::new(Kind::Rst) };
        let body = reset.emit();
        let mut bytes = vec![0; machnet_wire::header::LEN + body.len()];
        let at = answer.emit(&[], &mut bytes);
        bytes[at..].copy_from_slice(&body);
        self.counters().rst_sent.add(1);
        self.send_alone(to, bytes);
    }

    /// Gives a packet to the engine that owns its flow.
    pub(crate) fn hand_over(&mut self, to: u16, from: Origin, bytes: &[u8]) {
        let Some(inbox) = self.shared.inboxes.get(usize::from(to)) else {
            return self.counters().rx_no_flow.add(1);
        };
        let mut copy = inbox.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        if inbox.packets.push(Handed { from, bytes: copy }).is_err() {
            return self.counters().handover_full.add(1);
        }
        inbox.bell.ring();
        self.counters().handover_out.add(1);
    }

    fn on_arp(&mut self, arp: &arp::Packet) {
        self.counters().arp_received.add(1);
        if arp.sender_ip == self.ip && arp.sender_mac != self.mac {
            self.counters().arp_conflicts.add(1);
            if let Some(left_out) = self.shared.neighbors.may_warn(self.now) {
                log::warn!(
                    "{} claims this host's address {}: whoever asks for it may reach that one instead; give one of the two another address{left_out}",
                    arp.sender_mac,
                    self.ip
                );
            }
        }
        let for_us = arp.target_ip == self.ip;
        if self.shared.neighbors.learn(arp.sender_ip, arp.sender_mac, for_us, self.now) {
            self.shared.wake_others(self.index);
        }
        if for_us && arp.operation == arp::Operation::Request && !arp.sender_mac.is_multicast() {
            self.counters().arp_replies.add(1);
            let to = Some(arp.sender_mac);
            self.send_frame(packet::arp(arp::Operation::Reply, self.mac, self.ip, to, arp.sender_ip));
        }
    }

    fn on_icmp(&mut self, ether: &ether::Header, ip: &ipv4::Header, echo: &icmp::Echo<'_>) {
        if ip.dst != self.ip {
            return self.counters().rx_other_address.add(1);
        }
        let answerable = !ip.src.is_multicast() && !ip.src.is_broadcast() && !ip.src.is_unspecified();
        if !echo.reply && answerable && !ether.src.is_multicast() {
            self.counters().icmp_replies.add(1);
            self.send_frame(packet::echo_reply(self.mac, ether, ip, echo));
        }
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

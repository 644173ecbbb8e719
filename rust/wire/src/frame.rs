//! Whole frames: what a NIC queue receives and sends.

use crate::{Mac, ParseError, arp, ether, icmp, ipv4, udp};
use core::net::Ipv4Addr;

/// A received frame, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// ARP.
    Arp(arp::Packet),
    /// An ICMP echo.
    Icmp {
        /// Ethernet header.
        ether: ether::Header,
        /// IP header.
        ip: ipv4::Header,
        /// The echo.
        echo: icmp::Echo<'a>,
    },
    /// A UDP datagram. Its checksum is not yet checked: see [`crate::checksum::udp4_valid`].
    Udp {
        /// Ethernet header.
        ether: ether::Header,
        /// IP header.
        ip: ipv4::Header,
        /// UDP header.
        udp: udp::Header,
        /// UDP header and payload, as the checksum covers them.
        datagram: &'a [u8],
        /// The payload: a Machnet packet.
        payload: &'a [u8],
    },
    /// Well formed and none of our business.
    Other,
}

/// Takes a frame apart.
#[inline]
pub fn parse(b: &[u8]) -> Result<Frame<'_>, ParseError> {
    let (ether, rest) = ether::Header::parse(b)?;
    match ether.kind {
        ether::kind::IPV4 => {
            let (ip, payload) = ipv4::Header::parse(rest)?;
            match ip.protocol {
                ipv4::protocol::UDP => {
                    let (udp, inner) = udp::Header::parse(payload)?;
                    Ok(Frame::Udp { ether, ip, udp, datagram: payload, payload: inner })
                }
                ipv4::protocol::ICMP => Ok(Frame::Icmp { ether, ip, echo: icmp::Echo::parse(payload)? }),
                _ => Ok(Frame::Other),
            }
        }
        ether::kind::ARP => Ok(Frame::Arp(arp::Packet::parse(rest)?)),
        _ => Ok(Frame::Other),
    }
}

/// Where a UDP frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Our MAC.
    pub src_mac: Mac,
    /// The next hop's.
    pub dst_mac: Mac,
    /// Our address.
    pub src_ip: Ipv4Addr,
    /// The peer's.
    pub dst_ip: Ipv4Addr,
    /// UDP source port.
    pub src_port: u16,
    /// UDP destination port.
    pub dst_port: u16,
}

/// Bytes before the UDP payload.
pub const UDP_HEADERS: usize = ether::LEN + ipv4::LEN + udp::LEN;

/// Writes Ethernet, IPv4 (with its checksum) and UDP header (checksum 0) for `payload` bytes; gives [`UDP_HEADERS`].
#[inline]
pub fn emit_udp(route: &Route, payload: usize, out: &mut [u8]) -> usize {
    ether::Header { dst: route.dst_mac, src: route.src_mac, kind: ether::kind::IPV4 }.emit(out);
    let ip =
        ipv4::Header { src: route.src_ip, dst: route.dst_ip, protocol: ipv4::protocol::UDP, ttl: ipv4::TTL };
    ip.emit(udp::LEN + payload, &mut out[ether::LEN..]);
    udp::Header { src: route.src_port, dst: route.dst_port, checksum: 0 }
        .emit(payload, &mut out[ether::LEN + ipv4::LEN..]);
    UDP_HEADERS
}

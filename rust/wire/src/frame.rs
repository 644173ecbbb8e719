//! Whole frames: what a NIC queue receives and sends.

use crate::{Mac, ParseError, arp, checksum, ether, icmp, ipv4, udp};
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
    /// ICMP's word that a packet of ours was too long for a link.
    TooLong {
        /// IP header.
        ip: ipv4::Header,
        /// The message.
        said: icmp::TooLong<'a>,
    },
    /// A UDP datagram. Its checksum is not yet checked: see [`udp_checksum_fits`].
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
                ipv4::protocol::ICMP if icmp::TooLong::is(payload) => {
                    Ok(Frame::TooLong { ip, said: icmp::TooLong::parse(payload)? })
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

/// Fills in the UDP checksum of a frame that [`emit_udp`] began and that ends with its payload.
///
/// # Panics
/// If the frame is shorter than its headers: a fault of the caller, never of input.
#[inline]
pub fn write_udp_checksum(frame: &mut [u8]) {
    let (head, datagram) = frame.split_at_mut(ether::LEN + ipv4::LEN);
    datagram[6..8].fill(0);
    let sum =
        pseudo(&head[ether::LEN + 12..ether::LEN + 20], datagram.len() as u16).plus(datagram).complement();
    // Zero means "no checksum" (RFC 768): its other form stands for it.
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a UDP datagram (header and payload) fits its checksum. A zero checksum was not computed: refused, since
/// Machnet always computes it.
#[inline]
pub fn udp_checksum_fits(ip: &ipv4::Header, datagram: &[u8]) -> bool {
    if datagram.len() < udp::LEN || datagram[6..8] == [0, 0] {
        return false;
    }
    let mut addresses = [0; 8];
    addresses[..4].copy_from_slice(&ip.src.octets());
    addresses[4..].copy_from_slice(&ip.dst.octets());
    pseudo(&addresses, datagram.len() as u16).plus(datagram).complement() == 0
}

/// Whether a UDP datagram's checksum is the mere beginning of one, the sum over the pseudo-header: so the sender's kernel or driver leaves it
/// to the NIC to complete. A frame that never meets one, because both ends are on one machine, arrives like that.
#[inline]
pub fn udp_checksum_is_partial(ip: &ipv4::Header, datagram: &[u8]) -> bool {
    if datagram.len() < udp::LEN {
        return false;
    }
    let mut addresses = [0; 8];
    addresses[..4].copy_from_slice(&ip.src.octets());
    addresses[4..].copy_from_slice(&ip.dst.octets());
    let begun = !pseudo(&addresses, datagram.len() as u16).complement();
    datagram[6..8] == begun.to_be_bytes()
}

/// The sum over UDP's pseudo-header (RFC 768) of an IPv4 header's addresses and a UDP length.
#[inline]
fn pseudo(addresses: &[u8], udp_len: u16) -> checksum::Sum {
    checksum::Sum::default().plus(addresses).plus_word(u16::from(ipv4::protocol::UDP)).plus_word(udp_len)
}

//! Frames that the engine makes itself: ARP and ICMP echo.

use core::net::Ipv4Addr;

use machnet_wire::{Mac, arp, ether, icmp, ipv4};

use crate::path::Station;

/// An ARP frame of `from`: a request for `target` (to everybody, or to `to`), or a reply to it at `to`.
pub(crate) fn arp(operation: arp::Operation, from: Station, to: Option<Mac>, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; SMALLEST];
    ether::Header { dst: to.unwrap_or(Mac::BROADCAST), src: from.mac, kind: ether::kind::ARP }
        .emit(&mut frame);
    let target_mac = match operation {
        arp::Operation::Reply => to.unwrap_or_default(),
        arp::Operation::Request => Mac::default(),
    };
    let packet =
        arp::Packet { operation, sender_mac: from.mac, sender_ip: from.ip, target_mac, target_ip: target };
    packet.emit(&mut frame[ether::LEN..]);
    frame
}

/// The frame that answers an echo request.
pub(crate) fn echo_reply(
    mac: Mac,
    ether: &ether::Header,
    ip: &ipv4::Header,
    echo: &icmp::Echo<'_>,
) -> Vec<u8> {
    let reply = icmp::Echo { reply: true, ..*echo };
    let mut frame = vec![0; (ether::LEN + ipv4::LEN + reply.len()).max(SMALLEST)];
    ether::Header { dst: ether.src, src: mac, kind: ether::kind::IPV4 }.emit(&mut frame);
    ipv4::Header { src: ip.dst, dst: ip.src, protocol: ipv4::protocol::ICMP, ttl: ipv4::TTL }
        .emit(reply.len(), &mut frame[ether::LEN..]);
    reply.emit(&mut frame[ether::LEN + ipv4::LEN..]);
    frame
}

/// Bytes of the smallest Ethernet frame, without its check sequence.
const SMALLEST: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use machnet_wire::frame::{Frame, parse};

    const ME: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PEER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const STATION: Station = Station { mac: ME, ip: IP };

    #[test]
    fn an_arp_request_goes_to_everybody_and_a_reply_to_one() {
        let request = arp(arp::Operation::Request, STATION, None, PEER_IP);
        assert_eq!(request[..6], [0xff; 6]);
        let Ok(Frame::Arp(p)) = parse(&request) else { panic!("no ARP") };
        assert_eq!((p.sender_ip, p.target_ip, p.target_mac), (IP, PEER_IP, Mac::default()));
        let reply = arp(arp::Operation::Reply, STATION, Some(PEER), PEER_IP);
        assert_eq!(reply[..6], PEER.0);
        let Ok(Frame::Arp(p)) = parse(&reply) else { panic!("no ARP") };
        assert_eq!((p.operation, p.sender_mac, p.target_mac), (arp::Operation::Reply, ME, PEER));
    }

    #[test]
    fn an_echo_comes_back_as_it_was() {
        let ether = ether::Header { dst: ME, src: PEER, kind: ether::kind::IPV4 };
        let ip = ipv4::Header { src: PEER_IP, dst: IP, protocol: ipv4::protocol::ICMP, ttl: 3 };
        let asked = icmp::Echo { reply: false, id: 7, seq: 9, data: b"abc" };
        let frame = echo_reply(ME, &ether, &ip, &asked);
        let Ok(Frame::Icmp { ether, ip, echo }) = parse(&frame) else { panic!("no echo") };
        assert_eq!((ether.src, ether.dst, ip.src, ip.dst), (ME, PEER, IP, PEER_IP));
        assert_eq!(echo, icmp::Echo { reply: true, ..asked });
    }
}

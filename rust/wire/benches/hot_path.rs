//! What parsing and building one data packet costs, nanoseconds: `cargo bench -p machnet-wire`. No framework: the least
//! of many rounds, which is what the code takes when nobody disturbs it.

use machnet_wire::frame::{self, Frame, Route, UDP_HEADERS};
use machnet_wire::{Flags, Header, Kind, Mac, Packet, Seq, header};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

fn main() {
    let route = Route {
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        src_ip: Ipv4Addr::new(10, 0, 0, 1),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2),
        src_port: 40001,
        dst_port: 31580,
    };
    for payload in [64usize, 1424, 8925] {
        let data = vec![0x5a; payload];
        let mut frame = vec![0; UDP_HEADERS + header::LEN + payload];
        let head = Header {
            flags: Flags::BEGIN | Flags::END,
            src: 7,
            dst: 8,
            tag: 9,
            unit: Seq(10),
            tx: Seq(11),
            ack: Seq(12),
            message_len: payload as u32,
            ..Header::new(Kind::Data)
        };
        let build = |frame: &mut [u8]| {
            let at = frame::emit_udp(black_box(&route), header::LEN + payload, frame);
            let at = at + black_box(&head).emit(&[], &mut frame[at..]);
            frame[at..].copy_from_slice(black_box(&data));
        };
        let emit = least(|| build(black_box(&mut frame)));
        let sum = least(|| frame::write_udp_checksum(black_box(&mut frame)));
        let parse = least(|| {
            let Ok(Frame::Udp { payload, .. }) = frame::parse(black_box(&frame)) else { unreachable!() };
            black_box(Packet::parse(payload).is_ok());
        });
        let verify = least(|| {
            let Ok(Frame::Udp { ip, datagram, .. }) = frame::parse(black_box(&frame)) else { unreachable!() };
            black_box(frame::udp_checksum_fits(&ip, datagram));
        });
        println!(
            "{payload:5} B payload: build {emit:6.1} ns, checksum {sum:6.1} ns, parse {parse:5.1} ns, parse and verify {verify:6.1} ns"
        );
    }
}

/// Nanoseconds of one call in the best of many rounds.
fn least(mut f: impl FnMut()) -> f64 {
    const CALLS: u32 = 2000;
    (0..200)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| f());
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .fold(f64::MAX, f64::min)
}

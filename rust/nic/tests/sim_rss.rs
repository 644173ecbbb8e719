//! Which receive queue of a simulated NIC a frame comes in on: keys, tables, what the hash covers, steering.

use machnet_nic::sim::{HashOver, Host, Link, Net, SimQueue};
use machnet_nic::{Offload, Queue};
use machnet_wire::frame::{self, Route};
use std::net::Ipv4Addr;

/// A network without delays.
fn network(seed: u64) -> Net {
    let net = Net::new(seed);
    net.set_links(Link::instant());
    net
}

/// Sends one UDP packet from host 10.0.0.`from` to 10.0.0.`to`.
fn send(queue: &mut SimQueue, from: u8, to: u8, (src_port, dst_port): (u16, u16)) {
    let route = Route {
        src_mac: Host::new(from).mac,
        dst_mac: Host::new(to).mac,
        src_ip: Ipv4Addr::new(10, 0, 0, from),
        dst_ip: Ipv4Addr::new(10, 0, 0, to),
        src_port,
        dst_port,
    };
    let fill = |out: &mut [u8]| {
        let at = frame::emit_udp(&route, 20, out);
        out[at..].fill(7);
    };
    queue.transmit(frame::UDP_HEADERS + 20, Offload::Udp4, fill).expect("room");
    queue.flush();
}

/// Where packets of these pairs of ports come in: packets of each queue.
fn spread(
    (a, from): (&mut SimQueue, u8),
    (b, to): (&mut [SimQueue], u8),
    pairs: impl Iterator<Item = (u16, u16)>,
) -> Vec<usize> {
    let mut packets = vec![0; b.len()];
    for pair in pairs {
        send(a, from, to, pair);
        packets.iter_mut().zip(&mut *b).for_each(|(n, queue)| *n += queue.receive(1, &mut |_, _| {}));
    }
    packets
}

#[test]
fn a_flow_has_one_queue_until_the_key_changes() {
    let net = network(21);
    let mut a = net.add_host(Host::new(1)).remove(0);
    let mut b = net.add_host(Host::new(2).queues(4));
    let mut queue_of = |port: u16| {
        send(&mut a, 1, 2, (port, 31580));
        b.iter_mut().position(|queue| queue.receive(1, &mut |_, _| {}) == 1).expect("it arrived")
    };
    let first: Vec<usize> = (0..256).map(&mut queue_of).collect();
    let again: Vec<usize> = (0..256).map(&mut queue_of).collect();
    assert_eq!(first, again);
    for queue in 0..4 {
        let share = first.iter().filter(|q| **q == queue).count();
        assert!((40..=90).contains(&share), "queue {queue} has {share} of 256 flows");
    }
    net.rekey(1);
    let after: Vec<usize> = (0..256).map(&mut queue_of).collect();
    assert_ne!(first, after);
}

#[test]
fn without_ports_in_the_hash_a_peer_has_one_queue_and_without_a_hash_all_have_the_first() {
    let net = network(21);
    let mut b = net.add_host(Host { hash: HashOver::Addresses, ..Host::new(2).queues(4) });
    let mut peers: Vec<SimQueue> = (3..19).flat_map(|n| net.add_host(Host::new(n))).collect();
    let mut used = [0; 4];
    for (n, peer) in (3..).zip(&mut peers) {
        let packets = spread((peer, n), (&mut b, 2), (0..64).map(|port| (port, 31580)));
        let queue = packets.iter().position(|n| *n == 64).unwrap_or_else(|| panic!("{packets:?}"));
        used[queue] += 1;
    }
    assert!(used.iter().all(|peers| (1..=8).contains(peers)), "{used:?}");
    net.set_hash(0, HashOver::Nothing);
    for (n, peer) in (3..).zip(&mut peers) {
        assert_eq!(spread((peer, n), (&mut b, 2), (0..64).map(|port| (port, 31580))), [64, 0, 0, 0]);
    }
    net.set_hash(0, HashOver::Turns);
    assert_eq!(spread((&mut peers[0], 3), (&mut b, 2), (0..64).map(|_| (7, 31580))), [16; 4]);
}

#[test]
fn a_table_of_any_size_gives_each_queue_as_many_packets_as_it_has_entries() {
    let net = network(22);
    for (n, (queues, table)) in (1..).step_by(2).zip([(4u16, 64u16), (3, 128), (5, 16), (8, 512), (4, 1)]) {
        let mut a = net.add_host(Host::new(n)).remove(0);
        let mut b = net.add_host(Host { table, ..Host::new(n + 1).queues(queues) });
        let packets = spread((&mut a, n), (&mut b, n + 1), (0..1000).map(|port| (port, 31580)));
        for (queue, packets) in packets.iter().enumerate() {
            let entries = (queue..table.into()).step_by(queues.into()).count();
            let share = entries as f64 / f64::from(table);
            // Five standard deviations of a binomial distribution.
            let off = 5.0 * (1000.0 * share * (1.0 - share)).sqrt();
            assert!(
                (*packets as f64 - 1000.0 * share).abs() <= off,
                "queue {queue} of {queues} has {packets} of 1000 packets and {entries} of {table} entries"
            );
        }
    }
}

#[test]
fn a_table_may_change_while_frames_arrive() {
    let net = network(23);
    let mut a = net.add_host(Host::new(1)).remove(0);
    let mut b = net.add_host(Host::new(2).queues(4));
    let ports = || (0..200).map(|port| (port, 31580));
    assert!(spread((&mut a, 1), (&mut b, 2), ports()).iter().all(|n| *n > 20));
    net.set_table(1, vec![3]);
    assert_eq!(spread((&mut a, 1), (&mut b, 2), ports()), [0, 0, 0, 200]);
    net.set_table(1, vec![1, 2]);
    let packets = spread((&mut a, 1), (&mut b, 2), ports());
    assert!(packets[0] == 0 && packets[1] > 60 && packets[2] > 60 && packets[3] == 0, "{packets:?}");
}

#[test]
fn a_steered_port_comes_in_on_its_queue_and_all_others_where_the_hash_says() {
    let net = network(24);
    let mut a = net.add_host(Host::new(1)).remove(0);
    let mut b = net.add_host(Host { steering: 2, ..Host::new(2).queues(4) });
    assert!(b[2].steer(700) && b[3].steer(701));
    assert!(b[2].steer(700), "the same rule again takes no room");
    assert!(!b[0].steer(702), "a third rule");
    let to = |port: u16| (0..100).map(move |src| (src, port));
    assert_eq!(spread((&mut a, 1), (&mut b, 2), to(700)), [0, 0, 100, 0]);
    assert_eq!(spread((&mut a, 1), (&mut b, 2), to(701)), [0, 0, 0, 100]);
    assert!(spread((&mut a, 1), (&mut b, 2), to(702)).iter().all(|n| *n > 10));
    net.rekey(1);
    net.set_table(1, vec![0]);
    assert_eq!(
        spread((&mut a, 1), (&mut b, 2), to(700)),
        [0, 0, 100, 0],
        "another key and table change no rule"
    );
    assert_eq!(spread((&mut a, 1), (&mut b, 2), to(702)), [100, 0, 0, 0]);
    let mut again = net.reopen(1);
    assert!(
        spread((&mut a, 1), (&mut again, 2), to(700)).iter().all(|n| *n > 10),
        "opened anew it knows no rule"
    );
    let mut plain = net.add_host(Host::new(3).queues(2));
    assert!(!plain[1].steer(700), "a NIC that cannot");
}

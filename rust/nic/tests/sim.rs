//! The simulated network keeps its promises: what arrives, where, when, and the same again for the same seed.

mod hosts;

use hosts::{arrivals, mac, numbers, pair, send};
use machnet_nic::sim::{Duty, Host, Link, Net, Shaper, SimQueue, Steal, SwitchPort, Tail};
use machnet_nic::{Full, Mac, Offload, Queue, RxChecksum};
use machnet_wire::Nanos;
use machnet_wire::frame::{self, Frame, Route};
use std::net::Ipv4Addr;

/// A UDP frame from host `from` to host `to` with a pattern for its payload.
fn send_udp(queue: &mut SimQueue, from: u8, to: u8, ports: (u16, u16), offload: Offload) {
    let route = Route {
        src_mac: mac(from),
        dst_mac: mac(to),
        src_ip: Ipv4Addr::new(10, 0, 0, from),
        dst_ip: Ipv4Addr::new(10, 0, 0, to),
        src_port: ports.0,
        dst_port: ports.1,
    };
    queue
        .transmit(frame::UDP_HEADERS + 100, offload, |b| {
            let at = frame::emit_udp(&route, 100, b);
            b[at..].iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        })
        .unwrap();
}

#[test]
fn unicast_reaches_its_host_and_broadcast_all_others() {
    let net = Net::new(1);
    let mut hosts: Vec<SimQueue> = (1..=3).map(|n| net.add_host(Host::new(n)).remove(0)).collect();
    send(&mut hosts[0], mac(3), 1, 60).unwrap();
    send(&mut hosts[0], Mac::BROADCAST, 2, 60).unwrap();
    send(&mut hosts[0], mac(9), 3, 60).unwrap();
    send(&mut hosts[0], mac(1), 4, 60).unwrap();
    assert_eq!(net.next_event(), None, "nothing leaves before flush");
    hosts[0].flush();
    net.set_now(Nanos::millis(1));
    let got: Vec<Vec<u32>> = hosts.iter_mut().map(numbers).collect();
    assert_eq!(got, [vec![], vec![2], vec![1, 2]]);
    assert_eq!(net.counts().no_such_host, 2, "an unknown address, and its own");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let run = |seed: u64| {
        let link = Link {
            jitter: Nanos::micros(30),
            tail: Some(Tail { part: 0.1, scale: Nanos::micros(5), shape: 1.2 }),
            corruption: 0.1,
            rate: Some(1_000_000_000),
            ..Link::faulty(0.1)
        };
        let (net, mut a, mut b) = pair(seed, link);
        net.set_steal(1, Some(Steal { every: Nanos::micros(200), length: Nanos::micros(50) }));
        net.set_duty(0, Some(Duty { run: Nanos::micros(90), pause: Nanos::micros(30) }));
        let mut got = Vec::new();
        for i in 0..500 {
            net.set_now(Nanos::micros(i));
            send(&mut a, mac(2), i as u32, 60 + i as usize).unwrap();
            a.flush();
            b.receive(8, &mut |f, _| got.push((net.now(), f.to_vec())));
        }
        (got, net.counts(), net.trace())
    };
    let (first, again, other) = (run(7), run(7), run(8));
    assert!(first == again, "seed 7 gave two runs");
    assert_ne!(first.1, other.1);
    let c = first.1;
    assert!(c.lost > 20 && c.duplicated > 20 && c.reordered > 20 && c.corrupted > 20, "{c:?}");
}

#[test]
fn traffic_elsewhere_does_not_change_a_links_faults() {
    let run = |others: bool| {
        let net = Net::new(3);
        net.set_links(Link::faulty(0.2));
        let mut hosts: Vec<SimQueue> =
            (1..=3).map(|n| net.add_host(Host { descriptors: 1000, ..Host::new(n) }).remove(0)).collect();
        for i in 0..200 {
            send(&mut hosts[0], mac(2), i, 60).unwrap();
            if others {
                send(&mut hosts[2], mac(2), 1000 + i, 60).unwrap();
                hosts[2].flush();
            }
        }
        hosts[0].flush();
        arrivals(&net, &mut hosts[1]).into_iter().filter(|(_, n)| *n < 1000).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn a_full_ring_drops_what_comes_and_counts_it_as_missed() {
    let (net, mut a, mut b) = pair(1, Link::default());
    for i in 0..300 {
        if send(&mut a, mac(2), i, 60).is_err() {
            a.flush();
            send(&mut a, mac(2), i, 60).unwrap();
        }
    }
    a.flush();
    net.set_now(Nanos::millis(1));
    assert_eq!((b.backlog(), b.counters().rx_missed), (256, Some(44)));
    assert_eq!(numbers(&mut b), (0..256).collect::<Vec<_>>(), "the oldest stay");
    assert_eq!((b.backlog(), b.counters().rx_frames, b.counters().rx_bytes), (0, 256, 256 * 60));
    assert_eq!((a.counters().tx_full, a.counters().tx_frames), (1, 300));
}

#[test]
fn a_full_transmit_ring_says_so_and_does_not_call_fill() {
    let (_net, mut a, _b) = pair(1, Link::default());
    (0..256).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
    assert_eq!(a.transmit(60, Offload::None, |_| panic!("no room, yet asked to fill")), Err(Full));
    a.flush();
    assert_eq!(send(&mut a, mac(2), 0, 60), Ok(()));
}

#[test]
fn receive_keeps_to_its_budget_and_to_order() {
    let (_net, mut a, mut b) = pair(1, Link::instant());
    (0..10).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
    a.flush();
    let mut got = Vec::new();
    assert_eq!(b.receive(4, &mut |f, _| got.push(f[17])), 4);
    assert_eq!((got, b.backlog()), (vec![0, 1, 2, 3], 6));
}

#[test]
fn frames_take_delay_and_rate_and_no_more() {
    // 976 bytes and the 24 that Ethernet adds are 8 us at 1 Gbit/s.
    let (net, mut a, mut b) =
        pair(1, Link { rate: Some(1_000_000_000), delay: Nanos::micros(5), ..Link::default() });
    (0..3).for_each(|i| send(&mut a, mac(2), i, 976).unwrap());
    a.flush();
    let us = |n| Nanos::micros(n);
    assert_eq!(arrivals(&net, &mut b), [(us(13), 0), (us(21), 1), (us(29), 2)]);
    net.set_now(us(100));
    send(&mut a, mac(2), 3, 976).unwrap();
    a.flush();
    assert_eq!(arrivals(&net, &mut b), [(us(113), 3)], "an idle link has no memory");
}

#[test]
fn a_links_buffer_is_bounded() {
    let (net, mut a, mut b) = pair(1, Link { rate: Some(1_000_000), buffer: 3000, ..Link::default() });
    (0..10).for_each(|i| send(&mut a, mac(2), i, 976).unwrap());
    a.flush();
    assert_eq!(arrivals(&net, &mut b).len(), 3, "1000 bytes each on the wire");
    assert_eq!(net.counts().queue_full, 7);
}

#[test]
fn a_port_is_shared_by_all_who_send_through_it() {
    let net = Net::new(8);
    let mut queues: Vec<SimQueue> = (1..=3).flat_map(|n| net.add_host(Host::new(n))).collect();
    net.set_links(Link { delay: Nanos::micros(5), ..Link::default() });
    // A frame of 976 bytes and 24 of gaps takes 1 us; room for four.
    net.set_port(2, Some(SwitchPort { rate: 8_000_000_000, buffer: 4 * 1000 }));
    for number in 0..4 {
        for (from, queue) in queues.iter_mut().take(2).enumerate() {
            send(queue, mac(3), 10 * from as u32 + number, 976).unwrap();
        }
    }
    queues[0].flush();
    queues[1].flush();
    let got = arrivals(&net, &mut queues[2]);
    let expected = [(6, 0), (7, 1), (8, 2), (9, 3)].map(|(us, number)| (Nanos::micros(us), number));
    assert_eq!(got, expected);
    assert_eq!(net.counts().queue_full, 4);
    let mut woken = Vec::new();
    net.take_woken(&mut woken);
    assert_eq!(woken, [2]);
    net.take_woken(&mut woken);
    assert_eq!(woken, [2], "told once");
}

#[test]
fn jitter_stays_within_bounds_and_keeps_order() {
    let (net, mut a, mut b) = pair(5, Link { jitter: Nanos::micros(40), ..Link::default() });
    let mut delays = Vec::new();
    for i in 0..200 {
        let now = Nanos::millis(1) * u64::from(i);
        net.set_now(now);
        send(&mut a, mac(2), i, 60).unwrap();
        a.flush();
        delays.extend(arrivals(&net, &mut b).into_iter().map(|(at, _)| at - now));
    }
    let (least, most) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
    assert!(least >= Nanos::micros(10) && least < Nanos::micros(15), "{least:?}");
    assert!(most <= Nanos::micros(50) && most > Nanos::micros(45), "{most:?}");
    (0..200).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
    a.flush();
    let order: Vec<u32> = arrivals(&net, &mut b).into_iter().map(|(_, n)| n).collect();
    assert_eq!(order, (0..200).collect::<Vec<_>>());
}

#[test]
fn each_fault_happens_about_as_often_as_asked() {
    for (link, least, most) in [
        (Link { loss: 0.05, ..Link::default() }, 9_300, 9_700),
        (Link { duplication: 0.05, ..Link::default() }, 10_300, 10_700),
        (Link { loss: 1.0, ..Link::default() }, 0, 0),
    ] {
        let (net, mut a, mut b) = pair(2, link);
        let mut got = 0;
        for i in 0..10_000 {
            send(&mut a, mac(2), i, 60).unwrap();
            a.flush();
            got += arrivals(&net, &mut b).len();
        }
        assert!((least..=most).contains(&got), "{got} of 10000 with {link:?}");
    }
}

#[test]
fn reordering_makes_later_frames_overtake() {
    let (net, mut a, mut b) = pair(4, Link { reorder: 0.1, ..Link::default() });
    let mut got = Vec::new();
    for i in 0..1000 {
        net.set_now(Nanos::micros(u64::from(i)));
        send(&mut a, mac(2), i, 60).unwrap();
        a.flush();
        got.extend(numbers(&mut b));
    }
    got.extend(arrivals(&net, &mut b).into_iter().map(|(_, n)| n));
    let overtaken = got.windows(2).filter(|w| w[1] < w[0]).count();
    assert!((70..=130).contains(&overtaken), "{overtaken} of 1000 overtaken");
    got.sort_unstable();
    assert_eq!(got, (0..1000).collect::<Vec<_>>(), "and none is lost");
}

#[test]
fn corrupted_frames_are_not_taken_for_good() {
    let net = Net::new(11);
    net.set_links(Link { corruption: 1.0, ..Link::instant() });
    let mut a = net.add_host(Host::new(1)).remove(0);
    let mut b = net.add_host(Host::new(2).offload()).remove(0);
    let (mut bad, mut good) = (0, 0);
    for _ in 0..1000 {
        send_udp(&mut a, 1, 2, (1, 2), Offload::Udp4);
        a.flush();
        b.receive(1, &mut |f, verdict| match verdict {
            RxChecksum::Bad => bad += 1,
            RxChecksum::Unknown | RxChecksum::MaybePartial => {}
            // Ethernet's own header lies under no checksum that a NIC looks at here.
            RxChecksum::Good => good += u32::from(damaged(f)),
        });
    }
    assert!(bad > 800, "{bad} of 1000 called bad");
    assert_eq!(good, 0, "a damaged packet was called good");
    assert_eq!(net.counts().corrupted, 1000);
}

/// Whether a frame holds another payload than the pattern sent.
fn damaged(f: &[u8]) -> bool {
    f[frame::UDP_HEADERS..].iter().enumerate().any(|(i, b)| *b != i as u8)
}

#[test]
fn checksums_are_the_same_with_and_without_offload() {
    let frame_of = |host: Host| {
        let net = Net::new(1);
        let mut a = net.add_host(host).remove(0);
        let mut b = net.add_host(Host::new(2).offload()).remove(0);
        let mut got = Vec::new();
        for offload in [Offload::Udp4, Offload::None] {
            send_udp(&mut a, 1, 2, (5, 6), offload);
            a.flush();
            net.set_now(net.now() + Nanos::millis(1));
            b.receive(2, &mut |f, verdict| got.push((f.to_vec(), verdict)));
        }
        got
    };
    let (with, without) = (frame_of(Host::new(1).offload()), frame_of(Host::new(1)));
    assert_eq!(with, without);
    assert_eq!((with[0].1, with[1].1), (RxChecksum::Good, RxChecksum::Unknown));
    let Ok(Frame::Udp { ip, datagram, .. }) = frame::parse(&with[0].0) else { panic!("not udp") };
    assert!(frame::udp_checksum_fits(&ip, datagram));
}

#[test]
fn a_stolen_vcpu_neither_receives_nor_sends_and_its_ring_fills() {
    let (net, mut a, mut b) = pair(1, Link::default());
    net.steal(1, Nanos::micros(100));
    assert_eq!(net.stolen_until(1), Some(Nanos::micros(100)));
    send(&mut a, mac(2), 1, 60).unwrap();
    a.flush();
    net.set_now(Nanos::micros(50));
    assert_eq!((numbers(&mut b), b.backlog()), (vec![], 1));
    send(&mut b, mac(1), 2, 60).unwrap();
    b.flush();
    assert_eq!(net.next_event(), Some(Nanos::micros(100)), "the vCPU is back for the waiting frame");
    net.set_now(Nanos::micros(100));
    assert_eq!((numbers(&mut b), net.stolen_until(1)), (vec![1], None));
    assert_eq!(arrivals(&net, &mut a), [(Nanos::micros(110), 2)]);
}

#[test]
fn vcpus_are_stolen_about_as_often_and_as_long_as_asked() {
    let (net, _a, _b) = pair(9, Link::default());
    net.set_steal(1, Some(Steal { every: Nanos::micros(300), length: Nanos::micros(100) }));
    let stolen = (0..100_000).filter(|us| {
        net.set_now(Nanos::micros(*us));
        net.stolen_until(1).is_some_and(|until| until <= net.now() + Nanos::micros(100))
    });
    let stolen = stolen.count();
    assert!((22_000..28_000).contains(&stolen), "{stolen} of 100000 us, a quarter is asked");
    assert_eq!(net.stolen_until(0), None);
}

#[test]
fn a_chosen_frame_can_be_lost() {
    let (net, mut a, mut b) = pair(1, Link::default());
    net.lose_nth(0, 1, 3);
    (1..=5).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
    a.flush();
    let got: Vec<u32> = arrivals(&net, &mut b).into_iter().map(|(_, n)| n).collect();
    assert_eq!(got, [1, 2, 4, 5]);
}

#[test]
fn frames_beyond_the_mtu_are_dropped_at_either_end() {
    let net = Net::new(1);
    let (mut a, mut b) = (net.open(Host { mtu: 9000, ..Host::new(1) }), net.open(Host::new(2)));
    for (number, len) in [(1, 1514), (2, 1515), (3, 9014), (4, 9015)] {
        send(&mut a.queues[0], mac(2), number, len).unwrap();
    }
    a.queues[0].flush();
    net.set_now(Nanos::millis(1));
    assert_eq!(numbers(&mut b.queues[0]), [1]);
    let (sender, receiver) = (a.port.counters(), b.port.counters());
    assert_eq!((sender.tx_frames, sender.tx_errors, receiver.rx_errors), (Some(3), Some(1), Some(2)));
    assert_eq!((sender.tx_bytes, receiver.rx_frames), (Some(1514 + 1515 + 9014), Some(1)));
}

#[test]
fn a_port_counts_what_all_its_queues_lost_and_says_what_it_cannot_count() {
    let net = Net::new(1);
    let mut a = net.open(Host::new(1));
    let b = net.open(Host { descriptors: 8, ..Host::new(2).queues(4) });
    assert_eq!((a.port.driver(), b.queues.len()), ("sim", 4));
    for port in 0..100 {
        send_udp(&mut a.queues[0], 1, 2, (port, 80), Offload::None);
    }
    a.queues[0].flush();
    net.set_now(Nanos::millis(1));
    let missed: Vec<u64> = b.queues.iter().filter_map(|queue| queue.counters().rx_missed).collect();
    assert!(missed.iter().all(|&n| n > 0), "each of the four queues loses some: {missed:?}");
    let counted = b.port.counters();
    assert_eq!((counted.rx_missed, counted.rx_frames), (Some(100 - 4 * 8), Some(4 * 8)));
    assert_eq!(missed.iter().sum::<u64>(), 100 - 4 * 8);
    assert_eq!((counted.link_downs, b.queues[0].counters().link_down), (Some(0), Some(0)));
}

#[test]
fn an_interrupt_wakes_whoever_armed_it_and_not_twice() {
    let net = Net::new(1);
    net.set_links(Link::instant());
    let mut a = net.add_host(Host::new(1)).remove(0);
    assert_eq!(a.arm_interrupt(), None, "only where the host has them");
    let mut b = net.add_host(Host { interrupts: true, ..Host::new(2) }).remove(0);
    let fd = b.arm_interrupt().expect("it has interrupts");
    assert!(!readable(fd));
    (0..3).for_each(|i| send(&mut a, mac(2), i, 60).unwrap());
    a.flush();
    assert!(readable(fd));
    b.disarm_interrupt();
    assert!(!readable(fd), "disarming takes the wake-up back");
    send(&mut a, mac(2), 3, 60).unwrap();
    a.flush();
    assert!(!readable(fd), "nobody asked");
    b.arm_interrupt();
    assert!(readable(fd), "frames that wait wake at once");
}

/// Whether a pipe of this process holds a byte: takes it through another description and puts it back.
fn readable(fd: i32) -> bool {
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    const O_NONBLOCK: i32 = 0o4000;
    let mut options = std::fs::OpenOptions::new();
    let pipe = options.read(true).write(true).custom_flags(O_NONBLOCK).open(format!("/proc/self/fd/{fd}"));
    let mut pipe = pipe.expect("the pipe opens again");
    pipe.read(&mut [0]).is_ok_and(|n| n == 1) && pipe.write(&[1]).is_ok()
}

#[test]
fn a_trace_says_what_happened_to_each_packet() {
    let (net, mut a, _b) = pair(42, Link { loss: 1.0, ..Link::default() });
    send_udp(&mut a, 1, 2, (5, 6), Offload::Udp4);
    a.flush();
    net.set_link(0, 1, Link::default());
    net.set_now(Nanos::micros(3));
    send(&mut a, mac(2), 1, 60).unwrap();
    a.flush();
    net.set_now(Nanos::micros(13));
    let trace = net.trace();
    assert!(trace.contains("seed 42"), "{trace}");
    assert!(trace.contains("0 > 1  LOST") && trace.contains("udp 10.0.0.1:5 > 10.0.0.2:6"), "{trace}");
    assert!(trace.contains("13.000 us  0 > 1  to queue 0"), "{trace}");
}

#[derive(Clone, Debug)]
enum Op {
    Send { from: u8, to: u8, len: usize },
    Advance(u64),
    Receive { host: u8, budget: usize },
    Inject { host: u8, len: usize },
    Steal { host: u8, us: u64 },
}

fn op() -> impl proptest::strategy::Strategy<Value = Op> {
    use proptest::prelude::*;
    prop_oneof![
        6 => (0..3u8, 0..5u8, 14..1600usize).prop_map(|(from, to, len)| Op::Send { from, to, len }),
        3 => (0..100_000u64).prop_map(Op::Advance),
        2 => (0..3u8, 0..20usize).prop_map(|(host, budget)| Op::Receive { host, budget }),
        1 => (0..3u8, 0..1600usize).prop_map(|(host, len)| Op::Inject { host, len }),
        1 => (0..3u8, 0..200u64).prop_map(|(host, us)| Op::Steal { host, us }),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// Whatever happens, every copy has exactly one end, and the queues' counters agree with the network's.
    #[test]
    fn no_frame_vanishes_unaccounted(seed: u64, ops in proptest::collection::vec(op(), 1..400)) {
        let net = Net::new(seed);
        let shaper = Some(Shaper { rate: 500_000_000, burst: 5_000, buffer: 10_000 });
        net.set_links(Link { corruption: 0.2, rate: Some(1_000_000_000), buffer: 20_000, shaper, ..Link::faulty(0.2) });
        let (mut hosts, ports): (Vec<SimQueue>, Vec<_>) = (1..=3)
            .map(|n| net.open(Host { descriptors: 8, ..Host::new(n) }))
            .map(|mut nic| (nic.queues.remove(0), nic.port))
            .unzip();
        for op in ops {
            match op {
                Op::Send { from, to, len } => {
                    let to = if to == 4 { Mac::BROADCAST } else { mac(to + 1) };
                    let _ = send(&mut hosts[usize::from(from)], to, 0, len.max(18));
                    hosts[usize::from(from)].flush();
                }
                Op::Advance(ns) => net.set_now(net.now() + Nanos(ns)),
                Op::Receive { host, budget } => {
                    hosts[usize::from(host)].receive(budget, &mut |_, _| {});
                }
                Op::Inject { host, len } => net.inject(usize::from(host), &vec![0x42; len]),
                Op::Steal { host, us } => net.steal(usize::from(host), Nanos::micros(us)),
            }
            let c = net.counts();
            proptest::prop_assert_eq!(c.copies, c.in_flight + c.delivered + c.lost + c.queue_full + c.missed + c.refused + c.away);
        }
        let mut waiting = 0;
        let mut totals = (0, 0, 0, 0);
        let mut at_ports = (0, 0);
        for (queue, port) in hosts.iter_mut().zip(&ports) {
            waiting += u64::from(queue.backlog());
            let (s, p) = (queue.counters(), port.counters());
            let (missed, errors) = (s.rx_missed.unwrap(), p.rx_errors.unwrap());
            proptest::prop_assert_eq!(p.rx_missed, Some(missed));
            totals = (totals.0 + s.tx_frames, totals.1 + s.rx_frames, totals.2 + missed, totals.3 + errors);
            at_ports = (at_ports.0 + p.tx_frames.unwrap(), at_ports.1 + p.rx_frames.unwrap());
        }
        let c = net.counts();
        proptest::prop_assert_eq!(totals, (c.sent, c.delivered - waiting, c.missed, c.refused));
        proptest::prop_assert_eq!(at_ports, (c.sent, c.delivered));
    }
}

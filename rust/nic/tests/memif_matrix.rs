//! memif with several queues on both sides: engines must see a NIC with opaque RSS and nothing of the rings below.
//!
//! Both ends live in this process: one EAL, two ports, one socket.

use machnet_nic::dpdk::{DpdkQueue, Eal};
use machnet_nic::{
    Device, EalConfig, Mac, Memif, MemifRole, Memory, Offload, Port, PortConfig, Queue, RxChecksum,
};
use machnet_wire::frame;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[test]
fn a_flow_stays_on_one_queue_whichever_engine_sends_and_all_queues_are_used() {
    let mut link = Link::up("rss", 2, 3, 1500);
    let mut where_to: HashMap<u16, u16> = HashMap::new();
    for round in 0..600u16 {
        let (sender, port) = (usize::from(round % 2), round / 2);
        send(&mut link.server[sender], 64, port);
        let arrived = receive_one(&mut link.client);
        let before = where_to.insert(port, arrived);
        assert!(before.is_none_or(|queue| queue == arrived), "port {port}: queue {before:?}, then {arrived}");
    }
    for queue in 0..3 {
        let share = where_to.values().filter(|&&q| q == queue).count();
        assert!((50..=150).contains(&share), "queue {queue} has {share} of 300 flows");
    }
    // And back: three engines towards two queues.
    let mut used = [0; 2];
    for round in 0..300u16 {
        send(&mut link.client[usize::from(round % 3)], 64, round);
        used[usize::from(receive_one(&mut link.server))] += 1;
    }
    assert!(used.iter().all(|&count| count > 75), "{used:?}");
}

#[test]
fn jumbo_frames_pass_whole_with_their_checksum_made_in_software() {
    let mut link = Link::up("jumbo", 1, 1, 9001);
    assert!(!link.server[0].info().tx_checksum);
    for len in [60, 1514, 2048, 2049, 9015] {
        send(&mut link.server[0], len, 7);
        let mut seen = Vec::new();
        wait(|| {
            link.client[0].receive(16, &mut |frame, verdict| {
                assert_eq!(verdict, RxChecksum::Unknown);
                seen = frame.to_vec();
            }) > 0
        });
        assert_eq!(seen.len(), len);
        let mut again = seen.clone();
        again[40..42].fill(0);
        frame::write_udp_checksum(&mut again);
        assert_eq!(again, seen, "{len} bytes");
        assert_ne!(seen[40..42], [0, 0]);
    }
    let (sent, received) = (link.server[0].counters(), link.client[0].counters());
    assert_eq!((sent.tx_frames, sent.tx_bytes), (received.rx_frames, received.rx_bytes));
}

#[test]
fn a_peer_that_does_not_read_fills_256_descriptors_and_then_the_sender_is_told() {
    let mut link = Link::up("full", 1, 1, 1500);
    assert_eq!(link.server[0].info().descriptors, 256);
    let mut taken = 0u64;
    while link.server[0].transmit(64, Offload::None, |frame| frame.fill(1)).is_ok() {
        link.server[0].flush();
        taken += 1;
        assert!(taken < 1000, "nothing ever fills up");
    }
    // What the ring holds, and one burst that waits in front of it.
    assert_eq!(taken, 256 + 16);
    let counted = link.server[0].counters();
    assert_eq!((counted.tx_frames, counted.tx_full, counted.peer_full), (256, 1, Some(0)));
    let mut got = 0;
    wait(|| {
        got += link.client[0].receive(32, &mut |_, _| {});
        link.server[0].flush();
        got == 256 + 16
    });
    assert_eq!(link.client[0].receive(32, &mut |_, _| {}), 0);
}

#[test]
fn a_queue_that_is_not_read_loses_its_own_frames_only() {
    let mut link = Link::up("own", 1, 2, 1500);
    let mut read = [0u64; 2];
    for port in 0..2000 {
        send(&mut link.server[0], 64, port);
        read[1] += link.client[1].receive(32, &mut |_, _| {}) as u64;
    }
    let lost = link.server[0].counters().peer_full.unwrap();
    wait(|| {
        for (queue, read) in link.client.iter_mut().zip(&mut read) {
            *read += queue.receive(32, &mut |_, _| {}) as u64;
        }
        link.server[0].flush();
        read[0] + read[1] + lost == 2000
    });
    // 128 slots and a burst of 16.
    assert_eq!(read[0], 128 + 16, "{lost} lost");
    assert_eq!(link.server[0].counters().link_down, Some(0));
    // What is lost for want of room is seen by who sends it: the driver that should have received it counts no losses.
    let counted = link.client[0].port().counters();
    assert_eq!((counted.rx_frames, counted.rx_missed, counted.rx_errors), (Some(2000 - lost), None, None));
}

#[test]
fn a_ring_that_never_runs_dry_does_not_starve_the_others() {
    let mut link = Link::up("fair", 1, 2, 1500);
    for port in 0..64 {
        send(&mut link.client[0], 64, port);
        send(&mut link.client[1], 65, port);
    }
    let mut by_length = [0; 2];
    for _ in 0..2 {
        link.server[0].receive(16, &mut |frame, _| by_length[frame.len() - 64] += 1);
    }
    assert_eq!(by_length, [16, 16]);
}

#[test]
fn links_change_while_a_queue_is_idle_and_what_is_sent_to_nobody_is_counted() {
    let mut link = Link::up("idle", 1, 1, 1500);
    let server = &mut link.server;
    server[0].receive(1, &mut |_, _| {});
    assert!(server[0].arm_interrupt().is_some(), "its rings have bells, and the queue is idle from here on");
    link.client.clear();
    let deadline = Instant::now() + BOUND;
    while server[0].port().is_up() {
        assert!(Instant::now() < deadline, "the link is still up");
        std::thread::sleep(Duration::from_millis(1));
    }
    let counted = server[0].port().counters();
    assert_eq!((counted.link_ups, counted.link_downs, counted.link_refused), (Some(1), Some(1), Some(0)));
    for _ in 0..40 {
        server[0]
            .transmit(64, Offload::None, |frame| frame.fill(0))
            .expect("nobody is there, but it never is full");
        server[0].flush();
    }
    let counted = server[0].counters();
    assert_eq!((counted.link_down, counted.peer_full), (Some(40), Some(0)));
    assert_eq!(server[0].receive(1, &mut |_, _| {}), 0);
}

#[test]
fn sides_that_disagree_about_queues_do_not_connect() {
    let folder = folder("disagree");
    let socket = folder.join("link.sock");
    let server = open(&socket, MemifRole::Server, 1, 2, 1500);
    let client = open(&socket, MemifRole::Client, 1, 1, 1500);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!server[0].port().is_up() && !client[0].port().is_up());
    drop((server, client));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn the_configured_address_is_the_ports() {
    let folder = folder("mac");
    let mac = Mac([2, 0x4d, 0, 0, 0, 9]);
    let link = Memif::new(folder.join("link.sock"), MemifRole::Server);
    let config = PortConfig { mac: Some(mac), ..PortConfig::default() };
    let nic = eal().open(&Device::Memif(link), &config).unwrap();
    assert_eq!((nic.queues[0].info().mac, nic.port.driver()), (mac, "net_memif"));
    drop(nic);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the sockets are gone with the port");
    let _ = std::fs::remove_dir_all(folder);
}

/// Both ends of one link.
struct Link {
    server: Vec<DpdkQueue>,
    client: Vec<DpdkQueue>,
    folder: PathBuf,
}

impl Link {
    fn up(name: &str, server: u16, client: u16, mtu: u16) -> Link {
        let folder = folder(name);
        let socket = folder.join("link.sock");
        let mut link = Link {
            server: open(&socket, MemifRole::Server, server, client, mtu),
            client: open(&socket, MemifRole::Client, client, server, mtu),
            folder,
        };
        wait(|| {
            // Whoever receives lets links change.
            for queue in link.server.iter_mut().chain(&mut link.client) {
                queue.idle();
            }
            link.server[0].port().is_up() && link.client[0].port().is_up()
        });
        // A client gives its buffers to the server when it first looks for frames.
        link.client.iter_mut().for_each(|queue| assert_eq!(queue.receive(1, &mut |_, _| {}), 0));
        link
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| {
        let prefix = format!("memif-matrix-{}", std::process::id());
        let config = EalConfig { memory: Memory::NoHuge { mib: 512 }, ..EalConfig::unprivileged(&prefix) };
        Eal::start(&config, &[]).unwrap()
    })
}

fn open(
    socket: &std::path::Path,
    role: MemifRole,
    queues: u16,
    peer_queues: u16,
    mtu: u16,
) -> Vec<DpdkQueue> {
    // A fixed key: how evenly a few hundred flows spread depends on it.
    let link = Memif { peer_queues, rss_key: Some(*KEY), ..Memif::new(socket, role) };
    let config = PortConfig { queues, mtu, ..PortConfig::default() };
    eal().open(&Device::Memif(link), &config).unwrap().queues
}

/// One UDP frame from `port`, with its checksum.
fn send(queue: &mut DpdkQueue, len: usize, port: u16) {
    let build = |frame: &mut [u8]| {
        for (at, byte) in frame.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let total = (len - 14) as u16;
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..34].copy_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[36..38].copy_from_slice(&[0x7b, 0x5c]);
        frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
        frame[40..42].fill(0);
    };
    queue.transmit(len, Offload::Udp4, build).unwrap();
    queue.flush();
}

/// Which queue the next frame arrives on.
fn receive_one(queues: &mut [DpdkQueue]) -> u16 {
    let mut found = None;
    wait(|| {
        for queue in queues.iter_mut() {
            if queue.receive(1, &mut |_, _| {}) == 1 {
                found = Some(queue.info().index);
            }
        }
        found.is_some()
    });
    found.unwrap()
}

fn wait(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !done() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}");
        std::thread::yield_now();
    }
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("memif-matrix-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

const KEY: &[u8; 40] = b"mnemonic: forty bytes for a Toeplitz key";
/// On a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(20);

//! memif against peers that die: whoever is left must neither crash nor hang, and must take up the next peer.
//!
//! The test program starts itself again in two roles, each a process of its own: a survivor, and one peer after
//! another. Both send without pause, so that a peer always dies in the middle of a burst.

use machnet_nic::dpdk::{self, DpdkQueue};
use machnet_nic::{Device, EalConfig, Memif, MemifRole, Offload, PortConfig, Queue};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_server_outlives_fifty_killed_clients() {
    kill_peers("server", 1, 50, BUSY);
}

#[test]
fn a_client_outlives_fifty_killed_servers() {
    kill_peers("client", 1, 50, BUSY);
}

#[test]
fn two_engines_and_four_rings_outlive_their_peers() {
    kill_peers("server", 2, 10, BUSY);
}

#[test]
fn a_server_and_its_clients_that_sleep_wake_each_other() {
    kill_peers("server", 2, 10, ASLEEP);
}

#[test]
fn a_client_and_its_servers_that_sleep_wake_each_other() {
    kill_peers("client", 1, 10, ASLEEP);
}

#[test]
fn clients_that_vanish_before_they_are_greeted_leave_the_server_alive() {
    let folder = Folder::new("vanish");
    let socket = folder.0.join("link.sock");
    let mut server = Process::start("server", &socket, 1, 0, BUSY);
    let deadline = Instant::now() + BOUND;
    while !socket.exists() {
        assert!(Instant::now() < deadline, "no socket within {BOUND:?}");
        thread::sleep(Duration::from_millis(5));
    }
    for round in 0..200 {
        knock(&socket, round % 2 == 0);
    }
    // Still of use to a proper one.
    let mut client = Process::start("client", &socket, 1, 1, BUSY);
    server.expect("heard 1", 1);
    client.expect("heard 0", 1);
}

/// Connects, perhaps says something that is no memif message, and is gone.
fn knock(socket: &Path, speak: bool) {
    // SAFETY: the address is a whole one, and every pointer lives through its call; the descriptor is closed once.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(socket.as_os_str().as_encoded_bytes()) {
            *to = *from as libc::c_char;
        }
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        let len = size_of_val(&address) as libc::socklen_t;
        assert_eq!(libc::connect(fd, (&raw const address).cast(), len), 0, "the server is gone");
        if speak {
            libc::send(fd, [0xa5u8; 128].as_ptr().cast(), 128, libc::MSG_NOSIGNAL);
        }
        libc::close(fd);
    }
}

/// Not a test: the other roles' way in. Ends at once when the program runs as a test.
#[test]
fn role() {
    let Ok(role) = std::env::var("MEMIF_ROLE") else { return };
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let role = if role == "server" { MemifRole::Server } else { MemifRole::Client };
    run(
        role,
        Path::new(&var("MEMIF_SOCKET")),
        var("MEMIF_QUEUES").parse().unwrap(),
        var("MEMIF_NUMBER").parse().unwrap(),
    );
}

fn kill_peers(survivor: &'static str, queues: u16, kills: u64, how: &str) {
    let folder = Folder::new(&format!("{survivor}{queues}{how}"));
    let socket = folder.0.join("link.sock");
    let other = if survivor == "server" { "client" } else { "server" };
    let mut left = Process::start(survivor, &socket, queues, 0, how);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64 ^ u64::from(std::process::id());
    println!("seed {seed:#x}");
    for number in 1..=kills {
        let mut peer = Process::start(other, &socket, queues, number, how);
        // Told only once frames pass in both directions.
        left.expect(&format!("heard {number}"), number);
        peer.expect("heard 0", number);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_micros(seed >> 33 & 0x7ff));
        if number.is_multiple_of(5) {
            drop(peer.child.stdin.take()); // a clean exit
            let end = peer.child.wait().unwrap();
            assert!(end.success(), "peer {number} left with {end}");
        }
        peer.kill();
        assert!(left.child.try_wait().unwrap().is_none(), "the {survivor} died with peer {number}");
    }
    drop(left.child.stdin.take());
    let end = left.child.wait().unwrap();
    assert!(end.success(), "the {survivor} left with {end}");
}

/// One process of the pair: sends without pause, and says `heard N` when it first hears from process N.
fn run(role: MemifRole, socket: &Path, queues: u16, number: u64) {
    let eal = EalConfig::unprivileged(&format!("memif-peer-{}", std::process::id()));
    let link = Memif { peer_queues: queues, ..Memif::new(socket, role) };
    let config = PortConfig { queues, ..PortConfig::default() };
    let nic = dpdk::open(&Device::Memif(link), &config, &eal).unwrap();
    let heard: Arc<Vec<AtomicU64>> = Arc::new((0..queues).map(|_| AtomicU64::new(u64::MAX)).collect());
    let stop = Arc::new(AtomicU64::new(0));
    let engines: Vec<_> = nic
        .queues
        .into_iter()
        .enumerate()
        .map(|(index, queue)| {
            let (heard, stop) = (heard.clone(), stop.clone());
            let body =
                if std::env::var("MEMIF_HOW").is_ok_and(|how| how == ASLEEP) { sleeper } else { engine };
            thread::spawn(move || body(queue, number, &heard[index], &stop))
        })
        .collect();
    let watcher = stop.clone();
    thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new()); // ends with the parent, or when it lets go
        watcher.store(1, Ordering::Release);
    });
    let mut told = u64::MAX;
    while stop.load(Ordering::Acquire) == 0 {
        let first = heard[0].load(Ordering::Acquire);
        if first != told && heard.iter().all(|h| h.load(Ordering::Acquire) == first) {
            println!("heard {first}");
            told = first;
        }
        thread::sleep(Duration::from_micros(200));
    }
    engines.into_iter().for_each(|engine| engine.join().unwrap());
}

fn engine(mut queue: DpdkQueue, number: u64, heard: &AtomicU64, stop: &AtomicU64) {
    let mut port = 0u16;
    while stop.load(Ordering::Acquire) == 0 {
        queue.receive(16, &mut |frame, _| {
            assert_eq!(frame.len(), FRAME, "a frame of another length");
            heard.store(u64::from_be_bytes(frame[42..50].try_into().unwrap()), Ordering::Release);
        });
        for _ in 0..16 {
            port = port.wrapping_add(1);
            let _ = queue.transmit(FRAME, Offload::None, |frame| build(frame, port, number));
        }
        queue.flush();
        thread::yield_now();
    }
}

/// The same, but it sleeps until its rings ring, hears nothing that came without that, and sends when it was woken, or has slept for long: two that
/// sent without pause would find each other's frames before they slept, and never sleep.
fn sleeper(mut queue: DpdkQueue, number: u64, heard: &AtomicU64, stop: &AtomicU64) {
    let (mut rang, mut sends) = (false, true);
    let mut port = 0u16;
    while stop.load(Ordering::Acquire) == 0 {
        queue.receive(16, &mut |frame, _| {
            if rang {
                heard.store(u64::from_be_bytes(frame[42..50].try_into().unwrap()), Ordering::Release);
            }
        });
        for _ in 0..if sends { 16 } else { 0 } {
            // Ports that are next to each other may all lead to one queue of the peer's.
            port = port.wrapping_add(4099);
            let _ = queue.transmit(FRAME, Offload::None, |frame| build(frame, port, number));
        }
        queue.flush();
        (rang, sends) = (false, true);
        if let Some(fd) = queue.arm_interrupt() {
            let mut bell = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            if queue.backlog() == 0 {
                // SAFETY: one entry that lives through the call. Bounded: frames that came while both were awake rang for nobody.
                rang = unsafe { libc::poll(&mut bell, 1, 50) } == 1;
            } else {
                sends = false;
            }
        } else {
            thread::sleep(Duration::from_millis(1)); // there is no link
        }
        queue.disarm_interrupt();
    }
}

/// Ethernet, IPv4 and UDP with a port that changes, so that every queue of the peer gets its share.
fn build(frame: &mut [u8], port: u16, number: u64) {
    frame.fill(0);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 17;
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[42..50].copy_from_slice(&number.to_be_bytes());
}

struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    role: &'static str,
}

impl Process {
    fn start(role: &'static str, socket: &Path, queues: u16, number: u64, how: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture"])
            .env("MEMIF_ROLE", role)
            .env("MEMIF_SOCKET", socket)
            .env("MEMIF_QUEUES", queues.to_string())
            .env("MEMIF_NUMBER", number.to_string())
            .env("MEMIF_HOW", how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out: ChildStdout = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Process { child, lines, role }
    }

    /// Waits until the process says `line`.
    fn expect(&mut self, line: &str, number: u64) {
        let deadline = Instant::now() + BOUND;
        while let Ok(said) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            // The test harness prints in front of the first line.
            if said.ends_with(line) {
                return;
            }
        }
        let end = self.child.try_wait().unwrap();
        panic!("peer {number}: the {} never said {line:?} within {BOUND:?}; it ended: {end:?}", self.role);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("memif-peer-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How processes wait.
const BUSY: &str = "busy";
const ASLEEP: &str = "asleep";
/// Octets of a test frame.
const FRAME: usize = 64;
/// For a start and a handshake, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(30);

//! Raw ping-pong of frames over memif between two processes: what the NIC path costs with nothing on top. One frame at a time
//! and its round-trip time, or several under way and their rate, each copied in and out as a transport would.
//!
//! `cargo run --release -p machnet-nic --features dpdk --example memif_ping -- [rounds] [bytes] [frames under way]`

use machnet_nic::dpdk::{self, DpdkQueue};
use machnet_nic::{Device, EalConfig, Memif, MemifRole, Offload, PortConfig, Queue};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("echo") => echo(&args[1]),
        _ => ping(number(&args, 0, 200_000), number(&args, 1, 64), number(&args, 2, 1)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memif_ping: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(args: &[String], at: usize, default: usize) -> usize {
    args.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
}

type Error = Box<dyn std::error::Error>;

fn ping(rounds: usize, bytes: usize, under_way: usize) -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("memif-ping-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let socket = folder.join("link.sock");
    let mut queue = open(&socket, MemifRole::Server)?;
    let mut child = Command::new(std::env::current_exe()?).arg("echo").arg(&socket).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !queue.port().is_up() {
        if Instant::now() > deadline {
            let _ = child.kill();
            return Err("the other process did not come up within 10 s".into());
        }
        queue.receive(1, &mut |_, _| {});
        std::thread::sleep(Duration::from_millis(1));
    }
    if under_way > 1 {
        flow(&mut queue, rounds, bytes, under_way.min(WINDOW));
        let _ = child.kill();
        let _ = child.wait();
        drop(queue);
        std::fs::remove_dir_all(&folder)?;
        return Ok(());
    }
    let mut took = Vec::with_capacity(rounds);
    for round in 0..rounds + WARM_UP {
        let begun = Instant::now();
        send(&mut queue, bytes);
        let mut looks = 0u64;
        while queue.receive(1, &mut |_, _| {}) == 0 {
            looks += 1;
            if looks.is_multiple_of(1 << 20) {
                // The first frame may be too early for the other side.
                send(&mut queue, bytes);
                if begun.elapsed() > Duration::from_secs(5) {
                    let _ = child.kill();
                    return Err(format!("no answer in round {round}").into());
                }
            }
        }
        if round >= WARM_UP {
            took.push(begun.elapsed().as_nanos() as u64);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "{bytes} bytes, {rounds} rounds, microseconds: p50 {:.2}  p99 {:.2}  p99.9 {:.2}",
        at(0.5),
        at(0.99),
        at(0.999)
    );
    drop(queue);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The rate of an echo with so many frames under way. The link loses none while they fit its rings.
fn flow(queue: &mut DpdkQueue, rounds: usize, bytes: usize, under_way: usize) {
    let (mut sent, mut came, mut copy) = (0, 0, vec![0u8; 2048]);
    let mut begun = Instant::now();
    let mut last = begun;
    while came < rounds + WARM_UP {
        while sent < rounds + WARM_UP && sent - came < under_way {
            if queue.transmit(bytes, Offload::None, |frame| frame.copy_from_slice(&copy[..bytes])).is_err() {
                break;
            }
            sent += 1;
        }
        queue.flush();
        let before = came;
        queue.receive(BURST, &mut |frame, _| {
            copy[..frame.len()].copy_from_slice(frame);
            came += 1;
        });
        if before < WARM_UP && came >= WARM_UP {
            begun = Instant::now();
        }
        if came > before {
            last = Instant::now();
        } else if last.elapsed() > Duration::from_millis(100) {
            // The first frames may be too early for the other side.
            sent = came;
        }
    }
    let rate = rounds as f64 / begun.elapsed().as_secs_f64();
    let gigabits = rate * bytes as f64 * 8.0 / 1e9;
    println!("{bytes} bytes, {under_way} under way: {rate:.0} echoes/s, {gigabits:.2} Gb/s each way");
}

fn echo(socket: &str) -> Result<(), Error> {
    let mut queue = open(socket.as_ref(), MemifRole::Client)?;
    let (mut copy, mut lens) = (vec![[0u8; 2048]; BURST], Vec::with_capacity(BURST));
    loop {
        queue.receive(BURST, &mut |frame, _| {
            copy[lens.len()][..frame.len()].copy_from_slice(frame);
            lens.push(frame.len());
        });
        for (len, bytes) in lens.drain(..).zip(&copy) {
            while queue.transmit(len, Offload::None, |frame| frame.copy_from_slice(&bytes[..len])).is_err() {}
        }
        queue.flush();
    }
}

fn open(socket: &std::path::Path, role: MemifRole) -> Result<DpdkQueue, Error> {
    let eal = EalConfig::unprivileged(&format!("memif-ping-{}", std::process::id()));
    let mut nic = dpdk::open(&PortConfig::new(Device::Memif(Memif::new(socket, role))), &eal)?;
    pin(if role == MemifRole::Server { 0 } else { 1 });
    Ok(nic.queues.remove(0))
}

fn send(queue: &mut DpdkQueue, bytes: usize) {
    let _ = queue.transmit(bytes, Offload::None, |frame| frame.fill(0x5a));
    queue.flush();
}

/// A core of one's own, where there are two: the figures are about the path, not about the scheduler.
fn pin(core: usize) {
    // SAFETY: all bits zero is an empty set; the index is below its size; the set lives through the call.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cpus);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cpus);
    }
}

/// Most frames at once.
const BURST: usize = 32;
/// Most frames under way: what the rings of both directions hold.
const WINDOW: usize = 256;
/// Rounds that are not counted.
const WARM_UP: usize = 10_000;

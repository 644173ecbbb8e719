//! A simulated network in virtual time: many hosts, several queues each, faults from a seed.
//!
//! The same seed and the same calls give the same run. Frames go from host to host by MAC, or to all by broadcast;
//! a secret-key Toeplitz hash chooses the receive queue; a full receive ring drops and counts.

use crate::toeplitz::split_mix;
use crate::{Full, Info, Mac, Offload, Queue, RxChecksum, Stats, Toeplitz};
use machnet_wire::{Nanos, checksum, frame};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard};

/// A host's NIC.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its address.
    pub mac: Mac,
    /// The largest IP packet, bytes.
    pub mtu: u16,
    /// Queue pairs, 1 or more.
    pub queues: u16,
    /// Slots of each ring.
    pub descriptors: u16,
    /// Whether the NIC says that it computes and verifies checksums. What is on the wire is complete either way.
    pub checksums: bool,
}

impl Host {
    /// One queue of 256 descriptors, an MTU of 1500, no checksum offload; the MAC is made of `n`.
    pub fn new(n: u8) -> Host {
        Host { mac: Mac([2, 0, 0, 0, 0, n]), mtu: 1500, queues: 1, descriptors: 256, checksums: false }
    }
}

/// What a link does to frames. Chances are 0.0 to 1.0 for each frame.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Chance of loss.
    pub loss: f64,
    /// Chance that a frame comes twice.
    pub duplicate: f64,
    /// Chance that a frame is held back, by up to eight delays, and so overtaken.
    pub reorder: f64,
    /// Chance that one bit is flipped.
    pub corrupt: f64,
    /// Time from end to end.
    pub delay: Nanos,
    /// Beside it a random time up to this.
    pub jitter: Nanos,
    /// Bits a second that a host can send; 0 is without bound.
    pub rate: u64,
}

impl Default for Link {
    /// 10 us and no fault.
    fn default() -> Link {
        Link { loss: 0.0, duplicate: 0.0, reorder: 0.0, corrupt: 0.0, delay: Nanos::micros(10), jitter: Nanos::ZERO, rate: 0 }
    }
}

/// The network. Clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    seed: u64,
    rng: u64,
    now: Nanos,
    hosts: Vec<HostState>,
    link: Link,
    links: HashMap<(usize, usize), Link>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    sent: u64,
    trace: VecDeque<Event>,
}

struct HostState {
    mac: Mac,
    queues: u16,
    descriptors: u16,
    hash: Toeplitz,
    rings: Vec<VecDeque<Vec<u8>>>,
    missed: Vec<u64>,
    /// When the host's wire is free again.
    free_at: Nanos,
    stolen_until: Nanos,
}

/// A frame under way, ordered by arrival, then by departure.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Nanos,
    number: u64,
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

/// One line of the trace.
struct Event {
    at: Nanos,
    from: usize,
    to: usize,
    what: &'static str,
    frame: Vec<u8>,
}

/// Frames that the trace remembers, and bytes of each.
const TRACE: usize = 200;
const TRACE_BYTES: usize = 96;

impl Net {
    /// An empty network. Everything random in it comes from the seed.
    pub fn new(seed: u64) -> Net {
        let state = State {
            seed,
            rng: seed,
            now: Nanos::ZERO,
            hosts: Vec::new(),
            link: Link::default(),
            links: HashMap::new(),
            in_flight: BinaryHeap::new(),
            sent: 0,
            trace: VecDeque::new(),
        };
        Net(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panicking test poisons it; the state is still good enough for the trace.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a host; its queues in order. Hosts are numbered from 0.
    pub fn add_host(&self, host: Host) -> Vec<SimQueue> {
        let mut state = self.state();
        let number = state.hosts.len();
        let key = split_mix(&mut state.rng);
        state.hosts.push(HostState {
            mac: host.mac,
            queues: host.queues,
            descriptors: host.descriptors,
            hash: Toeplitz::secret(key),
            rings: vec![VecDeque::new(); host.queues.into()],
            missed: vec![0; host.queues.into()],
            free_at: Nanos::ZERO,
            stolen_until: Nanos::ZERO,
        });
        (0..host.queues)
            .map(|index| SimQueue {
                net: self.clone(),
                host: number,
                info: Info {
                    mac: host.mac,
                    mtu: host.mtu,
                    queues: host.queues,
                    index,
                    descriptors: host.descriptors,
                    driver: "simulated".into(),
                    tx_checksum: host.checksums,
                    rx_checksum: host.checksums,
                    interrupts: false,
                },
                staged: Vec::new(),
                taken: Vec::new(),
                spare: Vec::new(),
                stats: Stats::default(),
            })
            .collect()
    }

    /// Sets every link that has no setting of its own.
    pub fn set_link(&self, link: Link) {
        self.state().link = link;
    }

    /// Sets the way from one host to another.
    pub fn set_way(&self, from: usize, to: usize, link: Link) {
        self.state().links.insert((from, to), link);
    }

    /// Moves the clock on; it never goes back.
    pub fn set_now(&self, now: Nanos) {
        let mut state = self.state();
        state.now = state.now.max(now);
        state.arrive();
    }

    /// The clock.
    pub fn now(&self) -> Nanos {
        self.state().now
    }

    /// When the next frame arrives somewhere.
    pub fn next_event(&self) -> Option<Nanos> {
        self.state().in_flight.peek().map(|Reverse(frame)| frame.at)
    }

    /// Takes a host's processor away until `until`: whoever drives it asks [`Net::is_stolen`] first. Frames go on
    /// arriving in its rings.
    pub fn steal(&self, host: usize, until: Nanos) {
        self.state().hosts[host].stolen_until = until;
    }

    /// Whether a host has no processor now.
    pub fn is_stolen(&self, host: usize) -> bool {
        let state = self.state();
        state.now < state.hosts[host].stolen_until
    }

    /// The last 200 frames, a line each, for a test that failed.
    pub fn trace(&self) -> String {
        let state = self.state();
        let mut out = format!("seed {}, now {} ns, the last frames:\n", state.seed, state.now.0);
        for e in &state.trace {
            let _ = writeln!(out, "{:>12} {} -> {} {:<9} {}", e.at.0, e.from, e.to, e.what, describe(&e.frame));
        }
        out
    }
}

/// A frame in a line.
fn describe(bytes: &[u8]) -> String {
    // The trace keeps the first bytes only: go by offsets, not by the parser.
    const MACHNET: usize = frame::UDP_HEADERS;
    if bytes.len() < MACHNET + 48 {
        return format!("{} bytes", bytes.len());
    }
    let m = &bytes[MACHNET..];
    let word = |at: usize| u32::from_be_bytes([m[at], m[at + 1], m[at + 2], m[at + 3]]);
    let port = |at: usize| u16::from_be_bytes([m[at], m[at + 1]]);
    format!(
        "kind {} flags {:#04x} {} > {} tag {:08x} unit {} tx {} ack {} credit {}",
        m[1], m[2], port(4), port(6), word(8), word(12), word(16), word(20), port(28)
    )
}

impl State {
    /// True with the given chance.
    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && (split_mix(&mut self.rng) >> 11) as f64 / (1u64 << 53) as f64 <= p
    }

    fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { split_mix(&mut self.rng) % n }
    }

    fn note(&mut self, from: usize, to: usize, what: &'static str, frame: &[u8]) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let frame = frame[..frame.len().min(TRACE_BYTES)].to_vec();
        self.trace.push_back(Event { at: self.now, from, to, what, frame });
    }

    fn send(&mut self, from: usize, frame: Vec<u8>) {
        let dst = Mac([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]]);
        let to: Vec<usize> = (0..self.hosts.len())
            .filter(|&host| host != from && (dst.is_multicast() || self.hosts[host].mac == dst))
            .collect();
        let Some((&last, others)) = to.split_last() else {
            self.note(from, from, "nowhere", &frame);
            return;
        };
        for &host in others {
            self.send_to(from, host, frame.clone());
        }
        self.send_to(from, last, frame);
    }

    fn send_to(&mut self, from: usize, to: usize, mut frame: Vec<u8>) {
        let link = *self.links.get(&(from, to)).unwrap_or(&self.link);
        let mut leaves = self.now;
        if link.rate > 0 {
            // Preamble, checksum and gap of Ethernet are 24 bytes (IEEE 802.3).
            let took = Nanos((frame.len() as u64 + 24) * 8 * 1_000_000_000 / link.rate);
            leaves = self.hosts[from].free_at.max(self.now) + took;
            self.hosts[from].free_at = leaves;
        }
        if self.chance(link.loss) {
            self.note(from, to, "lost", &frame);
            return;
        }
        if self.chance(link.corrupt) {
            let bit = self.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
            self.note(from, to, "corrupted", &frame);
        }
        let copies = if self.chance(link.duplicate) { 2 } else { 1 };
        for copy in 0..copies {
            let mut at = leaves + link.delay + Nanos(self.below(link.jitter.0));
            if self.chance(link.reorder) {
                at += Nanos(self.below(8 * link.delay.0.max(1000)));
            }
            self.note(from, to, if copy == 0 { "sent" } else { "twice" }, &frame);
            self.sent += 1;
            self.in_flight.push(Reverse(InFlight { at, number: self.sent, from, to, frame: frame.clone() }));
        }
    }

    /// Puts what has arrived by now into the receive rings.
    fn arrive(&mut self) {
        while self.in_flight.peek().is_some_and(|Reverse(frame)| frame.at <= self.now) {
            let Some(Reverse(InFlight { from, to, frame, .. })) = self.in_flight.pop() else { return };
            let host = &mut self.hosts[to];
            let queue = usize::from(host.hash.queue(&frame, host.queues));
            if host.rings[queue].len() >= usize::from(host.descriptors) {
                host.missed[queue] += 1;
                self.note(from, to, "overrun", &frame);
            } else {
                host.rings[queue].push_back(frame);
            }
        }
    }
}

/// One queue pair of a simulated NIC.
pub struct SimQueue {
    net: Net,
    host: usize,
    info: Info,
    staged: Vec<Vec<u8>>,
    taken: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    stats: Stats,
}

impl SimQueue {
    /// The network that this queue is on.
    pub fn net(&self) -> &Net {
        &self.net
    }
}

/// What the NIC says of a frame, if it looks.
fn verify(bytes: &[u8]) -> RxChecksum {
    match frame::parse(bytes) {
        Ok(frame::Frame::Udp { ip, datagram, .. }) if checksum::udp4_valid(&ip, datagram) => RxChecksum::Good,
        Ok(frame::Frame::Udp { .. }) => RxChecksum::Bad,
        _ => RxChecksum::Unknown,
    }
}

impl Queue for SimQueue {
    fn info(&self) -> &Info {
        &self.info
    }

    fn receive(&mut self, budget: usize, each: &mut impl FnMut(&[u8], RxChecksum)) -> usize {
        {
            let mut state = self.net.state();
            state.arrive();
            let ring = &mut state.hosts[self.host].rings[usize::from(self.info.index)];
            let n = budget.min(ring.len());
            self.taken.extend(ring.drain(..n));
        }
        let n = self.taken.len();
        for frame in self.taken.drain(..) {
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += frame.len() as u64;
            each(&frame, if self.info.rx_checksum { verify(&frame) } else { RxChecksum::Unknown });
            if self.spare.len() < usize::from(self.info.descriptors) {
                self.spare.push(frame);
            }
        }
        n
    }

    fn transmit(&mut self, len: usize, offload: Offload, fill: impl FnOnce(&mut [u8])) -> Result<(), Full> {
        if self.staged.len() >= usize::from(self.info.descriptors) {
            self.stats.tx_full += 1;
            return Err(Full);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(len, 0);
        fill(&mut bytes);
        if offload == Offload::Udp4 {
            checksum::udp4(&mut bytes);
        }
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += len as u64;
        self.staged.push(bytes);
        Ok(())
    }

    fn flush(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut state = self.net.state();
        for frame in self.staged.drain(..) {
            state.send(self.host, frame);
        }
    }

    fn backlog(&mut self) -> u16 {
        self.net.state().hosts[self.host].rings[usize::from(self.info.index)].len() as u16
    }

    fn stats(&self) -> Stats {
        Stats { rx_missed: self.net.state().hosts[self.host].missed[usize::from(self.info.index)], ..self.stats }
    }

    fn arm_interrupt(&mut self) -> Option<i32> {
        None
    }

    fn disarm_interrupt(&mut self) {}
}

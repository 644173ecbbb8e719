//! The network's state: hosts, links, and frames on their way.

use super::dice::Dice;
use super::link::{Egress, Fate, Link, Lose, Steal, SwitchPort, Wire};
use super::trace::{Happening, Trace};
use super::{Counts, Host};
use crate::{Mac, PortCounters, Toeplitz};
use machnet_wire::{Nanos, ether};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

pub(crate) struct Fabric {
    seed: u64,
    now: Nanos,
    hosts: Vec<Nic>,
    by_mac: BTreeMap<[u8; 6], usize>,
    wires: BTreeMap<(usize, usize), Wire>,
    /// What a link is that nobody set.
    link: Link,
    /// Arrival, order of departure (so that equal times keep their order), place in `slots`.
    arrivals: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    slots: Vec<Flying>,
    free_slots: Vec<usize>,
    departures: u64,
    /// Buffers of frames that have ended.
    spare: Vec<Vec<u8>>,
    counts: Counts,
    trace: Trace,
    /// Hosts whose rings got frames since this was last asked for.
    woken: Vec<usize>,
}

/// A copy on its way.
struct Flying {
    from: usize,
    to: usize,
    /// It has left the port to its host, or there is none.
    passed: bool,
    frame: Vec<u8>,
}

/// A host's NIC.
struct Nic {
    host: Host,
    hash: Toeplitz,
    queues: Vec<RxQueue>,
    counters: NicCounters,
    dice: Dice,
    egress: Option<Egress>,
    woken: bool,
    stolen_until: Nanos,
    steal: Option<Steal>,
    /// When the next theft begins.
    steal_at: Nanos,
}

/// What a NIC counts, all queues together.
#[derive(Clone, Copy, Default)]
struct NicCounters {
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
    /// Frames longer than it takes, not sent.
    too_long: u64,
    /// Frames for another address or too long, not received.
    refused: u64,
}

/// A receive queue: the ring of frames that wait, and its interrupt.
struct RxQueue {
    frames: VecDeque<Vec<u8>>,
    missed: u64,
    bell: Option<Bell>,
}

/// A receive interrupt: a pipe that holds one byte while it is raised.
struct Bell {
    reader: PipeReader,
    writer: PipeWriter,
    armed: bool,
    raised: bool,
}

impl Fabric {
    pub fn new(seed: u64) -> Fabric {
        Fabric {
            seed,
            now: Nanos::ZERO,
            hosts: Vec::new(),
            by_mac: BTreeMap::new(),
            wires: BTreeMap::new(),
            link: Link::default(),
            arrivals: BinaryHeap::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
            departures: 0,
            spare: Vec::new(),
            counts: Counts::default(),
            trace: Trace::default(),
            woken: Vec::new(),
        }
    }

    pub fn add_host(&mut self, host: Host) -> usize {
        let id = self.hosts.len();
        let before = self.by_mac.insert(host.mac.0, id);
        assert!(before.is_none(), "host address {} is taken", host.mac);
        // Streams of hosts and links never meet: links are numbered above 2^32.
        let mut dice = Dice::new(self.seed, id as u64);
        let hash = Toeplitz::secret(dice.draw());
        let queues = (0..host.queues).map(|_| RxQueue::new(&host)).collect();
        self.hosts.push(Nic {
            host,
            hash,
            queues,
            counters: NicCounters::default(),
            dice,
            egress: None,
            woken: false,
            stolen_until: Nanos::ZERO,
            steal: None,
            steal_at: Nanos::MAX,
        });
        id
    }

    pub fn now(&self) -> Nanos {
        self.now
    }

    pub fn set_now(&mut self, now: Nanos) {
        while let Some(at) = self.arrivals.peek().map(|Reverse((at, ..))| *at).filter(|at| *at <= now) {
            self.now = self.now.max(at);
            self.arrive();
        }
        self.now = self.now.max(now);
        let now = self.now;
        self.hosts.iter_mut().for_each(|nic| nic.thieve(now));
    }

    pub fn next_event(&self) -> Option<Nanos> {
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let back = self
            .hosts
            .iter()
            .filter(|nic| nic.stolen_until > self.now && nic.queues.iter().any(|q| !q.frames.is_empty()))
            .map(|nic| nic.stolen_until);
        arrival.into_iter().chain(back).min()
    }

    pub fn set_link(&mut self, from: usize, to: usize, link: Link) {
        self.wire(from, to).link = link;
    }

    pub fn set_links(&mut self, link: Link) {
        self.link = link;
        self.wires.values_mut().for_each(|wire| wire.link = link);
    }

    pub fn lose_if(&mut self, from: usize, to: usize, lose: Lose) {
        self.wire(from, to).lose = Some(lose);
    }

    pub fn set_port(&mut self, host: usize, port: Option<SwitchPort>) {
        self.hosts[host].egress = port.map(Egress::new);
    }

    pub fn port_wait(&self, host: usize) -> Nanos {
        self.hosts[host].egress.as_ref().map_or(Nanos::ZERO, |egress| egress.wait(self.now))
    }

    pub fn take_woken(&mut self, out: &mut Vec<usize>) {
        for &host in &self.woken {
            self.hosts[host].woken = false;
        }
        out.append(&mut self.woken);
    }

    pub fn steal(&mut self, host: usize, length: Nanos) {
        let nic = &mut self.hosts[host];
        nic.stolen_until = nic.stolen_until.max(self.now + length);
    }

    pub fn set_steal(&mut self, host: usize, steal: Option<Steal>) {
        let now = self.now;
        let nic = &mut self.hosts[host];
        nic.steal = steal;
        nic.steal_at = Nanos::MAX;
        if let Some(steal) = steal {
            nic.steal_at = now + Nanos(1 + nic.dice.below(2 * steal.every.0));
        }
    }

    pub fn stolen_until(&self, host: usize) -> Option<Nanos> {
        Some(self.hosts[host].stolen_until).filter(|until| *until > self.now)
    }

    pub fn rekey(&mut self, host: usize) {
        let nic = &mut self.hosts[host];
        nic.hash = Toeplitz::secret(nic.dice.draw());
    }

    pub fn inject(&mut self, host: usize, frame: &[u8]) {
        self.counts.copies += 1;
        let copy = self.copy_of(frame);
        self.put(None, host, copy);
    }

    pub fn counts(&self) -> Counts {
        Counts { in_flight: self.arrivals.len() as u64, ..self.counts }
    }

    pub fn trace_text(&self) -> String {
        format!("network of seed {} at {} ns\n{}", self.seed, self.now.0, self.trace)
    }

    /// Sends a frame from a host. False: it is longer than the NIC takes, and gone.
    pub fn send(&mut self, from: usize, frame: &[u8]) -> bool {
        if frame.len() > self.hosts[from].longest() || frame.len() < ether::LEN {
            self.trace.push(self.now, Some(from), None, Happening::TooLong, frame);
            self.hosts[from].counters.too_long += 1;
            return false;
        }
        self.hosts[from].counters.tx_frames += 1;
        self.hosts[from].counters.tx_bytes += frame.len() as u64;
        self.counts.sent += 1;
        let mut dst = [0; 6];
        dst.copy_from_slice(&frame[..6]);
        if Mac(dst).is_multicast() {
            self.trace.push(self.now, Some(from), None, Happening::Sent, frame);
            for to in 0..self.hosts.len() {
                if to != from {
                    self.send_to(from, to, frame);
                }
            }
        } else {
            match self.by_mac.get(&dst).copied().filter(|to| *to != from) {
                Some(to) => {
                    self.trace.push(self.now, Some(from), Some(to), Happening::Sent, frame);
                    self.send_to(from, to, frame);
                }
                None => {
                    self.counts.no_such_host += 1;
                    self.trace.push(self.now, Some(from), None, Happening::NoSuchHost, frame);
                }
            }
        }
        true
    }

    /// Lets arrive what is due at this very moment: after a burst was sent over links without delay.
    pub fn settle(&mut self) {
        self.set_now(self.now);
    }

    fn send_to(&mut self, from: usize, to: usize, frame: &[u8]) {
        self.launch(from, to, frame);
        let wire = self.wire(from, to);
        if wire.dice.chance(wire.link.duplication) {
            self.counts.duplicated += 1;
            self.trace.push(self.now, Some(from), Some(to), Happening::Duplicated, frame);
            self.launch(from, to, frame);
        }
    }

    /// Puts one copy on the link.
    fn launch(&mut self, from: usize, to: usize, frame: &[u8]) {
        self.counts.copies += 1;
        // A host whose vCPU is away sends when it is back.
        let leaves = self.now.max(self.hosts[from].stolen_until);
        let now = self.now;
        let mut copy = self.copy_of(frame);
        let wire = self.wire(from, to);
        match wire.send(leaves, frame) {
            Fate::Lost => {
                self.counts.lost += 1;
                self.trace.push(now, Some(from), Some(to), Happening::Lost, frame);
                self.spare.push(copy);
            }
            Fate::QueueFull => {
                self.counts.queue_full += 1;
                self.trace.push(now, Some(from), Some(to), Happening::QueueFull, frame);
                self.spare.push(copy);
            }
            Fate::Arrives { at, held_back } => {
                if wire.corrupt(&mut copy) {
                    self.counts.corrupted += 1;
                    self.trace.push(now, Some(from), Some(to), Happening::Corrupted, &copy);
                }
                if held_back {
                    self.counts.reordered += 1;
                    self.trace.push(now, Some(from), Some(to), Happening::HeldBack, frame);
                }
                self.fly(at, Flying { from, to, passed: self.hosts[to].egress.is_none(), frame: copy });
            }
        }
    }

    fn fly(&mut self, at: Nanos, flying: Flying) {
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                self.slots[slot] = flying;
                slot
            }
            None => {
                self.slots.push(flying);
                self.slots.len() - 1
            }
        };
        self.departures += 1;
        self.arrivals.push(Reverse((at, self.departures, slot)));
    }

    /// The first copy on its way arrives: at the port to its host, or there.
    fn arrive(&mut self) {
        let Some(Reverse((now, _, slot))) = self.arrivals.pop() else { return };
        self.free_slots.push(slot);
        let flying = &mut self.slots[slot];
        let (from, to, passed) = (flying.from, flying.to, flying.passed);
        let frame = std::mem::take(&mut flying.frame);
        if let Some(egress) = self.hosts[to].egress.as_mut().filter(|_| !passed) {
            match egress.pass(now, frame.len()) {
                Some(at) => self.fly(at, Flying { from, to, passed: true, frame }),
                None => {
                    self.counts.queue_full += 1;
                    self.trace.push(now, Some(from), Some(to), Happening::QueueFull, &frame);
                    self.spare.push(frame);
                }
            }
            return;
        }
        // A flipped bit may have made the address another's.
        if frame[0] & 1 == 0 && frame[..6] != self.hosts[to].host.mac.0 {
            return self.refuse(Some(from), to, frame);
        }
        self.put(Some(from), to, frame);
    }

    /// Puts a copy into the ring that the hash chooses.
    fn put(&mut self, from: Option<usize>, to: usize, frame: Vec<u8>) {
        if frame.len() > self.hosts[to].longest() {
            return self.refuse(from, to, frame);
        }
        let nic = &mut self.hosts[to];
        let index = nic.queue(&frame);
        let queue = &mut nic.queues[usize::from(index)];
        if queue.frames.len() >= usize::from(nic.host.descriptors) {
            queue.missed += 1;
            self.counts.missed += 1;
            self.trace.push(self.now, from, Some(to), Happening::Missed { queue: index }, &frame);
            self.spare.push(frame);
            return;
        }
        self.counts.delivered += 1;
        self.trace.push(self.now, from, Some(to), Happening::Delivered { queue: index }, &frame);
        nic.counters.rx_frames += 1;
        nic.counters.rx_bytes += frame.len() as u64;
        queue.frames.push_back(frame);
        queue.wake();
        if !nic.woken {
            nic.woken = true;
            self.woken.push(to);
        }
    }

    fn refuse(&mut self, from: Option<usize>, to: usize, frame: Vec<u8>) {
        self.counts.refused += 1;
        self.hosts[to].counters.refused += 1;
        self.trace.push(self.now, from, Some(to), Happening::Refused, &frame);
        self.spare.push(frame);
    }

    fn wire(&mut self, from: usize, to: usize) -> &mut Wire {
        let (seed, link) = (self.seed, self.link);
        self.wires
            .entry((from, to))
            .or_insert_with(|| Wire::new(link, Dice::new(seed, (from as u64 + 1) << 32 | to as u64)))
    }

    fn copy_of(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        copy
    }

    /// Moves up to `budget` frames out of a ring.
    pub fn take(&mut self, host: usize, queue: u16, budget: usize, out: &mut Vec<Vec<u8>>) {
        if self.stolen_until(host).is_some() {
            return;
        }
        let frames = &mut self.hosts[host].queues[usize::from(queue)].frames;
        let n = frames.len().min(budget);
        out.extend(frames.drain(..n));
    }

    /// Takes back buffers that [`Fabric::take`] gave.
    pub fn give_back(&mut self, frames: &mut Vec<Vec<u8>>) {
        self.spare.append(frames);
    }

    pub fn backlog(&self, host: usize, queue: u16) -> usize {
        self.hosts[host].queues[usize::from(queue)].frames.len()
    }

    /// Frames that found a queue's ring full.
    pub fn missed(&self, host: usize, queue: u16) -> u64 {
        self.hosts[host].queues[usize::from(queue)].missed
    }

    /// What a host's NIC has counted. It has no link that could be lost, and never lacks a buffer.
    pub fn counters(&self, host: usize) -> PortCounters {
        let nic = &self.hosts[host];
        let NicCounters { rx_frames, rx_bytes, tx_frames, tx_bytes, too_long, refused } = nic.counters;
        PortCounters {
            rx_frames: Some(rx_frames),
            tx_frames: Some(tx_frames),
            rx_bytes: Some(rx_bytes),
            tx_bytes: Some(tx_bytes),
            rx_missed: Some(nic.queues.iter().map(|queue| queue.missed).sum()),
            rx_errors: Some(refused),
            tx_errors: Some(too_long),
            ..PortCounters::default()
        }
    }

    pub fn arm(&mut self, host: usize, queue: u16) -> Option<i32> {
        let queue = &mut self.hosts[host].queues[usize::from(queue)];
        let bell = queue.bell.as_mut()?;
        bell.armed = true;
        let descriptor = bell.reader.as_raw_fd();
        if !queue.frames.is_empty() {
            queue.wake();
        }
        Some(descriptor)
    }

    pub fn disarm(&mut self, host: usize, queue: u16) {
        if let Some(bell) = &mut self.hosts[host].queues[usize::from(queue)].bell {
            bell.armed = false;
            if std::mem::take(&mut bell.raised) {
                // One byte is in the pipe: this cannot block.
                let _ = bell.reader.read(&mut [0]);
            }
        }
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace_text());
        }
    }
}

impl Nic {
    /// The longest frame, bytes.
    fn longest(&self) -> usize {
        ether::LEN + usize::from(self.host.mtu)
    }

    fn queue(&self, frame: &[u8]) -> u16 {
        if self.host.hash_ports || frame.len() < 42 || self.host.queues == 1 {
            return self.hash.queue(frame, self.host.queues);
        }
        let ip = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
        (self.hash.hash(ip(26), ip(30), 0, 0) % 128) as u16 % self.host.queues
    }

    /// Begins the thefts that are due.
    fn thieve(&mut self, now: Nanos) {
        let Some(steal) = self.steal else { return };
        while self.steal_at <= now {
            let end = self.steal_at + steal.length;
            self.stolen_until = self.stolen_until.max(end);
            self.steal_at = end + Nanos(1 + self.dice.below(2 * steal.every.0));
        }
    }
}

impl RxQueue {
    fn new(host: &Host) -> RxQueue {
        let bell = host.interrupts.then(|| {
            let (reader, writer) = std::io::pipe().expect("a pipe for a simulated interrupt");
            Bell { reader, writer, armed: false, raised: false }
        });
        RxQueue { frames: VecDeque::new(), missed: 0, bell }
    }

    fn wake(&mut self) {
        if let Some(bell) = self.bell.as_mut().filter(|bell| bell.armed && !bell.raised) {
            bell.raised = bell.writer.write(&[1]).is_ok();
        }
    }
}

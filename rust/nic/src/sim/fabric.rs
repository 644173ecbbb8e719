//! The network's state: hosts, links, and frames on their way.

use super::dice::Dice;
use super::link::{Duty, Egress, Fate, Link, Lose, Steal, SwitchPort, Wire};
use super::nic::{Away, Nic};
use super::relay::{Passing, Relay};
use super::trace::{Happening, Trace};
use super::{Counts, Host};
use crate::{Mac, PortState};
use machnet_wire::Nanos;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub(crate) struct Fabric {
    seed: u64,
    now: Nanos,
    hosts: Vec<AtPort>,
    by_mac: BTreeMap<[u8; 6], usize>,
    wires: BTreeMap<(usize, usize), Wire>,
    relays: Vec<Passing>,
    /// Until when each core is busy.
    cores: Vec<Nanos>,
    /// The link between hosts for which none was set.
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
    /// The relay that has to send it yet.
    relay: Option<usize>,
    /// It has left the port to its host, or there is none.
    passed: bool,
    frame: Vec<u8>,
}

/// A host, and the switch's port before it.
struct AtPort {
    nic: Nic,
    egress: Option<Egress>,
    /// It is in `woken`.
    woken: bool,
}

impl Fabric {
    pub fn new(seed: u64) -> Fabric {
        Fabric {
            seed,
            now: Nanos::ZERO,
            hosts: Vec::new(),
            by_mac: BTreeMap::new(),
            wires: BTreeMap::new(),
            relays: Vec::new(),
            cores: Vec::new(),
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
        let nic = Nic::new(host, Dice::new(self.seed, id as u64));
        self.hosts.push(AtPort { nic, egress: None, woken: false });
        id
    }

    pub fn add_relay(&mut self, relay: Relay) -> usize {
        // Its stream is none of a host's or a link's.
        let number = self.relays.len();
        self.relays.push(Passing::new(relay, Dice::new(self.seed, 1 << 63 | number as u64)));
        number
    }

    pub fn add_core(&mut self) -> usize {
        self.cores.push(Nanos::ZERO);
        self.cores.len() - 1
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    pub fn core_busy(&self, core: usize) -> Nanos {
        self.cores[core]
    }

    pub fn occupy(&mut self, core: usize, until: Nanos) {
        let busy_until = &mut self.cores[core];
        *busy_until = until.max(*busy_until);
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
        self.hosts.iter_mut().for_each(|host| host.nic.begin_steals(now));
    }

    pub fn next_event(&self) -> Option<Nanos> {
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let back = self
            .hosts
            .iter()
            .filter(|host| host.nic.has_frames())
            .filter_map(|host| host.nic.stolen_until(self.now));
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
        self.hosts[host].nic.steal(self.now + length);
    }

    pub fn set_steal(&mut self, host: usize, steal: Option<Steal>) {
        self.hosts[host].nic.set_steal(self.now, steal);
    }

    pub fn set_duty(&mut self, host: usize, duty: Option<Duty>) {
        self.hosts[host].nic.set_duty(self.now, duty);
    }

    pub fn stolen_until(&self, host: usize) -> Option<Nanos> {
        self.hosts[host].nic.stolen_until(self.now)
    }

    pub fn put_away(&mut self, host: usize, length: Nanos, why: Away) {
        self.hosts[host].nic.put_away(self.now + length, why);
    }

    pub fn state(&self, host: usize) -> PortState {
        self.hosts[host].nic.state(self.now)
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
        if !self.hosts[from].nic.sends(frame) {
            self.trace.push(self.now, Some(from), None, Happening::TooLong, frame);
            return false;
        }
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

    /// Delivers what is due now: what was just sent over links without delay.
    pub fn deliver_due(&mut self) {
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
        let leaves = self.stolen_until(from).unwrap_or(self.now);
        let now = self.now;
        let mut copy = self.copy_of(frame);
        let (seed, link) = (self.seed, self.link);
        let (relays, cores) = (&mut self.relays, &mut self.cores);
        let wire = wire(&mut self.wires, seed, link, from, to);
        match wire.send(leaves, frame, |relay, at| relays[relay].take(at, cores)) {
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
                let relay = wire.link.relay;
                let passed = self.hosts[to].egress.is_none();
                self.fly(at, Flying { from, to, relay, passed, frame: copy });
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
        if let Some(relay) = flying.relay {
            let at = self.relays[relay].send(now, &mut self.cores);
            return self.fly(at, Flying { from, to, relay: None, passed, frame });
        }
        if let Some(egress) = self.hosts[to].egress.as_mut().filter(|_| !passed) {
            match egress.pass(now, frame.len()) {
                Some(at) => self.fly(at, Flying { from, to, relay: None, passed: true, frame }),
                None => {
                    self.counts.queue_full += 1;
                    self.trace.push(now, Some(from), Some(to), Happening::QueueFull, &frame);
                    self.spare.push(frame);
                }
            }
            return;
        }
        // A flipped bit may have made the address another's.
        if !self.hosts[to].nic.is_for(&frame) {
            return self.refuse(Some(from), to, frame);
        }
        self.put(Some(from), to, frame);
    }

    /// Gives a copy to a host's NIC.
    fn put(&mut self, from: Option<usize>, to: usize, frame: Vec<u8>) {
        if self.state(to) != PortState::Up {
            self.counts.away += 1;
            self.trace.push(self.now, from, Some(to), Happening::Away, &frame);
            self.spare.push(frame);
            return;
        }
        let host = &mut self.hosts[to];
        if frame.len() > host.nic.longest() {
            return self.refuse(from, to, frame);
        }
        let queue = host.nic.queue(&frame);
        if !host.nic.admits(queue) {
            self.counts.missed += 1;
            self.trace.push(self.now, from, Some(to), Happening::Missed { queue }, &frame);
            self.spare.push(frame);
            return;
        }
        self.counts.delivered += 1;
        self.trace.push(self.now, from, Some(to), Happening::Delivered { queue }, &frame);
        host.nic.put(queue, frame);
        if !host.woken {
            host.woken = true;
            self.woken.push(to);
        }
    }

    fn refuse(&mut self, from: Option<usize>, to: usize, frame: Vec<u8>) {
        self.counts.refused += 1;
        self.hosts[to].nic.count_refused();
        self.trace.push(self.now, from, Some(to), Happening::Refused, &frame);
        self.spare.push(frame);
    }

    fn wire(&mut self, from: usize, to: usize) -> &mut Wire {
        wire(&mut self.wires, self.seed, self.link, from, to)
    }

    fn copy_of(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        copy
    }

    /// Moves up to `budget` frames out of a ring.
    pub fn take(&mut self, host: usize, queue: u16, budget: usize, out: &mut Vec<Vec<u8>>) {
        if self.stolen_until(host).is_none() {
            self.hosts[host].nic.take(queue, budget, out);
        }
    }

    /// Takes back buffers that [`Fabric::take`] gave.
    pub fn give_back(&mut self, frames: &mut Vec<Vec<u8>>) {
        self.spare.append(frames);
    }

    /// A host's NIC, for what concerns nobody else.
    pub fn nic(&mut self, host: usize) -> &mut Nic {
        &mut self.hosts[host].nic
    }
}

/// The wire from one host to another; a new one is `link`.
fn wire(
    wires: &mut BTreeMap<(usize, usize), Wire>,
    seed: u64,
    link: Link,
    from: usize,
    to: usize,
) -> &mut Wire {
    let new = || Wire::new(link, Dice::new(seed, (from as u64 + 1) << 32 | to as u64));
    wires.entry((from, to)).or_insert_with(new)
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace_text());
        }
    }
}

//! A simulated network: hosts with NICs, links with faults, all in virtual time and drawn from one seed.
//!
//! Whoever drives it owns the clock: run every engine until none has work, then [`Net::set_now`] to the earlier of
//! [`Net::next_event`] and the engines' own deadlines. With one thread the same seed gives the same run, bit for bit;
//! with several (engines on the real clock) everything but the order of frames sent at once holds.
//!
//! A test that panics while it holds the network prints the seed and the last packets by itself.
#![forbid(unsafe_code)]

mod dice;
mod fabric;
mod link;
mod nic;
mod port;
mod queue;
mod relay;
mod trace;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use link::{Duty, Link, Shaper, Steal, SwitchPort, Tail};
pub use nic::Away;
pub use queue::SimQueue;
pub use relay::Relay;

use crate::{Info, Mac, Opened, PortCounters};
use fabric::Fabric;
use machnet_wire::Nanos;
use port::SimPort;

/// A host to be: one NIC. Hosts are numbered from 0 in the order in which they are added.
#[derive(Clone, Debug)]
pub struct Host {
    /// Address of its NIC, unicast and its own.
    pub mac: Mac,
    /// The largest IP packet, bytes; longer frames are dropped at either end.
    pub mtu: u16,
    /// Receive queues, 1 to 128.
    pub queues: u16,
    /// Descriptors of each receive and each transmit ring, 1 or more.
    pub descriptors: u16,
    /// Whether the NIC computes checksums of what is sent. The bytes on the wire are the same either way.
    pub tx_checksum: bool,
    /// Whether the NIC verifies checksums of what is received; else frames come as `RxChecksum::Unknown`.
    pub rx_checksum: bool,
    /// What the hash covers.
    pub hash: HashOver,
    /// Entries of the indirection table, 1 or more, filled with the queues in turn until [`Net::set_table`]. 128 is usual; NICs with
    /// 16, 64, 512 and more are about, and sizes that the number of queues does not divide.
    pub table: u16,
    /// Rules for UDP destination ports that the NIC has room for ([`crate::Queue::steer`]); 0: it cannot steer.
    pub steering: u16,
    /// Whether the queues can wake a sleeper. Only frames that arrive while somebody calls into the network do: in
    /// real time use links without delay.
    pub interrupts: bool,
}

/// What a NIC's hash covers, and so what decides on the queue of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashOver {
    /// IP addresses and UDP ports.
    Ports,
    /// IP addresses alone: all that a peer sends comes in on one queue.
    Addresses,
    /// Nothing: all that anybody sends comes in on queue 0.
    Nothing,
    /// Nothing, and each packet comes in on the next queue, as behind a bond that balances by packets.
    Turns,
}

impl Host {
    /// An ordinary cloud host: address 02:00:00:00:00:`n`, MTU 1500, one queue of 256 descriptors, no offloads, a hash over ports and
    /// a table of 128 entries, no steering.
    pub fn new(n: u8) -> Host {
        Host {
            mac: Mac([2, 0, 0, 0, 0, n]),
            mtu: 1500,
            queues: 1,
            descriptors: 256,
            tx_checksum: false,
            rx_checksum: false,
            hash: HashOver::Ports,
            table: 128,
            steering: 0,
            interrupts: false,
        }
    }

    /// The same with `queues` receive queues.
    pub fn queues(self, queues: u16) -> Host {
        Host { queues, ..self }
    }

    /// The same with checksum offload both ways.
    pub fn offload(self) -> Host {
        Host { tx_checksum: true, rx_checksum: true, ..self }
    }

    /// What each queue is told of the NIC.
    fn infos(&self) -> Vec<Info> {
        let info = |index| Info {
            mac: self.mac,
            mtu: self.mtu,
            queues: self.queues,
            index,
            descriptors: self.descriptors,
            tx_checksum: self.tx_checksum,
            rx_checksum: self.rx_checksum,
            interrupts: self.interrupts,
        };
        (0..self.queues).map(info).collect()
    }

    /// The indirection table of a NIC that was just opened.
    fn first_table(&self) -> Vec<u16> {
        (0..self.table).map(|entry| entry % self.queues).collect()
    }
}

/// What has become of frames so far, over the whole network. Every copy that a frame on its way makes (a broadcast
/// one for each receiver) is counted in `copies` and ends in exactly one of the six after `in_flight`, or is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Frames that queues gave to the network.
    pub sent: u64,
    /// Copies put on links, injected ones and duplicates included.
    pub copies: u64,
    /// Copies on their way.
    pub in_flight: u64,
    /// Copies put into a receive ring.
    pub delivered: u64,
    /// Copies lost by the link's dice or by a predicate.
    pub lost: u64,
    /// Copies dropped because too much waited for a link's, a shaper's or a port's rate.
    pub queue_full: u64,
    /// Copies that found the receive ring full.
    pub missed: u64,
    /// Copies that the NIC refused: another address since a bit flipped, or longer than its MTU.
    pub refused: u64,
    /// Copies that found the NIC out of operation ([`Net::put_away`]).
    pub away: u64,
    /// Extra copies made by duplication.
    pub duplicated: u64,
    /// Copies held back so that later ones overtake.
    pub reordered: u64,
    /// Copies damaged.
    pub corrupted: u64,
    /// Frames to an address that nobody has.
    pub no_such_host: u64,
}

/// The network. Clones are handles to the same one.
#[derive(Clone)]
pub struct Net {
    fabric: Arc<Mutex<Fabric>>,
}

impl Net {
    /// An empty network at time zero, every link a [`Link::default`].
    pub fn new(seed: u64) -> Net {
        Net { fabric: Arc::new(Mutex::new(Fabric::new(seed))) }
    }

    /// Adds a host and opens its NIC.
    ///
    /// # Panics
    /// If its address is taken or a group's, or if queues or descriptors are out of range: a fault of the test.
    pub fn open(&self, host: Host) -> Opened<SimQueue> {
        assert!(!host.mac.is_multicast(), "host address {} is a group's", host.mac);
        assert!((1..=128).contains(&host.queues), "{} queues, allowed are 1..=128", host.queues);
        assert!(host.descriptors > 0, "a ring of 0 descriptors");
        assert!(host.table > 0, "an indirection table of 0 entries");
        let infos = host.infos();
        let id = self.lock().add_host(host);
        let queues = infos.into_iter().map(|info| SimQueue::new(self.clone(), id, info)).collect();
        Opened { queues, port: Arc::new(SimPort { net: self.clone(), host: id }) }
    }

    /// Adds a host and gives its queues, in order: [`Net::open`] for tests that do not need the port.
    pub fn add_host(&self, host: Host) -> Vec<SimQueue> {
        self.open(host).queues
    }

    /// Opens a host's NIC anew, as a process does that starts in place of one that died: with empty rings, another key, the first table
    /// and no steered ports. The queues given before are to be used no more.
    pub fn reopen(&self, host: usize) -> Vec<SimQueue> {
        let infos = self.lock().nic(host).reopen();
        infos.into_iter().map(|info| SimQueue::new(self.clone(), host, info)).collect()
    }

    /// The time now.
    pub fn now(&self) -> Nanos {
        self.lock().now()
    }

    /// Moves the clock and lets everything arrive that is due by then. A time in the past changes nothing.
    pub fn set_now(&self, now: Nanos) {
        self.lock().set_now(now);
    }

    /// When the next frame arrives, or the vCPU of a host with waiting frames comes back; `None`: nothing is on its
    /// way. Frames that lie in a ring are no event: poll until nothing comes.
    pub fn next_event(&self) -> Option<Nanos> {
        self.lock().next_event()
    }

    /// Sets the link from one host to another, from now on.
    pub fn set_link(&self, from: usize, to: usize, link: Link) {
        self.lock().set_link(from, to, link);
    }

    /// Sets all links, those of hosts to come included.
    pub fn set_links(&self, link: Link) {
        self.lock().set_links(link);
    }

    /// Adds a relay; its number, for [`Link::relay`].
    pub fn add_relay(&self, relay: Relay) -> usize {
        self.lock().add_relay(relay)
    }

    /// Adds a processor core that relays and whoever drives the hosts share: its number, from 0. One thing is done on it at a time, and what
    /// comes first is done first.
    pub fn add_core(&self) -> usize {
        self.lock().add_core()
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.lock().cores()
    }

    /// Until when a core is busy.
    pub fn core_busy(&self, core: usize) -> Nanos {
        self.lock().core_busy(core)
    }

    /// Keeps a core busy until then.
    pub fn occupy(&self, core: usize, until: Nanos) {
        self.lock().occupy(core, until);
    }

    /// Puts a port with a rate of its own before a host, or takes it away; what is under way there goes on.
    pub fn set_port(&self, host: usize, port: Option<SwitchPort>) {
        self.lock().set_port(host, port);
    }

    /// How long a frame that reaches a host's port now waits there: the queueing delay.
    pub fn port_wait(&self, host: usize) -> Nanos {
        self.lock().port_wait(host)
    }

    /// Adds the hosts whose rings got frames since the last call: whose engines have work.
    pub fn take_woken(&self, out: &mut Vec<usize>) {
        self.lock().take_woken(out);
    }

    /// Loses the frames from one host to another for which `lose` says so, beside what the dice take. Replaces the
    /// predicate before.
    pub fn lose_if(&self, from: usize, to: usize, lose: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.lock().lose_if(from, to, Box::new(lose));
    }

    /// Loses the `n`-th frame (1 is the next one) from one host to another. Replaces the predicate before.
    pub fn lose_nth(&self, from: usize, to: usize, n: u64) {
        let mut seen = 0;
        self.lose_if(from, to, move |_| {
            seen += 1;
            seen == n
        });
    }

    /// Takes the vCPU from a host for `length` from now: its rings fill, `receive` gives nothing, what it sends
    /// leaves when the vCPU is back. Whoever drives the engines should not run them meanwhile: [`Net::stolen_until`].
    pub fn steal(&self, host: usize, length: Nanos) {
        self.lock().steal(host, length);
    }

    /// Takes the vCPU from a host at random times, repeatedly.
    pub fn set_steal(&self, host: usize, steal: Option<Steal>) {
        self.lock().set_steal(host, steal);
    }

    /// Has a host run and pause by turns, or no more.
    pub fn set_duty(&self, host: usize, duty: Option<Duty>) {
        self.lock().set_duty(host, duty);
    }

    /// When the host's vCPU is back, if it is away now.
    pub fn stolen_until(&self, host: usize) -> Option<Nanos> {
        self.lock().stolen_until(host)
    }

    /// Puts a host's NIC out of operation for `length` from now: what is in its rings is lost, what arrives or is sent meanwhile, too, and then it is
    /// back with another key and its first table. Engines do not notice but by that.
    pub fn put_away(&self, host: usize, length: Nanos, why: Away) {
        self.lock().put_away(host, length, why);
    }

    /// What a host's NIC has counted.
    pub fn port_counters(&self, host: usize) -> PortCounters {
        let mut fabric = self.lock();
        let now = fabric.now();
        fabric.nic(host).counters(now)
    }

    /// Draws another secret key for a host's NIC, as one does that starts again.
    pub fn rekey(&self, host: usize) {
        self.lock().nic(host).rekey();
    }

    /// Gives a host's NIC another indirection table, as an administrator or a failed-over NIC does while traffic goes on. Entry
    /// `hash % table.len()` is the queue.
    ///
    /// # Panics
    /// If it is empty or names a queue that the NIC does not have: a fault of the test.
    pub fn set_table(&self, host: usize, table: Vec<u16>) {
        self.lock().nic(host).set_table(table);
    }

    /// Has a host's NIC hash something else from now on.
    pub fn set_hash(&self, host: usize, hash: HashOver) {
        self.lock().nic(host).set_hash(hash);
    }

    /// Puts a frame into a host's NIC at once, as if it came from outside. No link, no faults, no address filter.
    pub fn inject(&self, host: usize, frame: &[u8]) {
        self.lock().inject(host, frame);
    }

    /// What has become of frames so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// The last packets and their fates, a line each, with the seed.
    pub fn trace(&self) -> String {
        self.lock().trace_text()
    }

    fn lock(&self) -> MutexGuard<'_, Fabric> {
        // A test thread that panicked is no reason to hide its network from the ones that print it.
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("now", &self.now()).field("counts", &self.counts()).finish()
    }
}

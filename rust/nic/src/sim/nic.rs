//! A host's NIC: its receive queues and their interrupts, which queue a frame goes to, what it counts, and when its vCPU is away.

use super::dice::Dice;
use super::link::{Duty, Steal};
use super::{HashOver, Host};
use crate::{Info, PortCounters, PortState, Toeplitz};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Nanos, ether};
use std::collections::{BTreeMap, VecDeque};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

pub(crate) struct Nic {
    host: Host,
    hash: Toeplitz,
    /// The queue of each hash, modulo its length.
    table: Vec<u16>,
    /// Packets that came in by [`HashOver::Turns`].
    turns: u32,
    /// UDP destination ports with a queue of their own.
    steered: BTreeMap<u16, u16>,
    queues: Vec<RxQueue>,
    counters: Counters,
    dice: Dice,
    stolen_until: Nanos,
    steal: Option<Steal>,
    /// When the vCPU is taken away next.
    steal_at: Nanos,
    duty: Option<Duty>,
    /// When it pauses next.
    pause_at: Nanos,
    /// Out of operation until then, and why.
    away_until: Nanos,
    away: Away,
}

/// Why a NIC is out of operation for a while. Either way its rings are lost, and when it is back it hashes by another key and its first table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Away {
    /// It is started again, because it asked for that or had failed.
    Reset,
    /// The device was taken away, as Azure does with its virtual functions.
    Removal,
}

/// What the NIC counts, all queues together.
#[derive(Clone, Copy, Default)]
struct Counters {
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
    /// Frames longer or shorter than it takes, not sent.
    unfit: u64,
    /// Frames for another address or too long, not received.
    refused: u64,
    resets: u64,
    removals: u64,
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

impl Nic {
    /// With a secret key for its hash, the first number drawn.
    pub fn new(host: Host, mut dice: Dice) -> Nic {
        let hash = Toeplitz::secret(dice.draw());
        let table = host.first_table();
        let queues = (0..host.queues).map(|_| RxQueue::new(&host)).collect();
        Nic {
            host,
            hash,
            table,
            turns: 0,
            steered: BTreeMap::new(),
            queues,
            counters: Counters::default(),
            dice,
            stolen_until: Nanos::ZERO,
            steal: None,
            steal_at: Nanos::MAX,
            duty: None,
            pause_at: Nanos::MAX,
            away_until: Nanos::ZERO,
            away: Away::Reset,
        }
    }

    /// The longest frame, bytes.
    pub fn longest(&self) -> usize {
        ether::LEN + usize::from(self.host.mtu)
    }

    /// Whether a frame to be sent is of a length that the NIC takes; counted either way.
    pub fn sends(&mut self, frame: &[u8]) -> bool {
        if !(ether::LEN..=self.longest()).contains(&frame.len()) {
            self.counters.unfit += 1;
            return false;
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        true
    }

    /// Whether a frame is addressed to this NIC or to a group.
    pub fn is_for(&self, frame: &[u8]) -> bool {
        frame[0] & 1 != 0 || frame[..6] == self.host.mac.0
    }

    /// Counts a frame that arrived and is not received.
    pub fn count_refused(&mut self) {
        self.counters.refused += 1;
    }

    /// The receive queue of a frame: that which its port is steered to, else that which the hash chooses, else 0.
    pub fn queue(&mut self, frame: &[u8]) -> u16 {
        if self.host.queues == 1 {
            return 0;
        }
        if !self.steered.is_empty()
            && let Ok(Frame::Udp { udp, .. }) = frame::parse(frame)
            && let Some(&queue) = self.steered.get(&udp.dst)
        {
            return queue;
        }
        let hash = match self.host.hash {
            HashOver::Ports => self.hash.of_frame(frame),
            HashOver::Addresses => self.hash.of_addresses(frame),
            HashOver::Nothing => None,
            HashOver::Turns => {
                self.turns = self.turns.wrapping_add(1);
                Some(self.turns)
            }
        };
        hash.map_or(0, |hash| self.table[hash as usize % self.table.len()])
    }

    /// Steers a UDP destination port to a queue; false without room for the rule.
    pub fn steer(&mut self, port: u16, queue: u16) -> bool {
        let room = self.steered.len() < usize::from(self.host.steering) || self.steered.contains_key(&port);
        if room {
            self.steered.insert(port, queue);
        }
        room
    }

    /// Another indirection table.
    pub fn set_table(&mut self, table: Vec<u16>) {
        let queues = self.host.queues;
        assert!(!table.is_empty(), "an indirection table of 0 entries");
        assert!(table.iter().all(|&queue| queue < queues), "the NIC has {queues} queues: {table:?}");
        self.table = table;
    }

    /// Another set of fields under the hash.
    pub fn set_hash(&mut self, hash: HashOver) {
        self.host.hash = hash;
    }

    /// Whether a queue has a free descriptor for one more frame; if not, the frame is missed, and counted.
    pub fn admits(&mut self, queue: u16) -> bool {
        let queue = &mut self.queues[usize::from(queue)];
        let room = queue.frames.len() < usize::from(self.host.descriptors);
        queue.missed += u64::from(!room);
        room
    }

    /// Puts a frame into a queue that has room, and raises its interrupt.
    pub fn put(&mut self, queue: u16, frame: Vec<u8>) {
        self.counters.rx_frames += 1;
        self.counters.rx_bytes += frame.len() as u64;
        let queue = &mut self.queues[usize::from(queue)];
        queue.frames.push_back(frame);
        queue.wake();
    }

    /// Moves up to `budget` frames out of a queue, oldest first.
    pub fn take(&mut self, queue: u16, budget: usize, out: &mut Vec<Vec<u8>>) {
        let frames = &mut self.queues[usize::from(queue)].frames;
        let n = frames.len().min(budget);
        out.extend(frames.drain(..n));
    }

    /// Whether frames wait in any queue.
    pub fn has_frames(&self) -> bool {
        self.queues.iter().any(|queue| !queue.frames.is_empty())
    }

    /// Frames that wait in a queue.
    pub fn backlog(&self, queue: u16) -> usize {
        self.queues[usize::from(queue)].frames.len()
    }

    /// Frames that found a queue full.
    pub fn missed(&self, queue: u16) -> u64 {
        self.queues[usize::from(queue)].missed
    }

    /// What it has counted. It never lacks a buffer.
    pub fn counters(&self, now: Nanos) -> PortCounters {
        let Counters { rx_frames, rx_bytes, tx_frames, tx_bytes, unfit, refused, resets, removals } =
            self.counters;
        let is_gone = u64::from(self.state(now) == PortState::Gone);
        let is_reset = u64::from(self.state(now) == PortState::Resetting);
        PortCounters {
            rx_frames: Some(rx_frames),
            tx_frames: Some(tx_frames),
            rx_bytes: Some(rx_bytes),
            tx_bytes: Some(tx_bytes),
            rx_missed: Some(self.queues.iter().map(|queue| queue.missed).sum()),
            rx_errors: Some(refused),
            tx_errors: Some(unfit),
            link_ups: Some(1 + removals - is_gone),
            link_downs: Some(removals),
            resets: Some(resets - is_reset),
            removals: Some(removals),
            returns: Some(removals - is_gone),
            ..PortCounters::default()
        }
    }

    /// Puts it out of operation until then.
    pub fn put_away(&mut self, until: Nanos, why: Away) {
        self.away_until = until;
        self.away = why;
        match why {
            Away::Reset => self.counters.resets += 1,
            Away::Removal => self.counters.removals += 1,
        }
        self.rekey();
        self.table = self.host.first_table();
        // Rules that steer are its back end's to put in again.
        self.queues.iter_mut().for_each(|queue| queue.frames.clear());
    }

    /// What it is doing.
    pub fn state(&self, now: Nanos) -> PortState {
        match self.away {
            _ if now >= self.away_until => PortState::Up,
            Away::Reset => PortState::Resetting,
            Away::Removal => PortState::Gone,
        }
    }

    /// Arms a queue's interrupt and gives its descriptor; `None` where it has none.
    pub fn arm(&mut self, queue: u16) -> Option<i32> {
        let queue = &mut self.queues[usize::from(queue)];
        let bell = queue.bell.as_mut()?;
        bell.armed = true;
        let descriptor = bell.reader.as_raw_fd();
        if !queue.frames.is_empty() {
            queue.wake();
        }
        Some(descriptor)
    }

    /// Disarms a queue's interrupt.
    pub fn disarm(&mut self, queue: u16) {
        if let Some(bell) = &mut self.queues[usize::from(queue)].bell {
            bell.armed = false;
            if std::mem::take(&mut bell.raised) {
                // One byte is in the pipe: this cannot block.
                let _ = bell.reader.read(&mut [0]);
            }
        }
    }

    /// As a process finds it that opens it anew; what each of its queues is told.
    pub fn reopen(&mut self) -> Vec<Info> {
        self.rekey();
        self.table = self.host.first_table();
        self.steered.clear();
        self.queues.iter_mut().for_each(|queue| *queue = RxQueue::new(&self.host));
        self.host.infos()
    }

    /// Draws another secret key.
    pub fn rekey(&mut self) {
        self.hash = Toeplitz::secret(self.dice.draw());
    }

    /// Takes the vCPU away until then.
    pub fn steal(&mut self, until: Nanos) {
        self.stolen_until = self.stolen_until.max(until);
    }

    /// Takes the vCPU away at random times from now on, or no more.
    pub fn set_steal(&mut self, now: Nanos, steal: Option<Steal>) {
        self.steal = steal;
        self.steal_at = Nanos::MAX;
        if let Some(steal) = steal {
            self.steal_at = now + Nanos(1 + self.dice.below(2 * steal.every.0));
        }
    }

    /// Runs and pauses by turns from now on, or no more. Where in a turn it is now is drawn.
    pub fn set_duty(&mut self, now: Nanos, duty: Option<Duty>) {
        self.duty = duty;
        self.pause_at = Nanos::MAX;
        if let Some(Duty { run, pause }) = duty {
            assert!(run + pause > Nanos::ZERO, "turns of no length");
            let spent = Nanos(self.dice.below((run + pause).0));
            self.pause_at = if spent < run {
                now + (run - spent)
            } else {
                let rest = run + pause - spent;
                self.steal(now + rest);
                now + rest + run
            };
        }
    }

    /// When the vCPU is back, if it is away now.
    pub fn stolen_until(&self, now: Nanos) -> Option<Nanos> {
        Some(self.stolen_until).filter(|until| *until > now)
    }

    /// Takes the vCPU away as often as that is due.
    pub fn begin_steals(&mut self, now: Nanos) {
        if let Some(duty) = self.duty {
            while self.pause_at <= now {
                let end = self.pause_at + duty.pause;
                self.stolen_until = self.stolen_until.max(end);
                self.pause_at = end + duty.run;
            }
        }
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

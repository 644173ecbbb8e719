//! One queue pair as engines see it.

use super::memory::FRAME;
use super::port::{Handed, UP, XdpPort};
use super::socket::{Received, Socket};
use crate::{Full, Info, Offload, Queue, QueueCounters, RxChecksum};
use std::io::PipeReader;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One queue pair of one device. Belongs to one thread at a time.
pub struct XdpQueue {
    info: Info,
    port: Arc<XdpPort>,
    line: Line,
    /// What the port's word was when we looked last.
    word: u32,
    /// What is built while nothing can be sent.
    scratch: Vec<u8>,
    counters: QueueCounters,
}

/// The way to the device.
enum Line {
    There(Box<Socket>),
    /// Hangs up when the device is back.
    Gone(Option<PipeReader>),
}

impl XdpQueue {
    pub(super) fn new(port: Arc<XdpPort>, info: Info, socket: Socket) -> XdpQueue {
        let word = port.shared.word.load(Ordering::Acquire);
        let counters = QueueCounters { link_down: Some(0), ..QueueCounters::default() };
        let scratch = vec![0; FRAME as usize];
        let mut queue = XdpQueue { info, port, line: Line::There(Box::new(socket)), word, scratch, counters };
        // The device may have gone since the port was opened.
        queue.follow(word);
        queue
    }

    /// Looks whether the device has gone, has come back, or its link has changed.
    #[inline]
    fn look(&mut self) {
        let word = self.port.shared.word.load(Ordering::Relaxed);
        if word != self.word {
            self.follow(word);
        }
    }

    #[cold]
    fn follow(&mut self, word: u32) {
        self.word = word;
        match self.port.shared.take(self.info.index) {
            Some(Handed::Socket(socket)) => self.line = Line::There(socket),
            Some(Handed::Gone(bell)) => self.line = Line::Gone(Some(bell)),
            None => {}
        }
    }

    fn note(&mut self, strange: u64) {
        log::error!(
            "queue {}: the kernel named {strange} frames that it does not have; its driver is at fault",
            self.info.index
        );
        self.port.shared.strange.fetch_add(strange, Ordering::Relaxed);
    }
}

impl Queue for XdpQueue {
    fn info(&self) -> &Info {
        &self.info
    }

    #[inline]
    fn receive(&mut self, budget: usize, each: &mut impl FnMut(&[u8], RxChecksum)) -> usize {
        self.look();
        let Line::There(socket) = &mut self.line else { return 0 };
        let Received { frames, bytes } =
            socket.receive(budget, |frame| each(frame, RxChecksum::MaybePartial));
        self.counters.rx_frames += frames;
        self.counters.rx_bytes += bytes;
        if socket.strange > 0 {
            let strange = std::mem::take(&mut socket.strange);
            self.note(strange);
        }
        frames as usize
    }

    #[inline]
    fn transmit(&mut self, len: usize, offload: Offload, fill: impl FnOnce(&mut [u8])) -> Result<(), Full> {
        self.look();
        let fill = |bytes: &mut [u8]| {
            fill(bytes);
            if matches!(offload, Offload::Udp4) {
                machnet_wire::frame::write_udp_checksum(bytes);
            }
        };
        match &mut self.line {
            Line::There(socket) if self.word & UP != 0 => {
                if !socket.transmit(len, fill) {
                    self.counters.tx_full += 1;
                    return Err(Full);
                }
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += len as u64;
            }
            _ => {
                fill(&mut self.scratch[..len]);
                self.counters.link_down = self.counters.link_down.map(|count| count + 1);
            }
        }
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        self.look();
        if let Line::There(socket) = &mut self.line
            && self.word & UP != 0
        {
            socket.flush();
        }
    }

    #[inline]
    fn backlog(&mut self) -> u16 {
        match &self.line {
            Line::There(socket) => socket.backlog() as u16,
            Line::Gone(_) => 0,
        }
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn arm_interrupt(&mut self) -> Option<i32> {
        if !self.info.interrupts {
            return None;
        }
        self.look();
        match &self.line {
            // What the kernel had no room for goes when it is asked for: a nap, not a sleep.
            Line::There(socket) => (!socket.is_stuck()).then(|| socket.raw()),
            Line::Gone(bell) => bell.as_ref().map(AsRawFd::as_raw_fd),
        }
    }

    /// Nothing is armed: the socket is readable as long as frames wait, and a look at the ring takes no system call.
    fn disarm_interrupt(&mut self) {}
}

//! One queue pair: bursts in, bursts out.

use super::bell::QueueBell;
use super::line::{Line, Member};
use super::memif::Matrix;
use super::port::DpdkPort;
use super::slots::Slots;
use crate::{Full, Info, Offload, Port, Queue, QueueCounters, RxChecksum, Toeplitz};
use dpdk_sys::mdpdk_frame;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// One queue pair of one port. Belongs to one thread at a time.
pub struct DpdkQueue {
    info: Info,
    port: Arc<DpdkPort>,
    /// The port's number, as of this queue's last coming online.
    id: u16,
    line: Arc<Line>,
    member: Arc<Member>,
    burst: usize,
    /// The driver's receive rings whose union this queue reads; one, except on memif with several peer engines.
    receive: Vec<u16>,
    /// Where the next look begins, so that no ring starves.
    next: usize,
    /// Where frames to be sent wait; the frame's hash chooses where there are several.
    transmit: Vec<TxQueue>,
    hash: Option<Toeplitz>,
    /// Of an af_packet port: where there is room, for its driver would wait for it.
    slots: Option<Slots>,
    pool: Pool,
    /// Buffers ready to be filled.
    spare: Frames,
    /// The last burst filled its bound: there is likely more.
    more: bool,
    /// The interrupt is armed: the thread is about to sleep, and is to be found offline.
    armed: bool,
    /// Of a memif: rings while the thread sleeps.
    bell: Option<QueueBell>,
    /// What is known of a frame's checksums where the driver does not tell.
    unknown: RxChecksum,
    counters: QueueCounters,
}

/// The driver's rings of one queue.
pub(super) struct Rings {
    /// Their union is what is received.
    pub receive: Vec<u16>,
    /// One per queue of the peer where the rings are shared with it, else one.
    pub transmit: Vec<u16>,
}

impl Rings {
    /// Those of queue `index`; `matrix` is a memif's.
    pub(super) fn of(index: u16, matrix: Option<Matrix>) -> Rings {
        match matrix {
            Some(m) => Rings { receive: m.receive(index).collect(), transmit: m.transmit(index).collect() },
            None => Rings { receive: vec![index], transmit: vec![index] },
        }
    }
}

/// A transmit queue of the driver's and what waits for it.
struct TxQueue {
    ring: u16,
    waiting: Frames,
}

/// At most a burst of frames.
struct Frames {
    all: [mdpdk_frame; MAX],
    len: usize,
}

struct Pool(*mut c_void);

// SAFETY: the pointers lead to DPDK's buffers and pool, which are not bound to a thread; `DpdkQueue` uses them from one
// thread at a time, and the pool itself may be shared.
unsafe impl Send for DpdkQueue {}

impl DpdkQueue {
    pub(super) fn new(
        port: Arc<DpdkPort>,
        info: Info,
        pool: *mut c_void,
        burst: u16,
        rings: Rings,
        slots: Option<Slots>,
        key: &[u8; 40],
    ) -> DpdkQueue {
        let Rings { receive, transmit } = rings;
        let hash = (transmit.len() > 1).then(|| Toeplitz::new(key));
        // Only of a memif the room at the peer is known. A NIC takes frames for a link that is down, and counts them as sent: what is
        // dropped for that is what finds no device.
        let peer_full = port.gate.as_ref().map(|_| 0);
        let line = port.seat.line.clone();
        DpdkQueue {
            id: port.seat.id(),
            member: line.join(),
            line,
            burst: usize::from(burst).clamp(1, MAX),
            receive,
            next: 0,
            transmit: transmit.into_iter().map(|ring| TxQueue { ring, waiting: Frames::empty() }).collect(),
            hash,
            slots,
            pool: Pool(pool),
            spare: Frames::empty(),
            more: false,
            armed: false,
            bell: port.bells.clone().map(QueueBell::new),
            unknown: if port.driver().contains("af_packet") {
                RxChecksum::MaybePartial
            } else {
                RxChecksum::Unknown
            },
            counters: QueueCounters { link_down: Some(0), peer_full, ..QueueCounters::default() },
            info,
            port,
        }
    }

    /// The port, for more than a [`Port`] tells.
    pub fn port(&self) -> &Arc<DpdkPort> {
        &self.port
    }

    /// Tells that this thread will not touch the queue for a while, so that link changes need not wait for it. The next call
    /// of any other method ends that. Cheap; `arm_interrupt` does it too.
    pub fn idle(&mut self) {
        self.member.leave();
    }

    /// Whether a burst may touch the port now. Between bursts only: a link change may happen inside.
    #[inline(always)]
    fn go(&mut self) -> bool {
        if self.member.is_mine() && !self.line.raised() { true } else { self.come_online() }
    }

    #[cold]
    fn come_online(&mut self) -> bool {
        // Without a place in EAL's table this thread has no mempool cache, and every buffer is a compare-and-swap.
        thread_local!(static REGISTERED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
        if !REGISTERED.replace(true) {
            // SAFETY: EAL runs as long as a port is open.
            let ret = unsafe { dpdk_sys::mdpdk_thread_register() };
            if ret < 0 {
                log::warn!(
                    "register an engine's thread with DPDK: error {}; it works without a buffer cache, slower",
                    -ret
                );
            }
        }
        if !self.member.enter(&self.line) {
            return false;
        }
        let seat = &self.port.seat;
        self.id = seat.id();
        let pool = seat.pool(self.info.index);
        if pool != self.pool.0 {
            // Some buffers of the pool before went with the device. The others are given back.
            self.spare.free();
            for tx in &mut self.transmit {
                add(&mut self.counters.link_down, tx.waiting.len as u64);
                tx.waiting.free();
            }
            self.pool = Pool(pool);
            seat.adopted(self.info.index, pool);
        }
        true
    }

    /// Fills `spare`.
    #[cold]
    fn refill(&mut self) -> bool {
        // SAFETY: room for a burst; the pool lives until this queue has adopted another.
        let got =
            unsafe { dpdk_sys::mdpdk_alloc(self.pool.0, self.spare.all.as_mut_ptr(), self.burst as u16) };
        self.spare.len = got.max(0) as usize;
        self.spare.len > 0
    }

    /// Which of `transmit` a frame goes to.
    #[inline]
    fn choose(&self, frame: &[u8]) -> usize {
        match &self.hash {
            None => 0,
            Some(hash) => hash.of_frame(frame).unwrap_or(0) as usize % self.transmit.len(),
        }
    }

    /// Hands what waits in one of `transmit` to the driver. Whether at least one frame went.
    fn push(&mut self, at: usize) -> bool {
        let up = self.go();
        let TxQueue { ring, waiting } = &mut self.transmit[at];
        if !up {
            add(&mut self.counters.link_down, waiting.len as u64);
            waiting.free();
            return true;
        }
        let room = self.slots.as_ref().map_or(waiting.len, |slots| slots.free(waiting.len));
        if room == 0 {
            return false;
        }
        // SAFETY: the first `room` entries, of `len`, hold buffers that are ours; those the driver takes are forgotten just below.
        let sent = unsafe { dpdk_sys::mdpdk_tx(self.id, *ring, waiting.all.as_mut_ptr(), room as u16) };
        let sent = usize::from(sent);
        if let Some(slots) = &mut self.slots {
            slots.filled(sent);
        }
        for frame in &waiting.all[..sent] {
            self.counters.tx_bytes += u64::from(frame.len);
        }
        self.counters.tx_frames += sent as u64;
        waiting.all.copy_within(sent..waiting.len, 0);
        waiting.len -= sent;
        sent > 0
    }
}

impl Queue for DpdkQueue {
    fn info(&self) -> &Info {
        &self.info
    }

    fn receive(&mut self, budget: usize, each: &mut impl FnMut(&[u8], RxChecksum)) -> usize {
        // Not zeroed: that would cost as much as the rest of an empty poll.
        let mut frames = MaybeUninit::<[mdpdk_frame; MAX]>::uninit();
        let frames = frames.as_mut_ptr().cast::<mdpdk_frame>();
        let mut left = budget;
        let mut more = false;
        for _ in 0..self.receive.len() {
            let ring = self.receive[self.next];
            loop {
                let want = left.min(self.burst);
                // Before every burst: `each` may have used another queue of this thread, and a link change passed.
                if want == 0 || !self.go() {
                    break;
                }
                let mut refused = 0u32;
                // SAFETY: room for `MAX >= want` frames; the ring is ours alone and the port may be touched.
                let got = unsafe { dpdk_sys::mdpdk_rx(self.id, ring, frames, want as u16, &mut refused) };
                self.counters.in_pieces += u64::from(refused);
                // SAFETY: the callee wrote the first `got` entries, at most `want`.
                let received = unsafe { std::slice::from_raw_parts(frames, usize::from(got)) };
                for frame in received {
                    // SAFETY: the driver filled `len` bytes at `data`, in a buffer that is ours until freed below.
                    let bytes = unsafe { std::slice::from_raw_parts(frame.data, frame.len as usize) };
                    self.counters.rx_bytes += u64::from(frame.len);
                    each(bytes, verdict(self.info.rx_checksum, frame.flags, self.unknown));
                }
                if got > 0 {
                    // SAFETY: `got` buffers that are ours, freed once.
                    unsafe { dpdk_sys::mdpdk_free(frames, got) };
                }
                let got = usize::from(got);
                left -= got;
                more |= got == want;
                if got < want {
                    break;
                }
            }
            // Also when the budget is spent: a ring that never runs dry must not starve the others.
            self.next = if self.next + 1 == self.receive.len() { 0 } else { self.next + 1 };
            if left == 0 {
                break;
            }
        }
        self.more = more;
        self.counters.rx_frames += (budget - left) as u64;
        budget - left
    }

    fn transmit(&mut self, len: usize, offload: Offload, fill: impl FnOnce(&mut [u8])) -> Result<(), Full> {
        // With one ring a full one is seen before the frame is built; with several only the frame tells which.
        if self.transmit.len() == 1 && self.transmit[0].waiting.len == self.burst && !self.push(0) {
            self.counters.tx_full += 1;
            return Err(Full);
        }
        if self.spare.len == 0 && !self.refill() {
            self.counters.tx_full += 1;
            return Err(Full);
        }
        let mut frame = self.spare.all[self.spare.len - 1];
        assert!(len <= frame.len as usize, "a frame of {len} bytes for an MTU of {}", self.info.mtu);
        self.spare.len -= 1;
        frame.len = len as u32;
        // SAFETY: the buffer has room for `len` bytes, checked above, and is ours alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(frame.data, len) };
        fill(bytes);
        frame.flags = dpdk_sys::MDPDK_TX_PLAIN;
        if matches!(offload, Offload::Udp4) {
            if self.info.tx_checksum {
                frame.flags = dpdk_sys::MDPDK_TX_UDP4;
            } else {
                machnet_wire::frame::write_udp_checksum(bytes);
            }
        }
        let at = self.choose(bytes);
        if self.transmit[at].waiting.len == self.burst && !self.push(at) {
            // As a NIC drops the frames for a queue that is not read.
            add(&mut self.counters.peer_full, 1);
            // SAFETY: a buffer of ours, freed once.
            unsafe { dpdk_sys::mdpdk_free(&frame, 1) };
            return Ok(());
        }
        let waiting = &mut self.transmit[at].waiting;
        waiting.all[waiting.len] = frame;
        waiting.len += 1;
        Ok(())
    }

    fn flush(&mut self) {
        for at in 0..self.transmit.len() {
            if self.transmit[at].waiting.len > 0 {
                self.push(at);
            }
        }
        if let Some(slots) = self.slots.as_ref().filter(|slots| slots.stuck()) {
            slots.send();
        }
    }

    fn backlog(&mut self) -> u16 {
        if let (true, Some(bell)) = (self.armed, &self.bell) {
            return bell.waiting();
        }
        if !self.go() {
            return 0;
        }
        let mut waiting = Some(0u16);
        for &ring in &self.receive {
            // SAFETY: the ring is ours and the port may be touched.
            let count = unsafe { dpdk_sys::mdpdk_rx_waiting(self.id, ring) };
            waiting = waiting.filter(|_| count >= 0).map(|sum| sum.saturating_add(count as u16));
        }
        if self.armed {
            self.member.leave();
        }
        // memif and others cannot tell: then at least another burst, if the last one was full.
        waiting.unwrap_or(if self.more { self.burst as u16 } else { 0 })
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn arm_interrupt(&mut self) -> Option<i32> {
        if let Some(bell) = &mut self.bell {
            self.member.leave();
            let rings = self.line.is_up().then(|| bell.arm(&self.receive)).flatten();
            self.armed = rings.is_some();
            return rings;
        }
        if !self.info.interrupts {
            self.idle();
            return None;
        }
        if let Some(socket) = self.port.sockets.to_wait_for(self.info.index) {
            self.idle();
            // What lies in the transmit ring goes when it is asked for, and not by itself: a nap, not a sleep.
            return (!self.slots.as_ref().is_some_and(Slots::stuck)).then_some(socket);
        }
        if !self.go() {
            return None;
        }
        // SAFETY: the port is open, may be touched, and was configured for interrupts.
        let (fd, ret) = unsafe {
            (
                dpdk_sys::mdpdk_rx_intr_fd(self.id, self.receive[0]),
                dpdk_sys::mdpdk_rx_intr_enable(self.id, self.receive[0]),
            )
        };
        self.armed = fd >= 0 && ret == 0;
        self.idle();
        self.armed.then_some(fd)
    }

    fn disarm_interrupt(&mut self) {
        let armed = std::mem::take(&mut self.armed);
        if let (true, Some(bell)) = (armed, &self.bell) {
            return bell.disarm();
        }
        // A port that was started again meanwhile has none armed.
        if !armed || !self.go() {
            return;
        }
        // SAFETY: the port may be touched; eight writable bytes, and the descriptor is checked for input first.
        unsafe {
            dpdk_sys::mdpdk_rx_intr_disable(self.id, self.receive[0]);
            let fd = dpdk_sys::mdpdk_rx_intr_fd(self.id, self.receive[0]);
            let mut ready = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            if libc::poll(&mut ready, 1, 0) == 1 {
                let mut count = [0u8; 8];
                libc::read(fd, count.as_mut_ptr().cast(), count.len());
            }
        }
    }
}

impl Drop for DpdkQueue {
    fn drop(&mut self) {
        self.spare.free();
        self.transmit.iter_mut().for_each(|tx| tx.waiting.free());
        self.line.part(&self.member);
    }
}

impl Frames {
    fn empty() -> Frames {
        Frames { all: [mdpdk_frame::default(); MAX], len: 0 }
    }

    fn free(&mut self) {
        if self.len > 0 {
            // SAFETY: the first `len` entries hold buffers that are ours, forgotten in the next line.
            unsafe { dpdk_sys::mdpdk_free(self.all.as_ptr(), self.len as u16) };
            self.len = 0;
        }
    }
}

/// Adds to a counter of something that this driver can see.
fn add(counter: &mut Option<u64>, n: u64) {
    *counter = Some(counter.unwrap_or(0) + n);
}

/// What a driver says of a frame's checksums, where it was `asked` to verify them. Some, such as igb and ixgbe, call every frame good
/// while their NIC does not look.
fn verdict(asked: bool, flags: u32, unknown: RxChecksum) -> RxChecksum {
    match flags {
        _ if !asked => unknown,
        dpdk_sys::MDPDK_RX_GOOD => RxChecksum::Good,
        dpdk_sys::MDPDK_RX_BAD => RxChecksum::Bad,
        _ => unknown,
    }
}

/// Frames per burst at most, as in the shim.
const MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_was_not_asked_to_verify_checksums_is_not_believed() {
        let flags = [dpdk_sys::MDPDK_RX_GOOD, dpdk_sys::MDPDK_RX_BAD, dpdk_sys::MDPDK_RX_UNKNOWN];
        let (good, bad, unknown) = (RxChecksum::Good, RxChecksum::Bad, RxChecksum::Unknown);
        assert_eq!(flags.map(|flags| verdict(true, flags, unknown)), [good, bad, unknown]);
        assert_eq!(flags.map(|flags| verdict(false, flags, unknown)), [unknown; 3]);
    }
}

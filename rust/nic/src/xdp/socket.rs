//! One AF_XDP socket: one receive and one transmit queue of a device, and the frames that go round between them and us.
//!
//! A frame belongs to the kernel from the fill ring, or the transmit ring, until it comes back by the ring of received frames, or of
//! completions. Those to be received and those to be sent are apart, so that neither can starve the other.

use super::memory::{FRAME, Frames};
use super::ring::{Incoming, Outgoing};
use super::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A socket, bound.
pub(super) struct Socket {
    fd: Arc<OwnedFd>,
    frames: Frames,
    /// Frames below this are for receiving.
    descriptors: u32,
    fill: Outgoing<u64>,
    received: Incoming<libc::xdp_desc>,
    transmit: Outgoing<libc::xdp_desc>,
    completed: Incoming<u64>,
    /// Frames to be sent that are ours.
    free: Vec<u64>,
    /// Frames in the transmit ring that the kernel was not told of.
    unpublished: bool,
    /// What the kernel was told of may wait for another system call.
    unsent: bool,
    /// Descriptors that led nowhere: a fault of the kernel's or its driver's. Their frames are lost to us, which is better than to give a
    /// frame away twice.
    pub strange: u64,
}

/// What became of a look at the ring of received frames.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Received {
    pub frames: u64,
    pub bytes: u64,
}

impl Socket {
    /// Binds to a queue of a device with so many descriptors each way. `flags` says which way is wanted: `XDP_ZEROCOPY` or `XDP_COPY`.
    ///
    /// # Errors
    /// What was attempted, and what the kernel said.
    pub(super) fn open(
        device: u32,
        queue: u32,
        descriptors: u32,
        flags: u16,
    ) -> Result<Socket, (&'static str, io::Error)> {
        let on = |step: &'static str| move |error: io::Error| (step, error);
        let fd = sys::xdp_socket().map_err(on(OPEN))?;
        let frames = Frames::new(2 * descriptors).map_err(on("get memory for frames"))?;
        frames.register(&fd).map_err(on(REGISTER))?;
        for ring in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            sys::set(&fd, libc::SOL_XDP, ring, descriptors as i32).map_err(on("make its rings"))?;
        }
        let at = sys::offsets(&fd).map_err(on("find its rings"))?;
        let mut socket = Socket::over(fd, frames, &at, descriptors).map_err(on("map its rings"))?;
        for frame in 0..descriptors {
            socket.fill.push(place(frame));
        }
        socket.fill.publish();
        // In copy mode every frame on its way to the NIC counts against this; the default lasts for fewer than the ring has. Refused, it
        // stays as it is, and the ring drains more slowly.
        let room = (descriptors * 2 * FRAME) as i32;
        let _ = sys::set(&socket.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room);
        bind(&socket.fd, device, queue, flags | libc::XDP_USE_NEED_WAKEUP).map_err(on(BIND))?;
        Ok(socket)
    }

    /// One whose rings lie where they are said to.
    fn over(fd: OwnedFd, frames: Frames, at: &sys::Offsets, descriptors: u32) -> io::Result<Socket> {
        Ok(Socket {
            fill: Outgoing::map(&fd, libc::XDP_UMEM_PGOFF_FILL_RING, at.fr, descriptors)?,
            completed: Incoming::map(&fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, at.cr, descriptors)?,
            received: Incoming::map(&fd, libc::XDP_PGOFF_RX_RING as u64, at.rx, descriptors)?,
            transmit: Outgoing::map(&fd, libc::XDP_PGOFF_TX_RING as u64, at.tx, descriptors)?,
            frames,
            descriptors,
            free: (descriptors..2 * descriptors).map(place).collect(),
            unpublished: false,
            unsent: false,
            strange: 0,
            fd: Arc::new(fd),
        })
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Readable while received frames wait.
    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Takes at most `budget` frames, oldest first.
    #[inline]
    pub(super) fn receive(&mut self, budget: usize, mut each: impl FnMut(&[u8])) -> Received {
        let mut got = Received::default();
        let receiving = 0..place(self.descriptors);
        let mut popped = false;
        while got.frames < budget as u64 {
            let Some(descriptor) = self.received.pop() else { break };
            popped = true;
            let frame = descriptor.addr / u64::from(FRAME) * u64::from(FRAME);
            // SAFETY: the kernel has just given this frame back, and gets it again below.
            let bytes = unsafe { self.frames.bytes(descriptor.addr, descriptor.len) };
            match bytes.filter(|_| receiving.contains(&frame)) {
                Some(bytes) => {
                    got.frames += 1;
                    got.bytes += u64::from(descriptor.len);
                    each(bytes);
                    self.fill.push(frame);
                }
                None => self.strange += 1,
            }
        }
        if popped {
            self.received.release();
            self.fill.publish();
        }
        if got.frames < budget as u64 && self.fill.wants_kick() {
            sys::kick_receive(&self.fd);
        }
        got
    }

    /// Frames that wait to be taken.
    #[inline]
    pub(super) fn backlog(&self) -> u32 {
        self.received.waiting()
    }

    /// Has a frame of `len` bytes filled in; false where there is no room.
    ///
    /// # Panics
    /// If it does not fit.
    #[inline]
    pub(super) fn transmit(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        if self.free.is_empty() {
            self.flush();
        }
        // There are as many frames as places, and yet there may be a frame and no place: a kernel that could not send all gives back what it
        // has sent, and counts its places as read only when it looks for more.
        if !self.transmit.has_room() {
            return false;
        }
        let Some(frame) = self.free.pop() else { return false };
        // SAFETY: a frame of `free` is ours.
        let Some(bytes) = (unsafe { self.frames.bytes_mut(frame, len as u32) }) else {
            panic!("a frame of {len} bytes for buffers of {FRAME}")
        };
        fill(bytes);
        self.transmit.push(libc::xdp_desc { addr: frame, len: len as u32, options: 0 });
        self.unpublished = true;
        true
    }

    /// Gives what was filled in to the kernel, and takes back what it has sent.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.unpublished {
            self.transmit.publish();
            self.unpublished = false;
            self.unsent = true;
        }
        if self.unsent {
            self.unsent = self.transmit.wants_kick() && !self.kick();
        }
        let sending = place(self.descriptors)..place(2 * self.descriptors);
        while let Some(frame) = self.completed.pop() {
            if sending.contains(&frame) && frame % u64::from(FRAME) == 0 {
                self.free.push(frame);
            } else {
                self.strange += 1;
            }
        }
        self.completed.release();
    }

    /// Whether the kernel has not taken all that it was given, and is to be asked again.
    pub(super) fn is_stuck(&self) -> bool {
        self.unsent
    }

    /// Whether the kernel has taken all of it.
    fn kick(&self) -> bool {
        // It sends 32 at a call and says that there is more; what finds no room in the device waits for the next round.
        for _ in 0..=self.descriptors / KERNELS_BATCH {
            match sys::kick_transmit(&self.fd).map_err(|error| error.raw_os_error()) {
                Ok(()) => return true,
                Err(Some(libc::EAGAIN)) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// Binds as soon as the queue is free: the kernel clears away the one who had it before, which may have ended just now, in its own time.
fn bind(socket: &OwnedFd, device: u32, queue: u32, flags: u16) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match sys::bind_queue(socket, device, queue, flags) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < LONGEST_CLEARING => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Where a frame begins.
fn place(frame: u32) -> u64 {
    u64::from(frame) * u64::from(FRAME)
}

/// Step of an error: what a lack of CAP_NET_RAW makes fail.
pub(super) const OPEN: &str = "open a socket";
/// Step of an error: what the limit on locked memory makes fail.
pub(super) const REGISTER: &str = "give it memory for frames";
/// Step of an error: what tells whether a device can do it.
pub(super) const BIND: &str = "bind it to a queue";
/// How long a queue may stay taken by a socket that is gone.
const LONGEST_CLEARING: Duration = Duration::from_secs(2);
/// Frames that the kernel sends at a system call at most, in copy mode.
const KERNELS_BATCH: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::FromRawFd;
    use std::os::unix::fs::FileExt;

    const COUNT: u32 = 8;

    /// A sparse file in the place of the kernel: rings with their numbers in front.
    fn rings() -> (File, Socket) {
        // SAFETY: the name is a C string; the descriptor that comes back is ours alone.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"rings".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(libc::XDP_UMEM_PGOFF_COMPLETION_RING + 4096).unwrap();
        let ring = || libc::xdp_ring_offset { producer: 0, consumer: 64, desc: 256, flags: 128 };
        let at = sys::Offsets { rx: ring(), tx: ring(), fr: ring(), cr: ring() };
        let frames = Frames::new(2 * COUNT).unwrap();
        let socket = Socket::over(file.try_clone().unwrap().into(), frames, &at, COUNT).unwrap();
        (file, socket)
    }

    #[test]
    fn no_frame_is_lost_when_the_kernel_gives_frames_back_before_their_places() {
        let (file, mut socket) = rings();
        let transmit = |socket: &mut Socket| socket.transmit(60, |bytes| bytes.fill(1));
        assert!((0..COUNT).all(|_| transmit(&mut socket)));
        socket.flush();
        assert!(!transmit(&mut socket), "no frame is left");
        // Three were sent and are back; then there was no room, and the ring still says that none was read.
        let completed = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        for number in 0..3u32 {
            let frame = place(COUNT + number).to_ne_bytes();
            file.write_all_at(&frame, completed + 256 + u64::from(number) * 8).unwrap();
        }
        file.write_all_at(&3u32.to_ne_bytes(), completed).unwrap();
        socket.flush();
        assert!(!transmit(&mut socket) && socket.free.len() == 3, "no place is left, and no frame is lost");
        file.write_all_at(&3u32.to_ne_bytes(), libc::XDP_PGOFF_TX_RING as u64 + 64).unwrap();
        assert!((0..3).all(|_| transmit(&mut socket)) && !transmit(&mut socket));
        assert_eq!((socket.free.len(), socket.strange), (0, 0));
    }
}

//! The doorbells of many channels in one epoll set: an engine that sleeps on it spends time on the channels that ring, not on all that
//! are attached.

use crate::engine::EngineEnd;
use crate::memory::{Fd, SystemError};

/// An epoll set of doorbells, each under a key of its owner's choice.
#[derive(Debug)]
pub struct Bells(Fd);

impl Bells {
    /// An empty one.
    pub fn new() -> Result<Bells, SystemError> {
        // SAFETY: no memory is touched.
        match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
            -1 => Err(SystemError::last("make a set of doorbells")),
            raw => Ok(Bells(Fd::own(raw))),
        }
    }

    /// Readable while one of the doorbells is.
    pub fn fd(&self) -> i32 {
        self.0.raw()
    }

    /// Adds a channel's doorbell. It leaves by [`Bells::remove`], or when the channel is dropped.
    pub fn add(&self, end: &EngineEnd, key: u64) -> Result<(), SystemError> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key };
        // SAFETY: `event` lives through the call.
        match unsafe { libc::epoll_ctl(self.fd(), libc::EPOLL_CTL_ADD, end.doorbell(), &raw mut event) } {
            0 => Ok(()),
            _ => Err(SystemError::last("listen to a doorbell")),
        }
    }

    /// Takes a channel's doorbell out; nothing where it is not in.
    pub fn remove(&self, end: &EngineEnd) {
        // SAFETY: for this operation the kernel reads no event.
        unsafe { libc::epoll_ctl(self.fd(), libc::EPOLL_CTL_DEL, end.doorbell(), core::ptr::null_mut()) };
    }

    /// The keys of doorbells that can be read, or whose application has hung up, without waiting; those beyond the room come next time.
    pub fn rung<'a>(&self, room: &'a mut [u64; 64]) -> &'a [u64] {
        let mut events = [const { libc::epoll_event { events: 0, u64: 0 } }; 64];
        // SAFETY: `events` has room for as many entries as the call is given.
        let n = unsafe { libc::epoll_wait(self.fd(), events.as_mut_ptr(), events.len() as i32, 0) };
        let n = usize::try_from(n).unwrap_or(0).min(room.len());
        for (key, event) in room.iter_mut().zip(&events[..n]) {
            *key = event.u64;
        }
        &room[..n]
    }
}

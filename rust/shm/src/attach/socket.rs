//! The control socket: messages with descriptors, and whether the other side is still there.

use super::outcome::AttachError;
use crate::memory::{Fd, SystemError};

/// Descriptors that came with a message; those not taken are closed.
pub(super) struct FdList {
    fds: [Option<Fd>; 4],
    pub len: usize,
}

impl FdList {
    pub const fn new() -> FdList {
        FdList { fds: [const { None }; 4], len: 0 }
    }

    /// Keeps a descriptor, or closes it when there are enough.
    fn add(&mut self, fd: Fd) {
        if let Some(place) = self.fds.get_mut(self.len) {
            *place = Some(fd);
        }
        self.len += 1;
    }

    pub fn take(&mut self, i: usize) -> Option<Fd> {
        self.fds[i].take()
    }
}

/// Room for the control message of a few descriptors, aligned as the kernel wants it. A client that sends more than fit
/// sees them closed by the kernel (MSG_CTRUNC).
#[repr(C, align(8))]
struct CmsgBuffer([u8; 64]);

pub(super) fn send(socket: &Fd, bytes: &[u8], fds: &[i32]) -> Result<(), AttachError> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = CmsgBuffer([0; 64]);
    // SAFETY: all zero is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: pure arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
        // SAFETY: `control` is aligned and holds CMSG_SPACE of at most four descriptors (32 bytes).
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as _;
            core::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(header), len as usize);
        }
    }
    loop {
        // SAFETY: `message` points to live memory of the stated lengths; the kernel only reads it.
        let n = unsafe {
            libc::sendmsg(socket.raw(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        if n >= 0 {
            return Ok(());
        }
        match SystemError::last("send on the control socket") {
            e if e.errno == libc::EINTR => {}
            e if e.errno == libc::EPIPE || e.errno == libc::ECONNRESET => return Err(AttachError::Closed),
            e => return Err(e.into()),
        }
    }
}

/// Receives one message; `None` when there is none yet.
pub(super) fn receive(socket: &Fd, bytes: &mut [u8], fds: &mut FdList) -> Result<Option<usize>, AttachError> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = CmsgBuffer([0; 64]);
    // SAFETY: all zero is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    let mut ended = false;
    let n = loop {
        message.msg_controllen = size_of::<CmsgBuffer>() as _;
        // SAFETY: `message` points to writable memory of the stated lengths.
        let n = unsafe {
            libc::recvmsg(socket.raw(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC)
        };
        // Where a message and the end come during the call, Linux may find no message, then the end, and say so; the next call has the
        // message. So only the second end is one.
        if n == 0 && !ended {
            ended = true;
            continue;
        }
        if n >= 0 {
            break n as usize;
        }
        match SystemError::last("receive on the control socket") {
            e if e.errno == libc::EINTR => {}
            e if e.errno == libc::EAGAIN => return Ok(None),
            e if e.errno == libc::ECONNRESET => return Err(AttachError::Closed),
            e => return Err(e.into()),
        }
    };
    // SAFETY: the kernel filled `message`; the macros walk the control bytes within `msg_controllen`.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<i32>();
                for i in 0..count {
                    fds.add(Fd::own(libc::CMSG_DATA(header).cast::<i32>().add(i).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if n == 0 {
        return Err(AttachError::Closed);
    }
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(AttachError::Message {
            what: "length of a message: longer than",
            value: bytes.len() as u64,
        });
    }
    Ok(Some(n))
}

/// Whether the other end of a socket is gone. By a plain system call, as in `doorbell`.
pub fn hung_up(socket: i32) -> bool {
    let mut byte = 0_u8;
    // SAFETY: `byte` is writable for one byte.
    let n = unsafe {
        let (flags, nobody) = (libc::MSG_PEEK | libc::MSG_DONTWAIT, core::ptr::null_mut::<u8>());
        libc::syscall(libc::SYS_recvfrom, socket, &raw mut byte, 1, flags, nobody, nobody)
    };
    let failed =
        |n| n < 0 && !matches!(SystemError::last("look at a socket").errno, libc::EAGAIN | libc::EINTR);
    n == 0 || failed(n)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::Barrier;

    fn pair() -> (Fd, Fd) {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors.
        let made = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) };
        assert_eq!(made, 0);
        (Fd::own(ends[0]), Fd::own(ends[1]))
    }

    /// What a peer says last, a refusal most often, is received though it closes its socket at once and this end looks at that moment.
    #[test]
    fn what_was_sent_before_the_end_is_received_before_it() {
        let turn = Barrier::new(2);
        let given = std::sync::Mutex::new(None);
        let mut missed = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    turn.wait();
                    let far = given.lock().expect("no panic").take().expect("an end");
                    send(&far, b"last", &[]).expect("room");
                }
            });
            for _ in 0..ROUNDS {
                let (near, far) = pair();
                *given.lock().expect("no panic") = Some(far);
                turn.wait();
                let mut bytes = [0; 8];
                let first = loop {
                    match receive(&near, &mut bytes, &mut FdList::new()) {
                        Ok(None) => {}
                        other => break other,
                    }
                };
                missed += usize::from(!matches!(first, Ok(Some(4))));
            }
        });
        assert_eq!(missed, 0, "of {ROUNDS}");
    }

    const ROUNDS: usize = 50_000;
}

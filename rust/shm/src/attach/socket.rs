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
    message.msg_controllen = size_of::<CmsgBuffer>() as _;
    let n = loop {
        // SAFETY: `message` points to writable memory of the stated lengths.
        let n = unsafe {
            libc::recvmsg(socket.raw(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC)
        };
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

//! The control socket as an application has it, and as one that keeps no rules might use it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use machnet_shm::{AppEnd, AttachError, ClientAttach, ClientHello, Fd, Welcome};

use super::{PATIENCE, Sidecar};

pub fn connect(path: &Path) -> std::io::Result<OwnedFd> {
    let failed = std::io::Error::last_os_error;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(failed());
    }
    // SAFETY: just made, and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all bits zero is an address with an empty path.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a whole address of `size` bytes.
    match unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), size) } {
        0 => Ok(fd),
        _ => Err(failed()),
    }
}

pub fn pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, 0);
    // SAFETY: just made, and owned by nobody else.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
}

pub fn send(socket: &OwnedFd, packet: &[u8]) {
    // SAFETY: `packet` is readable for its length.
    let n =
        unsafe { libc::send(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(n, packet.len() as isize, "{}", std::io::Error::last_os_error());
}

/// What the other end sends until it closes, which is all of it.
#[track_caller]
pub fn answer(socket: &OwnedFd) -> String {
    let mut all = Vec::new();
    let mut packet = vec![0u8; 1 << 16];
    loop {
        wait_readable(socket);
        // SAFETY: `packet` is writable for its length.
        let n = unsafe { libc::recv(socket.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0) };
        match n {
            0 => break,
            1.. => all.extend_from_slice(&packet[..n as usize]),
            _ => panic!("after {} bytes: {}", all.len(), std::io::Error::last_os_error()),
        }
        assert!(n <= 32 << 10, "a packet of {n} bytes");
    }
    String::from_utf8(all).expect("text")
}

fn send_with(socket: &OwnedFd, packet: &[u8], fd: i32) {
    let mut part = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
    let mut control = [0_u64; 4];
    // SAFETY: `msghdr` may be all zero; its pointers are to live memory, and `control` has room for one descriptor.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        assert_eq!(libc::sendmsg(socket.as_raw_fd(), &raw const message, 0), packet.len() as isize);
    }
}

/// Waits until there is something to read, or the end.
#[track_caller]
pub fn wait_readable(socket: &impl AsRawFd) {
    wait_readable_fd(socket.as_raw_fd());
}

#[track_caller]
pub fn wait_readable_fd(fd: i32) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    let n = unsafe { libc::poll(&mut entry, 1, PATIENCE.as_millis() as i32) };
    assert_eq!(n, 1, "nothing to read within {PATIENCE:?}");
}

pub fn attach_over(socket: OwnedFd, asked: ClientHello) -> Result<(AppEnd, Welcome, Fd), AttachError> {
    use std::os::fd::IntoRawFd;
    let mut attach = ClientAttach::new(Fd::own(socket.into_raw_fd()), asked)?;
    loop {
        if let Some((app, welcome)) = attach.step()? {
            return Ok((app, welcome, attach.into_socket()));
        }
        wait_readable_fd(attach.socket());
    }
}

/// A packet that the sidecar takes for the beginning of an attachment.
pub fn hello() -> Vec<u8> {
    use std::os::fd::IntoRawFd;
    let (near, far) = pair();
    let _attach = ClientAttach::new(Fd::own(near.into_raw_fd()), ClientHello::default()).expect("a hello");
    let mut hello = vec![0u8; 256];
    // SAFETY: `hello` is writable for its length.
    let n = unsafe { libc::recv(far.as_raw_fd(), hello.as_mut_ptr().cast(), hello.len(), 0) };
    hello.truncate(n as usize);
    hello
}

/// Attaches by hand, with this descriptor for the application's process. The socket stays open, as where a child holds it.
pub fn attach_as(sidecar: &Sidecar, process: &impl AsRawFd) -> OwnedFd {
    let (near, far) = pair();
    use std::os::fd::IntoRawFd;
    let _hello = ClientAttach::new(Fd::own(near.into_raw_fd()), ClientHello::default()).expect("a hello");
    let mut bytes = [0u8; 1024];
    // SAFETY: `bytes` is writable for its length.
    let n = unsafe { libc::recv(far.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) } as usize;
    let socket = connect(&sidecar.folder.socket()).unwrap();
    send_with(&socket, &bytes[..n], process.as_raw_fd());
    for answer in [&b"MACHNETA\x03\0\0\0\0\0\0\0"[..], b""] {
        wait_readable(&socket);
        // SAFETY: as above.
        assert!(unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) } > 0);
        if !answer.is_empty() {
            send(&socket, answer);
        }
    }
    assert_eq!(bytes[8], 4, "the last was READY");
    socket
}

//! A sidecar whose queue of connections is full is alive: who attaches waits for it, and is not told that there is none.
use machnet::abi::*;
use machnet::*;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

fn seqpacket() -> OwnedFd {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; what comes is a new descriptor, or -1, which the assertion meets.
    let raw = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    assert!(raw >= 0);
    // SAFETY: just made, and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

type Call = unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32;

/// `bind` or `connect`; whether it did.
fn at(path: &Path, socket: &OwnedFd, call: Call) -> bool {
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a whole address of `size` bytes.
    unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), size) == 0 }
}

#[test]
fn who_finds_the_queue_of_connections_full_waits_and_is_let_in() {
    let path = std::env::temp_dir().join(format!("machnet-backlog-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = seqpacket();
    assert!(at(&path, &listener, libc::bind));
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    let mut waiting = Vec::new();
    loop {
        let socket = seqpacket();
        if !at(&path, &socket, libc::connect) {
            break;
        }
        waiting.push(socket);
        assert!(waiting.len() < 100, "the queue is never full");
    }
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let mut ch = null_mut();
    // SAFETY: `name` is a C string, `ch` is writable; below the channel is live until it is given back.
    unsafe {
        assert_eq!(machnet_attach_begin(name.as_ptr(), null(), &mut ch), 0);
        for _ in 0..3 {
            assert_eq!((machnet_attach_step(ch), machnet_socket(ch)), (MACHNET_EAGAIN, -1), "it waits");
        }
        let accepted = libc::accept(listener.as_raw_fd(), null_mut(), null_mut());
        assert!(accepted >= 0);
        assert_eq!(machnet_attach_step(ch), MACHNET_EAGAIN);
        assert!(machnet_socket(ch) >= 0, "it is in the queue");
        libc::close(accepted);
        machnet_detach(ch);
        // With the listener the sidecar is gone, and that is said.
        drop((listener, waiting));
        assert_eq!(machnet_attach_begin(name.as_ptr(), null(), &mut ch), 0);
        assert_eq!(machnet_attach_step(ch), MACHNET_ENOSIDECAR);
        machnet_detach(ch);
    }
    let _ = std::fs::remove_file(&path);
}

//! Attaching: what the sidecar says, and what is said where there is none, or one of another version.
use crate::rig::{Channel, IP, Rig, socketpair, text};
use machnet::abi::*;
use machnet::*;
use machnet_shm::{Fd, ServerAttach};
use std::ptr::null_mut;

#[test]
fn attaching_tells_what_the_sidecar_said() {
    let rig = Rig::new();
    let mut info = machnet_info_t::default();
    // SAFETY: a live channel and a writable struct.
    unsafe { machnet_info(rig.ch, &mut info) };
    assert_eq!((info.ip, info.engine, info.mtu, info.unit_size), (IP.to_bits(), 3, 1500, 1424));
    assert_eq!((info.units, info.units_per_conn, info.conns), (64, 16, 8));
    // SAFETY: a live channel.
    unsafe {
        assert!(machnet_socket(rig.ch) >= 0 && machnet_doorbell(rig.ch) >= 0);
        assert_eq!(machnet_check(rig.ch), 0);
    }
}

#[test]
fn attaching_where_no_sidecar_is_says_what_to_do() {
    for (path, code, want) in [
        (
            c"/nowhere/machnet.sock",
            MACHNET_ENOSIDECAR,
            "attach /nowhere/machnet.sock: there is no such socket; start machnetd, or set MACHNET_SOCKET to its socket",
        ),
        (c"/dev/null", MACHNET_ENOSIDECAR, "attach /dev/null: nobody listens at this socket; start machnetd"),
    ] {
        let mut ch: Channel = null_mut();
        // SAFETY: a C string and a writable pointer.
        let attached = unsafe { machnet_attach(path.as_ptr(), std::ptr::null(), &mut ch) };
        assert_eq!((attached, text(ch).as_str()), (code, want));
        let mut event = machnet_event::default();
        // SAFETY: a channel that is given back once.
        unsafe {
            assert_eq!(machnet_poll(ch, &mut event, 1), MACHNET_ENOTATTACHED);
            machnet_detach(ch);
        }
    }
}

#[test]
fn a_dead_socket_that_is_mounted_as_a_file_says_to_mount_its_folder() {
    let folder = std::env::temp_dir().join(format!("machnet-stale-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("machnet.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let path = std::ffi::CString::new(socket.to_str().unwrap()).unwrap();
    let attach = |path: &std::ffi::CStr| {
        let mut ch: Channel = null_mut();
        // SAFETY: a C string, a writable pointer, and a channel that is given back once.
        unsafe {
            assert_eq!(machnet_attach(path.as_ptr(), std::ptr::null(), &mut ch), MACHNET_ENOSIDECAR);
            let said = text(ch);
            machnet_detach(ch);
            said
        }
    };
    assert!(!attach(&path).contains("mount"), "as long as it is an ordinary file");

    // The mount is seen by this thread alone, and goes with it.
    // SAFETY: no memory is involved but C strings.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(null_mut(), c"/".as_ptr(), null_mut(), libc::MS_REC | libc::MS_PRIVATE, null_mut())
                == 0
            && libc::mount(path.as_ptr(), path.as_ptr(), null_mut(), libc::MS_BIND, null_mut()) == 0
    };
    if mounted {
        let said = attach(&path);
        assert!(said.ends_with("mount its folder, and start machnetd"), "{said}");
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::umount(path.as_ptr()) }, 0);
    } else {
        // Not by `println!`, which shows nothing of a test that passes.
        let line =
            format!("a mounted socket: skipped: mounting needs root: {}\n", std::io::Error::last_os_error());
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_sidecar_of_another_version_gets_one_clear_sentence() {
    let (app, sidecar) = socketpair();
    let mut ch: Channel = null_mut();
    // SAFETY: a writable pointer; the channel owns the socket.
    unsafe {
        assert_eq!(machnet_attach_fd(app, std::ptr::null(), &mut ch), 0);
        assert_eq!(machnet_attach_step(ch), MACHNET_EAGAIN);
        // Between the two ends sits somebody who changes the application's version.
        let mut bytes = [0_u8; 512];
        let n = libc::recv(sidecar, bytes.as_mut_ptr().cast(), 512, 0);
        bytes[12] = 99;
        let (near, far) = socketpair();
        assert_eq!(libc::send(near, bytes.as_ptr().cast(), n as usize, 0), n);
        let mut server = ServerAttach::new(Fd::own(far));
        assert!(server.step().is_err());
        let n = libc::recv(near, bytes.as_mut_ptr().cast(), 512, 0);
        assert_eq!(libc::send(sidecar, bytes.as_ptr().cast(), n as usize, 0), n);
        libc::close(near);
        assert_eq!(machnet_attach_step(ch), MACHNET_EVERSION);
        assert_eq!(machnet_attach_step(ch), MACHNET_EVERSION, "the answer stays the same");
        let said = text(ch);
        assert!(
            said.starts_with("attach over descriptor") && said.contains("app speaks channel version"),
            "{said}"
        );
        machnet_detach(ch);
        libc::close(sidecar);
    }
}

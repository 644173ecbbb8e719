//! The control socket as a file: made whole under another name and moved into place, so that nobody meets it before
//! its owner, its mode and its listener are right; never taken from a sidecar that lives.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A listening socket with its file, which goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode: a file that somebody else put there stays.
    identity: (u64, u64),
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process; 0 where it is not in this process's PID namespace.
    pub pid: i32,
    /// User; the kernel's "nobody" where this process's user namespace does not have it, and never root by mistake.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Who may attach.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub owner: Option<u32>,
    /// Group.
    pub group: Option<u32>,
}

impl ControlSocket {
    /// Makes the socket and listens.
    ///
    /// # Errors
    /// A sidecar lives there, something else is there, or the system refuses a step.
    pub fn bind(path: &Path, access: Access) -> Result<ControlSocket, String> {
        let shown = path.display();
        let failed = |step: &str, error: io::Error| format!("control socket {shown}: {step}: {error}");
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.exists() {
            let step = format!("make the folder {}", folder.display());
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|e| failed(&step, e))?;
        }
        // Two sidecars that start at once take turns; the lock leaves no file.
        let lock = File::open(folder).map_err(|e| failed("open its folder", e))?;
        lock.lock().map_err(|e| failed("lock its folder", e))?;
        if let Found::Dead = look(path)? {
            log::info!("control socket {shown}: replacing what a dead sidecar left");
            fs::remove_file(path).map_err(|e| failed("remove the old one", e))?;
        }

        let fresh = folder.join(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let fd = bind(&fresh).map_err(|e| failed("make it", e))?;
        let ready = || -> Result<(u64, u64), String> {
            fs::set_permissions(&fresh, fs::Permissions::from_mode(access.mode))
                .map_err(|e| failed(&format!("set its mode to {:04o}", access.mode), e))?;
            if access.owner.is_some() || access.group.is_some() {
                chown(&fresh, access.owner, access.group)
                    .map_err(|e| failed("give it to its owner and group (needs root)", e))?;
            }
            // SAFETY: no pointers; the socket is bound.
            if unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) } != 0 {
                return Err(failed("listen", io::Error::last_os_error()));
            }
            let identity = fs::metadata(&fresh).map_err(|e| failed("look at it", e))?;
            fs::rename(&fresh, path).map_err(|e| failed("move it into place", e))?;
            Ok((identity.dev(), identity.ino()))
        };
        match ready() {
            Ok(identity) => Ok(ControlSocket { fd, path: path.to_owned(), identity }),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// Gives the socket other permissions and another owner, as far as they are told.
    ///
    /// # Errors
    /// The system refuses a step.
    pub fn admit(&self, access: Access) -> Result<(), String> {
        let shown = self.path.display();
        if !self.is_ours() {
            return Err(format!("control socket {shown}: somebody else's file is in its place"));
        }
        chown(&self.path, access.owner, access.group).map_err(|e| {
            format!("control socket {shown}: give it to its owner and group (needs root): {e}")
        })?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(access.mode))
            .map_err(|e| format!("control socket {shown}: set its mode to {:04o}: {e}", access.mode))
    }

    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
    }

    /// To be polled for applications.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The next application, non-blocking; `None` when nobody waits.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: null pointers say that the address is not wanted.
        let fd =
            unsafe { libc::accept4(self.fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        if fd >= 0 {
            // SAFETY: just made, and owned by nobody else.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED) => Ok(None),
            _ => Err(error),
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a socket can be made at the path, for this owner: makes something in its folder, or in the nearest that is
/// there, and removes it. A look at permissions is no answer: there are read-only file systems, and /proc.
pub fn try_folder(path: &Path, access: Access) -> Result<(), String> {
    let folder = std::path::absolute(path).map_err(|e| e.to_string())?;
    let there = folder.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let probe = there.join(format!(".machnetd-{}", std::process::id()));
    let _ = fs::remove_dir(&probe);
    fs::create_dir(&probe).map_err(|error| {
        format!(
            "nothing can be made in {}: {error}; choose another path, or make the folder for this user",
            there.display()
        )
    })?;
    let owned = if access.owner.is_some() || access.group.is_some() {
        chown(&probe, access.owner, access.group)
            .map_err(|error| format!("give it to its owner and group (needs root): {error}"))
    } else {
        Ok(())
    };
    let _ = fs::remove_dir(&probe);
    owned
}

/// Who is at the other end of a connected socket.
pub fn credentials(fd: RawFd) -> Credentials {
    let mut raw = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `raw` is writable for `size` bytes. A refusal leaves "nobody".
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut raw).cast(), &mut size) };
    Credentials { pid: raw.pid, uid: raw.uid, gid: raw.gid }
}

/// What is at the socket's path and may give way.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The socket of a sidecar that is gone.
    Dead,
}

/// Looks at the path.
///
/// # Errors
/// A sidecar lives there, or something that is not ours to remove.
pub fn look(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(format!("control socket {shown}: look at it: {error}")),
    };
    if !there.file_type().is_socket() {
        return Err(format!(
            "control socket {shown}: something else is there, not a socket; remove it or choose another path"
        ));
    }
    match connect(path) {
        Ok(fd) => Err(format!(
            "control socket {shown}: process {} serves it; end that one, or choose another path",
            credentials(fd.as_raw_fd()).pid
        )),
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(Found::Dead),
        // A live one with a full backlog (EAGAIN), another kind of socket (EPROTOTYPE), no permission.
        Err(error) => Err(format!(
            "control socket {shown}: it is in use, or not ours to judge: {error}; choose another path"
        )),
    }
}

fn bind(path: &Path) -> io::Result<OwnedFd> {
    let fd = seqpacket()?;
    let (address, size) = address(path);
    // SAFETY: `address` is a whole address of `size` bytes.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) } {
        0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = seqpacket()?;
    let (address, size) = address(path);
    // SAFETY: `address` is a whole address of `size` bytes.
    match unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), size) } {
        0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    match unsafe { libc::socket(libc::AF_UNIX, kind, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: just made, and owned by nobody else.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

fn address(path: &Path) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: all bits zero is an address with an empty path.
    let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // The configuration bounds the path; a longer one would be cut, and its last byte stay zero.
    let room = address.sun_path.len() - 1;
    for (to, from) in address.sun_path[..room].iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    (address, size_of::<libc::sockaddr_un>() as libc::socklen_t)
}

/// Applications that may wait to be accepted; the kernel takes off what is beyond `net.core.somaxconn`.
const BACKLOG: libc::c_int = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Access = Access { mode: 0o640, owner: None, group: None };

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("machnetd-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn names(&self) -> Vec<String> {
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_socket_has_its_mode_in_a_new_folder_and_goes_when_dropped() {
        let folder = Folder::new("mode");
        let path = folder.0.join("a/b/ctl.sock");
        let socket = ControlSocket::bind(&path, ACCESS).unwrap();
        let there = fs::symlink_metadata(&path).unwrap();
        assert!(there.file_type().is_socket());
        assert_eq!(there.permissions().mode() & 0o7777, 0o640);
        assert!(socket.accept().unwrap().is_none());
        let _app = connect(&path).unwrap();
        let accepted = socket.accept().unwrap().expect("an application");
        assert_eq!(credentials(accepted.as_raw_fd()).pid, std::process::id() as i32);
        drop(socket);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let folder = Folder::new("steal");
        let path = folder.0.join("ctl.sock");
        let live = ControlSocket::bind(&path, ACCESS).unwrap();
        let refused = ControlSocket::bind(&path, ACCESS).unwrap_err();
        let expected = format!(
            "control socket {}: process {} serves it; end that one, or choose another path",
            path.display(),
            std::process::id()
        );
        assert_eq!(refused, expected);
        // What a killed sidecar leaves: the file without the listener.
        drop(live);
        drop(bind(&path).unwrap());
        assert_eq!(folder.names(), ["ctl.sock"]);
        let again = ControlSocket::bind(&path, ACCESS).unwrap();
        connect(&path).expect("the new one answers");
        drop(again);
        assert!(folder.names().is_empty());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = Folder::new("file");
        let path = folder.0.join("precious");
        fs::write(&path, "data").unwrap();
        let refused = ControlSocket::bind(&path, ACCESS).unwrap_err();
        assert!(
            refused.ends_with("something else is there, not a socket; remove it or choose another path"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn another_ones_file_in_our_place_stays_when_we_go() {
        let folder = Folder::new("replaced");
        let path = folder.0.join("ctl.sock");
        let socket = ControlSocket::bind(&path, ACCESS).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        drop(socket);
        assert_eq!(folder.names(), ["ctl.sock"]);
    }
}

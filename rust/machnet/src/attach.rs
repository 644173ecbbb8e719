//! Attaching, step by step and never blocking.
#![allow(clippy::result_large_err, clippy::large_enum_variant, reason = "no allocator, and once per channel")]
use crate::attached::Attached;
use crate::code::*;
use crate::last_error::Text;
use crate::signals::Signals;
use core::ffi::CStr;
use core::fmt::{self, Display};
use machnet_shm::{AttachError, ClientAttach, ClientHello, Fd, Status, SystemError};

/// An attachment under way.
pub struct Attach {
    stage: Stage,
    at: At,
    asked: ClientHello,
}

enum Stage {
    /// Not connected: at the start, or because the sidecar's queue of connections was full.
    Connect,
    Over(Fd),
    Attach(ClientAttach),
    Ended,
}

/// Where the sidecar is.
#[derive(Clone, Copy)]
enum At {
    Path([u8; PATH], usize),
    TooLong(usize),
    Socket(i32),
}

impl Attach {
    /// To the sidecar at `path`; without one to $MACHNET_SOCKET or the usual place.
    pub fn to_path(path: Option<&CStr>, asked: ClientHello) -> Self {
        let bytes = match path {
            Some(path) => path.to_bytes(),
            None => from_environment().unwrap_or(USUAL),
        };
        let mut kept = [0; PATH];
        let at = match kept.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                At::Path(kept, bytes.len())
            }
            None => At::TooLong(bytes.len()),
        };
        Self { stage: Stage::Connect, at, asked }
    }

    /// Over a connected socket, which it owns from here on.
    pub fn over(socket: i32, asked: ClientHello) -> Self {
        Self { stage: Stage::Over(Fd::own(socket)), at: At::Socket(socket), asked }
    }

    /// The socket to poll for input; -1: none, try again later.
    pub fn socket(&self) -> i32 {
        match &self.stage {
            Stage::Attach(attach) => attach.socket(),
            Stage::Over(socket) => socket.raw(),
            Stage::Connect | Stage::Ended => -1,
        }
    }

    /// Goes on. `None`: wait.
    pub fn step(&mut self, signals: &Signals) -> Result<Option<Attached>, (i32, Text)> {
        let done = self.go_on(signals);
        done.map_err(|(code, why)| {
            self.stage = Stage::Ended;
            (code, Text::new(format_args!("attach {}: {why}", self.at)))
        })
    }

    fn go_on(&mut self, signals: &Signals) -> Result<Option<Attached>, (i32, Text)> {
        loop {
            match core::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Connect => match connect(&self.at)? {
                    Some(socket) => self.stage = Stage::Over(socket),
                    None => {
                        self.stage = Stage::Connect;
                        return Ok(None);
                    }
                },
                Stage::Over(socket) => {
                    self.stage = Stage::Attach(ClientAttach::new(socket, self.asked).map_err(refused)?);
                }
                Stage::Attach(mut attach) => match attach.step().map_err(refused)? {
                    Some((end, welcome)) => {
                        return Attached::build(end, &welcome, attach.into_socket(), signals).map(Some).ok_or((
                            MACHNET_ENOBUFS,
                            Text::new(format_args!(
                                "no memory for {} connections and {} units; raise the memory limit, or lower channels.units",
                                welcome.geometry.flows, welcome.geometry.units
                            )),
                        ));
                    }
                    None => {
                        self.stage = Stage::Attach(attach);
                        return Ok(None);
                    }
                },
                Stage::Ended => {
                    return Err((MACHNET_EINVAL, Text::new("attaching has ended already")));
                }
            }
        }
    }
}

/// The words for an error of attaching.
fn refused(error: AttachError) -> (i32, Text) {
    let code = match error {
        AttachError::Closed => MACHNET_ENOSIDECAR,
        AttachError::System(_) => MACHNET_ESYSTEM,
        AttachError::Message { .. } => MACHNET_EPROTO,
        AttachError::Version { .. } => MACHNET_EVERSION,
        AttachError::Refused(status, _) => match status {
            Status::Version => MACHNET_EVERSION,
            Status::NoResources => MACHNET_ENOBUFS,
            Status::NotPermitted => MACHNET_EACCES,
            Status::NoEngine => MACHNET_EINVAL,
            Status::Ending => MACHNET_ENOSIDECAR,
            Status::Granted => MACHNET_EPROTO,
        },
    };
    (code, Text::new(error))
}

/// Connects; `None` when the sidecar's queue of connections is full.
fn connect(at: &At) -> Result<Option<Fd>, (i32, Text)> {
    let system = |what, errno| (MACHNET_ESYSTEM, Text::new(SystemError { what, errno }));
    let (path, len) = match at {
        At::Path(path, len) => (path, *len),
        At::TooLong(len) => {
            let most = PATH;
            let text = Text::new(format_args!(
                "the path has {len} bytes, at most {most} are possible; use a shorter one"
            ));
            return Err((MACHNET_EINVAL, text));
        }
        At::Socket(_) => return Err((MACHNET_EINVAL, Text::EMPTY)),
    };
    // SAFETY: socket touches no memory.
    let raw = unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    };
    if raw < 0 {
        return Err(system("make a socket", errno()));
    }
    let socket = Fd::own(raw);
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(path.iter().take(len)) {
        *to = *from as libc::c_char;
    }
    // SAFETY: `address` is a whole sockaddr_un, its path ends with a zero (PATH leaves room), and connect only reads it.
    let connected = unsafe {
        libc::connect(raw, (&raw const address).cast(), size_of::<libc::sockaddr_un>() as libc::socklen_t)
    };
    if connected == 0 {
        return Ok(Some(socket));
    }
    let (code, why) = match errno() {
        libc::EAGAIN | libc::EINTR => return Ok(None),
        libc::ENOENT => (
            MACHNET_ENOSIDECAR,
            "there is no such socket; start machnetd, or set MACHNET_SOCKET to its socket",
        ),
        libc::ECONNREFUSED if mounted(&address.sun_path) => (
            MACHNET_ENOSIDECAR,
            "nobody listens at this socket, and it is mounted as a file, which stays that of the sidecar of then: mount its folder, and start machnetd",
        ),
        libc::ECONNREFUSED => (MACHNET_ENOSIDECAR, "nobody listens at this socket; start machnetd"),
        libc::ENOTSOCK => {
            (MACHNET_ENOSIDECAR, "this is not a socket; set MACHNET_SOCKET to that of machnetd")
        }
        libc::EACCES | libc::EPERM => {
            (MACHNET_EACCES, "permission denied; machnetd's configuration sets owner and mode of its socket")
        }
        libc::EPROTOTYPE => (
            MACHNET_ENOSIDECAR,
            "another kind of socket than machnetd's; set MACHNET_SOCKET to that of machnetd",
        ),
        other => return Err(system("connect", other)),
    };
    Err((code, Text::new(why)))
}

/// Whether the path is a socket that was mounted by itself, as into a container: a sidecar that starts again makes another file, which this name
/// never leads to. Before Linux 5.8 the kernel does not tell.
fn mounted(path: &[libc::c_char]) -> bool {
    // SAFETY: all bits zero is a value of this structure of numbers.
    let mut found: libc::statx = unsafe { core::mem::zeroed() };
    // As a system call: the oldest libraries that the client links with have no function for it.
    // SAFETY: `path` ends with a zero, and `found` is writable and as large as the kernel fills in.
    let status = unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_TYPE, &raw mut found)
    };
    let is_socket = libc::mode_t::from(found.stx_mode) & libc::S_IFMT == libc::S_IFSOCK;
    status == 0 && is_socket && found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0
}

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path, len) => f.write_str(
                core::str::from_utf8(path.get(..*len).unwrap_or_default()).unwrap_or("(not UTF-8)"),
            ),
            Self::TooLong(_) => f.write_str("to a socket"),
            Self::Socket(socket) => write!(f, "over descriptor {socket}"),
        }
    }
}

/// 0 where the kernel has what a channel needs: sealed memory (Linux 3.17).
pub fn supported() -> i32 {
    // SAFETY: the name is a C string; the call touches no other memory.
    let raw = unsafe { libc::memfd_create(c"machnet".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if raw < 0 {
        return MACHNET_ESYSTEM;
    }
    drop(Fd::own(raw));
    0
}

fn from_environment() -> Option<&'static [u8]> {
    // SAFETY: the name is a C string. The result is read at once, before anybody can sensibly change the environment.
    let value = unsafe { libc::getenv(c"MACHNET_SOCKET".as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv gave a C string.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    (!value.is_empty()).then_some(value)
}

fn errno() -> i32 {
    // SAFETY: the C library's address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

/// Bytes of a socket's path without its final zero.
const PATH: usize = 107;
/// Where machnetd listens by default.
const USUAL: &[u8] = b"/var/run/machnet/machnet.sock";

//! Attaching, step by step and never blocking, and what is built when it is done.
#![allow(clippy::result_large_err, clippy::large_enum_variant, reason = "no allocator, and once per channel")]
use crate::client::{Fixed, Words};
use crate::code::*;
use crate::conns::{Conns, Entry};
use crate::ends::{DeliverEnd, SubmitEnd, view};
use crate::inbox::{Node, Nodes};
use crate::kept::Kept;
use crate::memory::Memory;
use crate::rx::{Receiver, RxConn};
use crate::text::Text;
use crate::tx::{Sender, TxConn};
use crate::types::{machnet_info_t, machnet_wait_view_t};
use core::ffi::CStr;
use core::fmt::{self, Display};
use core::sync::atomic::AtomicU64;
use machnet_shm::{
    ABI_VERSION, AppEnd, AttachError, ClientAttach, Fd, Geometry, Request, RxToken, Status, SystemError,
    Welcome, layout_hash,
};

/// An attachment under way.
pub struct Attach {
    stage: Stage,
    at: At,
    engine: Option<u32>,
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

/// What is there once attached.
pub struct Attached {
    pub memory: Memory,
    pub socket: Fd,
    pub receiver: Receiver<DeliverEnd>,
    pub sender: Sender<SubmitEnd>,
    pub kept: &'static mut [Request],
    pub scratch: &'static mut [u8],
    pub fixed: Fixed,
}

impl Attach {
    /// To the sidecar at `path`; without one to $MACHNET_SOCKET or the usual place.
    pub fn to_path(path: Option<&CStr>, engine: Option<u32>) -> Self {
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
        Self { stage: Stage::Connect, at, engine }
    }

    /// Over a connected socket, which it owns from here on.
    pub fn over(socket: i32, engine: Option<u32>) -> Self {
        Self { stage: Stage::Over(Fd::own(socket)), at: At::Socket(socket), engine }
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
    pub fn step(&mut self, words: &Words) -> Result<Option<Attached>, (i32, Text)> {
        let done = self.go_on(words);
        done.map_err(|(code, why)| {
            self.stage = Stage::Ended;
            (code, Text::of(format_args!("attach {}: {why}", self.at)))
        })
    }

    fn go_on(&mut self, words: &Words) -> Result<Option<Attached>, (i32, Text)> {
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
                    self.stage = Stage::Attach(ClientAttach::new(socket, self.engine).map_err(refused)?);
                }
                Stage::Attach(mut attach) => match attach.step().map_err(refused)? {
                    Some((end, welcome)) => {
                        return build(end, &welcome, attach.into_socket(), words).map(Some).ok_or((
                            MACHNET_ENOBUFS,
                            Text::of(format_args!(
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
                    return Err((MACHNET_EINVAL, Text::of(format_args!("attaching has ended already"))));
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
    (code, Text::of(format_args!("{error}")))
}

/// Memory and books for a channel; `None` when there is no memory.
fn build(end: AppEnd, welcome: &Welcome, socket: Fd, words: &Words) -> Option<Attached> {
    let AppEnd { tx, rx } = end;
    let geometry = welcome.geometry;
    let (flows, units, unit) =
        (geometry.flows as usize, geometry.units as usize, geometry.unit_size as usize);
    let mut memory = Memory::new(need(&geometry))?;
    // SAFETY: the slices go into fields of the channel that are dropped before its memory.
    let (entries, closed, rx_conns, tx_conns, nodes, kept, scratch) = unsafe {
        (
            memory.carve(flows, |_| Entry::default())?,
            memory.carve(Conns::words(flows), |_| AtomicU64::new(0))?,
            memory.carve(flows, |_| RxConn::UNUSED)?,
            memory.carve(flows, |_| TxConn::default())?,
            memory.carve(units, |i| Node::<RxToken>::free(i as u32 + 1))?,
            memory.carve(Kept::most(geometry.flows), |_| Request::Cancel { id: 0 })?,
            memory.carve(unit, |_| 0_u8)?,
        )
    };
    let doorbell = rx.doorbell();
    let (seen, complete) = (rx.view(), tx.view());
    let fixed = Fixed {
        conns: Conns::new(entries, closed),
        info: machnet_info_t {
            ip: welcome.ip.to_bits(),
            engine: welcome.engine,
            mtu: welcome.mtu,
            unit_size: geometry.unit_size,
            units: geometry.units,
            units_per_conn: geometry.quota(),
            conns: geometry.flows,
            max_message: MACHNET_MAX_MESSAGE,
            channel_version: ABI_VERSION,
            abi: MACHNET_ABI,
            layout_hash: layout_hash(),
        },
        view: machnet_wait_view_t {
            deliver: view(seen.deliver),
            complete: view(complete),
            replies: view(seen.replies),
            events: words.events.as_ptr(),
            events_tx: words.events_tx.as_ptr(),
            down: words.down.as_ptr(),
        },
        doorbell,
    };
    Some(Attached {
        memory,
        socket,
        receiver: Receiver::new(DeliverEnd::new(rx), rx_conns, Nodes::new(nodes)),
        sender: Sender::new(SubmitEnd::new(tx), tx_conns, geometry.quota()),
        kept,
        scratch,
        fixed,
    })
}

fn need(geometry: &Geometry) -> usize {
    let (flows, units, unit) =
        (geometry.flows as usize, geometry.units as usize, geometry.unit_size as usize);
    Memory::need::<Request>(Kept::most(geometry.flows))
        .saturating_add(Memory::need::<Entry>(flows))
        .saturating_add(Memory::need::<AtomicU64>(Conns::words(flows)))
        .saturating_add(Memory::need::<RxConn>(flows))
        .saturating_add(Memory::need::<TxConn>(flows))
        .saturating_add(Memory::need::<Node<RxToken>>(units))
        .saturating_add(Memory::need::<u8>(unit))
}

/// Connects; `None` when the sidecar's queue of connections is full.
fn connect(at: &At) -> Result<Option<Fd>, (i32, Text)> {
    let system = |what, errno| (MACHNET_ESYSTEM, Text::of(format_args!("{}", SystemError { what, errno })));
    let (path, len) = match at {
        At::Path(path, len) => (path, *len),
        At::TooLong(len) => {
            let most = PATH;
            let text = Text::of(format_args!(
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
    Err((code, Text::of(format_args!("{why}"))))
}

/// Whether the other end of a socket is gone. A plain system call, as in `patience`.
pub fn hung_up(socket: i32) -> bool {
    let mut byte = 0_u8;
    // SAFETY: `byte` is writable for one byte.
    let n = unsafe {
        let (flags, nobody) = (libc::MSG_PEEK | libc::MSG_DONTWAIT, core::ptr::null_mut::<u8>());
        libc::syscall(libc::SYS_recvfrom, socket, &raw mut byte, 1, flags, nobody, nobody)
    };
    n == 0 || (n < 0 && !matches!(errno(), libc::EAGAIN | libc::EINTR))
}

/// Empties a doorbell; false when its other end is closed. A plain system call, as in `patience`. What a sidecar that rings without end
/// leaves there wakes again.
pub fn drained(doorbell: i32) -> bool {
    let mut bytes = [0_u8; 64];
    for _ in 0..8 {
        // SAFETY: `bytes` is writable for its length.
        let n = unsafe { libc::syscall(libc::SYS_read, doorbell, bytes.as_mut_ptr(), bytes.len()) };
        if n < bytes.len() as libc::c_long {
            // An error is EAGAIN (empty now) or EINTR (still readable).
            return n != 0;
        }
    }
    true
}

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(self.as_bytes()).unwrap_or("?"))
    }
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
/// Where machnetd listens unless told otherwise.
const USUAL: &[u8] = b"/var/run/machnet/machnet.sock";

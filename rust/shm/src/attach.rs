//! How an application comes by its end of a channel: messages over a Unix SOCK_SEQPACKET socket, both sides step by step
//! and never blocking. docs/channel.md has the messages as tables.
//!
//! Client: HELLO, with a descriptor of its process. Sidecar: WELCOME with memory and doorbells, or a refusal with its sentence. Client, when it has mapped
//! the memory: MAPPED. Sidecar seals the memory: READY. The socket stays open: the kernel tells each side when the other dies.

use crate::app::AppEnd;
use crate::channel::{Shared, Side};
use crate::layout::{ABI_VERSION, Geometry, layout_hash};
use crate::memory::{Fd, Region, SystemError};
use core::fmt::{self, Write};
use core::net::Ipv4Addr;

const MAGIC: u64 = u64::from_le_bytes(*b"MACHNETA");
const HELLO: u32 = 1;
const WELCOME: u32 = 2;
const MAPPED: u32 = 3;
const READY: u32 = 4;
const TEXT: usize = 112;

const HELLO_LEN: usize = 32;
const WELCOME_LEN: usize = 64 + TEXT;
const SHORT_LEN: usize = 16;
/// Bytes that a message of another version may have at most to be understood as one.
const LONGEST: usize = 512;

/// A sentence of at most 112 bytes: an error that carries one stays small enough to be passed by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; TEXT],
    len: usize,
}

impl Text {
    /// From anything that can be formatted; what is too long is cut.
    pub fn new(what: impl fmt::Display) -> Text {
        let mut text = Text { bytes: [0; TEXT], len: 0 };
        let _ = write!(text, "{what}");
        text
    }

    /// The sentence.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("(unreadable)")
    }

    fn from_bytes(bytes: &[u8]) -> Text {
        let mut text = Text {
            bytes: [0; TEXT],
            len: bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()).min(TEXT),
        };
        text.bytes[..text.len].copy_from_slice(&bytes[..text.len]);
        text
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let end = self.len + c.len_utf8();
            if end > TEXT {
                return Ok(());
            }
            c.encode_utf8(&mut self.bytes[self.len..end]);
            self.len = end;
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// The peer closed the socket, or died.
    Closed,
    /// A system call was refused.
    System(SystemError),
    /// A message that is none of this protocol's.
    Message {
        /// What was wrong with it.
        what: &'static str,
        /// What it held.
        value: u64,
    },
    /// Application and sidecar speak different versions.
    Version {
        /// The application's version and layout hash.
        app: (u32, u64),
        /// The sidecar's.
        sidecar: (u32, u64),
    },
    /// The sidecar refused.
    Refused(Status, Text),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::Closed => write!(f, "the other side closed the socket while attaching"),
            AttachError::System(e) => write!(f, "{e}"),
            AttachError::Message { what, value } => write!(f, "{what}: {value:#x} is not of this protocol"),
            AttachError::Version { app, sidecar } => write!(
                f,
                "app speaks channel version {} (layout {:016x}), sidecar speaks {} (layout {:016x}); upgrade the older one",
                app.0, app.1, sidecar.0, sidecar.1
            ),
            AttachError::Refused(_, text) => write!(f, "{text}"),
        }
    }
}

impl core::error::Error for AttachError {}

impl From<SystemError> for AttachError {
    fn from(e: SystemError) -> AttachError {
        AttachError::System(e)
    }
}

/// What the sidecar says in a WELCOME.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    /// A channel.
    Granted = 0,
    /// Versions differ.
    Version = 1,
    /// No room for another channel.
    NoResources = 2,
    /// Not permitted.
    NotPermitted = 3,
    /// There is no such engine.
    NoEngine = 4,
    /// The sidecar is ending.
    Ending = 5,
}

impl Status {
    fn from_word(word: u32) -> Option<Status> {
        use Status::*;
        [Granted, Version, NoResources, NotPermitted, NoEngine, Ending]
            .into_iter()
            .find(|s| *s as u32 == word)
    }
}

/// What a sidecar tells an application of the channel it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Sizes of the channel.
    pub geometry: Geometry,
    /// The engine that serves it.
    pub engine: u32,
    /// The sidecar's address.
    pub ip: Ipv4Addr,
    /// Bytes of an IP packet on the wire.
    pub mtu: u32,
}

// ---- the client

/// The application's side of attaching.
pub struct ClientAttach {
    socket: Fd,
    state: ClientState,
}

#[allow(clippy::large_enum_variant)] // there is no allocator to box it with, and only one exists per attempt
enum ClientState {
    Welcome,
    Ready(Option<AppEnd>, Welcome),
    Over,
}

impl ClientAttach {
    /// Begins over a connected SOCK_SEQPACKET socket, which it owns from here on. `engine`: `None` lets the sidecar choose.
    ///
    /// The socket says that this process is there only as long as no child holds it, too; so a descriptor of the process goes with the
    /// first message. By us and not by whoever made the socket: that may have been another process.
    pub fn new(socket: Fd, engine: Option<u32>) -> Result<ClientAttach, AttachError> {
        let mut hello = Message::<HELLO_LEN>::new(HELLO);
        hello.put32(12, ABI_VERSION).put64(16, layout_hash()).put32(24, engine.unwrap_or(u32::MAX));
        match own_process() {
            Some(process) => send(&socket, &hello.0, &[process.raw()])?,
            None => send(&socket, &hello.0, &[])?,
        }
        Ok(ClientAttach { socket, state: ClientState::Welcome })
    }

    /// The socket to poll for input.
    pub fn socket(&self) -> i32 {
        self.socket.raw()
    }

    /// Goes on. `None`: wait for input. When it has given the end, [`ClientAttach::into_socket`] gives the life line.
    pub fn step(&mut self) -> Result<Option<(AppEnd, Welcome)>, AttachError> {
        loop {
            match &mut self.state {
                ClientState::Welcome => {
                    let mut fds = FdList::new();
                    let mut b = [0; LONGEST];
                    let Some(n) = receive(&self.socket, &mut b, &mut fds)? else { return Ok(None) };
                    let (app, welcome) = welcomed(&b[..n], fds)?;
                    send(&self.socket, &Message::<SHORT_LEN>::new(MAPPED).0, &[])?;
                    self.state = ClientState::Ready(Some(app), welcome);
                }
                ClientState::Ready(app, welcome) => {
                    let mut fds = FdList::new();
                    let mut b = [0; SHORT_LEN];
                    let Some(n) = receive(&self.socket, &mut b, &mut fds)? else { return Ok(None) };
                    check(&b[..n], READY, SHORT_LEN)?;
                    let welcome = *welcome;
                    let app = app.take();
                    self.state = ClientState::Over;
                    return Ok(app.map(|app| (app, welcome)));
                }
                ClientState::Over => return Err(AttachError::Closed),
            }
        }
    }

    /// The socket: it becomes readable when the sidecar is gone.
    pub fn into_socket(self) -> Fd {
        self.socket
    }
}

/// A descriptor of this process; `None` before Linux 5.3, or where it is not allowed.
fn own_process() -> Option<Fd> {
    // SAFETY: neither call touches memory.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    i32::try_from(raw).ok().filter(|raw| *raw >= 0).map(Fd::own)
}

fn welcomed(b: &[u8], mut fds: FdList) -> Result<(AppEnd, Welcome), AttachError> {
    check_kind(b, WELCOME)?;
    let status = get32(b, 12);
    let sidecar = (get32(b, 28), get64(b, 16));
    match Status::from_word(status) {
        Some(Status::Granted) => {}
        Some(Status::Version) => {
            return Err(AttachError::Version { app: (ABI_VERSION, layout_hash()), sidecar });
        }
        Some(status) => {
            return Err(AttachError::Refused(status, Text::from_bytes(b.get(64..).unwrap_or_default())));
        }
        None => return Err(AttachError::Message { what: "status of a welcome", value: status.into() }),
    }
    if sidecar != (ABI_VERSION, layout_hash()) {
        return Err(AttachError::Version { app: (ABI_VERSION, layout_hash()), sidecar });
    }
    check_len(b, WELCOME_LEN)?;
    let geometry = Geometry { units: get32(b, 32), flows: get32(b, 36), unit_size: get32(b, 40) };
    let geometry = geometry
        .checked()
        .map_err(|_| AttachError::Message { what: "geometry: units", value: geometry.units.into() })?;
    let welcome =
        Welcome { geometry, engine: get32(b, 24), ip: Ipv4Addr::from_bits(get32(b, 44)), mtu: get32(b, 48) };
    let (Some(memfd), Some(own), Some(peer), Some(sender)) =
        (fds.take(0), fds.take(1), fds.take(2), fds.take(3))
    else {
        return Err(AttachError::Message { what: "descriptors of a welcome", value: fds.len as u64 });
    };
    if !Region::is_sound(&memfd, geometry.len()) {
        return Err(AttachError::Message {
            what: "memory of a welcome: length or seals; bytes wanted",
            value: geometry.len() as u64,
        });
    }
    let region = Region::map(&memfd, geometry.len())?;
    let app = AppEnd::new(Shared::new(Side::App, region, geometry, own, peer, sender)?)?;
    Ok((app, welcome))
}

// ---- the sidecar

/// What an application asked for.
#[cfg(feature = "engine")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientHello {
    /// The engine that it named.
    pub engine: Option<u32>,
}

/// Where attaching stands.
#[cfg(feature = "engine")]
pub enum ServerStep {
    /// Wait for input.
    Wait,
    /// Decide: [`ServerAttach::welcome`] or [`ServerAttach::refuse`], then go on stepping.
    Hello(ClientHello),
    /// The channel is there.
    Attached(alloc::boxed::Box<crate::EngineEnd>),
}

/// The sidecar's side of attaching.
#[cfg(feature = "engine")]
pub struct ServerAttach {
    socket: Fd,
    state: ServerState,
    process: Option<Fd>,
}

#[cfg(feature = "engine")]
enum ServerState {
    Hello,
    Deciding,
    Mapped(Fd, alloc::boxed::Box<crate::EngineEnd>),
    Over,
}

#[cfg(feature = "engine")]
impl ServerAttach {
    /// Over an accepted SOCK_SEQPACKET socket, which it owns from here on.
    pub fn new(socket: Fd) -> ServerAttach {
        ServerAttach { socket, state: ServerState::Hello, process: None }
    }

    /// What the application sent as a descriptor of its process, once its hello is there: whatever it likes, so far.
    pub fn take_process(&mut self) -> Option<Fd> {
        self.process.take()
    }

    /// The socket to poll for input.
    pub fn socket(&self) -> i32 {
        self.socket.raw()
    }

    /// Goes on. An error ends the attempt; the application was told where it can be.
    pub fn step(&mut self) -> Result<ServerStep, AttachError> {
        let mut fds = FdList::new(); // what a client sends beyond its process is closed
        match &self.state {
            ServerState::Hello => {
                let mut b = [0; LONGEST];
                let Some(n) = receive(&self.socket, &mut b, &mut fds)? else { return Ok(ServerStep::Wait) };
                let b = &b[..n];
                check_kind(b, HELLO)?;
                let (app, own) = ((get32(b, 12), get64(b, 16)), (ABI_VERSION, layout_hash()));
                if app != own {
                    let e = AttachError::Version { app, sidecar: own };
                    self.refuse(Status::Version, Text::new(e))?;
                    return Err(e);
                }
                check_len(b, HELLO_LEN)?;
                let engine = get32(b, 24);
                self.process = fds.take(0);
                self.state = ServerState::Deciding;
                Ok(ServerStep::Hello(ClientHello { engine: (engine != u32::MAX).then_some(engine) }))
            }
            ServerState::Deciding => Ok(ServerStep::Wait),
            ServerState::Mapped(..) => {
                let mut b = [0; SHORT_LEN];
                let Some(n) = receive(&self.socket, &mut b, &mut fds)? else { return Ok(ServerStep::Wait) };
                check(&b[..n], MAPPED, SHORT_LEN)?;
                let ServerState::Mapped(memfd, end) = core::mem::replace(&mut self.state, ServerState::Over)
                else {
                    return Err(AttachError::Closed);
                };
                // No more mappings that write, no holes punched into ours, and no taking that back.
                Region::seal(&memfd, libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL)?;
                send(&self.socket, &Message::<SHORT_LEN>::new(READY).0, &[])?;
                Ok(ServerStep::Attached(end))
            }
            ServerState::Over => Err(AttachError::Closed),
        }
    }

    /// Grants a channel.
    pub fn welcome(&mut self, welcome: &Welcome) -> Result<(), AttachError> {
        self.welcome_in_steps(welcome, &mut || {})
    }

    /// The same; the memory is made in steps of some tens of microseconds, with `between` after each. Where there is no memory the
    /// application is told.
    pub fn welcome_in_steps(
        &mut self,
        welcome: &Welcome,
        between: &mut dyn FnMut(),
    ) -> Result<(), AttachError> {
        let geometry = welcome
            .geometry
            .checked()
            .map_err(|b| AttachError::Message { what: "geometry: units", value: b.0.units.into() })?;
        let made = crate::channel::Parts::new(geometry).and_then(|parts| {
            let region = Region::map_in_steps(&parts.memfd, geometry.len(), between)?;
            Ok((parts, region))
        });
        let (parts, region) = match made {
            Ok(made) => made,
            Err(e) => {
                let mib = geometry.len() >> 20;
                let text = Text::new(format_args!("no channel of {mib} MiB can be made: {e}"));
                self.refuse(Status::NoResources, text)?;
                return Err(e.into());
            }
        };
        let shared = Shared::new(
            Side::Engine,
            region,
            geometry,
            parts.engine_bell.0,
            parts.app_bell.1,
            parts.sender_bell.1,
        )?;
        shared.sign();
        let end = alloc::boxed::Box::new(crate::EngineEnd::new(shared));
        let b = Self::message(Status::Granted, Some(welcome), &Text::new(""));
        let (own, peer, sender) = (&parts.app_bell.0, &parts.engine_bell.1, &parts.sender_bell.0);
        send(&self.socket, &b.0, &[parts.memfd.raw(), own.raw(), peer.raw(), sender.raw()])?;
        self.state = ServerState::Mapped(parts.memfd, end);
        Ok(())
    }

    /// Gives up, and gives the memory back in steps, as [`crate::EngineEnd::release`].
    pub fn release(self, step: usize, between: &mut dyn FnMut()) {
        if let ServerState::Mapped(_, end) = self.state {
            end.release(step, between);
        }
    }

    /// Refuses, with a sentence for people.
    pub fn refuse(&mut self, status: Status, text: Text) -> Result<(), AttachError> {
        self.state = ServerState::Over;
        send(&self.socket, &Self::message(status, None, &text).0, &[])
    }

    fn message(status: Status, welcome: Option<&Welcome>, text: &Text) -> Message<WELCOME_LEN> {
        let mut b = Message::<WELCOME_LEN>::new(WELCOME);
        b.put32(12, status as u32).put64(16, layout_hash()).put32(28, ABI_VERSION);
        if let Some(w) = welcome {
            b.put32(24, w.engine)
                .put32(32, w.geometry.units)
                .put32(36, w.geometry.flows)
                .put32(40, w.geometry.unit_size);
            b.put32(44, w.ip.to_bits()).put32(48, w.mtu);
        }
        b.0[64..64 + TEXT].copy_from_slice(&text.bytes);
        b
    }

    /// The socket: it becomes readable when the application is gone.
    pub fn into_socket(self) -> Fd {
        self.socket
    }
}

// ---- messages

/// A message: magic, kind, and fields in little endian.
struct Message<const N: usize>([u8; N]);

impl<const N: usize> Message<N> {
    fn new(kind: u32) -> Self {
        let mut m = Message([0; N]);
        m.put64(0, MAGIC).put32(8, kind);
        m
    }

    fn put32(&mut self, at: usize, v: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&v.to_le_bytes());
        self
    }

    fn put64(&mut self, at: usize, v: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&v.to_le_bytes());
        self
    }
}

/// Checks magic, kind and length.
fn check(b: &[u8], kind: u32, len: usize) -> Result<(), AttachError> {
    check_kind(b, kind)?;
    check_len(b, len)
}

/// Checks magic and kind, and that the first 32 bytes are there, which every version has: so that a difference of versions is told as such
/// whatever else became of the message.
fn check_kind(b: &[u8], kind: u32) -> Result<(), AttachError> {
    if b.len() < SHORT_LEN || (kind <= WELCOME && b.len() < HELLO_LEN) {
        return Err(AttachError::Message { what: "length of a message", value: b.len() as u64 });
    }
    if get64(b, 0) != MAGIC {
        return Err(AttachError::Message { what: "first bytes of a message", value: get64(b, 0) });
    }
    if get32(b, 8) != kind {
        return Err(AttachError::Message { what: "kind of a message", value: get32(b, 8).into() });
    }
    Ok(())
}

fn check_len(b: &[u8], len: usize) -> Result<(), AttachError> {
    if b.len() == len {
        return Ok(());
    }
    Err(AttachError::Message { what: "length of a message", value: b.len() as u64 })
}

/// `b` is long enough: [`check_kind`] said so.
fn get32(b: &[u8], at: usize) -> u32 {
    b.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn get64(b: &[u8], at: usize) -> u64 {
    b.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// Descriptors that came with a message; those not taken are closed.
struct FdList {
    fds: [Option<Fd>; 4],
    len: usize,
}

impl FdList {
    const fn new() -> FdList {
        FdList { fds: [const { None }; 4], len: 0 }
    }

    /// Keeps a descriptor, or closes it when there are enough.
    fn add(&mut self, fd: Fd) {
        if let Some(place) = self.fds.get_mut(self.len) {
            *place = Some(fd);
        }
        self.len += 1;
    }

    fn take(&mut self, i: usize) -> Option<Fd> {
        self.fds[i].take()
    }
}

/// Room for the control message of a few descriptors, aligned as the kernel wants it. A client that sends more than fit
/// sees them closed by the kernel (MSG_CTRUNC).
#[repr(C, align(8))]
struct Control([u8; 64]);

fn send(socket: &Fd, bytes: &[u8], fds: &[i32]) -> Result<(), AttachError> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
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
fn receive(socket: &Fd, bytes: &mut [u8], fds: &mut FdList) -> Result<Option<usize>, AttachError> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all zero is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
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

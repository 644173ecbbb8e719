//! What stands between the driver of a memif and its peer's: at a server the public socket, in front of the one on which its driver listens,
//! at a client a private socket, to which its driver connects.
//!
//! DPDK's listener registers a connection with EAL before it greets the client; a client that died in between makes
//! it close the descriptor and leave the registration behind, and EAL then aborts the process. So clients come to
//! a socket of ours: we accept, connect to the driver, and pass messages (128 bytes each, some with a
//! descriptor) both ways for as long as the link lives. Towards the driver we never vanish at a bad moment, and the
//! end of either side is the end of both.
//!
//! The driver hangs up on a client that names another interface, and on one that comes while another has the link, and
//! gives no reason. We see both, and log it.
//!
//! A client's driver connects to us as soon as we have reached the server, and we say to whom it speaks. So the messages by which a client
//! describes its rings pass us at both ends: that is how their [bells](super::bell) are known.
//!
//! Runs in the parked interrupt thread only, so nothing here may block.

use super::bell::{Bells, Description};
use super::line::Line;
use super::memif::InterfaceId;
use crate::MemifRole;
use machnet_wire::{Nanos, WarningLimit};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// One port's socket, and those who have come to it: at a server clients, at a client its driver.
pub(super) struct Relay {
    /// The port.
    pub port: u16,
    role: MemifRole,
    own: OwnedFd,
    path: PathBuf,
    /// Where to connect for who comes: at a server to the driver, at a client to the server.
    beyond: PathBuf,
    /// A connection there that waits for the driver.
    ahead: Option<OwnedFd>,
    pairs: Vec<Pair>,
    /// The interface that the driver serves.
    id: InterfaceId,
    line: Arc<Line>,
    bells: Arc<Bells>,
    begun: Instant,
    warnings: WarningLimit,
}

/// One client and its connection to the server, one of which is the driver.
struct Pair {
    /// `None` once it has left.
    client: Option<OwnedFd>,
    server: OwnedFd,
    /// The server has spoken; before that we must not leave it.
    greeted: bool,
    /// The client's process; 0 where it cannot be seen.
    process: i32,
    /// The interface that the client has asked for since that was looked at last.
    asked: Option<InterfaceId>,
    /// The server has said that the link stands.
    linked: bool,
    /// What the client has told of it.
    link: Description,
    /// Its bells are known.
    followed: bool,
}

impl Relay {
    /// Opens the socket `path`, for those who want to go to `beyond`; the driver of a server must listen already.
    pub(super) fn open(
        port: u16,
        role: MemifRole,
        (path, beyond): (&Path, &Path),
        (id, line, bells): (InterfaceId, Arc<Line>, Arc<Bells>),
    ) -> io::Result<Relay> {
        let own = socket()?;
        let (address, len) = address(path)?;
        // SAFETY: the address lives through the calls, and `len` bytes of it are set.
        unsafe {
            check(libc::bind(own.as_raw_fd(), (&raw const address).cast(), len))?;
            check(libc::listen(own.as_raw_fd(), BACKLOG))?;
        }
        Ok(Relay {
            port,
            role,
            own,
            path: path.to_owned(),
            beyond: beyond.to_owned(),
            ahead: None,
            pairs: Vec::new(),
            id,
            line,
            bells,
            begun: Instant::now(),
            warnings: WarningLimit::default(),
        })
    }

    /// Before the driver of a client connects: connects to the server. False: nobody is there.
    pub(super) fn dial(&mut self) -> bool {
        if self.role == MemifRole::Client {
            self.ahead = connect(&self.beyond).ok();
            return self.ahead.is_some();
        }
        true
    }

    /// Appends what [`Relay::serve`] waits for.
    pub(super) fn interests(&self, out: &mut Vec<libc::pollfd>) {
        let entry = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        out.push(entry(&self.own));
        for pair in &self.pairs {
            out.push(entry(&pair.server));
            out.extend(pair.client.as_ref().map(entry));
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn serve(&mut self) {
        while let Ok(client) = accept(&self.own) {
            let process = process(&client);
            // Nobody but our own driver has business at a client's socket.
            if self.role == MemifRole::Client && process != std::process::id() as i32 {
                continue;
            }
            match self.ahead.take().map_or_else(|| connect(&self.beyond), Ok) {
                Ok(server) => self.pairs.push(Pair {
                    greeted: false,
                    process,
                    asked: None,
                    linked: false,
                    client: Some(client),
                    server,
                    link: Description::default(),
                    followed: false,
                }),
                // The driver's queue is full, at most two wait there: the client will come again.
                Err(error) => log::debug!("memif {}: a client must come again: {error}", self.path.display()),
            }
        }
        let mut asked = Vec::new();
        self.pairs.retain_mut(|pair| {
            let stays = pair.serve();
            asked.extend(pair.asked.take().map(|id| (pair.process, id)));
            stays
        });
        self.follow_link();
        if self.role == MemifRole::Client {
            return;
        }
        for (process, id) in asked {
            let Some(reason) = self.against(id) else { continue };
            self.line.refused.fetch_add(1, Ordering::Relaxed);
            if let Some(suppressed) = self.warnings.allow(Nanos(self.begun.elapsed().as_nanos() as u64)) {
                log::warn!(
                    "memif {}: turned process {process} away: {reason}{suppressed}",
                    self.path.display()
                );
            }
        }
    }

    /// The bells are those of the link that stands.
    fn follow_link(&mut self) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.has_link()) else { return self.bells.end() };
        if std::mem::replace(&mut pair.followed, true) {
            return;
        }
        match pair.link.rings(self.role) {
            Ok(rings) => self.bells.begin(rings),
            Err(error) => {
                self.bells.end();
                log::warn!(
                    "memif {}: its rings have no bells ({error}); engines look at them by time",
                    self.path.display()
                );
            }
        }
    }

    /// Why the driver will not take a client that asks for this interface.
    fn against(&self, id: InterfaceId) -> Option<String> {
        if id != self.id {
            return Some(format!(
                "it asks for interface {id}, and this is {}; give both ends the same memif_id and mtu, and each other's number of engines as memif_peer_queues",
                self.id
            ));
        }
        let holder = self.pairs.iter().find(|pair| pair.has_link())?;
        Some(format!(
            "process {} has the link, and a link has two ends; give each pair of sidecars a socket of its own",
            holder.process
        ))
    }
}

impl Pair {
    /// `false` when nothing is left to be done.
    fn serve(&mut self) -> bool {
        let server = pass(&self.server, self.client.as_ref(), |message, _| {
            self.linked |= field(message, 0).map(u16::from_ne_bytes) == Some(CONNECTED);
        });
        self.greeted |= server != Passed::Nothing;
        if let Some(client) = &self.client
            && pass(client, Some(&self.server), |message, descriptor| {
                if field(message, 0).map(u16::from_ne_bytes) == Some(INIT) {
                    self.asked = field(message, ID_AT).map(u32::from_ne_bytes).map(InterfaceId);
                }
                self.link.see(message, descriptor);
            }) == Passed::End
        {
            self.client = None;
        }
        server != Passed::End && (self.client.is_some() || !self.greeted)
    }

    fn has_link(&self) -> bool {
        self.linked && self.client.is_some()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A client's own is abstract, and the other the server's.
        if self.role == MemifRole::Server {
            for path in [&self.path, &self.beyond] {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// What [`pass`] found.
#[derive(PartialEq)]
enum Passed {
    Nothing,
    Something,
    End,
}

/// A field of a message; `None` of one that is too short for it.
fn field<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..)?.first_chunk().copied()
}

/// Passes on every message that waits, or drops it where the receiver is gone. `see` is shown each.
fn pass(from: &OwnedFd, to: Option<&OwnedFd>, mut see: impl FnMut(&[u8], Option<&OwnedFd>)) -> Passed {
    let mut bytes = [0u8; MESSAGE];
    let mut passed = Passed::Nothing;
    loop {
        match receive(from, &mut bytes) {
            Ok((0, _)) => return Passed::End,
            // The end of `to` is found when it is read.
            Ok((len, descriptor)) => {
                passed = Passed::Something;
                see(&bytes[..len], descriptor.as_ref());
                if let Some(to) = to {
                    let _ = send(to, &bytes[..len], descriptor.as_ref());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return passed,
            Err(_) => return Passed::End,
        }
    }
}

fn receive(from: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut ancillary = Ancillary::default();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all bits zero is an empty message; the buffers named next live through the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&ancillary.0);
    // SAFETY: as above.
    let len = unsafe { libc::recvmsg(from.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    // SAFETY: the kernel wrote well-formed headers within `ancillary`, and the macros stay inside it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(h) = header.as_ref() {
            if h.cmsg_level == libc::SOL_SOCKET && h.cmsg_type == libc::SCM_RIGHTS {
                // Room for one: the kernel closes what does not fit.
                let fd = libc::CMSG_DATA(h).cast::<c_int>().read_unaligned();
                found = Some(OwnedFd::from_raw_fd(fd));
            }
            header = libc::CMSG_NXTHDR(&message, h);
        }
    }
    Ok((len as usize, found))
}

fn send(to: &OwnedFd, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let mut ancillary = Ancillary::default();
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all bits zero is an empty message; the buffers named next live through the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        message.msg_control = ancillary.0.as_mut_ptr().cast();
        // SAFETY: `ancillary` is aligned and has room for one header with one descriptor.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<c_int>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
            libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(descriptor.as_raw_fd());
        }
    }
    // SAFETY: as above.
    let sent = unsafe { libc::sendmsg(to.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the peer's address is not asked for; a descriptor that comes back is ours alone.
    unsafe {
        let fd = libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The process at the other end, as the kernel says.
fn process(client: &OwnedFd) -> i32 {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of_val(&who) as libc::socklen_t;
    let at = (&raw mut who).cast();
    // SAFETY: `who` is writable for `len` bytes. A refusal leaves 0.
    unsafe { libc::getsockopt(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, at, &mut len) };
    who.pid
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket()?;
    let (address, len) = address(path)?;
    // SAFETY: the address lives through the call, and `len` bytes of it are set.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(fd)
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; a descriptor that comes back is ours alone.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The address of a path; a leading `@` makes it abstract, as long as its name, which is how the driver does it.
fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all bits zero is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_encoded_bytes();
    if name.is_empty() || name.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let is_abstract = name[0] == b'@';
    if is_abstract {
        address.sun_path[0] = 0;
    }
    let end = if is_abstract { name.len() } else { name.len() + 1 };
    let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + end;
    Ok((address, len as libc::socklen_t))
}

fn check(ret: c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for credentials and one descriptor, aligned for their headers.
#[derive(Default)]
struct Ancillary([u64; 12]);

/// memif's messages have 128 bytes; more is cut, and the other side refuses it.
const MESSAGE: usize = 256;
/// A client's message that names the interface it wants: kind (16 bits), version (16), the interface (32), in this
/// machine's order of bytes.
const INIT: u16 = 3;
/// Where that number stands.
const ID_AT: usize = 4;
/// The server's message by which the link stands.
const CONNECTED: u16 = 7;
/// Clients that wait for us.
const BACKLOG: c_int = 16;

#[cfg(test)]
mod tests {
    use super::super::bell;
    use super::super::memif::behind;
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    const OURS: InterfaceId = InterfaceId(8397056);

    /// A client's wish for an interface, as on the wire.
    fn init(id: u32) -> [u8; 128] {
        let mut message = [0; 128];
        message[..2].copy_from_slice(&INIT.to_ne_bytes());
        message[4..8].copy_from_slice(&id.to_ne_bytes());
        message
    }

    /// A relay, the socket of its "driver", and a client.
    fn relay(name: &str) -> (Relay, OwnedFd, OwnedFd) {
        let path = PathBuf::from(format!("@memif-relay-{name}-{}", std::process::id()));
        let (own, len) = address(&behind(&path)).unwrap();
        let listener = socket().unwrap();
        // SAFETY: the address lives through the calls.
        unsafe {
            check(libc::bind(listener.as_raw_fd(), (&raw const own).cast(), len)).unwrap();
            check(libc::listen(listener.as_raw_fd(), 1)).unwrap();
        }
        let bells = Arc::<Bells>::default();
        let shared = (OURS, Line::down(), bells);
        let relay = Relay::open(0, MemifRole::Server, (&path, &behind(&path)), shared).unwrap();
        let client = connect(&path).unwrap();
        (relay, listener, client)
    }

    #[test]
    fn messages_and_descriptors_pass_both_ways() {
        let (mut relay, listener, client) = relay("pass");
        relay.serve();
        let driver = accept(&listener).unwrap();
        send(&driver, b"hello", None).unwrap();
        let mut file = File::from(OwnedFd::from(tempfile()));
        file.write_all(b"region").unwrap();
        send(&client, b"init", Some(&OwnedFd::from(file))).unwrap();
        relay.serve();

        let mut bytes = [0u8; MESSAGE];
        let (len, none) = receive(&client, &mut bytes).unwrap();
        assert_eq!((&bytes[..len], none.is_none()), (&b"hello"[..], true));
        let (len, descriptor) = receive(&driver, &mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"init");
        let mut region = File::from(descriptor.expect("the descriptor came along"));
        region.rewind().unwrap();
        let mut content = String::new();
        region.read_to_string(&mut content).unwrap();
        assert_eq!(content, "region");
    }

    #[test]
    fn a_client_that_left_before_it_was_greeted_meets_a_driver_that_can_greet() {
        let (mut relay, listener, client) = relay("left");
        drop(client);
        relay.serve();
        let driver = accept(&listener).unwrap();
        send(&driver, b"hello", None).expect("we are still there");
        relay.serve();
        assert!(relay.pairs.is_empty());
        assert_eq!(
            receive(&driver, &mut [0; 8]).map(|(len, _)| len).unwrap(),
            0,
            "then the driver sees the end"
        );
    }

    #[test]
    fn whom_the_driver_will_not_take_is_counted_and_named() {
        let (mut relay, listener, client) = relay("refused");
        send(&client, &init(OURS.0), None).unwrap();
        relay.serve();
        let driver = accept(&listener).unwrap();
        let mut connected = [0u8; 128];
        connected[..2].copy_from_slice(&CONNECTED.to_ne_bytes());
        let refused = |relay: &Relay| relay.line.refused.load(Ordering::Relaxed);
        let foreign = "it asks for interface 0 (id 0, 0 x 0 queues of server x client, buffers of 0 bytes), and this is 8397056 (id 0, 1 x 1 queues of server x client, buffers of 2048 bytes); ";
        assert_eq!(refused(&relay), 0, "a proper client");
        assert_eq!(relay.against(OURS), None, "its link does not stand yet");
        assert!(relay.against(InterfaceId(0)).unwrap().starts_with(foreign));

        // Short and strange messages are passed on and mean nothing.
        for nonsense in [&[3u8, 0][..], &[3, 0, 0, 0, 1, 2, 3], &[0xff; 128]] {
            send(&client, nonsense, None).unwrap();
        }
        send(&driver, &connected, None).unwrap();
        relay.serve();
        assert_eq!(refused(&relay), 0);

        // Two more, one of which speaks of another interface.
        for id in [OURS.0, 0] {
            let other = connect(&relay.path).unwrap();
            send(&other, &init(id), None).unwrap();
            relay.serve();
            drop(accept(&listener).unwrap());
            relay.serve();
        }
        assert_eq!(refused(&relay), 2);
        let holds = format!("process {} has the link, and a link has two ends; ", std::process::id());
        assert!(relay.against(OURS).unwrap().starts_with(&holds), "{:?}", relay.against(OURS));

        // Once the first has left, the next may come.
        drop(client);
        relay.serve();
        assert_eq!(relay.against(OURS), None);
    }

    #[test]
    fn a_clients_driver_connects_once_the_server_is_there_and_its_rings_have_bells_while_the_link_stands() {
        let name = |what: &str| PathBuf::from(format!("@memif-relay-{what}-{}", std::process::id()));
        let (front, public) = (name("front"), name("public"));
        let bells = Arc::<Bells>::default();
        let shared = (OURS, Line::down(), bells.clone());
        let mut relay = Relay::open(0, MemifRole::Client, (&front, &public), shared).unwrap();
        assert!(!relay.dial(), "nobody is there");
        let (at, len) = address(&public).unwrap();
        let listener = socket().unwrap();
        // SAFETY: the address lives through the calls.
        unsafe {
            check(libc::bind(listener.as_raw_fd(), (&raw const at).cast(), len)).unwrap();
            check(libc::listen(listener.as_raw_fd(), 1)).unwrap();
        }
        assert!(relay.dial());
        let server = accept(&listener).expect("reached before the driver is started");
        let driver = connect(&front).unwrap();
        relay.serve();

        let (memory, bell) = bell::tests::region();
        let memory = OwnedFd::from(memory);
        send(&driver, &bell::tests::message(4, &[0; 10]), Some(&memory)).unwrap();
        send(&driver, &bell::tests::ring_message(0, bell::tests::OFFSET), Some(&bell)).unwrap();
        relay.serve();
        for what in ["region", "ring"] {
            assert!(
                receive(&server, &mut [0; MESSAGE]).unwrap().1.is_some(),
                "the {what} with its descriptor"
            );
        }
        let mut queue = bell::QueueBell::new(bells);
        assert_eq!(queue.arm(&[0]), None, "the link does not stand yet");
        let mut connected = [0u8; 128];
        connected[..2].copy_from_slice(&CONNECTED.to_ne_bytes());
        send(&server, &connected, None).unwrap();
        relay.serve();
        assert!(queue.arm(&[0]).is_some());
        drop(driver);
        relay.serve();
        assert_eq!((queue.arm(&[0]), relay.pairs.len()), (None, 0), "the link is over");
    }

    #[test]
    fn the_end_of_the_driver_is_the_end_of_the_client() {
        let (mut relay, listener, client) = relay("end");
        relay.serve();
        drop(accept(&listener).unwrap());
        relay.serve();
        assert_eq!(receive(&client, &mut [0; 8]).map(|(len, _)| len).unwrap(), 0);
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("memif-relay-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}

//! The application's side of attaching.

use super::message::{
    HELLO, HELLO_LEN, LONGEST, MAPPED, Message, READY, SHORT_LEN, WELCOME, WELCOME_LEN, check, check_kind,
    check_len, get32, get64,
};
use super::outcome::{AttachError, ClientHello, Status, Welcome};
use super::socket::{FdList, receive, send};
use crate::app::AppEnd;
use crate::channel::{ChannelRef, Side};
use crate::layout::{ABI_VERSION, Geometry, Map, layout_hash};
use crate::memory::{Fd, Region};
use crate::text::Text;
use core::net::Ipv4Addr;

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
    /// Begins over a connected SOCK_SEQPACKET socket, which it owns from here on.
    ///
    /// The socket says that this process is there only as long as no child holds it, too; so a descriptor of the process goes with the
    /// first message. It is made here, because the socket may have been made by another process.
    pub fn new(socket: Fd, asked: ClientHello) -> Result<ClientAttach, AttachError> {
        let mut hello = Message::<HELLO_LEN>::new(HELLO);
        hello.put32(12, ABI_VERSION).put64(16, layout_hash());
        hello.put32(24, asked.engine.unwrap_or(u32::MAX)).put32(28, asked.group);
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
    let region = Region::map(&memfd, geometry.len(), Map::new(geometry).rings())?;
    let app = AppEnd::new(ChannelRef::new(Side::App, region, geometry, own, peer, sender)?)?;
    Ok((app, welcome))
}

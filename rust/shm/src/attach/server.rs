//! The sidecar's side of attaching.

use super::message::{
    HELLO, HELLO_LEN, LONGEST, MAPPED, Message, READY, SHORT_LEN, WELCOME, WELCOME_LEN, check, check_kind,
    check_len, get32, get64,
};
use super::outcome::{AttachError, ClientHello, Status, Welcome};
use super::socket::{FdList, receive, send};
use crate::channel::{ChannelRef, Parts, Side};
use crate::engine::EngineEnd;
use crate::layout::{ABI_VERSION, Map, layout_hash};
use crate::memory::{Fd, Region, is_strict};
use crate::text::{TEXT, Text};
use alloc::boxed::Box;

/// Where attaching stands.
pub enum ServerStep {
    /// Wait for input.
    Wait,
    /// Decide: [`ServerAttach::welcome`] or [`ServerAttach::refuse`], then go on stepping.
    Hello(ClientHello),
    /// The channel is there.
    Attached(Box<EngineEnd>),
}

/// The sidecar's side of attaching.
pub struct ServerAttach {
    socket: Fd,
    state: ServerState,
    process: Option<Fd>,
}

enum ServerState {
    Hello,
    Deciding,
    Mapped(Fd, Box<EngineEnd>),
    Over,
}

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
                let (engine, group) = (get32(b, 24), get32(b, 28));
                self.process = fds.take(0);
                self.state = ServerState::Deciding;
                let engine = (engine != u32::MAX).then_some(engine);
                Ok(ServerStep::Hello(ClientHello { engine, group }))
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

    /// The same; the memory of the rings is made in steps of some tens of microseconds, with `between` after each. Where there is no memory the
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
        let len = geometry.len();
        let pages = if is_strict() { len } else { Map::new(geometry).rings() };
        let made = Parts::new(geometry).and_then(|parts| {
            let region = Region::map_in_steps(&parts.memfd, len, pages, between)?;
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
        let channel = ChannelRef::new(
            Side::Engine,
            region,
            geometry,
            parts.engine_bell.0,
            parts.app_bell.1,
            parts.sender_bell.1,
        )?;
        channel.sign();
        let end = Box::new(EngineEnd::new(channel));
        let b = Self::message(Status::Granted, Some(welcome), &Text::EMPTY);
        let (own, peer, sender) = (&parts.app_bell.0, &parts.engine_bell.1, &parts.sender_bell.0);
        send(&self.socket, &b.0, &[parts.memfd.raw(), own.raw(), peer.raw(), sender.raw()])?;
        self.state = ServerState::Mapped(parts.memfd, end);
        Ok(())
    }

    /// Gives up, and gives the memory back in steps, as [`EngineEnd::release`].
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
        b.0[64..64 + TEXT].copy_from_slice(text.padded());
        b
    }

    /// The socket: it becomes readable when the application is gone.
    pub fn into_socket(self) -> Fd {
        self.socket
    }
}

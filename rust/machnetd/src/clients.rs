//! One application at the control socket, from its first byte to its end.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Instant;

use machnet_host::{Offer, Place};
use machnet_shm::{AttachError, ClientHello, EngineEnd, Fd, ServerAttach, ServerStep, Status, Text};

use crate::socket::{Credentials, credentials};

/// An application.
pub struct Client {
    /// The socket; attaching works on a copy.
    fd: OwnedFd,
    /// The process, where it handed over a descriptor of itself: its children may hold the socket when it is gone.
    process: Option<OwnedFd>,
    /// Who it is.
    pub who: Credentials,
    /// Since when it is waited for.
    pub since: Instant,
    /// How far it is.
    pub stage: Stage,
}

/// How far an application is.
pub enum Stage {
    /// It has said nothing yet.
    New,
    /// Its channel is being made, for this place: nobody looks at its socket meanwhile.
    Making(Place),
    /// It has been given a channel, and is to say that it has mapped it.
    Granted(Box<ServerAttach>, Place),
    /// Its channel has this number, and an engine serves it.
    Attached(u64),
}

/// What came of looking at an application's socket.
pub enum Outcome {
    /// Nothing yet.
    Wait,
    /// It wants the counters, and then it is done.
    Stats,
    /// It wants a channel, and is to have this one.
    Make(Box<ServerAttach>, Offer),
    /// Its channel is ready for its place.
    Channel(Box<EngineEnd>),
    /// It has left, or its time is over.
    Gone,
    /// It is not served, for this reason.
    Refused(String),
}

impl Client {
    /// Somebody has connected.
    pub fn new(fd: OwnedFd) -> Client {
        let who = credentials(fd.as_raw_fd());
        Client { fd, process: None, who, since: Instant::now(), stage: Stage::New }
    }

    /// It is for the application to go on.
    pub fn is_waited_for(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Granted(..))
    }

    /// To be polled.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Its process, to be polled: readable once that has ended.
    pub fn process(&self) -> Option<RawFd> {
        self.process.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Looks at the socket or the process, one of which is readable. `offer` answers a hello.
    pub fn step(&mut self, offer: impl FnOnce(ClientHello) -> Answer) -> Outcome {
        match &mut self.stage {
            Stage::Attached(_) => self.end(),
            Stage::Making(_) => Outcome::Wait,
            Stage::New => match self.peek() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Wait,
                Err(_) => Outcome::Gone,
                Ok(First::End) => Outcome::Gone,
                Ok(First::Stats) => {
                    // Taken out: a socket that closes over unread packets loses what it has just sent.
                    let _ = self.take();
                    Outcome::Stats
                }
                Ok(First::Other) => self.hello(offer),
            },
            Stage::Granted(attach, _) => {
                let stepped = attach.step();
                if let Some(process) = attach.take_process() {
                    // SAFETY: the descriptor is ours alone; `into_raw` gives it up to its new owner.
                    let process = unsafe { OwnedFd::from_raw_fd(process.into_raw()) };
                    self.process = Some(process).filter(is_process);
                }
                match stepped {
                    Ok(ServerStep::Attached(channel)) => Outcome::Channel(channel),
                    Ok(ServerStep::Wait | ServerStep::Hello(_)) => Outcome::Wait,
                    Err(AttachError::Closed) => Outcome::Gone,
                    Err(refused) => Outcome::Refused(refused.to_string()),
                }
            }
        }
    }

    /// Answers its first packet.
    fn hello(&self, offer: impl FnOnce(ClientHello) -> Answer) -> Outcome {
        let mut attach = match self.fd.try_clone() {
            Ok(copy) => Box::new(ServerAttach::new(Fd::own(copy.into_raw_fd()))),
            Err(error) => return Outcome::Refused(format!("copy its socket: {error}")),
        };
        match attach.step() {
            Ok(ServerStep::Hello(hello)) => match offer(hello) {
                Ok(offer) => Outcome::Make(attach, offer),
                Err((status, text)) => {
                    // One that is gone already needs no answer.
                    let _ = attach.refuse(status, text);
                    Outcome::Refused(text.to_string())
                }
            },
            Ok(_) => Outcome::Wait,
            Err(AttachError::Closed) => Outcome::Gone,
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }

    /// Turns it away with a sentence, which it gets if it has said hello already.
    pub fn turn_away(&self, status: Status, text: Text) {
        if let Ok(copy) = self.fd.try_clone() {
            // Taken out: a socket that closes over unread packets loses what it has just sent.
            let _ = self.take();
            let _ = ServerAttach::new(Fd::own(copy.into_raw_fd())).refuse(status, text);
        }
    }

    /// Sends one packet; one that does not fit the socket's buffer is lost with its application.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `packet` is readable for its length.
        match unsafe { libc::send(self.fd(), packet.as_ptr().cast(), packet.len(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// What the first packet is; it stays in the socket.
    fn peek(&self) -> io::Result<First> {
        let mut first = [0u8; STATS.len() + 1];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: `first` is writable for its length.
        match unsafe { libc::recv(self.fd(), first.as_mut_ptr().cast(), first.len(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(First::End),
            n if first[..n as usize] == *STATS => Ok(First::Stats),
            _ => Ok(First::Other),
        }
    }

    /// Takes a packet; how many of its bytes were looked at. 0: the other end is gone.
    fn take(&self) -> io::Result<usize> {
        let mut byte = [0u8; 1];
        // SAFETY: `byte` is writable for its length.
        match unsafe { libc::recv(self.fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) } {
            -1 => Err(io::Error::last_os_error()),
            n => Ok(n as usize),
        }
    }

    /// After attaching the socket is a life line: it says nothing but that the other end is there.
    fn end(&self) -> Outcome {
        if self.process().is_some_and(readable) {
            return Outcome::Gone;
        }
        match self.take() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Wait,
            Ok(1) => Outcome::Refused("it spoke on its control socket after attaching".to_owned()),
            _ => Outcome::Gone,
        }
    }
}

/// Whether a descriptor stands for a process. What an application sends may be anything, and polling some files asks a program of its
/// choice, and waits for the answer. Another process than its own ends its channel when that ends, and harms nobody else.
fn is_process(fd: &OwnedFd) -> bool {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    told.is_ok_and(|told| told.lines().any(|line| line.starts_with("Pid:")))
}

fn readable(fd: RawFd) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, as said.
    unsafe { libc::poll(&mut entry, 1, 0) == 1 }
}

/// The answer to a hello.
pub type Answer = Result<Offer, (Status, Text)>;

/// An application's first packet.
enum First {
    /// There is none: it has left.
    End,
    /// It wants the counters.
    Stats,
    /// Something for `ServerAttach`.
    Other,
}

/// The packet that asks for the counters instead of a channel.
pub const STATS: &[u8] = b"machnet-stats/1";

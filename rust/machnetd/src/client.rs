//! One application at the control socket, from its first byte to its end.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Instant;

use machnet_host::{Attaching, Host, Place, Step};
use machnet_shm::{AttachError, EngineEnd, Fd, Status, Text, Welcome};

use crate::queries::LONGEST;
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
    /// Its channel is being made: nobody looks at its socket meanwhile.
    Making,
    /// It has been given a channel, and is to say that it has mapped it.
    Granted(Box<Attaching>),
    /// Its channel has this number, and an engine serves it.
    Attached(u64),
}

/// What came of looking at an application's socket.
pub enum Outcome {
    /// Nothing yet.
    Wait,
    /// It asks something instead of attaching: its first packet, or as much of it as is looked at.
    Query(Vec<u8>),
    /// It wants a channel, and is to have this one.
    Make(Box<Attaching>, Welcome),
    /// Its channel is ready for its place.
    Ready(Place, Box<EngineEnd>),
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
        matches!(self.stage, Stage::New | Stage::Granted(_))
    }

    /// To be polled.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Its process, to be polled: readable once that has ended.
    pub fn process(&self) -> Option<RawFd> {
        self.process.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Looks at the socket or the process, one of which is readable.
    pub fn step<Q>(&mut self, host: &mut Host<Q>) -> Outcome {
        match &mut self.stage {
            Stage::Attached(_) => self.end(),
            Stage::Making => Outcome::Wait,
            Stage::New => match self.peek() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Wait,
                Err(_) => Outcome::Gone,
                Ok(First::End) => Outcome::Gone,
                Ok(First::Query) => self.query(),
                Ok(First::Hello) => self.hello(host),
            },
            Stage::Granted(attaching) => {
                let outcome = next(attaching.step(host));
                if let Some(process) = attaching.take_process() {
                    // SAFETY: the descriptor is ours alone; `into_raw` gives it up to its new owner.
                    let process = unsafe { OwnedFd::from_raw_fd(process.into_raw()) };
                    self.process = Some(process).filter(is_process);
                }
                outcome
            }
        }
    }

    /// Its first packet, if that is there and asks something.
    pub fn question(&self) -> Option<Vec<u8>> {
        match self.peek() {
            Ok(First::Query) => match self.query() {
                Outcome::Query(packet) => Some(packet),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes out its first packet.
    fn query(&self) -> Outcome {
        let mut packet = vec![0u8; LONGEST + 1];
        // SAFETY: `packet` is writable for its length. What is beyond that is thrown away, as are descriptors that came with it.
        match unsafe { libc::recv(self.fd(), packet.as_mut_ptr().cast(), packet.len(), libc::MSG_DONTWAIT) } {
            n @ 1.. => {
                packet.truncate(n as usize);
                Outcome::Query(packet)
            }
            _ => Outcome::Gone,
        }
    }

    /// Its socket, when it is no application.
    pub fn into_socket(self) -> OwnedFd {
        self.fd
    }

    /// Answers its first packet.
    fn hello<Q>(&self, host: &mut Host<Q>) -> Outcome {
        let mut attaching = match self.attaching() {
            Ok(attaching) => Box::new(attaching),
            Err(error) => return Outcome::Refused(format!("copy its socket: {error}")),
        };
        match attaching.step(host) {
            Ok(Step::Welcome(welcome)) => Outcome::Make(attaching, welcome),
            other => next(other),
        }
    }

    fn attaching(&self) -> io::Result<Attaching> {
        Ok(Attaching::new(Fd::own(self.fd.try_clone()?.into_raw_fd()), self.who.uid))
    }

    /// Turns it away with a sentence, which it gets if it has said hello already.
    pub fn turn_away(&self, status: Status, text: Text) {
        if let Ok(attaching) = self.attaching() {
            // Taken out: a socket that closes over unread packets loses what it has just sent.
            let _ = self.take();
            attaching.refuse(status, text);
        }
    }

    /// What the first packet is; it stays in the socket.
    fn peek(&self) -> io::Result<First> {
        let mut first = [0u8; 1];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: `first` is writable for its length.
        match unsafe { libc::recv(self.fd(), first.as_mut_ptr().cast(), first.len(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(First::End),
            _ if first == *b"{" => Ok(First::Query),
            _ => Ok(First::Hello),
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

/// What a step of attaching means for the client; a welcome comes once, with the hello.
fn next(step: Result<Step, AttachError>) -> Outcome {
    match step {
        Ok(Step::Ready(place, channel)) => Outcome::Ready(place, channel),
        Ok(Step::Wait | Step::Welcome(_)) => Outcome::Wait,
        Err(AttachError::Closed) => Outcome::Gone,
        Err(refused) => Outcome::Refused(refused.to_string()),
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

/// An application's first packet.
enum First {
    /// There is none: it has left.
    End,
    /// JSON: it asks something.
    Query,
    /// Anything else is for `Attaching`.
    Hello,
}

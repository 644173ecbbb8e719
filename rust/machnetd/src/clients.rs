//! All applications at the control socket: who is let in, how far each is, and what becomes of its channel.

use std::collections::HashMap;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};

use machnet_engine::End;
use machnet_host::{Host, Over, Owner, Place};
use machnet_shm::{AttachError, EngineEnd, Status, Text};

use crate::client::{Client, Outcome, Stage};
use crate::limits::{Limits, Unattached};
use crate::memory::{Made, Memory};
use crate::socket::{Access, ControlSocket, Credentials};

/// Everybody who is connected to the control socket and has not asked a query.
pub struct Clients {
    listener: ControlSocket,
    memory: Memory,
    limits: Limits,
    /// By their descriptors, which are unique while they are open.
    all: HashMap<RawFd, Client>,
    /// No descriptors were left: nobody is accepted until then.
    accept_again: Option<Instant>,
}

/// A query that somebody asks instead of attaching.
pub struct Asked {
    /// Where the answer goes.
    pub socket: OwnedFd,
    /// Who asks.
    pub who: Credentials,
    /// The first packet, or as much of it as is looked at.
    pub packet: Vec<u8>,
}

impl Clients {
    /// Nobody yet.
    pub fn new(listener: ControlSocket, memory: Memory, limits: Limits) -> Clients {
        Clients { listener, memory, limits, all: HashMap::new(), accept_again: None }
    }

    /// Changes who may attach.
    ///
    /// # Errors
    /// The system refuses a step.
    pub fn admit(&self, access: Access) -> Result<(), String> {
        self.listener.admit(access)
    }

    /// Changes how many may be attaching.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds what is to be polled.
    pub fn poll_on(&self, fds: &mut Vec<libc::pollfd>) {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // Those that would be too many wait in the socket's backlog. A negative descriptor is skipped.
        let closed = self.accept_again.is_some() || self.unattached().is_full(&self.limits);
        let listener = if closed { -1 } else { self.listener.fd() };
        fds.extend([entry(self.memory.fd()), entry(listener)]);
        // Two entries for each application.
        let clients = self.all.iter().filter(|(_, client)| !matches!(client.stage, Stage::Making));
        fds.extend(clients.flat_map(|(fd, client)| [entry(*fd), entry(client.process().unwrap_or(-1))]));
    }

    /// Goes on with everybody for whom something has happened, by what [`Clients::poll_on`] added, and lets new ones in. Returns the
    /// queries among what they say.
    pub fn serve<Q>(&mut self, host: &mut Host<Q>, polled: &[libc::pollfd]) -> Vec<Asked> {
        let mut asked = Vec::new();
        self.take_made(host);
        let (applications, _) = polled.get(2..).unwrap_or_default().as_chunks::<2>();
        for [socket, process] in applications {
            if socket.revents != 0 || process.revents != 0 {
                asked.extend(self.look_at(host, socket.fd));
            }
        }
        self.accept(host, &mut asked);
        asked
    }

    /// When to call [`Clients::keep_time`] though nothing happens.
    pub fn due(&self) -> Option<Instant> {
        let attaching = self.all.values().filter(|c| c.is_waited_for()).map(|c| c.since + ATTACH);
        attaching.chain(self.accept_again).min()
    }

    /// Lets go of those who have not attached in time.
    pub fn keep_time<Q>(&mut self, now: Instant, host: &mut Host<Q>) {
        let late: Vec<_> = self.all.extract_if(|_, c| c.is_waited_for() && c.since + ATTACH <= now).collect();
        for (_, client) in late {
            self.refuse(host, client, &format!("did not attach within {ATTACH:?}; cut off"));
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
        }
    }

    /// A channel is over: gives its memory back, and tells its application if that is still there.
    pub fn over(&mut self, over: Over) {
        let Over { channel, engine, owner: Owner { pid, .. }, why, leftover } = over;
        self.memory.release(leftover);
        match why {
            // Its application is gone, or learns of the end when this process closes all sockets.
            End::Left | End::Shutdown => return,
            End::Drained => log::info!("channel {channel}: process {pid}: drained"),
            End::Fault(fault) => log::warn!(
                "channel {channel}: process {pid} broke its channel on engine {engine}: {fault}; cut off"
            ),
        }
        // Closing its socket is how an application that is still there learns of it.
        self.all.retain(|_, client| !matches!(client.stage, Stage::Attached(number) if number == channel));
    }

    fn accept<Q>(&mut self, host: &mut Host<Q>, asked: &mut Vec<Asked>) {
        if self.accept_again.is_some() {
            return;
        }
        let mut unattached = self.unattached();
        // Whoever connects faster than this goes on must not keep everything else from its turn: those beyond come next time.
        for _ in 0..ACCEPTS {
            if unattached.is_full(&self.limits) {
                return;
            }
            match self.listener.accept() {
                Ok(None) => return,
                Ok(Some(fd)) => {
                    let client = Client::new(fd);
                    let who = client.who;
                    match unattached.admit(who, &self.limits) {
                        Ok(()) => {
                            let fd = client.fd();
                            self.all.insert(fd, client);
                            // Most have said hello already: a crowd that has is not waited for.
                            asked.extend(self.look_at(host, fd));
                            match self.all.get(&fd) {
                                Some(client) if client.is_waited_for() => {}
                                Some(_) => unattached.asked(who),
                                None => unattached.leave(who),
                            }
                        }
                        Err(many) => {
                            // Who asks is no application: how many of those there may be is for the queries to say.
                            if let Some(packet) = client.question() {
                                asked.push(Asked { who, socket: client.into_socket(), packet });
                                continue;
                            }
                            client.turn_away(Status::NoResources, Text::new(&many));
                            log::warn!("process {} (user {}): turned away: {many}", who.pid, who.uid);
                        }
                    }
                }
                Err(error) => {
                    log::error!("accept an application: {error}; trying again in {ACCEPT_AGAIN:?}");
                    self.accept_again = Some(Instant::now() + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    /// Those who are connected and not attached.
    fn unattached(&self) -> Unattached {
        let mut unattached = Unattached::default();
        for client in self.all.values() {
            match client.stage {
                Stage::New | Stage::Granted(_) => unattached.count(client.who),
                Stage::Making => unattached.count_asked(client.who),
                Stage::Attached(_) => {}
            }
        }
        unattached
    }

    fn look_at<Q>(&mut self, host: &mut Host<Q>, fd: RawFd) -> Option<Asked> {
        let mut client = self.all.remove(&fd)?;
        match client.step(host) {
            Outcome::Wait => {
                self.all.insert(fd, client);
            }
            Outcome::Make(attaching, welcome) => {
                client.stage = Stage::Making;
                self.all.insert(fd, client);
                self.memory.make(fd, attaching, welcome);
            }
            Outcome::Ready(place, channel) => self.attach(host, client, place, *channel),
            Outcome::Query(packet) => {
                return Some(Asked { who: client.who, socket: client.into_socket(), packet });
            }
            Outcome::Gone => self.left(host, client, "left"),
            Outcome::Refused(reason) => self.refuse(host, client, &reason),
        }
        None
    }

    /// Goes on with the clients whose channels are made.
    fn take_made<Q>(&mut self, host: &mut Host<Q>) {
        self.memory.drain();
        while let Some(Made { client: fd, attaching, result }) = self.memory.next() {
            let asked = self.all.remove(&fd).filter(|client| matches!(client.stage, Stage::Making));
            let Some(mut client) = asked else { continue };
            client.stage = Stage::Granted(attaching);
            client.since = Instant::now();
            match result {
                Ok(()) => {
                    self.all.insert(fd, client);
                }
                Err(AttachError::Closed) => self.left(host, client, "left"),
                Err(refused) => self.refuse(host, client, &refused.to_string()),
            }
        }
    }

    fn refuse<Q>(&mut self, host: &mut Host<Q>, client: Client, reason: &str) {
        log::warn!("process {} (user {}): {reason}", client.who.pid, client.who.uid);
        self.left(host, client, "cut off");
    }

    fn attach<Q>(&mut self, host: &mut Host<Q>, mut client: Client, place: Place, channel: EngineEnd) {
        let who = client.who;
        let engine = place.engine();
        match host.attach(place, Owner { pid: who.pid, uid: who.uid }, channel) {
            Ok(channel) => {
                log::info!(
                    "channel {channel}: process {} (user {}, group {}) on engine {engine}",
                    who.pid,
                    who.uid,
                    who.gid
                );
                client.stage = Stage::Attached(channel);
                self.all.insert(client.fd(), client);
            }
            Err(channel) => {
                log::error!("process {}: engine {engine} takes no more notes; cut off", who.pid);
                self.memory.discard(channel);
            }
        }
    }

    /// Forgets an application; closing its socket is how it learns, if it is still there.
    fn left<Q>(&mut self, host: &mut Host<Q>, client: Client, how: &str) {
        match client.stage {
            Stage::Attached(channel) => {
                log::info!("channel {channel}: process {} {how}", client.who.pid);
                host.leave(channel);
            }
            Stage::Granted(attaching) => self.memory.abandon(*attaching),
            Stage::New | Stage::Making => {}
        }
    }
}

/// For an application to attach, from its connecting.
const ATTACH: Duration = Duration::from_secs(5);
/// Applications accepted at a time.
const ACCEPTS: usize = 64;
/// Pause after the process ran out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

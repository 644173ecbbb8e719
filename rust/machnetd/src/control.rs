//! The control thread: lets applications attach, sees them leave, and keeps the count. It sleeps in poll until one of
//! its descriptors has something to say.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use machnet_engine::End;
use machnet_host::{Event, Host, Over, Owner, State};
use machnet_shm::{AttachError, EngineEnd, Status, Text};

use crate::clients::{Client, Outcome, Stage};
use crate::config::args::{self, Wish};
use crate::config::{Config, reload};
use crate::limits::{self, Limits, Strangers};
use crate::logger;
use crate::memory::{Made, Memory};
use crate::pins::Pins;
use crate::signals::{Signals, Wanted};
use crate::socket::{Access, ControlSocket};
use crate::start;
use crate::stats::{Attached, Stats};
use crate::threads;

/// The control thread's state.
pub struct Control<'a, Q> {
    config: Config,
    /// Where it came from, to be read again.
    args: Vec<String>,
    host: &'a mut Host<Q>,
    listener: ControlSocket,
    signals: &'a Signals,
    stats: Stats,
    memory: Memory,
    pins: Pins,
    limits: Limits,
    /// By their descriptors, which are unique while they are open.
    clients: HashMap<RawFd, Client>,
    /// No descriptors were left: nobody is accepted until then.
    accept_again: Option<Instant>,
    next_dump: Option<Instant>,
}

/// What the control thread works with.
pub struct Means {
    /// Counts.
    pub stats: Stats,
    /// Makes and releases channels.
    pub memory: Memory,
    /// Engines to be kept on their cores.
    pub pins: Pins,
    /// Applications that may be attaching.
    pub limits: Limits,
}

impl<'a, Q> Control<'a, Q> {
    /// Ready to run.
    pub fn new(
        config: Config,
        args: Vec<String>,
        host: &'a mut Host<Q>,
        listener: ControlSocket,
        signals: &'a Signals,
        means: Means,
    ) -> Control<'a, Q> {
        let Means { stats, memory, pins, limits } = means;
        Control {
            next_dump: config.stats_interval.map(|every| Instant::now() + every),
            config,
            args,
            host,
            listener,
            signals,
            stats,
            memory,
            pins,
            limits,
            clients: HashMap::new(),
            accept_again: None,
        }
    }

    /// Serves until a signal ends it; the socket's file is gone when this returns.
    pub fn run(mut self) {
        let mut ready = Vec::new();
        while !self.signals.ending() {
            self.wait(&mut ready);
            while let Some(wanted) = self.signals.wanted() {
                match wanted {
                    Wanted::Dump => self.stats.dump(self.attached().count()),
                    Wanted::Reload => self.reload(),
                }
            }
            self.take_events();
            self.take_made();
            for fd in ready.drain(..) {
                self.look_at(fd);
            }
            self.accept();
            self.keep_time();
        }
        self.stats.dump(self.attached().count());
    }

    /// Reads the settings again and puts in force what can be while engines run. With a mistake all stays as it was.
    fn reload(&mut self) {
        let new = match args::read(self.args.clone()) {
            Ok(Wish::Run(loaded)) => loaded.config,
            Ok(_) => return, // the same arguments ask for the same
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| log::error!("reload: {}", mistake.text));
                log::error!("reload: nothing was changed; mend the above and reload again");
                return;
            }
        };
        let before = self.config.clone();
        let mut changes = reload::take(&mut self.config, &new);
        if let Err(error) = self.admit(&before) {
            log::error!("reload: {error}; who may attach stays as it was");
            (self.config.owner, self.config.group, self.config.mode) =
                (before.owner, before.group, before.mode);
            changes.taken.retain(|key| !["control.owner", "control.group", "control.mode"].contains(key));
        }
        if before.stats_interval != self.config.stats_interval {
            self.next_dump = self.config.stats_interval.map(|every| Instant::now() + every);
        }
        if before.neighbors != self.config.neighbors {
            self.host.shared().neighbors.set_fixed(self.config.neighbors.clone(), threads::now());
        }
        if before.max_channels != self.config.max_channels {
            let channels = self.config.max_channels;
            self.limits = Limits::new(limits::raise_descriptors(channels), channels);
        }
        if let Err(error) = self.host.set_channels(start::channel_config(&self.config)) {
            log::error!("reload: {error}; channels stay as they were");
        }
        self.host.shared().set_connect_timeout(self.config.connect);
        // Told at the more talkative level of the two.
        log::set_max_level(before.log.max(self.config.log));
        match (&changes.taken[..], &changes.kept[..]) {
            ([], []) => log::info!("reload: nothing has changed"),
            ([], _) => {}
            (taken, _) => log::info!("reload: in force now: {}", taken.join(", ")),
        }
        if !changes.kept.is_empty() {
            log::warn!("reload: changed, and in force at the next start only: {}", changes.kept.join(", "));
        }
        log::set_max_level(self.config.log);
    }

    /// Has the socket's permissions follow the settings; what did not change is not touched.
    fn admit(&self, before: &Config) -> Result<(), String> {
        let now = &self.config;
        if (now.owner, now.group, now.mode) == (before.owner, before.group, before.mode) {
            return Ok(());
        }
        // SAFETY: neither call has arguments, and neither can fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        self.listener.admit(Access {
            mode: now.mode,
            owner: (now.owner != before.owner).then(|| now.owner.unwrap_or(user)),
            group: (now.group != before.group).then(|| now.group.unwrap_or(group)),
        })
    }

    /// Sleeps until something happens, and says which applications have.
    fn wait(&mut self, ready: &mut Vec<RawFd>) {
        let now = Instant::now();
        // Those that would be too many wait in the socket's backlog.
        let closed = self.accept_again.is_some() || self.strangers().is_full(&self.limits);
        let listener = if closed { -1 } else { self.listener.fd() };
        let (events, made) = (self.host.events_fd(), self.memory.fd());
        let fixed = [self.signals.end_fd(), self.signals.wishes_fd(), events, made, listener];
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // Two entries for each application; a negative descriptor is skipped.
        let clients = self.clients.iter().filter(|(_, client)| !matches!(client.stage, Stage::Making(_)));
        let applications = clients.flat_map(|(fd, client)| [*fd, client.process().unwrap_or(-1)]);
        let mut fds: Vec<_> = fixed.into_iter().chain(applications).map(entry).collect();
        let due = self.due().map(|at| at.saturating_duration_since(now));
        // Rounded up, or the last fraction of a millisecond is spent polling.
        let millis = due.map_or(-1, |wait| wait.as_micros().div_ceil(1000).min(60_000) as i32);
        // SAFETY: `fds` holds as many entries as told. After an error, a signal's, it asks again.
        let answer = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        if answer > 0 {
            let (applications, _) = fds[fixed.len()..].as_chunks::<2>();
            let spoke = applications.iter().filter(|both| both.iter().any(|entry| entry.revents != 0));
            ready.extend(spoke.map(|[socket, _]| socket.fd));
        }
    }

    /// When to wake up though nothing happens.
    fn due(&self) -> Option<Instant> {
        let attaching = self.clients.values().filter(|c| c.is_waited_for()).map(|c| c.since + ATTACH);
        let retry = self.host.retry_in().map(|wait| Instant::now() + Duration::from_nanos(wait.0));
        let others = [self.next_dump, self.accept_again, retry, self.pins.due(), logger::due()];
        attaching.chain(others.into_iter().flatten()).min()
    }

    fn accept(&mut self) {
        if self.accept_again.is_some() {
            return;
        }
        let mut strangers = self.strangers();
        // Whoever connects faster than this goes on must not keep everything else from its turn: those beyond come next time.
        for _ in 0..ACCEPTS {
            if strangers.is_full(&self.limits) {
                return;
            }
            match self.listener.accept() {
                Ok(None) => return,
                Ok(Some(fd)) => {
                    let client = Client::new(fd);
                    let who = client.who;
                    match strangers.admit(who, &self.limits) {
                        Ok(()) => {
                            let fd = client.fd();
                            self.clients.insert(fd, client);
                            // Most have said hello already, so that a crowd is not one of strangers.
                            self.look_at(fd);
                            match self.clients.get(&fd) {
                                Some(client) if client.is_waited_for() => {}
                                Some(_) => strangers.asked(who),
                                None => strangers.leave(who),
                            }
                        }
                        Err(many) => {
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
    fn strangers(&self) -> Strangers {
        let mut strangers = Strangers::default();
        for client in self.clients.values() {
            match client.stage {
                Stage::New | Stage::Granted(..) => strangers.count(client.who),
                Stage::Making(_) => strangers.count_asked(client.who),
                Stage::Attached(_) => {}
            }
        }
        strangers
    }

    fn look_at(&mut self, fd: RawFd) {
        let Some(mut client) = self.clients.remove(&fd) else { return };
        let outcome = client.step(|hello| self.host.offer(hello));
        match outcome {
            Outcome::Wait => {
                self.clients.insert(fd, client);
            }
            Outcome::Make(attach, offer) => {
                client.stage = Stage::Making(offer.place);
                self.clients.insert(fd, client);
                self.memory.make(fd, attach, offer.welcome);
            }
            Outcome::Channel(channel) => self.attach(client, *channel),
            Outcome::Stats => {
                let json = self.stats.json(self.attached().take(SHOWN));
                if let Err(error) = client.send(json.as_bytes()) {
                    log::warn!("process {}: send it the counters: {error}", client.who.pid);
                }
            }
            Outcome::Gone => self.left(client, "left"),
            Outcome::Refused(reason) => self.refuse(client, &reason),
        }
    }

    /// Goes on with the clients whose channels are made.
    fn take_made(&mut self) {
        self.memory.drain();
        while let Some(Made { client: fd, attach, result }) = self.memory.next() {
            let Some(mut client) = self.clients.remove(&fd) else { continue };
            let Stage::Making(place) = client.stage else { continue };
            client.stage = Stage::Granted(attach, place);
            client.since = Instant::now();
            match result {
                Ok(()) => {
                    self.clients.insert(fd, client);
                }
                Err(AttachError::Closed) => self.left(client, "left"),
                Err(refused) => self.refuse(client, &refused.to_string()),
            }
        }
    }

    fn refuse(&mut self, client: Client, reason: &str) {
        log::warn!("process {} (user {}): {reason}", client.who.pid, client.who.uid);
        self.left(client, "cut off");
    }

    fn attach(&mut self, mut client: Client, channel: EngineEnd) {
        let who = client.who;
        let Stage::Granted(_, place) = client.stage else { return };
        let engine = place.engine();
        match self.host.attach(place, Owner { pid: who.pid, uid: who.uid }, channel) {
            Ok(channel) => {
                log::info!(
                    "channel {channel}: process {} (user {}, group {}) on engine {engine}",
                    who.pid,
                    who.uid,
                    who.gid
                );
                client.stage = Stage::Attached(channel);
                self.clients.insert(client.fd(), client);
            }
            Err(channel) => {
                log::error!("process {}: engine {engine} takes no more notes; cut off", who.pid);
                self.memory.discard(channel);
            }
        }
    }

    /// Forgets an application; closing its socket is how it learns, if it is still there.
    fn left(&mut self, client: Client, how: &str) {
        match client.stage {
            Stage::Attached(channel) => {
                log::info!("channel {channel}: process {} {how}", client.who.pid);
                self.host.leave(channel);
            }
            Stage::Granted(attach, _) => self.memory.abandon(attach),
            Stage::New | Stage::Making(_) => {}
        }
    }

    /// What engines have done: channels that they no longer serve.
    fn take_events(&mut self) {
        for event in self.host.take_events() {
            match event {
                Event::Over(over) => self.over(over),
                Event::Answered(_) => {} // control thread: asks nothing yet
            }
        }
    }

    fn over(&mut self, over: Over) {
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
        self.clients
            .retain(|_, client| !matches!(client.stage, Stage::Attached(number) if number == channel));
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        let late: Vec<_> =
            self.clients.extract_if(|_, c| c.is_waited_for() && c.since + ATTACH <= now).collect();
        for (_, client) in late {
            self.refuse(client, &format!("did not attach within {ATTACH:?}; cut off"));
        }
        self.host.retry();
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
        }
        self.pins.look(now, self.host.shared());
        logger::catch_up();
        if let (Some(at), Some(every)) = (self.next_dump, self.config.stats_interval)
            && at <= now
        {
            self.stats.dump(self.attached().count());
            self.next_dump = Some(now + every);
        }
    }

    fn attached(&self) -> impl Iterator<Item = Attached> {
        self.host.channels().filter(|row| row.state == State::Attached).map(|row| Attached {
            channel: row.channel,
            engine: row.engine,
            pid: row.owner.pid,
            uid: row.owner.uid,
        })
    }
}

/// For an application to attach, from its connecting.
const ATTACH: Duration = Duration::from_secs(5);
/// Channels that the counters list, so that they fit one packet.
const SHOWN: usize = 1000;
/// Applications accepted at a time.
const ACCEPTS: usize = 64;
/// Pause after the process ran out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

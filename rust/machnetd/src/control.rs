//! The control thread: it sleeps in poll until a signal, an engine, an application or somebody who asks has something to say, hands
//! that to whom it concerns, and puts changed settings in force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_host::{Event, Host, State};

use crate::announcer::Announcer;
use crate::clients::{Asked, Clients};
use crate::config::args::{self, Command};
use crate::config::{Config, reload};
use crate::limits::{self, Limits};
use crate::logger;
use crate::notify::Notify;
use crate::pins::Pins;
use crate::queries::{Queries, Reach};
use crate::signals::{Request, Signals};
use crate::socket::Access;
use crate::stats::Stats;
use crate::threads;

/// The control thread's state.
pub struct Control<'a, Q> {
    config: Config,
    /// Where it came from, to be read again.
    args: Vec<String>,
    host: &'a mut Host<Q>,
    signals: &'a Signals,
    stats: Stats,
    /// Engines to be kept on their cores.
    pins: Pins,
    /// Applications that attach or are attached.
    clients: Clients,
    /// Those that sent a query instead, and have not read the whole answer.
    queries: Queries,
    /// The service manager.
    notify: Notify,
    /// The port, and whether it is back.
    announcer: Announcer,
    next_dump: Option<Instant>,
}

impl<'a, Q> Control<'a, Q> {
    /// Ready to run.
    pub fn new(
        config: Config,
        args: Vec<String>,
        host: &'a mut Host<Q>,
        signals: &'a Signals,
        stats: Stats,
        pins: Pins,
        clients: Clients,
    ) -> Control<'a, Q> {
        let next_dump = config.stats_interval.map(|every| Instant::now() + every);
        let (queries, notify) = (Queries::default(), Notify::from_environment());
        let announcer = Announcer::new(Arc::clone(&stats.port), Instant::now());
        Control { config, args, host, signals, stats, pins, clients, queries, notify, announcer, next_dump }
    }

    /// Serves until a signal ends it; the socket's file is gone when this returns.
    pub fn run(mut self) {
        self.notify.ready();
        while !self.signals.ending() {
            let polled = self.wait();
            while let Some(request) = self.signals.next_request() {
                match request {
                    Request::Dump => self.stats.dump(attached(self.host)),
                    Request::Reload => {
                        self.notify.reloading(threads::now());
                        self.reload();
                        self.notify.ready();
                    }
                }
            }
            for event in self.host.take_events(REPORTS) {
                match event {
                    Event::Over(over) => self.clients.over(over),
                    Event::Answered(part) => self.queries.take(&part),
                }
            }
            for Asked { socket, who, packet } in self.clients.serve(self.host, &polled) {
                let reach = Reach { host: self.host, stats: &self.stats, config: &mut self.config };
                self.queries.ask(socket, who, &packet, reach);
            }
            self.keep_time();
        }
        self.notify.stopping();
        self.stats.dump(attached(self.host));
    }

    /// Reads the settings again and puts in force what can be while engines run. With a mistake all stays as it was.
    fn reload(&mut self) {
        let new = match args::read(self.args.clone()) {
            Ok(Command::Run(loaded)) => loaded.config,
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
        let descriptors = limits::raise_descriptors();
        let limits = Limits::new(descriptors, self.config.max_channels);
        if before.max_channels != self.config.max_channels {
            limits::warn_if_few(descriptors, self.config.max_channels);
            self.clients.set_limits(limits);
        }
        if let Err(error) = self.host.set_channels(self.config.channels(limits.channels(descriptors))) {
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
        self.clients.admit(Access {
            mode: now.mode,
            owner: (now.owner != before.owner).then(|| now.owner.unwrap_or(user)),
            group: (now.group != before.group).then(|| now.group.unwrap_or(group)),
        })
    }

    /// Sleeps until something happens. Returns what was polled for the clients.
    fn wait(&mut self) -> Vec<libc::pollfd> {
        let fixed = [self.signals.end_fd(), self.signals.requests_fd(), self.host.events_fd()];
        let mut fds = fixed.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).to_vec();
        // Whoever does not read its answer as fast as it is made is waited for.
        let answers = self.queries.sending();
        fds.extend(answers.map(|fd| libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }));
        let first_client = fds.len();
        self.clients.poll_on(&mut fds);
        let due = self.due().map(|at| at.saturating_duration_since(Instant::now()));
        // Rounded up, or the last fraction of a millisecond is spent polling.
        let millis = due.map_or(-1, |wait| wait.as_micros().div_ceil(1000).min(60_000) as i32);
        // SAFETY: `fds` holds as many entries as told. After an error, a signal's, no entry says that something happened.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        let clients = fds.split_off(first_client);
        let ready = fds[fixed.len()..].iter().filter(|entry| entry.revents != 0);
        ready.for_each(|entry| self.queries.look_at(entry.fd));
        clients
    }

    /// When to wake up though nothing happens.
    fn due(&self) -> Option<Instant> {
        let retry = self.host.retry_in().map(|wait| Instant::now() + Duration::from_nanos(wait.0));
        let others =
            [self.clients.due(), self.queries.due(), self.pins.due(), logger::due(), self.notify.due()];
        others.into_iter().chain([self.next_dump, retry, Some(self.announcer.due())]).flatten().min()
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        self.clients.keep_time(now, self.host);
        self.queries.keep_time(now);
        self.host.retry();
        self.pins.look(now, self.host.shared());
        if self.announcer.is_back(now) {
            self.host.shared().neighbors.announce(threads::now());
            // One that sleeps until its next deadline knows nothing of this one.
            if let Some(engine) = self.host.shared().handle(0) {
                engine.wake();
            }
        }
        let health = || (self.stats.alive(), self.stats.status(attached(self.host)));
        self.notify.keep_time(now, health);
        logger::catch_up();
        if let (Some(at), Some(every)) = (self.next_dump, self.config.stats_interval)
            && at <= now
        {
            self.stats.dump(attached(self.host));
            self.next_dump = Some(now + every);
        }
    }
}

/// How many channels have an application.
fn attached<Q>(host: &Host<Q>) -> usize {
    host.channels().filter(|row| row.state == State::Attached).count()
}

/// Reports of engines that are worked off in one turn. A part of an answer may have 64 rows to be written as JSON, some 50 us of work, and
/// engines make parts faster than that: applications that attach are not to wait until all answers are whole.
const REPORTS: usize = 4;

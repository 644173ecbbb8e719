//! The world of one test: hosts, network, applications and the clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::app::App;
use crate::cost::{Cost, Work};
use machnet_engine::{End, Engine, EngineConfig, Leftover, Member, Report, Shared, UserId, neighbor};
use machnet_nic::sim::{Host, Net, SimQueue};
use machnet_shm::{FlowId, Geometry, Reply};
use machnet_wire::Nanos;

/// Everything of one test.
pub struct World {
    pub net: Net,
    pub now: Nanos,
    pub sidecars: Vec<Sidecar>,
    pub apps: Vec<App>,
    pub seed: u64,
    /// What a round of an engine costs.
    pub cost: Cost,
    /// Descriptors of the rings of hosts to come, and their MTU.
    pub descriptors: u16,
    pub mtu: u16,
    /// How threads that are placed on a core wait; `None`: they look all the time.
    pub waits: Option<Waits>,
    woken: Vec<usize>,
}

/// How a thread waits that shares its core: it looks for a while, giving the core away in between, and then sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// How long after the last work it looks.
    pub linger: Nanos,
    /// How long it takes from the bell until it runs.
    pub wake: Nanos,
}

/// Where a thread is placed, and what it did.
#[derive(Clone, Copy, Default)]
pub struct Place {
    /// The core of [`Net::add_core`] that it shares with others; `None`: it has one of its own.
    on: Option<usize>,
    /// When it ran last.
    ran: Nanos,
    /// When it found work last.
    worked: Nanos,
}

impl Place {
    /// When it fell asleep, if it sleeps now.
    fn asleep(&self, now: Nanos, waits: Option<Waits>) -> Option<Nanos> {
        self.on.and(waits).map(|waits| self.worked + waits.linger).filter(|since| *since < now)
    }
}

/// What an engine's core does.
#[derive(Clone, Copy, Default)]
pub struct Core {
    /// The core is occupied until this time.
    busy: Nanos,
    /// When the engine wants to run.
    due: Nanos,
    /// What the first half of a round found to do, where the second is still to come, at `busy`.
    half: Option<usize>,
    place: Place,
}

impl Core {
    fn at(&self) -> Nanos {
        if self.half.is_some() { self.busy } else { self.due.max(self.busy) }
    }

    /// There is something for the engine.
    fn ring(&mut self, now: Nanos, waits: Option<Waits>) {
        self.due = match waits.filter(|_| self.place.asleep(now, waits).is_some()) {
            Some(waits) => self.due.min(now + waits.wake),
            None => Nanos::ZERO,
        };
    }
}

/// One host: its engines and how to reach them.
pub struct Sidecar {
    pub engines: Vec<Engine<SimQueue>>,
    pub cores: Vec<Core>,
    /// When its vCPU came back last.
    back: Nanos,
    pub shared: Arc<Shared>,
    pub ip: Ipv4Addr,
    /// Index in the network.
    pub host: usize,
    pub running: bool,
}

impl Sidecar {
    /// Runs an engine for a round, or for half of one. Gives how much it found to do, and when the others may see what it left. Others had
    /// its core until `free`, and it sleeps since `asleep`.
    fn run(
        &mut self,
        at: usize,
        now: Nanos,
        cost: &Cost,
        free: Nanos,
        asleep: Option<Nanos>,
    ) -> (usize, Nanos) {
        let (engine, core) = (&mut self.engines[at], &mut self.cores[at]);
        if core.half.is_none() {
            // Who rings from now on, be it between the halves, rings for the next round.
            core.due = Nanos::MAX;
            // Rounds that would have found nothing are left out.
            let last = (now - cost.round()).min(asleep.unwrap_or(Nanos::MAX));
            if last >= core.busy.max(free).max(self.back) {
                engine.looked(last);
            }
        }
        let (work, seen) = match cost {
            Cost::Round { round, item } => {
                let work = engine.run_once(now);
                core.busy = now + *round + *item * work as u64;
                (work, Nanos::ZERO)
            }
            Cost::Parts(parts) => {
                let counters = self.shared.counters(at as u16).expect("in range");
                let before = Work::so_far(counters);
                let work = match core.half.take() {
                    None => {
                        let came = engine.receive(now);
                        core.half = Some(came);
                        core.busy = now + parts.round;
                        came
                    }
                    Some(came) => {
                        core.busy = now;
                        came + engine.send(now)
                    }
                };
                core.busy += parts.of(Work::so_far(counters).since(before));
                (work, core.busy)
            }
        };
        if core.half.is_none() {
            core.due = core.due.min(engine.next_deadline().unwrap_or(Nanos::MAX));
        }
        (work, seen)
    }
}

/// A thread that shares its core.
enum Thread {
    /// Host, and number of the engine.
    Engine(usize, usize),
    App(AppNo),
}

/// Number of an application in its world.
pub type AppNo = usize;

impl World {
    pub fn seeded(seed: u64) -> Self {
        Self {
            net: Net::new(seed),
            now: Nanos::ZERO,
            sidecars: Vec::new(),
            apps: Vec::new(),
            seed,
            cost: Cost::Round { round: Nanos(200), item: Nanos::ZERO },
            descriptors: 256,
            mtu: 1500,
            waits: None,
            woken: Vec::new(),
        }
    }

    /// A sidecar 10.0.0.`n` with `engines` engines and ordinary settings.
    pub fn add(&mut self, n: u8, engines: u16) -> usize {
        self.add_with(n, engines, |_| {})
    }

    /// The same with other settings.
    pub fn add_with(&mut self, n: u8, engines: u16, change: impl FnOnce(&mut EngineConfig)) -> usize {
        self.add_on(n, Host::new(n).queues(engines), change)
    }

    /// The same on a NIC that is `nic` but for its rings and MTU; an engine for each of its queues.
    pub fn add_on(&mut self, n: u8, nic: Host, change: impl FnOnce(&mut EngineConfig)) -> usize {
        let ip = Ipv4Addr::new(10, 0, 0, n);
        let mut config =
            EngineConfig::new(neighbor::Config::new(ip, 24, None), self.now.0 + 1, [self.seed, n.into()]);
        config.burst = 16;
        change(&mut config);
        let ip = config.neighbor.ip;
        let host = self.sidecars.len();
        let engines = nic.queues;
        let queues = self.net.add_host(Host { descriptors: self.descriptors, mtu: self.mtu, ..nic });
        let shared = Shared::new(config, engines).expect("sockets");
        let engines: Vec<_> = queues
            .into_iter()
            .enumerate()
            .map(|(i, queue)| Engine::new(&shared, i as u16, queue, self.now).expect("in range"))
            .collect();
        let cores = vec![Core::default(); engines.len()];
        self.sidecars.push(Sidecar { engines, cores, back: Nanos::ZERO, shared, ip, host, running: true });
        host
    }

    /// The sidecar's process dies without a word and another starts in its place at once: another epoch, other secrets, another key in
    /// the NIC, and none of the applications.
    pub fn restart(&mut self, sidecar: usize) {
        self.restart_with(sidecar, |_| {});
    }

    /// The same with other settings.
    pub fn restart_with(&mut self, sidecar: usize, change: impl FnOnce(&mut EngineConfig)) {
        let mut config = self.sidecars[sidecar].shared.config.clone();
        config.epoch += 1 + self.now.0;
        config.secret[0] ^= config.epoch;
        change(&mut config);
        let ip = config.neighbor.ip;
        let queues = self.net.reopen(self.sidecars[sidecar].host);
        let shared = Shared::new(config, queues.len() as u16).expect("sockets");
        let begin = |(i, queue)| Engine::new(&shared, i as u16, queue, self.now).expect("in range");
        let engines: Vec<_> = queues.into_iter().enumerate().map(begin).collect();
        let old = &mut self.sidecars[sidecar];
        old.cores = vec![Core::default(); engines.len()];
        (old.engines, old.shared, old.ip) = (engines, shared, ip);
        for app in self.apps.iter_mut().filter(|app| app.sidecar == sidecar) {
            app.alive = false;
        }
    }

    /// An application on engine `engine` of a sidecar.
    pub fn app(&mut self, sidecar: usize, engine: u16) -> AppNo {
        self.app_with(sidecar, engine, Geometry::DEFAULT)
    }

    /// The same with a channel of another size.
    pub fn app_with(&mut self, sidecar: usize, engine: u16, geometry: Geometry) -> AppNo {
        self.app_of(Member::alone(USER), sidecar, engine, geometry)
    }

    /// The same of another user, or one of an application's channels.
    pub fn app_of(&mut self, member: Member, sidecar: usize, engine: u16, geometry: Geometry) -> AppNo {
        let (app, end) = machnet_shm::pair(geometry).expect("memory");
        let handle = self.sidecars[sidecar].shared.handle(engine).expect("in range");
        let number = handle.attach(end, member).unwrap_or_else(|_| panic!("inbox full"));
        self.apps.push(App::new(sidecar, app, number, handle));
        self.apps.len() - 1
    }

    /// Places an engine on a core of [`Net::add_core`], which it shares with what else is there: one thread runs at a time, and of those that
    /// could the one whose turn is longest ago.
    pub fn place(&mut self, sidecar: usize, engine: u16, core: usize) {
        self.sidecars[sidecar].cores[usize::from(engine)].place.on = Some(core);
    }

    /// Places an application on a core, which each thing that it does takes `item` of.
    pub fn place_app(&mut self, app: AppNo, core: usize, item: Nanos) {
        let app = &mut self.apps[app];
        (app.place.on, app.item) = (Some(core), item);
    }

    /// Runs until `done` or for `limit` of virtual time; whether it is done.
    pub fn run_for(&mut self, limit: Nanos, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        // The test may have changed anything.
        self.apps.iter_mut().for_each(|app| app.touched = true);
        self.sidecars.iter_mut().flat_map(|s| &mut s.cores).for_each(|core| core.due = Nanos::ZERO);
        loop {
            self.moment();
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            // `done` may have given the applications something to send.
            self.poll_apps();
            self.now = self.next().max(self.now).min(end);
        }
    }

    /// Everything that is due now.
    fn moment(&mut self) {
        self.net.set_now(self.now);
        self.net.take_woken(&mut self.woken);
        for host in self.woken.drain(..) {
            // The test itself may have added hosts that have no sidecar.
            let (sidecar, waits) = (self.sidecars.get_mut(host), self.waits);
            sidecar.into_iter().flat_map(|s| &mut s.cores).for_each(|core| core.ring(self.now, waits));
        }
        self.poll_apps();
        for host in 0..self.sidecars.len() {
            let sidecar = &mut self.sidecars[host];
            if !sidecar.running || sidecar.cores.iter().all(|core| core.at() > self.now) {
                continue;
            }
            if let Some(until) = self.net.stolen_until(host) {
                sidecar.back = until;
                continue;
            }
            for at in 0..sidecar.engines.len() {
                let core = &self.sidecars[host].cores[at];
                if core.place.on.is_none() && core.at() <= self.now {
                    self.run_engine(host, at, Nanos::ZERO);
                }
            }
        }
        self.take_turns();
    }

    /// Runs an engine whose core others had until `free`.
    fn run_engine(&mut self, host: usize, at: usize, free: Nanos) {
        let sidecar = &mut self.sidecars[host];
        let asleep = sidecar.cores[at].place.asleep(self.now, self.waits);
        let (work, seen) = sidecar.run(at, self.now, &self.cost, free, asleep);
        let place = &mut sidecar.cores[at].place;
        place.ran = self.now;
        if work == 0 {
            return;
        }
        place.worked = self.now;
        // It may have left something for the other engines, and for its applications.
        sidecar.cores.iter_mut().for_each(|core| core.due = core.due.min(seen));
        for app in self.apps.iter_mut() {
            app.touched |= app.sidecar == host && usize::from(app.engine.engine()) == at;
        }
    }

    /// Runs those that share cores, as far as these are free.
    fn take_turns(&mut self) {
        for core in 0..self.net.cores() {
            loop {
                let free = self.net.core_busy(core);
                if free > self.now {
                    break;
                }
                let ready = self.placed().filter(|(on, at, ..)| *on == core && *at <= self.now);
                let Some((.., who)) = ready.min_by_key(|(_, _, turn, _)| *turn) else { break };
                let until = match who {
                    Thread::Engine(host, at) => {
                        self.run_engine(host, at, free);
                        self.sidecars[host].cores[at].busy
                    }
                    Thread::App(app) => {
                        let work = self.poll_app(app);
                        let app = &mut self.apps[app];
                        app.place.ran = self.now;
                        self.now + app.item * work as u64
                    }
                };
                self.net.occupy(core, until);
            }
        }
    }

    /// Threads that share cores and have something to do: core, from when on, what decides who is first, and who it is.
    fn placed(&self) -> impl Iterator<Item = (usize, Nanos, (bool, Nanos), Thread)> {
        let engines = self.sidecars.iter().enumerate().filter(|(_, s)| s.running).flat_map(|(host, s)| {
            s.cores.iter().enumerate().map(move |(at, core)| {
                // The second half of a round follows the first.
                (
                    core.place.on,
                    host,
                    core.at(),
                    (core.half.is_none(), core.place.ran),
                    Thread::Engine(host, at),
                )
            })
        });
        let apps =
            self.apps.iter().enumerate().filter(|(_, app)| app.alive && app.touched).map(|(n, app)| {
                (app.place.on, app.sidecar, Nanos::ZERO, (true, app.place.ran), Thread::App(n))
            });
        engines.chain(apps).filter_map(|(on, host, at, turn, who)| {
            let on = on?;
            Some((on, at.max(self.net.stolen_until(host).unwrap_or(Nanos::ZERO)), turn, who))
        })
    }

    fn poll_apps(&mut self) {
        for n in 0..self.apps.len() {
            if self.apps[n].touched && self.apps[n].place.on.is_none() {
                self.poll_app(n);
            }
        }
    }

    /// Has an application do what it can; how much that was.
    fn poll_app(&mut self, n: AppNo) -> usize {
        let app = &mut self.apps[n];
        let work = app.poll();
        if work > 0 {
            let core = &mut self.sidecars[app.sidecar].cores[usize::from(app.engine.engine())];
            core.ring(self.now, self.waits);
        }
        work
    }

    /// When something is due next.
    fn next(&self) -> Nanos {
        let mut next = self.net.next_event().unwrap_or(Nanos::MAX);
        for (host, sidecar) in self.sidecars.iter().enumerate().filter(|(_, s)| s.running) {
            let own = sidecar.cores.iter().filter(|core| core.place.on.is_none());
            let first = own.map(Core::at).min().unwrap_or(Nanos::MAX);
            if first < next {
                next = first.max(self.net.stolen_until(host).unwrap_or(Nanos::ZERO)).min(next);
            }
        }
        let placed = self.placed().map(|(core, at, ..)| at.max(self.net.core_busy(core)));
        placed.min().unwrap_or(Nanos::MAX).min(next)
    }

    /// Runs until `done`; panics with seed and trace after 60 s of virtual time.
    pub fn run(&mut self, what: &str, done: impl FnMut(&mut Self) -> bool) {
        if !self.run_for(Nanos::secs(60), done) {
            let counters: Vec<_> = self
                .sidecars
                .iter()
                .map(|s| s.engines.len())
                .enumerate()
                .map(|(i, _)| self.counters(i))
                .collect();
            panic!("seed {}: {what}: not within 60 s\n{counters:#?}\n{}", self.seed, self.net.trace());
        }
    }

    /// Runs for this long.
    pub fn pass(&mut self, time: Nanos) {
        self.run_for(time, |_| false);
    }

    /// Counters of a sidecar, summed over its engines, without the zeros.
    pub fn counters(&self, sidecar: usize) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        let shared = &self.sidecars[sidecar].shared;
        let samples = (0..shared.engines()).filter_map(|i| shared.samples(i));
        for (name, sample) in samples.flat_map(|s| s.named().collect::<Vec<_>>()) {
            if let Some(value @ 1..) = sample.value {
                *sum.entry(name.into_owned()).or_insert(0) += value;
            }
        }
        sum
    }

    pub fn counter(&self, sidecar: usize, name: &str) -> u64 {
        self.counters(sidecar).get(name).copied().unwrap_or(0)
    }

    /// The next channel of a sidecar that is reported over: its number, why it ended, and what is left of it.
    pub fn next_over(&self, sidecar: usize) -> Option<(u64, End, Leftover)> {
        match self.sidecars[sidecar].shared.next_report()? {
            Report::ChannelOver { channel, why, leftover, .. } => Some((channel, why, leftover)),
            Report::Answer(answer) => panic!("nobody had asked for {answer:?}"),
        }
    }

    /// The application is gone, as when its process ends: it does nothing more, and its engine is told.
    pub fn leave(&mut self, app: AppNo) {
        let app = &mut self.apps[app];
        app.alive = false;
        app.conns.values_mut().for_each(|conn| conn.outgoing.clear());
        assert!(app.engine.detach(app.number), "the engine has room for a note");
    }

    /// Opens a listener.
    pub fn listen(&mut self, app: AppNo, port: u16) -> u16 {
        let id = self.apps[app].listen(port);
        self.run("listening", |w| w.apps[app].reply(id).is_some());
        match self.apps[app].take_reply(id) {
            Some(Reply::Listening { port, .. }) => port,
            other => panic!("{other:?}"),
        }
    }

    /// Connects; gives both ends' handles.
    pub fn connect(&mut self, from: AppNo, to: AppNo, ip: Ipv4Addr, port: u16) -> (FlowId, FlowId) {
        let id = self.apps[from].dial(ip, port, 0, 0);
        let accepted = self.apps[to].accepted.len();
        self.run("connecting", |w| {
            w.apps[from].dialled(id).is_some() && w.apps[to].accepted.len() > accepted
        });
        let near = self.apps[from].dialled(id).expect("dialled").flow;
        (near, self.apps[to].accepted[accepted].flow)
    }

    /// Sends a message one way and checks that it arrives.
    pub fn carry(&mut self, from: (AppNo, FlowId), to: (AppNo, FlowId), message: Vec<u8>) {
        self.apps[from.0].send(from.1, message.clone());
        self.run("carrying", |w| w.apps[to.0].conn(to.1).received.front().is_some());
        assert_eq!(self.apps[to.0].conn(to.1).received.pop_front(), Some(message));
    }

    /// Ends everything and checks that each unit and buffer is back where it belongs.
    pub fn assert_nothing_is_lost(&mut self) {
        self.run("settling", |w| {
            w.apps.iter().all(|app| app.conns.values().all(|c| c.outgoing.is_empty()))
                && w.sidecars.iter().filter(|s| s.running).flat_map(|s| &s.engines).all(|e| {
                    e.usage().iter().all(|(_, (submitted, delivered, _))| *submitted == 0 && *delivered == 0)
                })
        });
        self.run("ending", |w| {
            for app in &mut w.apps {
                let flows: Vec<_> = app.conns.keys().copied().collect();
                flows.into_iter().for_each(|flow| app.close(flow));
            }
            w.sidecars.iter().filter(|s| s.running).flat_map(|s| &s.engines).all(|e| e.flows() == 0)
        });
        self.pass(Nanos::millis(1));
        for sidecar in self.sidecars.iter().filter(|s| s.running) {
            for engine in &sidecar.engines {
                assert_eq!(engine.promised(), 0, "seed {}: of the ring of {}", self.seed, sidecar.ip);
                for (channel, usage) in engine.usage() {
                    assert_eq!(usage, (0, 0, 0), "seed {}: channel {channel} of {}", self.seed, sidecar.ip);
                }
            }
        }
    }
}

/// Whose applications are, where nothing else is said.
const USER: UserId = UserId(1000);

/// Bytes of a message that differ by position and by `salt`, so that misplaced ones are seen.
pub fn pattern(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i.wrapping_mul(0x9e37_79b9) ^ salt.wrapping_mul(0x85eb_ca6b)) >> 7) as u8)
        .collect()
}

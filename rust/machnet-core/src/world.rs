//! Hosts on a simulated network: engines, and the applications that attach to them.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use machnet_engine::{Engine, EngineConfig, Samples, neighbor};
use machnet_host::{Attaching, ChannelConfig, Event, Host, Step};
use machnet_nic::sim::{self, Link, Net, SimQueue};
use machnet_shm::{Fd, Geometry};
use machnet_wire::Nanos;

use crate::system;

/// The network and its hosts.
pub struct World {
    net: Net,
    hosts: Vec<Placed>,
    /// How many NICs were plugged in, of hosts that came to be and others.
    nics: u8,
    /// With the number of the host.
    attaching: Vec<(usize, Attaching)>,
    attached: Vec<Attached>,
    /// The time of the last round.
    pub now: Nanos,
    seed: u64,
    /// When to look next whether applications have gone.
    look: Nanos,
}

/// A host to be.
#[derive(Clone, Copy)]
pub struct Plan {
    pub ip: Ipv4Addr,
    pub engines: u16,
    pub mtu: u16,
    pub units: u32,
    pub flows: u32,
}

/// A host, at its NIC.
struct Placed {
    /// Without engines while it is dead.
    host: Host<SimQueue>,
    plan: Plan,
    /// The number of its NIC in the network.
    nic: usize,
    /// How often it has started.
    lives: u32,
}

struct Attached {
    host: usize,
    channel: u64,
    socket: Fd,
}

impl World {
    /// An empty network.
    pub fn new(seed: u64, link: Link) -> World {
        let net = Net::new(seed);
        net.set_links(link);
        let (hosts, attaching, attached) = Default::default();
        World { net, hosts, nics: 0, attaching, attached, now: Nanos::ZERO, seed, look: Nanos::ZERO }
    }

    /// Changes all links from now on.
    pub fn set_links(&mut self, link: Link) {
        self.net.set_links(link);
    }

    /// Changes one direction of the link between two hosts from now on; false where there is no such link.
    pub fn set_link(&mut self, from: usize, to: usize, link: Link) -> bool {
        let nic = |number: usize| self.hosts.get(number).map(|placed| placed.nic);
        let (Some(from), Some(to)) = (nic(from), nic(to)) else { return false };
        if from != to {
            self.net.set_link(from, to, link);
        }
        from != to
    }

    /// Adds a host and gives its number; `None` where the plan is out of bounds, or the system refuses a descriptor.
    pub fn add(&mut self, plan: Plan) -> Option<usize> {
        channels(&plan).geometry(plan.mtu).ok()?;
        if plan.engines == 0 || plan.engines > 128 || self.hosts.iter().any(|at| at.plan.ip == plan.ip) {
            return None;
        }
        let nic = usize::from(self.nics);
        self.nics = self.nics.checked_add(1)?;
        let queues =
            self.net.add_host(sim::Host { mtu: plan.mtu, ..sim::Host::new(self.nics).queues(plan.engines) });
        let host = self.start(&plan, nic, 1, queues)?;
        self.hosts.push(Placed { host, plan, nic, lives: 1 });
        Some(self.hosts.len() - 1)
    }

    /// A host's process, which knows nothing of those before it.
    fn start(&self, plan: &Plan, nic: usize, lives: u32, queues: Vec<SimQueue>) -> Option<Host<SimQueue>> {
        let address = neighbor::Config::new(plan.ip, 0, None);
        let secret = [self.seed, u64::from(lives) << 32 | (nic as u64 + 1)];
        let mut config = EngineConfig::new(address, self.now.0 + secret[1], secret);
        config.burst = 16;
        Host::new(config, channels(plan), queues, self.now).ok()
    }

    /// An application comes: serves the attachment over this socket, which it owns from here on.
    pub fn serve(&mut self, host: usize, socket: Fd) -> bool {
        let alive = self.hosts.get(host).is_some_and(|placed| !placed.host.engines().is_empty());
        if alive {
            self.attaching.push((host, Attaching::new(socket, system::owner().uid)));
        }
        alive
    }

    /// The host dies as a process does: nothing is flushed, nobody is told but by the kernel.
    pub fn kill(&mut self, host: usize) -> bool {
        let Some(killed) = self.hosts.get_mut(host) else { return false };
        drop(killed.host.take_engines());
        self.attaching.retain(|(at, _)| *at != host);
        self.attached.retain(|one| one.host != host);
        true
    }

    /// A process starts in place of the host's, which dies if it lives; false where there is no such host, or the system refuses a
    /// descriptor, and then it is dead.
    pub fn restart(&mut self, host: usize) -> bool {
        if !self.kill(host) {
            return false;
        }
        let Placed { plan, nic, lives, .. } = self.hosts[host];
        let Some(started) = self.start(&plan, nic, lives + 1, self.net.reopen(nic)) else { return false };
        let placed = &mut self.hosts[host];
        (placed.host, placed.lives) = (started, lives + 1);
        true
    }

    /// A counter of a host, summed over its engines; `None` for a name that no counter has.
    pub fn counter(&self, host: usize, name: &str) -> Option<u64> {
        let shared = self.hosts.get(host)?.host.shared();
        let engines = (0..shared.engines()).filter_map(|i| shared.samples(i));
        let of =
            |samples: Samples| samples.named().find(|(known, _)| known == name).and_then(|(_, s)| s.value);
        engines.filter_map(of).reduce(|a, b| a + b)
    }

    /// The last packets and their fates.
    pub fn trace(&self) -> String {
        self.net.trace()
    }

    /// One round of everything at time `now`; how much there was to do.
    pub fn round(&mut self, now: Nanos) -> usize {
        self.now = now.max(self.now);
        self.net.set_now(self.now);
        let mut work = 0;
        if !self.attaching.is_empty() {
            work += self.attach();
        }
        if self.now >= self.look {
            self.look = self.now + LOOK;
            self.forget_the_gone();
        }
        work + self.engines().map(|engine| engine.run_once(now)).sum::<usize>()
    }

    /// Runs for `time` of virtual time.
    pub fn step(&mut self, time: Nanos) {
        let end = self.now.saturating_add(time);
        loop {
            if self.round(self.now) > 0 {
                // Work takes time; without it a busy world would never come to an end.
                self.now += ROUND;
            } else {
                self.now = self.due().unwrap_or(end).max(self.now + ROUND).min(end);
                // What comes then is seen at once: rounds that find nothing are left out.
                let now = self.now;
                self.engines().for_each(|engine| engine.looked(now));
            }
            if self.now >= end {
                self.now = end;
                return;
            }
        }
    }

    /// When something is due though nothing new comes in.
    pub fn due(&self) -> Option<Nanos> {
        let engines = self.hosts.iter().flat_map(|placed| placed.host.engines());
        let notes = self.hosts.iter().filter_map(|placed| placed.host.retry_in()).map(|time| self.now + time);
        engines.filter_map(Engine::next_deadline).chain(notes).chain(self.net.next_event()).min()
    }

    /// Arms every engine; false: there is work, and nothing stays armed.
    pub fn prepare_sleep(&mut self) -> bool {
        let armed = self.engines().map_while(|engine| engine.prepare_sleep().then_some(())).count();
        if armed < self.engines().count() {
            // The one that has work disarmed itself.
            self.engines().take(armed).for_each(Engine::wake);
            return false;
        }
        true
    }

    /// Collects what wakes an engine, what it has to say, and the sockets of applications.
    pub fn fds(&mut self, fds: &mut Vec<RawFd>) {
        fds.extend(self.attaching.iter().map(|(_, one)| one.socket()));
        fds.extend(self.attached.iter().map(|one| one.socket.raw()));
        fds.extend(self.hosts.iter().map(|placed| placed.host.events_fd()));
        self.engines().for_each(|engine| engine.fds(fds));
    }

    /// After sleeping.
    pub fn wake(&mut self) {
        self.engines().for_each(Engine::wake);
        self.look = self.now;
    }

    fn engines(&mut self) -> impl Iterator<Item = &mut Engine<SimQueue>> {
        self.hosts.iter_mut().flat_map(|placed| placed.host.engines_mut())
    }

    /// Goes on with those who are attaching.
    fn attach(&mut self) -> usize {
        let mut work = 0;
        for (number, mut one) in std::mem::take(&mut self.attaching) {
            let host = &mut self.hosts[number].host;
            match one.step(host) {
                Ok(Step::Wait) => {
                    self.attaching.push((number, one));
                    continue;
                }
                Ok(Step::Welcome(welcome)) => {
                    if one.make(&welcome, &mut || {}).is_ok() {
                        self.attaching.push((number, one));
                    }
                }
                Ok(Step::Ready(place, end)) => {
                    if let Ok(channel) = host.attach(place, system::owner(), *end) {
                        self.attached.push(Attached { host: number, channel, socket: one.into_socket() });
                    }
                }
                // The application went away, or does not speak our protocol: its own calls tell it.
                Err(_) => {}
            }
            work += 1;
        }
        work
    }

    /// Ends the channels of applications that have closed their socket, and closes those of channels that are over.
    fn forget_the_gone(&mut self) {
        for gone in self.attached.extract_if(.., |one| machnet_shm::hung_up(one.socket.raw())) {
            self.hosts[gone.host].host.leave(gone.channel);
        }
        for (number, placed) in self.hosts.iter_mut().enumerate() {
            placed.host.retry();
            for event in placed.host.take_events(usize::MAX) {
                match event {
                    // One thread runs everything here, so it gives the memory back as well, by dropping what is left.
                    Event::Over(over) => {
                        self.attached.retain(|one| one.host != number || one.channel != over.channel);
                    }
                    Event::Answered(_) => {} // nobody asks here
                }
            }
        }
    }
}

/// What the channels of a host are like.
fn channels(plan: &Plan) -> ChannelConfig {
    let usual = Geometry::DEFAULT;
    let or = |value, usual| if value == 0 { usual } else { value };
    ChannelConfig {
        applications: usize::MAX,
        per_application: usize::MAX,
        descriptors: None,
        units: or(plan.units, usual.units),
        flows: or(plan.flows, usual.flows),
    }
}

/// Time of a round that had work, in virtual time.
const ROUND: Nanos = Nanos(200);
/// How often to look whether applications have gone.
const LOOK: Nanos = Nanos::millis(1);

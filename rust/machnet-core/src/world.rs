//! Hosts on a simulated network: engines, and the applications that attach to them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use machnet_engine::{Engine, EngineConfig, EngineHandle, Samples, Shared, neighbor};
use machnet_nic::sim::{Host, Link, Net, SimQueue};
use machnet_shm::{Fd, Geometry, ServerAttach, ServerStep, Status, Text, Welcome};
use machnet_wire::Nanos;

/// The network and its hosts.
pub struct World {
    net: Net,
    hosts: Vec<Sidecar>,
    attaching: Vec<Attaching>,
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

struct Sidecar {
    shared: Arc<Shared>,
    /// Empty once the host was killed.
    engines: Vec<Engine<SimQueue>>,
    plan: Plan,
    /// Engine of the next application that names none.
    turn: u16,
}

struct Attaching {
    host: usize,
    server: ServerAttach,
    engine: Option<EngineHandle>,
}

struct Attached {
    host: usize,
    engine: EngineHandle,
    id: u64,
    socket: Fd,
}

impl World {
    /// An empty network.
    pub fn new(seed: u64, link: Link) -> World {
        let net = Net::new(seed);
        net.set_links(link);
        let (hosts, attaching, attached) = Default::default();
        World { net, hosts, attaching, attached, now: Nanos::ZERO, seed, look: Nanos::ZERO }
    }

    /// Changes all links from now on.
    pub fn set_links(&mut self, link: Link) {
        self.net.set_links(link);
    }

    /// Adds a host and gives its number; `None` where the plan is out of bounds.
    pub fn add(&mut self, plan: Plan) -> Option<usize> {
        let geometry = geometry(&plan)?;
        let number = u8::try_from(self.hosts.len() + 1).ok()?;
        if plan.engines == 0 || plan.engines > 128 || self.hosts.iter().any(|host| host.plan.ip == plan.ip) {
            return None;
        }
        let mut config = EngineConfig::new(
            neighbor::Config::new(plan.ip, 0, None),
            self.now.0 + u64::from(number),
            [self.seed, number.into()],
        );
        config.burst = 16;
        let shared = Shared::new(config, plan.engines).ok()?;
        let queues = self.net.add_host(Host { mtu: plan.mtu, ..Host::new(number).queues(plan.engines) });
        let engines =
            queues.into_iter().zip(0..).filter_map(|(q, i)| Engine::new(&shared, i, q, self.now)).collect();
        let plan = Plan { units: geometry.units, ..plan };
        self.hosts.push(Sidecar { shared, engines, plan, turn: 0 });
        Some(self.hosts.len() - 1)
    }

    /// An application comes: serves the attachment over this socket, which it owns from here on.
    pub fn serve(&mut self, host: usize, socket: Fd) -> bool {
        let alive = self.hosts.get(host).is_some_and(|host| !host.engines.is_empty());
        if alive {
            self.attaching.push(Attaching { host, server: ServerAttach::new(socket), engine: None });
        }
        alive
    }

    /// The host dies as a process does: nothing is flushed, nobody is told but by the kernel.
    pub fn kill(&mut self, host: usize) -> bool {
        let Some(killed) = self.hosts.get_mut(host) else { return false };
        killed.engines.clear();
        self.attaching.retain(|one| one.host != host);
        self.attached.retain(|one| one.host != host);
        true
    }

    /// A counter of a host, summed over its engines; `None` for a name that no counter has.
    pub fn counter(&self, host: usize, name: &str) -> Option<u64> {
        let shared = &self.hosts.get(host)?.shared;
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
        let engines = self.hosts.iter().flat_map(|host| &host.engines).filter_map(Engine::next_deadline);
        engines.chain(self.net.next_event()).min()
    }

    /// Arms every engine and collects what wakes one; false: there is work.
    pub fn prepare_sleep(&mut self, fds: &mut Vec<i32>) -> bool {
        fds.extend(self.attaching.iter().map(|one| one.server.socket()));
        fds.extend(self.attached.iter().map(|one| one.socket.raw()));
        let armed = self.engines().map_while(|engine| engine.prepare_sleep().then_some(())).count();
        if armed < self.engines().count() {
            // The one that has work disarmed itself.
            self.engines().take(armed).for_each(Engine::wake);
            return false;
        }
        self.engines().for_each(|engine| engine.fds(fds));
        true
    }

    /// After sleeping.
    pub fn wake(&mut self) {
        self.engines().for_each(Engine::wake);
        self.look = self.now;
    }

    fn engines(&mut self) -> impl Iterator<Item = &mut Engine<SimQueue>> {
        self.hosts.iter_mut().flat_map(|host| &mut host.engines)
    }

    /// Goes on with those who are attaching.
    fn attach(&mut self) -> usize {
        let mut work = 0;
        for mut one in std::mem::take(&mut self.attaching) {
            match one.server.step() {
                Ok(ServerStep::Wait) => {
                    self.attaching.push(one);
                    continue;
                }
                Ok(ServerStep::Hello(hello)) => {
                    let host = &mut self.hosts[one.host];
                    one.engine = host.choose(hello.engine);
                    let answered = match (&one.engine, geometry(&host.plan)) {
                        (Some(engine), Some(geometry)) => {
                            let Plan { ip, mtu, .. } = host.plan;
                            one.server.welcome(&Welcome {
                                geometry,
                                engine: engine.engine().into(),
                                ip,
                                mtu: mtu.into(),
                            })
                        }
                        _ => {
                            let engines = host.shared.engines();
                            let text = Text::new(format_args!(
                                "this host has engines 0..={}; name one of them",
                                engines - 1
                            ));
                            one.server.refuse(Status::NoEngine, text)
                        }
                    };
                    if answered.is_ok() {
                        self.attaching.push(one);
                    }
                }
                Ok(ServerStep::Attached(end)) => {
                    if let Some(engine) = one.engine
                        && let Ok(id) = engine.attach(*end)
                    {
                        let socket = one.server.into_socket();
                        self.attached.push(Attached { host: one.host, engine, id, socket });
                    }
                }
                // The application went away, or does not speak our protocol: its own calls tell it.
                Err(_) => {}
            }
            work += 1;
        }
        work
    }

    /// Detaches the channels of applications that have closed their socket, and closes those that an engine dropped.
    fn forget_the_gone(&mut self) {
        self.attached.retain(|one| !crate::system::hung_up(one.socket.raw()) || !one.engine.detach(one.id));
        for (number, host) in self.hosts.iter().enumerate() {
            // One thread runs everything here, so it gives the memory back as well, by dropping the report.
            while let Some(report) = host.shared.next_report() {
                self.attached.retain(|one| one.host != number || one.id != report.channel);
            }
        }
    }
}

impl Sidecar {
    fn choose(&mut self, wanted: Option<u32>) -> Option<EngineHandle> {
        let engines = self.shared.engines();
        let engine = match wanted {
            Some(engine) => u16::try_from(engine).ok()?,
            None => {
                self.turn = (self.turn + 1) % engines;
                self.turn
            }
        };
        self.shared.handle(engine)
    }
}

/// The channels of a host, if its plan is within bounds.
fn geometry(plan: &Plan) -> Option<Geometry> {
    // Ethernet carries IP, UDP and our header (20 + 8 + 48 bytes) in each packet beside the unit.
    let unit_size = u32::from(plan.mtu).checked_sub(76)?;
    let usual = Geometry::DEFAULT;
    let or = |value, usual| if value == 0 { usual } else { value };
    Geometry { units: or(plan.units, usual.units), flows: or(plan.flows, usual.flows), unit_size }
        .checked()
        .ok()
}

/// Time of a round that had work, in virtual time.
const ROUND: Nanos = Nanos(200);
/// How often to look whether applications have gone.
const LOOK: Nanos = Nanos::millis(1);

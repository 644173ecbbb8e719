//! Sidecars with engines on a simulated network and applications on their channels, in one thread and virtual time.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use machnet_engine::{Engine, EngineConfig, EngineHandle, Shared, neighbor};
use machnet_nic::sim::{Host, Net, SimQueue};
use machnet_shm::{AppEnd, Delivery, Established, FlowId, Geometry, Origin, Part, Reason, Reply, Request};
use machnet_wire::Nanos;

/// Everything of one test.
pub struct World {
    pub net: Net,
    pub now: Nanos,
    pub sidecars: Vec<Sidecar>,
    pub apps: Vec<App>,
    pub seed: u64,
}

/// One host: its engines and how to reach them.
pub struct Sidecar {
    pub engines: Vec<Engine<SimQueue>>,
    pub shared: Arc<Shared>,
    pub ip: Ipv4Addr,
    /// Index in the network.
    pub host: usize,
    pub running: bool,
}

/// Number of an application in its world.
pub type AppNo = usize;

impl World {
    pub fn seeded(seed: u64) -> Self {
        Self { net: Net::new(seed), now: Nanos::ZERO, sidecars: Vec::new(), apps: Vec::new(), seed }
    }

    /// A sidecar 10.0.0.`n` with `engines` engines and ordinary settings.
    pub fn add(&mut self, n: u8, engines: u16) -> usize {
        self.add_with(n, engines, |_| {})
    }

    /// The same with other settings.
    pub fn add_with(&mut self, n: u8, engines: u16, change: impl FnOnce(&mut EngineConfig)) -> usize {
        let ip = Ipv4Addr::new(10, 0, 0, n);
        let mut config =
            EngineConfig::new(neighbor::Config::new(ip, 24, None), self.now.0 + 1, [self.seed, n.into()]);
        config.burst = 16;
        change(&mut config);
        let ip = config.neighbor.ip;
        let host = self.sidecars.len();
        let queues = self.net.add_host(Host::new(n).queues(engines));
        let shared = Shared::new(config, engines).expect("sockets");
        let engines = queues
            .into_iter()
            .enumerate()
            .map(|(i, queue)| Engine::new(&shared, i as u16, queue, self.now).expect("in range"))
            .collect();
        self.sidecars.push(Sidecar { engines, shared, ip, host, running: true });
        host
    }

    /// An application on engine `engine` of a sidecar.
    pub fn app(&mut self, sidecar: usize, engine: u16) -> AppNo {
        self.app_with(sidecar, engine, Geometry::DEFAULT)
    }

    /// The same with a channel of another size.
    pub fn app_with(&mut self, sidecar: usize, engine: u16, geometry: Geometry) -> AppNo {
        let (app, end) = machnet_shm::pair(geometry).expect("memory");
        let handle = self.sidecars[sidecar].shared.handle(engine).expect("in range");
        let number = handle.attach(end).unwrap_or_else(|_| panic!("inbox full"));
        self.apps.push(App::new(app, number, handle));
        self.apps.len() - 1
    }

    /// One round of everybody; whether anything happened.
    pub fn round(&mut self) -> bool {
        let mut work = 0;
        self.now += Nanos(200);
        self.net.set_now(self.now);
        for app in &mut self.apps {
            work += app.poll();
        }
        for sidecar in self.sidecars.iter_mut().filter(|s| s.running) {
            for engine in &mut sidecar.engines {
                work += engine.run_once(self.now);
            }
        }
        work > 0
    }

    /// Runs until `done` or for `limit` of virtual time; whether it is done.
    pub fn run_for(&mut self, limit: Nanos, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            let busy = self.round();
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            if !busy {
                let engines = self.sidecars.iter().filter(|s| s.running).flat_map(|s| &s.engines);
                let next = engines.filter_map(Engine::next_deadline).chain(self.net.next_event()).min();
                self.now = next.unwrap_or(end).max(self.now).min(end);
                self.net.set_now(self.now);
            }
        }
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
    pub fn counters(&self, sidecar: usize) -> BTreeMap<&'static str, u64> {
        let mut sum = BTreeMap::new();
        let shared = &self.sidecars[sidecar].shared;
        for sample in (0..shared.engines()).filter_map(|i| shared.counters(i)).flat_map(|c| c.snapshot()) {
            if sample.value > 0 {
                *sum.entry(sample.name).or_insert(0) += sample.value;
            }
        }
        sum
    }

    pub fn counter(&self, sidecar: usize, name: &str) -> u64 {
        self.counters(sidecar).get(name).copied().unwrap_or(0)
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
                for (channel, usage) in engine.usage() {
                    assert_eq!(usage, (0, 0, 0), "seed {}: channel {channel} of {}", self.seed, sidecar.ip);
                }
            }
        }
    }
}

/// An application: queues of messages on its end of a channel.
pub struct App {
    pub end: AppEnd,
    pub number: u64,
    pub engine: EngineHandle,
    pub conns: BTreeMap<u64, Conn>,
    /// Those that may have something to send.
    pub busy: BTreeSet<u64>,
    pub accepted: Vec<Established>,
    pub dialled: Vec<Established>,
    pub replies: Vec<Reply>,
    /// Whether units are returned as they come.
    pub reads: bool,
    pub unread: Vec<machnet_shm::RxToken>,
    /// Answers each message with itself.
    pub echoes: bool,
    pub alive: bool,
    next_id: u32,
    flows: BTreeMap<u64, FlowId>,
}

/// What an application knows of a connection.
#[derive(Default)]
pub struct Conn {
    pub received: VecDeque<Vec<u8>>,
    pub partial: Option<(usize, Vec<u8>)>,
    pub outgoing: VecDeque<Out>,
    pub offset: usize,
    pub aborted: u32,
    pub fin: bool,
    pub over: Option<Reason>,
    pub closed: bool,
}

/// Something to send.
pub enum Out {
    Message(Vec<u8>),
    /// The first bytes of a longer message, which is then given up.
    Aborted(Vec<u8>, usize),
    Fin,
    Close,
}

trait Key {
    fn key(self) -> u64;
}

impl Key for FlowId {
    fn key(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

impl Key for u64 {
    fn key(self) -> u64 {
        self
    }
}

impl App {
    fn new(end: AppEnd, number: u64, engine: EngineHandle) -> Self {
        Self {
            end,
            number,
            engine,
            conns: BTreeMap::new(),
            busy: BTreeSet::new(),
            accepted: Vec::new(),
            dialled: Vec::new(),
            replies: Vec::new(),
            reads: true,
            unread: Vec::new(),
            echoes: false,
            alive: true,
            next_id: 1,
            flows: BTreeMap::new(),
        }
    }

    pub fn listen(&mut self, port: u16) -> u32 {
        let id = self.id();
        assert!(self.end.tx.request(Request::Listen { id, ip: Ipv4Addr::UNSPECIFIED, port, backlog: 64 }));
        self.end.tx.flush();
        id
    }

    pub fn dial(&mut self, ip: Ipv4Addr, port: u16, local_port: u16, timeout_ms: u32) -> u32 {
        let id = self.id();
        assert!(self.end.tx.request(Request::Connect { id, ip, port, local_port, timeout_ms }));
        self.end.tx.flush();
        id
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    pub fn reply(&self, id: u32) -> Option<Reply> {
        self.replies.iter().copied().find(|reply| id_of(reply) == id)
    }

    pub fn take_reply(&mut self, id: u32) -> Option<Reply> {
        let at = self.replies.iter().position(|reply| id_of(reply) == id)?;
        Some(self.replies.remove(at))
    }

    pub fn dialled(&self, id: u32) -> Option<Established> {
        self.dialled.iter().copied().find(|e| e.origin == Origin::Dialled(id))
    }

    pub fn conn(&mut self, flow: FlowId) -> &mut Conn {
        self.busy.insert(flow.key());
        self.conns.get_mut(&flow.key()).expect("known connection")
    }

    pub fn send(&mut self, flow: FlowId, message: Vec<u8>) {
        self.conn(flow).outgoing.push_back(Out::Message(message));
    }

    #[allow(private_bounds)]
    pub fn close(&mut self, flow: impl Key + Copy) {
        if let Some(conn) = self.conns.get_mut(&flow.key())
            && !conn.closed
        {
            conn.closed = true;
            conn.outgoing.push_back(Out::Close);
            self.busy.insert(flow.key());
        }
    }

    /// Takes what came and sends what fits; how much that was.
    pub fn poll(&mut self) -> usize {
        if !self.alive {
            return 0;
        }
        let mut work = self.end.tx.reclaim(|_| {}).expect("sound completions") as usize;
        while let Some(reply) = self.end.rx.reply().expect("sound replies") {
            self.replies.push(reply);
            work += 1;
        }
        if self.reads {
            for token in std::mem::take(&mut self.unread) {
                self.end.rx.give_back(token);
                work += 1;
            }
        }
        while let Some(delivery) = self.end.rx.delivery().expect("sound deliveries") {
            self.take(delivery);
            work += 1;
        }
        for key in self.busy.clone() {
            let (Some(conn), flow) = (self.conns.get_mut(&key), self.flows[&key]) else { continue };
            while let Some(out) = conn.outgoing.front() {
                if !submit(&mut self.end, flow, out, &mut conn.offset) {
                    break;
                }
                work += 1;
                if conn.offset == usize::MAX {
                    conn.offset = 0;
                    conn.outgoing.pop_front();
                }
            }
            if conn.outgoing.is_empty() {
                self.busy.remove(&key);
            }
        }
        self.end.tx.flush();
        work
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Established(e) => {
                self.flows.insert(e.flow.key(), e.flow);
                self.conns.insert(e.flow.key(), Conn::default());
                match e.origin {
                    Origin::Dialled(_) => self.dialled.push(e),
                    Origin::Accepted(_) => self.accepted.push(e),
                }
            }
            Delivery::Data(data) => {
                let mut bytes = vec![0; data.len.into()];
                if data.token.has_buffer() {
                    self.end.rx.read(data.token, 0, &mut bytes);
                } else {
                    bytes.copy_from_slice(&data.inline[..data.len.into()]);
                }
                self.give_back(data.token);
                let echoes = self.echoes;
                let Some(conn) = self.conns.get_mut(&data.flow.key()) else { return };
                if data.part.begin {
                    assert!(conn.partial.is_none(), "a message within a message");
                    conn.partial = Some((data.part.message_len as usize, Vec::new()));
                }
                let (total, message) = conn.partial.as_mut().expect("a message has begun");
                message.extend_from_slice(&bytes);
                assert!(message.len() <= *total);
                if data.part.end {
                    let (total, message) = conn.partial.take().expect("a message has begun");
                    assert_eq!(message.len(), total);
                    if echoes {
                        conn.outgoing.push_back(Out::Message(message));
                        self.busy.insert(data.flow.key());
                    } else {
                        conn.received.push_back(message);
                    }
                }
            }
            Delivery::Aborted { flow, token } => {
                self.give_back(token);
                if let Some(conn) = self.conns.get_mut(&flow.key()) {
                    conn.aborted += 1;
                    conn.partial = None;
                }
            }
            Delivery::Fin { flow, token } => {
                self.give_back(token);
                if let Some(conn) = self.conns.get_mut(&flow.key()) {
                    conn.fin = true;
                }
            }
            Delivery::Reset { flow, reason } => {
                if let Some(conn) = self.conns.get_mut(&flow.key()) {
                    assert_eq!(conn.over.replace(reason), None, "told twice");
                    conn.outgoing.retain(|out| matches!(out, Out::Close));
                    conn.offset = 0;
                }
            }
        }
    }

    fn give_back(&mut self, token: machnet_shm::RxToken) {
        if self.reads {
            self.end.rx.give_back(token);
        } else {
            self.unread.push(token);
        }
    }
}

/// Submits the next unit of `out`. False: no token. `offset` becomes `usize::MAX` when all of it is submitted.
fn submit(end: &mut AppEnd, flow: FlowId, out: &Out, offset: &mut usize) -> bool {
    let unit = end.tx.geometry().unit_size as usize;
    match out {
        Out::Message(bytes) | Out::Aborted(bytes, _) => {
            let total = if let Out::Aborted(_, total) = out { *total } else { bytes.len() };
            if *offset == bytes.len() && *offset < total {
                if end.tx.abort(flow).is_err() {
                    return false;
                }
                *offset = usize::MAX;
                return true;
            }
            let stop = bytes.len().min(*offset + unit);
            let begin = *offset == 0;
            let part = Part { begin, end: stop == total, message_len: if begin { total as u32 } else { 0 } };
            if end.tx.data(flow, part, &bytes[*offset..stop]).is_err() {
                return false;
            }
            *offset = if stop == total { usize::MAX } else { stop };
        }
        Out::Fin => {
            if end.tx.fin(flow).is_err() {
                return false;
            }
            *offset = usize::MAX;
        }
        Out::Close => {
            end.tx.close(flow);
            *offset = usize::MAX;
        }
    }
    true
}

fn id_of(reply: &Reply) -> u32 {
    match *reply {
        Reply::Listening { id, .. }
        | Reply::ListenFailed { id, .. }
        | Reply::Unlistened { id }
        | Reply::ConnectFailed { id, .. } => id,
    }
}

/// Bytes that tell where they belong.
pub fn pattern(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i.wrapping_mul(0x9e37_79b9) ^ salt.wrapping_mul(0x85eb_ca6b)) >> 7) as u8)
        .collect()
}

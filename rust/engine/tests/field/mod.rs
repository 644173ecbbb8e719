//! As many client hosts as server hosts, of which each client is to meet each server: every meeting is a first one.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use machnet_shm::{FlowId, Geometry};
use machnet_sim::{App, AppNo, World};
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Kind, Mac, Packet};

/// The hosts: sidecars `0..side` are clients, the others servers.
pub struct Field {
    pub w: World,
    pub side: usize,
    /// An application on each client, and on each server, on engines in turn.
    pub clients: Vec<AppNo>,
    pub servers: Vec<AppNo>,
    heard: Arc<Mutex<Kinds>>,
}

/// Packets by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(BTreeMap<String, u64>);

impl Kinds {
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(&format!("{kind:?}")).copied().unwrap_or(0)
    }

    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn add(&mut self, other: &Kinds) {
        other.0.iter().for_each(|(kind, n)| *self.0.entry(kind.clone()).or_default() += n);
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Ok(Frame::Udp { payload, .. }) = frame::parse(bytes) else { return };
        if let Ok(packet) = Packet::parse(payload) {
            *self.0.entry(format!("{:?}", packet.header.kind)).or_default() += 1;
        }
    }
}

impl Field {
    /// `side` clients of `m` engines and `side` servers of `n`, which listen on port 8000.
    pub fn new(seed: u64, side: usize, m: u16, n: u16) -> Field {
        assert!(2 * side <= 250, "a host's number is a byte");
        let mut w = World::seeded(seed);
        let all: Vec<_> = (1..=2 * side as u8)
            .map(|host| (Ipv4Addr::new(10, 0, 0, host), Mac([2, 0, 0, 0, 0, host])))
            .collect();
        for host in 1..=2 * side as u8 {
            let engines = if usize::from(host) <= side { m } else { n };
            w.add_with(host, engines, |config| {
                // ARP is another matter.
                config.neighbor.fixed = all.iter().copied().filter(|(_, mac)| mac.0[5] != host).collect();
                config.handover = 256;
            });
        }
        let mut app = |at: usize| {
            let engine = at % w.sidecars[at].engines.len();
            w.app_with(at, engine as u16, SMALL)
        };
        let clients: Vec<_> = (0..side).map(&mut app).collect();
        let servers: Vec<_> = (side..2 * side).map(&mut app).collect();
        for &server in &servers {
            w.apps[server].listen(8000);
        }
        let mut field = Field { w, side, clients, servers, heard: Arc::default() };
        field.w.run("listening", |w| servers_of(w, side).all(|app| !app.replies.is_empty()));
        field
    }

    /// Applications on each engine of the first client, and of the first server, where the one on engine `i` listens on port 9000 + i.
    pub fn more_apps(&mut self) -> (Vec<AppNo>, Vec<AppNo>) {
        let side = self.side;
        let mut on_all = |host: usize| -> Vec<AppNo> {
            let engines = self.w.sidecars[host].engines.len() as u16;
            (0..engines).map(|engine| self.w.app_with(host, engine, SMALL)).collect()
        };
        let (clients, servers) = (on_all(0), on_all(side));
        for (port, &server) in (9000..).zip(&servers) {
            self.w.listen(server, port);
        }
        (clients, servers)
    }

    /// The server, from 0, that a client meets in a round.
    pub fn server_of(&self, client: usize, round: usize) -> usize {
        (client + round) % self.side
    }

    /// All NICs draw another key.
    pub fn rekey(&mut self) {
        (0..2 * self.side).for_each(|host| self.w.net.rekey(host));
    }

    /// Listens on the links of a round from now on.
    pub fn tap(&mut self, round: usize) {
        *self.kinds() = Kinds::default();
        for client in 0..self.side {
            let server = self.side + self.server_of(client, round);
            for (from, to) in [(client, server), (server, client)] {
                let heard = Arc::clone(&self.heard);
                self.w.net.lose_if(from, to, move |bytes| {
                    heard.lock().expect("one thread").hear(bytes);
                    false
                });
            }
        }
    }

    /// What was heard since.
    pub fn heard(&self) -> Kinds {
        self.kinds().clone()
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.heard.lock().expect("one thread")
    }

    /// Each client connects to its server of the round: both ends' handles, by client.
    pub fn connect_all(&mut self, round: usize, port: u16) -> Vec<(FlowId, FlowId)> {
        let side = self.side;
        let before: Vec<usize> = self.servers.iter().map(|&app| self.w.apps[app].accepted.len()).collect();
        let ids: Vec<u32> = (0..side)
            .map(|client| {
                let ip = self.w.sidecars[side + self.server_of(client, round)].ip;
                self.w.apps[self.clients[client]].dial(ip, port, 0, 0)
            })
            .collect();
        let (clients, servers) = (self.clients.clone(), self.servers.clone());
        self.w.run("connecting", |w| {
            ids.iter().zip(&clients).all(|(&id, &app)| w.apps[app].dialled(id).is_some())
                && servers.iter().zip(&before).all(|(&app, n)| w.apps[app].accepted.len() > *n)
        });
        (0..side)
            .map(|client| {
                let server = self.server_of(client, round);
                let near = self.w.apps[clients[client]].dialled(ids[client]).expect("dialled").flow;
                (near, self.w.apps[servers[server]].accepted[before[server]].flow)
            })
            .collect()
    }

    /// Runs until something holds of all ends of this round's connections, which are the last of each application.
    pub fn run(&mut self, what: &str, done: impl Fn(&mut App, FlowId) -> bool) {
        let dialled = |app: &AppNo| (*app, self.w.apps[*app].dialled.last().expect("dialled").flow);
        let accepted = |app: &AppNo| (*app, self.w.apps[*app].accepted.last().expect("accepted").flow);
        let ends: Vec<_> =
            self.clients.iter().map(dialled).chain(self.servers.iter().map(accepted)).collect();
        self.w.run(what, |w| ends.iter().all(|&(app, flow)| done(&mut w.apps[app], flow)));
    }

    /// Closes everything and waits until no engine has a connection.
    pub fn end_all(&mut self) {
        for app in &mut self.w.apps {
            let flows: Vec<_> = app.conns.keys().copied().collect();
            flows.into_iter().for_each(|flow| app.close(flow));
        }
        self.w.run("ending", |w| w.sidecars.iter().flat_map(|s| &s.engines).all(|e| e.flows() == 0));
        // What is over is forgotten here, too, so that a long field stays quick.
        for app in &mut self.w.apps {
            app.forget_closed();
        }
    }

    /// A counter of each sidecar.
    pub fn counts(&self, name: &str) -> Vec<u64> {
        (0..2 * self.side).map(|host| count(&self.w, host, name)).collect()
    }

    /// A counter of all sidecars together.
    pub fn sum(&self, name: &str) -> u64 {
        self.counts(name).iter().sum()
    }
}

/// One of the engines' own counters, over all engines of a sidecar; quicker than [`World::counters`].
pub fn count(w: &World, sidecar: usize, name: &str) -> u64 {
    let shared = &w.sidecars[sidecar].shared;
    let samples = (0..shared.engines()).filter_map(|engine| shared.samples(engine));
    samples
        .flat_map(|s| s.engine)
        .filter(|sample| sample.name == name)
        .filter_map(|sample| sample.value)
        .sum()
}

fn servers_of(w: &World, side: usize) -> impl Iterator<Item = &App> {
    w.apps.iter().filter(move |app| app.sidecar >= side)
}

/// A channel for a few connections: there are many channels.
const SMALL: Geometry = Geometry { units: 64, flows: 16, unit_size: 1424 };

//! Frames into real engines with live connections.
//!
//! ```text
//! A 10.0.0.1 client --.                      A and B have two engines, and B echoes. The bytes choose frames for A and for B:
//! C 10.0.0.3 client --+-- B 10.0.0.2 server  forged packets of A's and of the stranger's own connections under tags that a
//! stranger 10.0.0.9 --'                      wiretap knows, damaged copies of real ones, ARP, ICMP, plain bytes; and what the
//!                                            applications do meanwhile.
//! ```
//! Whatever they are, C is served: its connection, whose tags are the one thing that the attacker must not use, carries
//! every message, and a new one opens. When the attack is over the network falls silent, and at the end every buffer is back.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use machnet_nic::sim::Host;
use machnet_shm::{FlowId, Geometry};
use machnet_wire::frame::{self, Frame, Route};
use machnet_wire::{Header, Kind, Mac, Nanos, Packet, Reason, Reset};

use crate::Trail;
use crate::flow_sim::Choices;
use crate::forge::{self, Station};
use crate::wiretap::{Target, Way, Wiretap};
use machnet_sim::{AppNo, Out, World, pattern};

const PORT: u16 = 8000;
const STRANGER: Station = Station { ip: Ipv4Addr::new(10, 0, 0, 9), mac: Mac([2, 0, 0, 0, 0, 9]) };
/// Sidecars by their index; 3 is the stranger's NIC.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// The scene of an attack.
struct Scene {
    world: World,
    tap: Wiretap,
    apps: [AppNo; 3],
    /// A's connections.
    flows: Vec<FlowId>,
    /// C's connection, and what it has sent on it.
    spared: FlowId,
    spared_way: Way,
    sent: usize,
}

/// The body of target `frame`.
pub fn frame(data: &[u8]) -> Trail {
    let mut choices = Choices::read(data);
    let mut scene = Scene::set();
    for _ in 0..STEPS {
        if choices.is_spent() {
            break;
        }
        scene.step(&mut choices);
    }
    scene.end()
}

impl Scene {
    fn set() -> Scene {
        let mut world = World::seeded(1);
        for n in 1..=3 {
            world.add_with(n, if n == 3 { 1 } else { 2 }, |config| {
                // The attacker may lie about who is where; these two are known for good.
                config.neighbor.fixed = vec![(ip(2), mac(2)), (ip(3), mac(3)), (STRANGER.ip, STRANGER.mac)];
                config.neighbor.fixed.retain(|(other, _)| *other != ip(n));
                config.connect_timeout = Nanos::secs(30);
                config.flow.orphan = Nanos::secs(5);
                config.max_flows = MAX_FLOWS;
                config.handover = 64;
            });
        }
        world.net.add_host(Host { mac: STRANGER.mac, ..Host::new(9) });
        let tap = Wiretap::on(&world.net, 4);
        // Small, for their memory is made anew for every input.
        let client = Geometry { units: 16, flows: 8, unit_size: 1424 };
        let server = Geometry { units: 32, flows: 16, unit_size: 1424 };
        let apps = [(A, client), (B, server), (C, client)]
            .map(|(host, geometry)| world.app_with(host, u16::from(host == B), geometry));
        world.listen(apps[B], PORT);
        world.apps[apps[B]].echoes = true;
        let (near, _) = world.connect(apps[A], apps[B], ip(2), PORT);
        let (spared, _) = world.connect(apps[C], apps[B], ip(2), PORT);
        let local = world.apps[apps[C]].dialled[0].local;
        let spared_way = Way { src: local.0, dst: ip(2), src_port: local.1, dst_port: PORT };
        Scene { world, tap, apps, flows: vec![near], spared, spared_way, sent: 0 }
    }

    fn step(&mut self, choices: &mut Choices) {
        let host = if choices.chance(150) { A } else { B };
        let to = Station { ip: ip(host as u8 + 1), mac: mac(host as u8 + 1) };
        match choices.below(16) {
            0..=7 => {
                let target = self.choose_target(choices, to.ip);
                let from = mac(target.way.src.octets()[3]);
                let (header, mut bytes) = forge::machnet(choices, &target, from, to);
                if choices.chance(50) {
                    forge::damage(choices, &mut bytes);
                }
                self.tap.note_forged(target.way, header.tx);
                self.inject(host, &bytes);
            }
            8 | 9 => {
                if let Some((host, mut bytes)) =
                    self.tap.frame(choices.byte().into()).filter(|(host, _)| *host < C)
                {
                    forge::damage(choices, &mut bytes);
                    self.inject(host, &bytes);
                }
            }
            10 => {
                let len = choices.byte();
                let bytes: Vec<u8> = (0..len).map(|_| choices.byte()).collect();
                self.inject(host, &bytes);
            }
            11 => {
                let mut bytes = forge::arp(choices, STRANGER.mac, to);
                forge::damage(choices, &mut bytes);
                self.inject(host, &bytes);
            }
            12 => {
                let mut bytes = forge::ping(choices, STRANGER, to);
                forge::damage(choices, &mut bytes);
                self.inject(host, &bytes);
            }
            13 => self.application(choices),
            14 => self.world.pass(Nanos(choices.below(1 << 16) * 64)),
            _ => self.world.pass(Nanos::millis(choices.below(256))),
        }
        // Several at once now and then: they meet in one burst.
        if !choices.chance(200) {
            self.world.pass(Nanos::micros(1));
        }
        for engine in self.world.sidecars.iter().flat_map(|sidecar| &sidecar.engines) {
            assert!(engine.flows() <= MAX_FLOWS);
        }
    }

    /// A connection that there is, or one that the stranger, or somebody in another's name, would begin.
    fn choose_target(&self, choices: &mut Choices, victim: Ipv4Addr) -> Target {
        let known = self.tap.targets(victim);
        if let Some(target) = known.get(choices.below(known.len() as u64 + 2) as usize) {
            return *target;
        }
        let src = match choices.below(8) {
            0..=4 => STRANGER.ip,
            5 => ip(choices.below(12) as u8),
            6 => ip(3),
            _ => Ipv4Addr::from(choices.word()),
        };
        let dst_port = [PORT, PORT, 9, 32_769][choices.below(4) as usize];
        self.tap.target(Way { src, dst: victim, src_port: 1 + choices.below(4) as u16, dst_port })
    }

    /// Puts a frame into a host's NIC, unless it speaks for C under a tag of C's.
    fn inject(&mut self, host: usize, bytes: &[u8]) {
        if !self.is_forbidden(bytes) {
            self.world.net.inject(host, bytes);
        }
    }

    fn is_forbidden(&self, bytes: &[u8]) -> bool {
        let Ok(Frame::Udp { ip, payload, .. }) = frame::parse(bytes) else { return false };
        let Ok(Packet { header, payload, .. }) = Packet::parse(payload) else { return false };
        let way = Way { src: ip.src, dst: ip.dst, src_port: header.src, dst_port: header.dst };
        let (to_b, to_c) =
            (self.tap.target(self.spared_way).tag, self.tap.target(self.spared_way.back()).tag);
        let echoes = Reset::parse(payload).is_ok_and(|reset| reset.echo == to_c);
        // A network may well repeat a packet; nobody else may make one up.
        let repeated = || self.tap.has(bytes);
        way == self.spared_way && (header.tag == to_b || header.kind == Kind::Rst && echoes) && !repeated()
    }

    /// What the applications do.
    fn application(&mut self, choices: &mut Choices) {
        let [a, b, c] = self.apps;
        match choices.below(12) {
            0..=2 => {
                let flow = self.flows[choices.below(self.flows.len() as u64) as usize];
                let len = choices.below(6000) as usize;
                self.send(a, flow, len);
            }
            3 | 4 => {
                let accepted = &self.world.apps[b].accepted;
                let flow = accepted[choices.below(accepted.len() as u64) as usize];
                let len = choices.below(6000) as usize;
                // C counts its echoes.
                if flow.peer.0 != ip(3) {
                    self.send(b, flow.flow, len);
                }
            }
            5 | 6 => {
                self.sent += 1;
                self.world.apps[c].send(self.spared, message(self.sent - 1));
            }
            7 => {
                let server = &mut self.world.apps[b];
                server.reads = !server.reads;
            }
            8 if self.flows.len() < 4 => {
                let (dialled, port) =
                    (self.world.apps[a].dialled.len(), if choices.chance(300) { 9 } else { PORT });
                self.world.apps[a].dial(ip(2), port, 0, 0);
                self.world.pass(Nanos(choices.below(1 << 16)));
                self.flows.extend(self.world.apps[a].dialled[dialled..].iter().map(|e| e.flow));
            }
            9 => {
                let flow = self.flows[choices.below(self.flows.len() as u64) as usize];
                self.world.apps[a].close(flow);
            }
            10 => {
                let accepted = &self.world.apps[b].accepted;
                let flow = accepted[choices.below(accepted.len() as u64) as usize];
                if flow.peer.0 != ip(3) {
                    self.world.apps[b].close(flow.flow);
                }
            }
            _ => self.world.net.steal(B, Nanos(choices.below(1 << 16) * 64)),
        }
    }

    /// Sends a message where the application still may.
    fn send(&mut self, app: AppNo, flow: FlowId, len: usize) {
        let conn = self.world.apps[app].conn(flow);
        if conn.over.is_none() && !conn.closed {
            conn.outgoing.push_back(Out::Message(pattern(len, 7)));
        }
    }

    /// The attack is over: what must hold then.
    fn end(mut self) -> Trail {
        let [_, b, c] = self.apps;
        self.world.apps[b].reads = true;
        // Half-open and deserted connections of the stranger's expire.
        self.world.pass(Nanos::secs(8));
        self.sent += 1;
        self.world.apps[c].send(self.spared, message(self.sent - 1));
        let (spared, sent) = (self.spared, self.sent);
        self.world.run("C is served", |w| w.apps[c].conn(spared).received.len() >= sent);
        let received = &self.world.apps[c].conn(spared).received;
        assert!(received.iter().enumerate().all(|(n, got)| *got == message(n)), "C gets what it sent");

        let (fresh, _) = self.world.connect(c, b, ip(2), PORT);
        self.world.apps[c].send(fresh, message(0));
        self.world.run("a new connection is served", |w| !w.apps[c].conn(fresh).received.is_empty());
        assert_eq!(self.world.apps[c].conn(fresh).received[0], message(0));

        let before = self.world.net.counts().sent;
        self.world.pass(Nanos::secs(2));
        let sent = self.world.net.counts().sent - before;
        assert!(sent <= QUIET, "{sent} packets in two seconds in which nobody says anything");

        self.reset_others();
        self.world.assert_nothing_is_lost();
        for engine in self.world.sidecars.iter().flat_map(|sidecar| &sidecar.engines) {
            assert_eq!((engine.flows(), engine.promised()), (0, 0));
        }
        let mut trail =
            vec![("time".into(), self.world.now.0), ("frames".into(), self.world.net.counts().sent)];
        for host in [A, B, C] {
            assert_eq!(self.world.counter(host, "channels_faulty"), 0);
            trail.extend(self.world.counters(host).into_iter().map(|(name, n)| (Cow::Owned(name), n)));
        }
        trail
    }

    /// Ends the connections that were attacked: their ends need not agree any more on where they are, and one that waits
    /// for a unit that the other believes to have sent would wait for long.
    fn reset_others(&mut self) {
        for host in [A, B] {
            let to = Station { ip: ip(host as u8 + 1), mac: mac(host as u8 + 1) };
            for target in self.tap.targets(to.ip) {
                if target.way.src == ip(3) || target.way.dst == ip(3) {
                    continue;
                }
                let way = target.way;
                let echo = self.tap.target(way.back()).tag;
                let body = Reset { epoch: 1, echo, reason: Reason::Aborted }.emit();
                let header = Header {
                    src: way.src_port,
                    dst: way.dst_port,
                    tag: target.tag,
                    ..Header::new(Kind::Rst)
                };
                let route = Route {
                    src_mac: STRANGER.mac,
                    dst_mac: to.mac,
                    src_ip: way.src,
                    dst_ip: to.ip,
                    src_port: 31_580,
                    dst_port: 31_580,
                };
                self.world.net.inject(host, &forge::emit(&route, &header, &forge::Words::default(), &body));
                self.world.pass(Nanos::micros(10));
            }
        }
    }
}

/// C's `n`-th message.
fn message(n: usize) -> Vec<u8> {
    pattern(n * 1000 % 4000, n as u64)
}

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// Steps of one attack.
const STEPS: usize = 300;
/// Flows of one engine.
const MAX_FLOWS: usize = 64;
/// Packets in two seconds of silence: keep-alives, and retransmissions of connections whose ends have been lied to.
const QUIET: u64 = 500;

//! What a stream gets through a path that is not clean: delay, noise, ticks, faults, rates, a relay in user space, and hosts that share cores or
//! pause.

use std::fmt;

use machnet_nic::sim::{Duty, Link, Relay};
use machnet_shm::{FlowId, Geometry};
use machnet_wire::Nanos;
use serde::Serialize;

use super::{add_hosts, ip, micros, quantile};
use crate::{AppNo, Cost, Parts, Waits, World, pattern};

/// A path, the hosts at its ends, and what is sent through it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Path {
    /// What the path does to the frames of each direction; its relay is `relay`.
    pub link: Link,
    /// The program in user space that passes frames on: its time for each frame, and how long it takes to wake, mean. `None`: the kernel
    /// does.
    pub relay: Option<(Nanos, Nanos)>,
    /// Both hosts run and pause by turns.
    pub duty: Option<Duty>,
    /// Who shares which core.
    pub cores: Cores,
    /// The largest IP packet of the hosts, bytes.
    pub mtu: u16,
    /// Units of a channel, each direction.
    pub units: u32,
    /// Descriptors of a receive ring.
    pub ring: u16,
    /// Connections from one host to the other, all of one application.
    pub streams: u32,
    /// Bytes that all of them carry together, and of each message.
    pub bytes: u64,
    pub message: u32,
    /// Whether another application sends 64 bytes to and fro meanwhile.
    pub echo: bool,
    pub seed: u64,
}

/// Where hosts and relay run. There are two cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cores {
    /// Each host has one, and the relay runs on whichever is free first.
    Own,
    /// Both hosts have the first, and the relay the other.
    Shared,
}

impl Default for Path {
    /// A relay in user space and nothing else, as measured on a machine.
    fn default() -> Path {
        Path {
            link: Link { delay: Nanos::micros(1), ..Link::instant() },
            relay: Some((Nanos::micros(7), Nanos::micros(20))),
            duty: None,
            cores: Cores::Own,
            mtu: 1500,
            units: Geometry::DEFAULT.units,
            ring: 256,
            streams: 1,
            bytes: 32 << 20,
            message: 64 << 10,
            echo: false,
            seed: 1,
        }
    }
}

/// What was measured.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Row {
    /// Payload of all streams, millions of bytes a second, from the first byte sent to the last one received.
    pub goodput_mb_s: f64,
    /// Jain's index over the streams' bytes when the first has all its own: 1 when all have as much.
    pub jain: f64,
    /// Units that senders repeated, that they took for lost, and their timeouts.
    pub retransmitted: u64,
    pub lost: u64,
    pub timeouts: u64,
    /// Frames that the path lost, for which its rate had no room, and that found a receive ring full.
    pub path_lost: u64,
    pub queue_full: u64,
    pub ring_missed: u64,
    /// How long the echo beside took; without one, null.
    pub echo_p50_us: Option<f64>,
    pub echo_p99_us: Option<f64>,
}

/// The heading of a table of rows.
pub const HEADING: &str = "    MB/s   Jain  sent again  found lost  timeouts  path lost  queue full  ring missed  echo p50 us  echo p99 us";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            goodput_mb_s, jain, retransmitted, lost, timeouts, path_lost, queue_full, ring_missed, ..
        } = self;
        write!(
            f,
            "{goodput_mb_s:>8.1} {jain:>6.3} {retransmitted:>11} {lost:>11} {timeouts:>9} {path_lost:>10} {queue_full:>11} {ring_missed:>12}"
        )?;
        let echo = |us: Option<f64>| us.map_or("-".into(), |us| format!("{us:.1}"));
        write!(f, " {:>12} {:>12}", echo(self.echo_p50_us), echo(self.echo_p99_us))
    }
}

/// Measures one path.
///
/// # Panics
/// If a stream has not ended after ten minutes of virtual time, with what was counted.
pub fn run(path: &Path) -> Row {
    let mut scene = Scene::new(path);
    scene.stream(path)
}

struct Scene {
    w: World,
    sender: AppNo,
    receiver: AppNo,
    /// Both ends of each stream.
    streams: Vec<(FlowId, FlowId)>,
    echo: Option<(AppNo, FlowId)>,
}

impl Scene {
    fn new(path: &Path) -> Scene {
        let mut w = World::seeded(path.seed);
        w.cost = Cost::Parts(Parts::VETH);
        w.waits = Some(WAITS);
        (w.mtu, w.descriptors) = (path.mtu, path.ring);
        let cores = [w.net.add_core(), w.net.add_core()];
        let hosts = match path.cores {
            Cores::Own => [cores[0], cores[1]],
            Cores::Shared => [cores[0]; 2],
        };
        let allowed = match path.cores {
            Cores::Own => 1 << cores[0] | 1 << cores[1],
            Cores::Shared => 1 << cores[1],
        };
        let relay = path.relay.map(|(service, wake)| {
            // A third of it to take the frame; to send it is dearer, because the receiver's end of the link is worked there.
            let take = service / 3;
            w.net.add_relay(Relay { take, send: service - take, wake, cores: allowed })
        });
        add_hosts(&mut w, &[1, 1], |_| {});
        (0..2).for_each(|host| w.place(host, 0, hosts[host]));
        w.net.set_links(Link { relay, ..path.link });
        (0..2).for_each(|host| w.net.set_duty(host, path.duty));
        let geometry =
            Geometry { units: path.units, flows: 16, unit_size: machnet_wire::unit_size(path.mtu, 0) as u32 };
        let app = |w: &mut World, host: usize| {
            let app = w.app_with(host, 0, geometry);
            w.place_app(app, hosts[host], APP);
            app
        };
        let (sender, receiver) = (app(&mut w, 0), app(&mut w, 1));
        w.apps[receiver].counts = true;
        w.listen(receiver, PORT);
        let streams = (0..path.streams).map(|_| w.connect(sender, receiver, ip(2), PORT)).collect();
        let echo = path.echo.then(|| {
            let (near, far) = (app(&mut w, 0), app(&mut w, 1));
            w.apps[far].echoes = true;
            w.listen(far, PORT + 1);
            (near, w.connect(near, far, ip(2), PORT + 1).0)
        });
        Scene { w, sender, receiver, streams, echo }
    }

    /// Sends everything, and waits until it is there.
    fn stream(&mut self, path: &Path) -> Row {
        let (sender, receiver, streams, echo) = (self.sender, self.receiver, &self.streams, self.echo);
        let message = pattern(path.message as usize, 1);
        let each = path.bytes.div_ceil(u64::from(path.streams)).div_ceil(u64::from(path.message));
        let mut left = vec![each; streams.len()];
        let all = each * u64::from(path.message);
        let (begun, before) = (self.w.now, self.w.net.counts());
        let mut probe = Probe::default();
        let (mut jain, mut bytes) = (None, Vec::new());
        let done = self.w.run_for(LIMIT, |w| {
            for (&(near, _), left) in streams.iter().zip(&mut left) {
                while *left > 0 && w.apps[sender].peek(near).outgoing.len() < 2 {
                    w.apps[sender].send(near, message.clone());
                    *left -= 1;
                }
            }
            if let Some((app, flow)) = echo {
                probe.poll(w, app, flow);
            }
            bytes.clear();
            bytes.extend(streams.iter().map(|&(_, far)| w.apps[receiver].peek(far).bytes));
            if jain.is_none() && bytes.contains(&all) {
                jain = Some(super::jain(&bytes));
            }
            bytes.iter().all(|bytes| *bytes == all)
        });
        let w = &mut self.w;
        assert!(done, "{path:?}: not within {LIMIT:?}\n{:#?}\n{:#?}", w.counters(0), w.counters(1));
        let after = w.net.counts();
        let took = (w.now - begun).0 as f64 / 1e9;
        // The counters of connections are summed once a second.
        w.pass(SUMMED);
        probe.took.sort_unstable();
        let echo = |part| echo.map(|_| micros(quantile(&probe.took, part)));
        Row {
            goodput_mb_s: (all * u64::from(path.streams)) as f64 / took / 1e6,
            jain: jain.unwrap_or(1.0),
            retransmitted: w.counter(0, "flow_retransmitted"),
            lost: w.counter(0, "flow_lost"),
            timeouts: w.counter(0, "flow_rtos"),
            path_lost: after.lost - before.lost,
            queue_full: after.queue_full - before.queue_full,
            ring_missed: after.missed - before.missed,
            echo_p50_us: echo(0.5),
            echo_p99_us: echo(0.99),
        }
    }
}

/// A message of 64 bytes to and fro, again and again.
#[derive(Default)]
struct Probe {
    sent: Option<Nanos>,
    /// When the next one goes.
    next: Nanos,
    took: Vec<Nanos>,
}

impl Probe {
    fn poll(&mut self, w: &mut World, app: AppNo, flow: FlowId) {
        let now = w.now;
        if let Some(sent) = self.sent {
            if w.apps[app].peek(flow).received.pop_front().is_some() {
                self.took.push(now - sent);
                (self.sent, self.next) = (None, now + PAUSE);
            }
        } else if now >= self.next {
            w.apps[app].send(flow, pattern(64, 0));
            self.sent = Some(now);
        }
    }
}

/// Time of an application for a unit that it sends or takes: a call, and a copy.
const APP: Nanos = Nanos(600);
/// How engines wait that have an interrupt.
const WAITS: Waits = Waits { linger: Nanos::micros(50), wake: Nanos::micros(8) };
/// After this the counters have what happened before.
const SUMMED: Nanos = Nanos::millis(1500);
/// Between an echo and the next.
const PAUSE: Nanos = Nanos::micros(100);
const LIMIT: Nanos = Nanos::secs(600);
const PORT: u16 = 8000;

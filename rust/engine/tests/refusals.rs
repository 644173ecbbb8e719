//! Whoever is refused because something is full learns what, whose, and how many; whoever runs the sidecar that refuses learns it
//! from a counter, and once a second from the log.

use std::net::Ipv4Addr;

use machnet_engine::{ChannelNumber, EngineIndex, Owner, Sharing};
use machnet_shm::{Geometry, Limit, Reason, Reply};
use machnet_sim::{AppNo, World, keep_warnings, warnings};
use machnet_wire::Nanos;

const FOUR: Geometry = Geometry { flows: 4, ..Geometry::DEFAULT };

/// Two hosts with an application each, of which the second listens at port 7000.
struct Hosts {
    w: World,
    near: AppNo,
    far: AppNo,
    dialled: u32,
}

impl Hosts {
    fn new(seed: u64, near: Geometry, far: Geometry, near_flows: usize, far_flows: usize) -> Hosts {
        keep_warnings();
        let mut w = World::seeded(seed);
        let a = w.add_with(1, 1, |config| config.max_flows = near_flows);
        let b = w.add_with(2, 1, |config| config.max_flows = far_flows);
        let (near, far) = (w.app_with(a, 0, near), w.app_with(b, 0, far));
        w.listen(far, 7000);
        Hosts { w, near, far, dialled: 0 }
    }

    fn dial(&mut self) -> Option<Reason> {
        let id = self.w.apps[self.near].dial(Ipv4Addr::new(10, 0, 0, 2), 7000, 0, 0);
        let near = self.near;
        self.w.run("a dial", |w| w.apps[near].dialled(id).is_some() || w.apps[near].reply(id).is_some());
        match self.w.apps[near].take_reply(id) {
            None => {
                self.dialled += 1;
                None
            }
            Some(Reply::ConnectFailed { reason, .. }) => Some(reason),
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Dials until that is refused.
    fn fill(&mut self) -> Reason {
        loop {
            if let Some(reason) = self.dial() {
                return reason;
            }
        }
    }

    /// Counters of both hosts that are about limits, without the zeros.
    fn counted(&self) -> Vec<(usize, &'static str, u64)> {
        let about =
            |name: &str| name.starts_with("full_") || name.ends_with("_full") || name == "refused_ending";
        let of =
            |host| self.w.counters(host).into_iter().map(move |(name, value)| (host, &*name.leak(), value));
        of(0).chain(of(1)).filter(|(_, name, _)| about(name) && *name != "tx_full").collect()
    }
}

const MANY: usize = 1000;

#[test]
fn a_full_application_is_told_that_it_is_itself() {
    let mut hosts = Hosts::new(911, FOUR, Geometry::DEFAULT, MANY, MANY);
    assert_eq!((hosts.fill(), hosts.dialled), (Reason::Full(Limit::Connections, 4), 4));
    assert_eq!(hosts.counted(), [(0, "full_connections", 1)]);
    assert_eq!(
        warnings(),
        [
            "engine 0: channel 1: a dial to 10.0.0.2:7000 refused: its application has 4 connections, as many as its channels hold; \
         it should close some, or attach more channels (--channels-per-application), or larger ones (--flows)"
        ]
    );
}

#[test]
fn a_full_peer_is_told_apart_from_oneself_and_warns_at_its_own_host() {
    let mut hosts = Hosts::new(912, Geometry::DEFAULT, FOUR, MANY, MANY);
    assert_eq!((hosts.fill(), hosts.dialled), (Reason::Full(Limit::PeerConnections, 4), 4));
    assert_eq!(hosts.counted(), [(0, "connects_peer_full", 1), (1, "full_connections", 1)]);
    assert_eq!(
        warnings(),
        [
            "engine 0: channel 1: a connection from 10.0.0.1 to port 7000 refused: its application has 4 connections, as many as its channels \
         hold; it should close some, or attach more channels (--channels-per-application), or larger ones (--flows)"
        ]
    );
    // There is room again once one of the four is over.
    let accepted = hosts.w.apps[hosts.far].accepted[0].flow;
    let dialled = hosts.w.apps[hosts.near].dialled[0].flow;
    hosts.w.apps[hosts.far].close(accepted);
    hosts.w.apps[hosts.near].close(dialled);
    hosts.w.pass(Nanos::secs(1));
    assert_eq!(hosts.dial(), None);
}

#[test]
fn full_engines_are_told_apart_too() {
    let mut hosts = Hosts::new(913, Geometry::DEFAULT, Geometry::DEFAULT, 3, MANY);
    assert_eq!((hosts.fill(), hosts.dialled), (Reason::Full(Limit::EngineConnections, 3), 3));
    assert_eq!(hosts.counted(), [(0, "full_engine", 1)]);
    let mut hosts = Hosts::new(914, Geometry::DEFAULT, Geometry::DEFAULT, MANY, 3);
    assert_eq!((hosts.fill(), hosts.dialled), (Reason::Full(Limit::PeerEngineConnections, 3), 3));
    assert_eq!(hosts.counted(), [(0, "connects_peer_full", 1), (1, "full_engine", 1)]);
    let warnings = warnings();
    assert_eq!(warnings.len(), 2);
    for warning in warnings {
        assert!(warning.ends_with(
            "this engine has 3 connections, as many as it can have; run more engines (--engines)"
        ));
    }
}

#[test]
fn a_sidecar_that_ends_says_so() {
    let mut hosts = Hosts::new(915, Geometry::DEFAULT, Geometry::DEFAULT, MANY, MANY);
    assert_eq!(hosts.dial(), None);
    assert!(hosts.w.sidecars[1].shared.handle(0).expect("in range").shutdown());
    hosts.w.pass(Nanos::millis(1));
    assert_eq!(hosts.dial(), Some(Reason::PeerEnding));
    assert_eq!(hosts.counted(), [(0, "connects_peer_full", 1), (1, "refused_ending", 1)]);
}

fn listen(hosts: &mut Hosts, port: u16) -> Reply {
    let (near, id) = (hosts.near, hosts.w.apps[hosts.near].listen(port));
    hosts.w.run("listening", |w| w.apps[near].reply(id).is_some());
    hosts.w.apps[near].take_reply(id).expect("a reply")
}

#[test]
fn listeners_and_ports_have_their_limits_and_names() {
    let mut hosts = Hosts::new(916, Geometry::DEFAULT, Geometry::DEFAULT, MANY, MANY);
    let refused = |reply| match reply {
        Reply::ListenFailed { reason, .. } => Some(reason),
        _ => None,
    };
    for i in 0..1024 {
        assert_eq!(refused(listen(&mut hosts, 8000 + i)), None, "listener {i}");
    }
    assert_eq!(refused(listen(&mut hosts, 80)), Some(Reason::Full(Limit::Listeners, 1024)));
    assert_eq!(hosts.counted(), [(0, "full_listeners", 1)]);

    let mut hosts = Hosts::new(917, Geometry::DEFAULT, Geometry::DEFAULT, MANY, MANY);
    let others = Owner { engine: EngineIndex(0), channel: ChannelNumber(999), listener: 1 };
    while hosts.w.sidecars[0].shared.ports.listen(0, others, Sharing::NONE).is_some() {}
    assert_eq!(refused(listen(&mut hosts, 0)), Some(Reason::Full(Limit::Ports, 32_767)));
    assert_eq!(hosts.dial(), None, "from a port below those");
    assert_eq!(refused(listen(&mut hosts, 8000)), None, "one below those is free");
    let listen_at = |port| hosts.w.sidecars[0].shared.ports.listen(port, others, Sharing::NONE).is_some();
    assert_eq!((1..32_768).filter(|&port| listen_at(port)).count(), 32_766);
    assert_eq!(hosts.dial(), Some(Reason::Full(Limit::Ports, 64_511)));
    assert_eq!(hosts.counted(), [(0, "full_ports", 2)]);
}

#[test]
fn a_flood_of_refusals_is_a_line_a_second_that_counts_them() {
    let mut hosts = Hosts::new(918, FOUR, Geometry::DEFAULT, MANY, MANY);
    hosts.fill();
    let begun = hosts.w.now;
    let mut refused = 1;
    while hosts.w.now < begun + Nanos::secs(2) {
        assert_eq!(hosts.dial(), Some(Reason::Full(Limit::Connections, 4)));
        refused += 1;
        hosts.w.pass(Nanos::millis(10));
    }
    assert_eq!(hosts.counted(), [(0, "full_connections", refused)]);
    let lines = warnings();
    let suppressed = |line: &String| {
        let (_, rest) = line.split_once("(and ")?;
        rest.split_once(" more like it")?.0.parse::<u64>().ok()
    };
    assert!((2..=3).contains(&lines.len()), "{lines:?}");
    assert_eq!(suppressed(&lines[0]), None);
    assert!(
        lines[1..].iter().all(|line| suppressed(line).is_some_and(|n| (80..=100).contains(&n))),
        "{lines:?}"
    );
}

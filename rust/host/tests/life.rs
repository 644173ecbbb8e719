//! What becomes of channels, from the offer to the report that they are over, with engines on a simulated network in virtual time.
#![allow(clippy::result_large_err, reason = "a refusal carries its sentence")]

mod common;

use std::os::fd::IntoRawFd;

use common::{IP, Rig, open};
use machnet_engine::{End, Engine, EngineConfig, neighbor};
use machnet_host::{Attaching, ChannelConfig, Event, Host, HostError, Over, Owner, Row, State, Step};
use machnet_nic::sim::SimQueue;
use machnet_shm::{
    AppEnd, AttachError, ClientAttach, ClientHello, Fd, FlowId, PeerFault, Reply, Request, Status,
};
use machnet_wire::Nanos;

const CHANNELS: ChannelConfig =
    ChannelConfig { applications: 10, per_application: 2, descriptors: None, units: 16, flows: 2 };
const OWNER: Owner = Owner { pid: 4711, uid: 1000 };

impl Rig {
    fn new(engines: u16) -> Rig {
        Rig::of(open(engines, CHANNELS, vec![]))
    }

    /// Channels that are over since the last call: number, owner and why.
    fn over(&mut self) -> Vec<(u64, Owner, End)> {
        let over = |event| match event {
            Event::Over(Over { channel, owner, why, .. }) => (channel, owner, why),
            Event::Answered(part) => panic!("nothing was asked: {part:?}"),
        };
        self.host.take_events(usize::MAX).into_iter().map(over).collect()
    }

    fn states(&self) -> Vec<(u64, State)> {
        self.host.channels().map(|row| (row.channel, row.state)).collect()
    }

    /// Has the first engine's queue of notes full.
    fn fill_notes(&self) {
        let handle = self.host.shared().handle(0).expect("there is one");
        while handle.detach(u64::MAX) {}
    }
}

#[test]
fn a_channel_is_listed_until_it_is_over_and_that_is_told_once() {
    let mut rig = Rig::new(2);
    let (_first, a) = rig.attach(None, OWNER);
    let (_second, b) = rig.attach(None, OWNER);
    let row = |channel, engine, state| {
        let application = u64::from(engine) + 1;
        Row { channel, engine, application, owner: OWNER, state }
    };
    assert!(rig.host.channels().eq([row(a, 0, State::Attached), row(b, 1, State::Attached)]));
    rig.run();
    assert!(rig.over().is_empty());
    rig.host.leave(a);
    assert!(rig.host.channels().eq([row(a, 0, State::Draining), row(b, 1, State::Attached)]));
    rig.run();
    assert_eq!(rig.over(), [(a, OWNER, End::Left)]);
    assert_eq!(rig.states(), [(b, State::Attached)]);
    rig.host.leave(a);
    rig.run();
    assert!(rig.over().is_empty());
    assert_eq!(rig.host.retry_in(), None);
}

#[test]
fn a_channel_is_drained_though_its_application_stays() {
    let mut rig = Rig::new(1);
    let (_app, number) = rig.attach(None, OWNER);
    assert!(!rig.host.drain(number + 1), "there is no such channel");
    assert!(rig.host.drain(number));
    // The application leaves meanwhile.
    rig.host.leave(number);
    rig.run();
    assert_eq!(rig.over(), [(number, OWNER, End::Drained)]);
    assert!(!rig.host.drain(number));
}

#[test]
fn an_application_that_breaks_its_channel_is_named_with_what_it_did() {
    let mut rig = Rig::new(1);
    let ((mut app, broken), (_other, whole)) = (rig.attach(None, OWNER), rig.attach(None, OWNER));
    rig.run();
    app.tx.close(FlowId { index: 99, generation: 1 });
    app.tx.flush();
    rig.run();
    let over = rig.over();
    let [(channel, OWNER, End::Fault(PeerFault::Flow { index: 99, .. }))] = over[..] else {
        panic!("{over:?}")
    };
    assert_eq!(channel, broken);
    assert_eq!(rig.states(), [(whole, State::Attached)]);
}

#[test]
fn what_an_engine_has_no_room_to_be_told_is_told_later() {
    let mut rig = Rig::new(1);
    let (_app, number) = rig.attach(None, OWNER);
    rig.fill_notes();
    // One that attaches now gets its channel back, and its place is free.
    let offer = rig.host.offer(ClientHello::default(), 1000).expect("room");
    let (_refused, end) = machnet_shm::pair(offer.welcome.geometry).expect("memory");
    assert!(rig.host.attach(offer.place, OWNER, end).is_err());
    assert_eq!(rig.states(), [(number, State::Attached)]);

    rig.host.leave(number);
    assert!(rig.host.retry_in().is_some());
    rig.host.retry();
    assert!(rig.host.retry_in().is_some(), "there is no room yet");
    rig.run();
    assert!(rig.over().is_empty(), "it was not told");
    rig.host.retry();
    assert_eq!(rig.host.retry_in(), None);
    rig.run();
    assert_eq!(rig.over(), [(number, OWNER, End::Left)]);
}

#[test]
fn all_engines_end_when_they_are_told_and_say_what_they_had() {
    let mut rig = Rig::new(2);
    let ((_first, a), (_second, b)) = (rig.attach(None, OWNER), rig.attach(None, OWNER));
    rig.fill_notes();
    assert!(!rig.host.shutdown(), "the first one has no room");
    let drained = |rig: &Rig| rig.host.engines().iter().map(Engine::is_drained).collect::<Vec<_>>();
    let until = rig.now + rig.host.patience();
    while !rig.host.shutdown() || drained(&rig) != [true, true] {
        assert!(rig.now < until, "not in time: {:?}", drained(&rig));
        rig.run();
    }
    let mut over = rig.over();
    over.sort_by_key(|(channel, ..)| *channel);
    assert_eq!(over, [(a, OWNER, End::Shutdown), (b, OWNER, End::Shutdown)]);
    // One that attaches to an engine that has ended is told in the same way.
    let (_late, number) = rig.attach(None, OWNER);
    rig.run();
    assert_eq!(rig.over(), [(number, OWNER, End::Shutdown)]);
}

#[test]
fn channels_offered_from_now_on_are_as_was_said_last() {
    let mut rig = Rig::new(1);
    let units = |rig: &mut Rig| {
        rig.host.offer(ClientHello::default(), 1000).map(|offer| offer.welcome.geometry.units)
    };
    assert_eq!(units(&mut rig), Ok(16));
    rig.host.set_channels(ChannelConfig { units: 64, ..CHANNELS }).expect("in bounds");
    assert_eq!(units(&mut rig), Ok(64));
    let refused =
        rig.host.set_channels(ChannelConfig { units: 65, applications: 0, ..CHANNELS }).unwrap_err();
    assert!(
        refused.to_string().starts_with("channels of 65 units of 1424 bytes and 2 connections; "),
        "{refused}"
    );
    assert_eq!(units(&mut rig), Ok(64), "all stays as it was");
    rig.host.set_channels(ChannelConfig { applications: 0, ..CHANNELS }).expect("in bounds");
    assert!(matches!(units(&mut rig), Err((Status::NoResources, _))));
}

#[test]
fn a_host_needs_queues_and_channels_within_bounds() {
    assert!(matches!(open(1, ChannelConfig { flows: 0, ..CHANNELS }, vec![]), Err(HostError::Channels(_))));
    let neighbor = neighbor::Config::new(IP, 24, None);
    let none = Host::<SimQueue>::new(EngineConfig::new(neighbor, 1, [1, 2]), CHANNELS, vec![], Nanos::ZERO);
    assert!(matches!(none, Err(HostError::Queues(0))));
}

#[test]
fn an_application_attaches_step_by_step_or_is_told_why_not() {
    let mut rig = Rig::new(1);
    rig.host.set_channels(ChannelConfig { applications: 1, ..CHANNELS }).expect("in bounds");
    let connect = || {
        let (near, far) = sockets();
        (ClientAttach::new(near, ClientHello::default()).expect("a hello"), Attaching::new(far, 1000))
    };
    let (mut client, mut attaching) = connect();
    let Ok(Step::Welcome(welcome)) = attaching.step(&mut rig.host) else { panic!("not welcome") };
    assert_eq!((welcome.engine, welcome.ip, welcome.mtu), (0, IP, 1500));
    assert!(matches!(attaching.step(&mut rig.host), Ok(Step::Wait)), "it has no memory yet");
    // Its place counts already.
    let (mut second, mut refused) = connect();
    let full = "1 applications have channels, the most (control.max_channels); try later or raise it";
    let Err(AttachError::Refused(Status::NoResources, text)) = refused.step(&mut rig.host) else {
        panic!("served")
    };
    assert_eq!(text.as_str(), full);
    let Err(AttachError::Refused(Status::NoResources, text)) = second.step() else { panic!("not told") };
    assert_eq!(text.as_str(), full);

    let mut steps = 0;
    attaching.make(&welcome, &mut || steps += 1).expect("memory");
    assert!(steps > 0);
    assert!(matches!(client.step(), Ok(None)), "it has mapped it, and is not told that it is attached");
    let Ok(Step::Ready(place, channel)) = attaching.step(&mut rig.host) else { panic!("not ready") };
    let (_app, told) = client.step().expect("attached").expect("its end");
    assert_eq!(told, welcome);
    let number = rig.host.attach(place, OWNER, *channel).unwrap_or_else(|_| panic!("the engine has no room"));
    assert_eq!(rig.states(), [(number, State::Attached)]);

    // Whoever is given up before that leaves room at once.
    rig.host.leave(number);
    rig.run();
    assert_eq!(rig.over().len(), 1);
    let (_client, mut attaching) = connect();
    assert!(matches!(attaching.step(&mut rig.host), Ok(Step::Welcome(_))));
    let _memory = attaching.give_up();
    assert!(rig.host.offer(ClientHello::default(), 1000).is_ok());
}

#[test]
fn a_port_is_shared_within_the_user_that_the_kernel_named_at_attach() {
    let mut rig = Rig::new(2);
    let mut apps = Vec::new();
    let listens = [1000, 1000, 1001].map(|uid| listens(&mut rig, &mut apps, (uid, 0), true, false));
    assert_eq!(listens, [true, true, false]);
}

#[test]
fn a_port_is_shared_by_the_channels_of_an_application() {
    let mut rig = Rig::new(2);
    let mut apps = Vec::new();
    // By user and group: one application has two channels; those of another user, of another group and of none are others.
    let who = [(1000, 7), (1000, 7), (1001, 7), (1000, 8), (1000, 0)];
    let listens = who.map(|who| listens(&mut rig, &mut apps, who, false, true));
    assert_eq!(listens, [true, true, false, false, false]);
    let applications: Vec<_> = rig.host.channels().map(|row| row.application).collect();
    assert_eq!(applications, [1, 1, 2, 3, 4]);
}

/// Whether another channel, of this user and group, may listen on a port that others listen on.
fn listens(
    rig: &mut Rig,
    apps: &mut Vec<AppEnd>,
    (uid, in_group): (u32, u32),
    reuse_port: bool,
    group: bool,
) -> bool {
    let pid = apps.len() as i32;
    let (mut app, _) = rig.attach_in(in_group, None, Owner { pid, uid });
    assert!(app.tx.request(Request::Listen { id: 1, ip: IP, port: 80, backlog: 1, reuse_port, group }));
    app.tx.flush();
    rig.run();
    let reply = app.rx.reply().expect("a sound reply");
    apps.push(app);
    matches!(reply, Some(Reply::Listening { port: 80, .. }))
}

/// A connected pair. Of a stream, which does as long as one message at a time is under way.
fn sockets() -> (Fd, Fd) {
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("sockets");
    (Fd::own(near.into_raw_fd()), Fd::own(far.into_raw_fd()))
}

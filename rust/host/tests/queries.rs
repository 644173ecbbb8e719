//! Questions to a host of several engines: each row is joined with what the host knows, each peer with what all engines know.

mod common;

use std::net::Ipv4Addr;

use common::{Rig, open};
use machnet_engine::neighbor::NeighborState;
use machnet_host::{ChannelConfig, Event, Listed, NotAsked, Owner, Part, PeerState, Question, State};
use machnet_shm::{AppEnd, Request};
use machnet_wire::Mac;

const FIXED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

impl Rig {
    /// Two engines; nobody answers on their network.
    fn new() -> Rig {
        let channels =
            ChannelConfig { applications: 300, per_application: 1, descriptors: None, units: 64, flows: 16 };
        Rig::of(open(2, channels, vec![(FIXED, MAC)]))
    }

    /// The parts of all answers since the last call.
    fn parts(&mut self) -> Vec<Part> {
        let part = |event| match event {
            Event::Answered(part) => part,
            Event::Over(_) => panic!("no channel ends here"),
        };
        self.host.take_events(usize::MAX).into_iter().map(part).collect()
    }

    /// All parts of one answer, of which the last is marked.
    fn ask(&mut self, question: Question) -> Vec<Listed> {
        let number = self.host.ask(question).unwrap_or_else(|refused| panic!("{refused}"));
        self.run();
        let parts = self.parts();
        assert!(parts.iter().all(|part| part.question == number));
        let last: Vec<bool> = parts.iter().map(|part| part.last).collect();
        assert!(last.iter().rev().copied().eq((0..last.len()).map(|i| i == 0)), "{last:?}");
        parts.into_iter().map(|part| part.rows).collect()
    }
}

fn dial(app: &mut AppEnd, id: u32, ip: Ipv4Addr) {
    assert!(app.tx.request(Request::Connect { id, ip, port: 80, local_port: 0, timeout_ms: 0 }));
    app.tx.flush();
}

#[test]
fn channels_are_listed_with_their_owners() {
    let mut rig = Rig::new();
    let owners = [0, 1, 2].map(|i| Owner { pid: 100 + i, uid: 1000 + i as u32 });
    let attached: Vec<_> = (0..3).map(|i| rig.attach(Some(i % 2), owners[i as usize])).collect();
    rig.run();
    let mut rows: Vec<_> = rig
        .ask(Question::Channels)
        .into_iter()
        .flat_map(|rows| match rows {
            Listed::Channels(rows) => rows,
            other => panic!("{other:?}"),
        })
        .map(|(known, row)| (row.channel, known.engine, known.owner, known.state))
        .collect();
    rows.sort_by_key(|row| row.0);
    let all = [0, 1, 2].map(|i: usize| (attached[i].1, i as u16 % 2, owners[i], State::Attached));
    assert_eq!(rows, all);
}

#[test]
fn hundreds_of_channels_come_in_parts() {
    let mut rig = Rig::new();
    let _attached: Vec<_> = (0..150).map(|_| rig.attach(Some(0), Owner::default())).collect();
    rig.run();
    let lengths = rig.ask(Question::Channels).into_iter().map(|rows| match rows {
        Listed::Channels(rows) => rows.len(),
        other => panic!("{other:?}"),
    });
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 22, 64, 64], "the other engine has none");
}

#[test]
fn events_are_had_a_few_at_a_time_and_none_is_lost() {
    let mut rig = Rig::new();
    let _attached: Vec<_> = (0..150).map(|_| rig.attach(Some(0), Owner::default())).collect();
    rig.run();
    let asked: Vec<u64> = (0..16).map(|_| rig.host.ask(Question::Channels).expect("room")).collect();
    rig.run();
    let (mut taken, mut answered) = (Vec::new(), Vec::new());
    loop {
        let events = rig.host.take_events(5);
        if events.is_empty() {
            break;
        }
        taken.push(events.len());
        for event in events {
            let Event::Answered(part) = event else { panic!("no channel ends here") };
            answered.extend(part.last.then_some(part.question));
        }
    }
    // Of each answer three parts with rows, and the word of the other engine that it has none.
    assert_eq!(taken.iter().sum::<usize>(), 16 * 4);
    assert!(taken.iter().all(|&n| n <= 5), "{taken:?}");
    answered.sort_unstable();
    assert_eq!(answered, asked);
}

#[test]
fn a_peer_of_several_engines_is_one_row_and_next_hops_without_connections_are_listed_too() {
    let mut rig = Rig::new();
    let (mut one, first) = rig.attach(Some(0), Owner::default());
    let (mut two, _) = rig.attach(Some(1), Owner::default());
    let silent = Ipv4Addr::new(10, 0, 0, 7);
    rig.run();
    // One request is taken a round; nobody answers, so the connections are being opened for a while.
    (0..3).for_each(|id| dial(&mut one, id, silent));
    (0..2).for_each(|id| dial(&mut two, id, silent));
    dial(&mut two, 2, FIXED);
    rig.run();
    let [Listed::Peers(peers)] = &rig.ask(Question::Peers)[..] else { panic!("one part") };
    let rows: Vec<_> = peers.iter().map(|peer| (peer.ip, peer.state, peer.mac, peer.connections)).collect();
    assert_eq!(
        rows,
        [
            (silent, PeerState::NextHop(NeighborState::Asking), None, 5),
            (FIXED, PeerState::NextHop(NeighborState::Fixed), Some(MAC), 1),
        ]
    );
    assert!(peers.iter().all(|peer| peer.next_hop == Some(peer.ip) && peer.heard_ago.is_some()));

    let of_first = rig.ask(Question::Connections { channel: Some(first) });
    let [Listed::Connections(0, rows)] = &of_first[..] else { panic!("of its engine alone: {of_first:?}") };
    assert_eq!(rows.len(), 3);
    let connection = rows[0].connection;
    let state = rig.ask(Question::Connection { engine: 0, connection });
    let [Listed::Connection(0, Some(state))] = &state[..] else { panic!("it is there: {state:?}") };
    assert_eq!(state.row.connection, connection);

    let mut idle = Rig::new();
    let [Listed::Peers(peers)] = &idle.ask(Question::Peers)[..] else { panic!("one part") };
    let rows: Vec<_> = peers.iter().map(|peer| (peer.ip, peer.connections, peer.heard_ago)).collect();
    assert_eq!(rows, [(FIXED, 0, None)]);
}

#[test]
fn what_cannot_be_asked_is_refused_and_there_is_room_again_when_answers_are_whole() {
    let mut rig = Rig::new();
    let nowhere = Question::Connection { engine: 2, connection: "0-0".parse().expect("a name") };
    let refused = rig.host.ask(nowhere).unwrap_err();
    assert_eq!(refused.to_string(), "there is no engine 2; this sidecar has 0 to 1");
    for _ in 0..16 {
        rig.host.ask(Question::Peers).expect("room");
    }
    assert_eq!(rig.host.ask(Question::Peers), Err(NotAsked::Many(16)));
    rig.run();
    assert_eq!(rig.parts().iter().filter(|part| part.last).count(), 16);
    rig.host.ask(Question::Peers).expect("room again");

    // An engine that reads no more notes is named.
    let handle = rig.host.shared().handle(1).expect("there is one");
    while handle.detach(u64::MAX) {}
    assert_eq!(rig.host.ask(Question::Channels), Err(NotAsked::Busy(1)));
    rig.run();
    let whole: Vec<u64> = rig.parts().iter().filter(|part| part.last).map(|part| part.question).collect();
    assert_eq!(whole.len(), 2, "the one before, and the half that was asked and is no longer waited for");
}

//! The Machnet ports of one sidecar: who listens on which, and which connections' keys are claimed among its engines.
//! All engines share the table. They ask it at each SYN and at each request of an application, never at a packet of a connection.
//!
//! A port that several listeners share is theirs by a rule that every engine applies in the same way: a keyed hash of what all copies
//! of a SYN have in common says whose turn it is, and the others follow in their order. Whoever takes the connection claims its key, so
//! that later copies come to the same flow, whatever has become of the list meanwhile.
//!
//! The listeners of an application that has several channels have one turn together. Of them those of the engine are asked first
//! that the SYN reached, which so need not hand its connection over, and of one engine the earliest first: what an application attached
//! to have room in reserve stays unused for as long as there is room elsewhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machnet_shm::MAX_LISTENERS;
use machnet_wire::Nanos;

use crate::claims::Claims;
use crate::ephemeral::EPHEMERAL;
use crate::ids::{ApplicationNumber, ChannelNumber, ConnKey, EngineIndex, UserId};

/// Who listens on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The engine that serves the channel.
    pub engine: EngineIndex,
    /// The channel, by its number within the sidecar.
    pub channel: ChannelNumber,
    /// The application's number for the listener.
    pub listener: u32,
}

/// With whom a listener shares its port: two do so where one of these is said by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sharing {
    /// With the listeners of this user.
    pub user: Option<UserId>,
    /// With the listeners of this application.
    pub application: Option<ApplicationNumber>,
}

impl Sharing {
    /// With nobody.
    pub const NONE: Sharing = Sharing { user: None, application: None };

    fn with(self, other: Sharing) -> bool {
        self.user.is_some() && self.user == other.user
            || self.application.is_some() && self.application == other.application
    }
}

/// Where a SYN is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// An engine has claimed its key for a flow.
    Flow(EngineIndex),
    /// A listener, behind so many that had no room. `waits`: one that was left out will have room soon.
    Listener { owner: Owner, sharing: Sharing, declined: u16, waits: bool },
    /// Nobody is left. `waits`: one that was left out will have room soon; `full`: one that was left out, and the bound on the
    /// connections of its application.
    Nobody { waits: bool, full: Option<(Owner, u32)> },
}

/// A listener's channel has as many connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub bound: u32,
    pub since: Nanos,
}

impl Full {
    /// Whether the application, which may have several channels, has time still to attach one more.
    pub fn is_new(self, now: Nanos) -> bool {
        now < self.since.saturating_add(GRACE)
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Ports {
    /// Keeps peers from choosing a listener.
    secret: [u64; 2],
    table: Mutex<Table>,
    pub(crate) claims: Claims,
}

#[derive(Debug, Default)]
struct Table {
    listeners: HashMap<u16, Vec<Turn>>,
    cursor: u16,
}

/// Listeners that have one turn together, at least one.
#[derive(Debug)]
struct Turn {
    /// Whose they are; `None`: a listener by itself.
    application: Option<ApplicationNumber>,
    /// By engine, and of each in the order in which they came.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    owner: Owner,
    sharing: Sharing,
    /// Until when it is taken to have no room.
    full_until: Nanos,
    /// Why it had none: `None` is for a place in its backlog.
    full: Option<Full>,
}

impl Ports {
    /// No listeners yet.
    pub fn new(secret: [u64; 2]) -> Self {
        Self { secret, ..Self::default() }
    }

    /// Opens `port`, or for 0 a free port of the ephemeral range, for a listener. Returns which; `None` if there is one that does not share
    /// it with this one, as many as may share it do, or no port is free.
    pub fn listen(&self, port: u16, owner: Owner, sharing: Sharing) -> Option<u16> {
        let mut table = self.lock();
        let port = if port != 0 { port } else { table.free_port()? };
        let turns = table.listeners.entry(port).or_default();
        if count(turns) >= MAX_LISTENERS as usize || !shared_with(turns, sharing) {
            return None;
        }
        let place = Place { owner, sharing, full_until: Nanos::ZERO, full: None };
        let application = sharing.application;
        match turns.iter_mut().find(|turn| application.is_some() && turn.application == application) {
            Some(turn) => {
                let at = turn.places.partition_point(|other| other.owner.engine <= owner.engine);
                turn.places.insert(at, place);
            }
            None => turns.push(Turn { application, places: vec![place] }),
        }
        Some(port)
    }

    /// Closes one listener of a channel. True: its application, which may have several, has another on this port.
    pub fn unlisten(&self, port: u16, channel: ChannelNumber, listener: u32) -> bool {
        let mut table = self.lock();
        let Entry::Occupied(mut at) = table.listeners.entry(port) else { return false };
        let is_it = |owner: &Owner| owner.channel == channel && owner.listener == listener;
        let goes_on = at
            .get()
            .iter()
            .any(|turn| turn.places.len() > 1 && turn.places.iter().any(|place| is_it(&place.owner)));
        retain(at.get_mut(), |owner| !is_it(owner));
        if at.get().is_empty() {
            at.remove();
        }
        goes_on
    }

    /// Closes every listener of a channel.
    pub fn forget(&self, channel: ChannelNumber) {
        self.lock().listeners.retain(|_, turns| {
            retain(turns, |owner| owner.channel != channel);
            !turns.is_empty()
        });
    }

    /// Whether a listener would have the port, but that as many share it as may.
    pub(crate) fn is_crowded(&self, port: u16, sharing: Sharing) -> bool {
        let table = self.lock();
        let turns = table.listeners.get(&port).map_or(&[][..], |turns| turns);
        count(turns) >= MAX_LISTENERS as usize && shared_with(turns, sharing)
    }

    /// Whether anybody listens on `port`.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        self.lock().listeners.contains_key(&port)
    }

    /// Where a SYN with this key and this tag of its sender goes, which came to engine `reached` first, when `declined` listeners had no
    /// room for it, nor has any of an engine that is full itself.
    pub(crate) fn find(
        &self,
        key: ConnKey,
        tag: u32,
        reached: EngineIndex,
        declined: u16,
        full_engine: Option<EngineIndex>,
        now: Nanos,
    ) -> Destination {
        if let Some(engine) = self.claims.holder(key) {
            return Destination::Flow(engine);
        }
        let table = self.lock();
        let Some(turns) = table.listeners.get(&key.local_port()) else {
            return Destination::Nobody { waits: false, full: None };
        };
        let draw = if turns.len() > 1 || turns[0].places.len() > 1 { self.draw(key, tag) } else { 0 };
        let (before, first) = turns.split_at(part(draw, turns.len()));
        let order = first.iter().chain(before).flat_map(|turn| turn.order(reached, draw));
        let (mut waits, mut full) = (false, None);
        for (nth, place) in order.enumerate().skip(declined.into()) {
            if Some(place.owner.engine) == full_engine {
                continue;
            }
            if place.full_until <= now {
                let Place { owner, sharing, .. } = *place;
                return Destination::Listener { owner, sharing, declined: nth as u16, waits };
            }
            match place.full {
                Some(why) if place.sharing.application.is_none() || !why.is_new(now) => {
                    full = full.or(Some(place.owner))
                }
                _ => waits = true,
            }
        }
        let full = full.map(|owner| (owner, bound(turns, owner)));
        Destination::Nobody { waits, full }
    }

    /// A listener that shares its port has no room, for want of a place in its backlog or of a connection (`full`): it is left out for a
    /// while, so that a flood of SYNs is not passed from one full listener to the next. Returns how many connections its application may
    /// have in the channels that are known to be full.
    pub(crate) fn mark_full(&self, port: u16, owner: Owner, full: Option<Full>, now: Nanos) -> u32 {
        let mut table = self.lock();
        let Some(turns) = table.listeners.get_mut(&port) else { return 0 };
        if let [Turn { places, .. }] = &turns[..]
            && places.len() == 1
        {
            // There is none to pass it to, and to ask this one again is as quick as to look here.
            return 0;
        }
        let until = now.saturating_add(full_for(count(turns)));
        let mut places = turns.iter_mut().flat_map(|turn| &mut turn.places);
        if let Some(place) = places.find(|place| place.owner == owner) {
            place.full_until = until;
            place.full = full;
        }
        bound(turns, owner)
    }

    /// What all copies of a SYN have in common, and no peer can choose.
    fn draw(&self, key: ConnKey, tag: u32) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.secret, key, tag).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a dial may have a key without claiming it: nobody else has, nor listens on its port.
    pub(crate) fn is_free(&self, key: ConnKey) -> bool {
        !self.is_open(key.local_port()) && self.claims.holder(key).is_none()
    }

    /// How many listeners are open.
    pub fn listeners(&self) -> usize {
        self.lock().listeners.values().map(|turns| count(turns)).sum()
    }

    /// How many keys are claimed.
    pub fn claimed(&self) -> usize {
        self.claims.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under the lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// In which order they are asked: those of the engine that the SYN reached, and then engine by engine from one that `draw` says.
    fn order(&self, reached: EngineIndex, draw: u64) -> impl Iterator<Item = &Place> {
        // Other bits than those that say whose turn it is.
        let from = self.places[part(draw.rotate_left(32), self.places.len())].owner.engine;
        let of = move |own: bool, later: bool| {
            self.places.iter().filter(move |place| {
                let engine = place.owner.engine;
                (engine == reached) == own && (own || (engine >= from) == later)
            })
        };
        of(true, true).chain(of(false, true)).chain(of(false, false))
    }
}

/// A number below `count` that depends on the highest bits of `draw`.
fn part(draw: u64, count: usize) -> usize {
    ((u128::from(draw) * count as u128) >> 64) as usize
}

/// Whether all listeners share their port with another.
fn shared_with(turns: &[Turn], sharing: Sharing) -> bool {
    turns.iter().flat_map(|turn| &turn.places).all(|place| place.sharing.with(sharing))
}

/// How many listeners have a turn.
fn count(turns: &[Turn]) -> usize {
    turns.iter().map(|turn| turn.places.len()).sum()
}

/// How long a listener without room is left out that so many share the port of. A SYN that asks all of them in vain takes a time that grows
/// with the square of their number, and is to be a small part of this.
fn full_for(listeners: usize) -> Nanos {
    FULL_FOR.max(Nanos((listeners * listeners) as u64 * 40))
}

/// Keeps the listeners that `keep` says.
fn retain(turns: &mut Vec<Turn>, keep: impl Fn(&Owner) -> bool) {
    turns.retain_mut(|turn| {
        turn.places.retain(|place| keep(&place.owner));
        !turn.places.is_empty()
    });
}

/// The bound on the connections of a listener's application: of all channels of it that were found full.
fn bound(turns: &[Turn], owner: Owner) -> u32 {
    let turn = turns.iter().find(|turn| turn.places.iter().any(|place| place.owner == owner));
    let full = turn.into_iter().flat_map(|turn| &turn.places).filter_map(|place| place.full);
    full.map(|full| full.bound).fold(0, u32::saturating_add)
}

impl Table {
    fn free_port(&mut self) -> Option<u16> {
        for _ in 0..u16::MAX - EPHEMERAL {
            self.cursor = self.cursor.wrapping_add(1) % (u16::MAX - EPHEMERAL);
            let port = EPHEMERAL + self.cursor;
            if !self.listeners.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }
}

/// How long a listener without room is left out at least: much shorter than the pause before a caller asks again.
const FULL_FOR: Nanos = Nanos::millis(1);

/// How long an application of several channels has to attach one more when all are full, before its callers are refused: hundreds of times what
/// that takes on a machine that has a core to spare, and enough on one that has none.
const GRACE: Nanos = Nanos::secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    const ONE: ChannelNumber = ChannelNumber(1);
    const TWO: ChannelNumber = ChannelNumber(2);

    fn owner(channel: ChannelNumber) -> Owner {
        Owner { engine: EngineIndex(channel.0 as u16 - 1), channel, listener: 3 }
    }

    /// No listener of these tests is on this engine.
    const HERE: EngineIndex = EngineIndex(100);

    fn by_user(user: u32) -> Sharing {
        Sharing { user: Some(UserId(user)), application: None }
    }

    fn by_application(application: u64) -> Sharing {
        Sharing { user: None, application: Some(ApplicationNumber(application)) }
    }

    fn both(user: u32, application: u64) -> Sharing {
        Sharing { application: Some(ApplicationNumber(application)), ..by_user(user) }
    }

    fn key(peer_port: u16) -> ConnKey {
        ConnKey::new(Ipv4Addr::LOCALHOST, peer_port, 80)
    }

    #[test]
    fn a_port_has_one_listener_and_is_free_after_it() {
        let ports = Ports::default();
        assert_eq!(ports.listen(80, owner(ONE), Sharing::NONE), Some(80));
        assert_eq!(ports.listen(80, owner(TWO), Sharing::NONE), None);
        let found = |ports: &Ports| ports.find(key(1), 7, HERE, 0, None, Nanos::ZERO);
        assert_eq!(
            found(&ports),
            Destination::Listener { owner: owner(ONE), sharing: Sharing::NONE, declined: 0, waits: false }
        );
        ports.unlisten(80, TWO, 3);
        assert!(ports.is_open(80), "another channel's");
        ports.unlisten(80, ONE, 3);
        assert_eq!(ports.listen(80, owner(TWO), Sharing::NONE), Some(80));
        ports.forget(TWO);
        assert_eq!((found(&ports), ports.listeners()), (Destination::Nobody { waits: false, full: None }, 0));
    }

    #[test]
    fn a_port_is_shared_where_all_its_listeners_ask_so_and_are_of_one_user_or_application() {
        let (ada, bob) = (by_user(1000), by_user(1001));
        let (one, two) = (by_application(1), by_application(2));
        let all = [Sharing::NONE, ada, bob, one, two, both(1000, 1), both(1001, 1), both(1001, 2)];
        for first in all {
            for second in all {
                let ports = Ports::default();
                assert_eq!(ports.listen(80, owner(ONE), first), Some(80));
                let both = first.user.is_some() && first.user == second.user
                    || first.application.is_some() && first.application == second.application;
                assert_eq!(ports.listen(80, owner(TWO), second).is_some(), both, "{first:?}, {second:?}");
                assert_eq!(ports.listeners(), 1 + usize::from(both));
                // Whoever is left goes on alone.
                ports.unlisten(80, ONE, 3);
                assert_eq!(ports.is_open(80), both);
            }
        }
    }

    #[test]
    fn every_listener_of_a_port_is_asked_once_and_the_first_of_them_is_random() {
        let ports = Ports::new([5, 6]);
        let owners: Vec<_> = (1..=4).map(|n| owner(ChannelNumber(n))).collect();
        owners.iter().for_each(|&owner| assert!(ports.listen(80, owner, by_user(0)).is_some()));
        let mut firsts = [0u32; 4];
        for n in 0..8000u32 {
            let asked = |declined| match ports.find(key(n as u16), n, HERE, declined, None, Nanos::ZERO) {
                Destination::Listener { owner, declined: nth, .. } if nth == declined => {
                    Some(owner.engine.place())
                }
                Destination::Nobody { waits: false, .. } => None,
                other => panic!("{other:?}"),
            };
            let order: Vec<_> = (0..4).map(|declined| asked(declined).expect("one of four")).collect();
            assert_eq!((order.iter().collect::<HashSet<_>>().len(), asked(4)), (4, None));
            firsts[order[0]] += 1;
        }
        // 3 degrees of freedom: beyond 16.27 is one in a thousand.
        let chi_square: f64 = firsts.iter().map(|&n| (f64::from(n) - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi_square < 16.27, "{firsts:?}: {chi_square}");
    }

    #[test]
    fn a_listener_without_room_is_left_out_for_a_while() {
        let ports = Ports::new([5, 6]);
        let owners: Vec<_> = (1..=3).map(|n| owner(ChannelNumber(n))).collect();
        owners.iter().for_each(|&owner| assert!(ports.listen(80, owner, by_user(0)).is_some()));
        let now = Nanos::secs(1);
        let found = |now| (0..50).map(|n| ports.find(key(n), 7, HERE, 0, None, now)).collect::<Vec<_>>();
        let with = |all: &[Destination], one| {
            all.iter().filter(|to| matches!(to, Destination::Listener { owner, .. } if *owner == one)).count()
        };
        ports.mark_full(80, owners[1], None, now);
        let all = found(now);
        assert_eq!(with(&all, owners[0]) + with(&all, owners[2]), 50);
        assert!(with(&all, owners[0]) > 5 && with(&all, owners[2]) > 5);
        assert!(with(&found(now + FULL_FOR), owners[1]) > 5);
        owners.iter().for_each(|&owner| assert_eq!(ports.mark_full(80, owner, None, now), 0));
        assert_eq!(found(now), vec![Destination::Nobody { waits: true, full: None }; 50]);
    }

    /// Who is asked, in turn, for a SYN that came to an engine; by channel.
    fn asked(ports: &Ports, tag: u32, reached: u16, now: Nanos) -> Vec<u64> {
        let mut all = Vec::new();
        let mut declined = 0;
        while let Destination::Listener { owner, declined: nth, .. } =
            ports.find(key(1), tag, EngineIndex(reached), declined, None, now)
        {
            all.push(owner.channel.0);
            declined = nth + 1;
        }
        all
    }

    #[test]
    fn of_an_application_the_engine_that_a_syn_reaches_is_asked_first_and_of_one_engine_the_earliest() {
        let ports = Ports::new([5, 6]);
        // By channel: on which engine. In this order they listen.
        for (channel, engine) in [(1, 0), (2, 1), (3, 0), (4, 2), (5, 1), (6, 2)] {
            let owner = Owner { engine: EngineIndex(engine), channel: ChannelNumber(channel), listener: 1 };
            assert_eq!(ports.listen(80, owner, by_application(9)), Some(80));
        }
        let mut seen = HashSet::new();
        for tag in 0..100 {
            let order = asked(&ports, tag, 1, Nanos::ZERO);
            assert_eq!(order[..2], [2, 5]);
            assert!([[1, 3, 4, 6], [4, 6, 1, 3]].iter().any(|rest| order[2..] == *rest), "{order:?}");
            seen.insert(order[2]);
            // The same for every copy, whoever asks.
            assert_eq!(asked(&ports, tag, 1, Nanos::ZERO), order);
        }
        assert_eq!(seen.len(), 2, "no engine is preferred where the SYN reached none of them");
        ports.unlisten(80, ChannelNumber(2), 1);
        assert_eq!(asked(&ports, 3, 1, Nanos::ZERO)[0], 5);
    }

    #[test]
    fn applications_that_share_a_port_as_users_have_a_turn_each() {
        let ports = Ports::new([5, 6]);
        for channel in 1..=9 {
            let owner = Owner { engine: EngineIndex(0), channel: ChannelNumber(channel), listener: 1 };
            // Three channels of application 1, five of application 2, and one that is alone.
            let sharing = match channel {
                1..=3 => both(7, 1),
                4..=8 => both(7, 2),
                _ => by_user(7),
            };
            assert_eq!(ports.listen(80, owner, sharing), Some(80));
        }
        let mut firsts = [0; 3];
        for tag in 0..3000 {
            let order = asked(&ports, tag, 0, Nanos::ZERO);
            let turn = [1, 4, 9].iter().position(|&first| first == order[0]).expect("the earliest of one");
            firsts[turn] += 1;
            assert_eq!(order.iter().copied().collect::<HashSet<_>>(), (1..=9).collect());
            let third = order.iter().position(|&channel| channel == 3).expect("asked");
            assert_eq!(order[third - 2..third], [1, 2], "{order:?}");
        }
        assert!(firsts.iter().all(|&n| (900..1100).contains(&n)), "{firsts:?}");
    }

    #[test]
    fn an_application_whose_channels_are_full_has_time_to_attach_one_more() {
        let (ports, owners) = (Ports::new([5, 6]), [ONE, TWO].map(owner));
        owners.iter().for_each(|&owner| assert!(ports.listen(80, owner, by_application(9)).is_some()));
        let since = Nanos::secs(1);
        let found = |now| ports.find(key(1), 7, HERE, 0, None, now);
        let mark = |owner, bound, since, now| ports.mark_full(80, owner, Some(Full { bound, since }), now);
        assert_eq!(mark(owners[0], 256, since, since), 256);
        assert!(matches!(found(since), Destination::Listener { owner, .. } if owner == owners[1]));
        assert_eq!(mark(owners[1], 64, since + Nanos::millis(50), since), 320, "together");
        assert_eq!(found(since), Destination::Nobody { waits: true, full: None });
        assert!(matches!(found(since + FULL_FOR), Destination::Listener { .. }), "they are asked again");
        // The grace begins with the last channel that is full.
        for (after, waits) in [(1049, true), (1050, false)] {
            let now = since + Nanos::millis(after);
            mark(owners[0], 256, since, now);
            mark(owners[1], 64, since + Nanos::millis(50), now);
            let Destination::Nobody { waits: told, full } = found(now) else { panic!("both are full") };
            assert_eq!((told, full.map(|(_, bound)| bound)), (waits, Some(320)));
        }
    }

    #[test]
    fn a_full_engine_is_passed_in_one_step_and_whoever_has_no_room_for_long_is_not_waited_for() {
        let ports = Ports::new([5, 6]);
        let owner =
            |n: u64| Owner { engine: EngineIndex((n / 100) as u16), channel: ChannelNumber(n), listener: 1 };
        let owners = [100, 101, 102, 200].map(owner);
        owners.iter().for_each(|&owner| assert!(ports.listen(80, owner, by_application(9)).is_some()));
        let find = |declined, full, now| ports.find(key(1), 7, EngineIndex(1), declined, full, now);
        let place = |n: usize, waits| {
            let (owner, sharing) = (owners[n], by_application(9));
            Destination::Listener { owner, sharing, declined: n as u16, waits }
        };
        let now = Nanos::secs(10);
        assert_eq!(find(0, Some(EngineIndex(1)), now), place(3, false));
        assert_eq!(find(4, Some(EngineIndex(1)), now), Destination::Nobody { waits: false, full: None });
        let full = |since| Some(Full { bound: 256, since });
        ports.mark_full(80, owners[0], full(Nanos::ZERO), now);
        assert_eq!(find(0, None, now), place(1, false));
        for soon in [None, full(now)] {
            ports.mark_full(80, owners[1], soon, now);
            assert_eq!(find(0, None, now), place(2, true));
        }
    }

    #[test]
    fn as_many_listeners_share_a_port_as_a_syn_can_ask() {
        let ports = Ports::default();
        let owner = |n| Owner { engine: EngineIndex(0), channel: ChannelNumber(n), listener: 1 };
        (0..1024).for_each(|n| assert_eq!(ports.listen(80, owner(n), by_application(9)), Some(80)));
        assert_eq!(ports.listen(80, owner(1024), by_application(9)), None);
        let crowded = |ports: &Ports, who| ports.is_crowded(80, by_application(who));
        assert!(crowded(&ports, 9) && !crowded(&ports, 8), "another application has no part in it");
        // One that asks them all in vain is followed by others that ask none, for ten times as long.
        let now = Nanos::secs(1);
        (0..1024).for_each(|n| _ = ports.mark_full(80, owner(n), None, now));
        for (after, nobody) in [(41, true), (42, false)] {
            let found = ports.find(key(1), 7, HERE, 0, None, now + Nanos::millis(after));
            assert_eq!(found == Destination::Nobody { waits: true, full: None }, nobody, "after {after} ms");
        }
        ports.unlisten(80, ChannelNumber(5), 1);
        assert!(!crowded(&ports, 9));
        assert_eq!((full_for(2), full_for(150)), (FULL_FOR, FULL_FOR), "few are asked again soon");
    }

    #[test]
    fn whoever_claims_a_key_gets_its_later_syns_until_it_releases_it() {
        let ports = Ports::default();
        assert!(ports.listen(80, owner(ONE), Sharing::NONE).is_some());
        assert!(ports.is_free(ConnKey::new(Ipv4Addr::LOCALHOST, 1, 81)) && !ports.is_free(key(1)));
        assert!(ports.claims.claim(key(1), EngineIndex(5)));
        assert_eq!(ports.find(key(1), 7, HERE, 0, None, Nanos::ZERO), Destination::Flow(EngineIndex(5)));
        assert!(matches!(ports.find(key(2), 7, HERE, 0, None, Nanos::ZERO), Destination::Listener { .. }));
        ports.claims.release(key(1));
        assert!(matches!(ports.find(key(1), 7, HERE, 0, None, Nanos::ZERO), Destination::Listener { .. }));
    }

    #[test]
    fn port_0_takes_a_free_one_until_none_is_left() {
        let ports = Ports::default();
        let mut seen = HashSet::from([EPHEMERAL + 100]);
        assert!(ports.listen(EPHEMERAL + 100, owner(ONE), Sharing::NONE).is_some());
        while let Some(port) = ports.listen(0, owner(ONE), Sharing::NONE) {
            assert!(port >= EPHEMERAL && seen.insert(port));
        }
        assert_eq!(seen.len(), usize::from(u16::MAX - EPHEMERAL));
    }
}

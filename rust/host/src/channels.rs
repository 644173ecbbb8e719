//! Which application gets a channel, of which engine, and of what size; and the list of the channels there are.
//!
//! A channel is counted from the offer that an application gets until its engine reports it over: what the limits on channels bound is
//! memory, which is in use for as long.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use machnet_engine::{ApplicationNumber, Member, UserId};
use machnet_shm::{BadGeometry, ClientHello, Geometry, Status, Text, Welcome};
use machnet_wire as wire;

use crate::applications::{Application, Applications};

/// What channels are to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Most applications at once, each of which has channels: offered, attached, or left by their application and not over yet.
    pub applications: usize,
    /// Most channels of one application.
    pub per_application: usize,
    /// How many the descriptors of this process last for; `None` where nothing is to be said of them.
    pub descriptors: Option<Descriptors>,
    /// Units under way per direction of a channel.
    pub units: u32,
    /// Connections of a channel.
    pub flows: u32,
}

/// What bounds the channels of all applications together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Files that this process may have open.
    pub limit: u64,
    /// Channels that these last for.
    pub channels: usize,
}

impl ChannelConfig {
    /// The sizes of a channel, where packets have `mtu` bytes.
    ///
    /// # Errors
    /// They are out of bounds.
    pub fn geometry(&self, mtu: u16) -> Result<Geometry, BadGeometry> {
        let unit_size = wire::unit_size(mtu, 0) as u32;
        Geometry { units: self.units, flows: self.flows, unit_size }.checked()
    }
}

/// What an application that asks for a channel gets.
#[derive(Debug)]
pub struct Offer {
    /// The answer to its hello.
    pub welcome: Welcome,
    /// Its claim, to be kept until the channel is attached or the application has gone.
    pub place: Place,
}

/// A claim on a channel of one engine. It counts as a channel for as long as it is kept; to drop it gives it up.
#[derive(Debug)]
pub struct Place {
    engine: u16,
    taken: Arc<AtomicUsize>,
    application: Arc<Application>,
}

impl Place {
    fn take(engine: u16, taken: &Arc<AtomicUsize>, application: Arc<Application>) -> Place {
        taken.fetch_add(1, Ordering::Relaxed);
        Place { engine, taken: Arc::clone(taken), application }
    }

    /// Which application it is of.
    pub(crate) fn member(&self, user: u32) -> Member {
        let number = ApplicationNumber(self.application.number);
        Member { user: UserId(user), application: self.application.is_group.then_some(number) }
    }

    /// Whose channel it is to be.
    pub fn engine(&self) -> u16 {
        self.engine
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The process that attached it; 0 where that is not known.
    pub pid: i32,
    /// That process's user.
    pub uid: u32,
}

/// How far a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its engine serves it.
    Attached,
    /// It is served no more: what was submitted is still being delivered.
    Draining,
}

/// A channel in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub channel: u64,
    /// Its engine.
    pub engine: u16,
    /// Which application it is of, by a number that no other has while this sidecar runs.
    pub application: u64,
    /// Whose it is.
    pub owner: Owner,
    /// How far it is.
    pub state: State,
}

/// A channel that an engine has.
#[derive(Debug)]
pub(crate) struct Channel {
    pub engine: u16,
    pub owner: Owner,
    counts: Counts,
}

/// What a channel counts as.
#[derive(Debug)]
enum Counts {
    /// A channel of its engine, and of its application.
    Place(Place),
    /// One that drains has no place at its engine: another may take that.
    Application(Arc<Application>),
}

impl Channel {
    pub fn state(&self) -> State {
        match self.counts {
            Counts::Place(_) => State::Attached,
            Counts::Application(_) => State::Draining,
        }
    }

    fn application(&self) -> &Arc<Application> {
        match &self.counts {
            Counts::Place(place) => &place.application,
            Counts::Application(application) => application,
        }
    }
}

/// All channels of a host, and what the next one is to be like.
pub(crate) struct Channels {
    pub config: ChannelConfig,
    /// By engine: how many places are taken.
    taken: Vec<Arc<AtomicUsize>>,
    /// By number.
    all: BTreeMap<u64, Channel>,
    applications: Applications,
}

impl Channels {
    /// None yet.
    pub fn new(config: ChannelConfig, engines: u16) -> Channels {
        Channels {
            config,
            taken: (0..engines).map(|_| Arc::default()).collect(),
            all: BTreeMap::new(),
            applications: Applications::default(),
        }
    }

    /// What an application of this user is told that says hello.
    pub fn offer(
        &mut self,
        hello: ClientHello,
        user: u32,
        welcome: Welcome,
    ) -> Result<Offer, (Status, Text)> {
        let refused = |text| Err((Status::NoResources, text));
        let known = self.applications.find(user, hello.group);
        match &known {
            Some(application) if application.channels() >= self.config.per_application => {
                return refused(full_of_one(self.config.per_application));
            }
            None if self.applications.count() >= self.config.applications => {
                return refused(full(self.config.applications, self.left()));
            }
            _ => {}
        }
        let draining = self.all.values().filter(|channel| channel.state() == State::Draining).count();
        let taken: usize = self.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).sum();
        if let Some(descriptors) = self.config.descriptors.filter(|most| taken + draining >= most.channels) {
            return refused(no_descriptors(descriptors));
        }
        let engine = match hello.engine {
            Some(engine) => {
                u16::try_from(engine).ok().filter(|&engine| usize::from(engine) < self.taken.len())
            }
            None => self.quietest(),
        };
        let Some((engine, taken)) =
            engine.and_then(|engine| Some((engine, self.taken.get(usize::from(engine))?)))
        else {
            let text = format_args!(
                "there is no engine {}; this sidecar has 0 to {}",
                hello.engine.unwrap_or_default(),
                self.taken.len().saturating_sub(1)
            );
            return Err((Status::NoEngine, Text::new(text)));
        };
        let application = known.unwrap_or_else(|| self.applications.add(user, hello.group));
        let place = Place::take(engine, taken, application);
        Ok(Offer { welcome: Welcome { engine: engine.into(), ..welcome }, place })
    }

    /// How many applications have left, of whose channels some are not over.
    fn left(&self) -> usize {
        let numbers = |state| {
            let channels = self.all.values().filter(move |channel| channel.state() == state);
            channels.map(|channel| channel.application().number).collect::<HashSet<_>>()
        };
        numbers(State::Draining).difference(&numbers(State::Attached)).count()
    }

    /// The engine with the fewest channels, the first of several.
    fn quietest(&self) -> Option<u16> {
        (0..)
            .zip(&self.taken)
            .min_by_key(|(_, taken)| taken.load(Ordering::Relaxed))
            .map(|(engine, _)| engine)
    }

    /// An engine has taken a channel.
    pub fn attached(&mut self, number: u64, place: Place, owner: Owner) {
        self.all.insert(number, Channel { engine: place.engine(), owner, counts: Counts::Place(place) });
    }

    /// A channel is to be served no more; gives its engine.
    pub fn drains(&mut self, number: u64) -> Option<u16> {
        let channel = self.all.get_mut(&number)?;
        channel.counts = Counts::Application(Arc::clone(channel.application()));
        Some(channel.engine)
    }

    /// A channel is over; gives what was known of it.
    pub fn over(&mut self, number: u64) -> Option<Channel> {
        self.all.remove(&number)
    }

    /// The engine that serves a channel.
    pub fn engine(&self, number: u64) -> Option<u16> {
        self.all.get(&number).map(|channel| channel.engine)
    }

    /// One channel, as the list has it.
    pub fn row(&self, channel: u64) -> Option<Row> {
        let known = self.all.get(&channel)?;
        let (application, state) = (known.application().number, known.state());
        Some(Row { channel, engine: known.engine, application, owner: known.owner, state })
    }

    /// The list of all channels, in the order of their numbers.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.all.keys().filter_map(|&channel| self.row(channel))
    }
}

/// What one application too many is told. The settings are `machnetd`'s.
fn full(most: usize, left: usize) -> Text {
    let whose = match left {
        0 => String::new(),
        n => format!(", {n} of them left"),
    };
    Text::new(format_args!(
        "{most} applications have channels, the most (control.max_channels){whose}; try later or raise it"
    ))
}

/// What an application is told that asks for one channel too many.
fn full_of_one(most: usize) -> Text {
    Text::new(format_args!(
        "this application has {most} channels, the most (channels.per_application); close some or raise it"
    ))
}

/// What one is told whose channel would need more descriptors than there are.
fn no_descriptors(Descriptors { limit, channels }: Descriptors) -> Text {
    Text::new(format_args!(
        "machnetd may open {limit} files (LimitNOFILE, ulimit -n), enough for {channels} channels; raise that"
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CONFIG: ChannelConfig =
        ChannelConfig { applications: 100, per_application: 100, descriptors: None, units: 1024, flows: 256 };

    fn ask_as(channels: &mut Channels, user: u32, group: u32, engine: Option<u32>) -> Result<Place, String> {
        let welcome = Welcome { geometry: Geometry::DEFAULT, engine: 0, ip: Ipv4Addr::LOCALHOST, mtu: 1500 };
        let offered = channels.offer(ClientHello { engine, group }, user, welcome);
        let offer = offered.map_err(|(status, text)| {
            let expected = if engine.is_some() { Status::NoEngine } else { Status::NoResources };
            assert_eq!(status, expected);
            text.as_str().to_owned()
        })?;
        assert_eq!(offer.welcome.engine, u32::from(offer.place.engine()));
        Ok(offer.place)
    }

    fn ask(channels: &mut Channels, engine: Option<u32>) -> Result<Place, String> {
        ask_as(channels, 0, 0, engine)
    }

    #[test]
    fn the_quietest_engine_is_chosen_and_the_lowest_number_of_several() {
        let mut channels = Channels::new(CONFIG, 3);
        let mut places: Vec<_> = (0..6).map(|_| ask(&mut channels, None).unwrap()).collect();
        assert_eq!(places.iter().map(Place::engine).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        // One that was offered and has gone frees its place.
        drop(places.remove(4));
        let place = ask(&mut channels, None).unwrap();
        assert_eq!(place.engine(), 1);
        // And so does one that was attached and drains.
        channels.attached(7, places.remove(2), Owner::default());
        assert_eq!(ask(&mut channels, None).unwrap().engine(), 0, "attached ones count");
        assert_eq!(channels.drains(7), Some(2));
        assert_eq!(ask(&mut channels, None).unwrap().engine(), 2);
    }

    #[test]
    fn an_engine_that_is_named_is_had_however_busy_and_one_that_is_not_there_is_refused() {
        let mut channels = Channels::new(CONFIG, 2);
        let _busy: Vec<_> = (0..5).map(|_| ask(&mut channels, Some(1)).unwrap()).collect();
        assert_eq!(ask(&mut channels, Some(1)).unwrap().engine(), 1);
        for engine in [2, 65_536, u32::MAX - 1] {
            let text = ask(&mut channels, Some(engine)).unwrap_err();
            assert_eq!(text, format!("there is no engine {engine}; this sidecar has 0 to 1"));
        }
        assert_eq!(channels.applications.count(), 5, "who is refused counts for nothing");
    }

    const TWO: &str = "2 applications have channels, the most (control.max_channels)";

    #[test]
    fn applications_count_from_the_offer_of_a_channel_until_that_is_over() {
        let mut channels = Channels::new(ChannelConfig { applications: 2, ..CONFIG }, 1);
        let (first, second) = (ask(&mut channels, None).unwrap(), ask(&mut channels, None).unwrap());
        let refused = |channels: &mut Channels, whose: &str| {
            assert_eq!(ask(channels, None).unwrap_err(), format!("{TWO}{whose}; try later or raise it"));
        };
        refused(&mut channels, "");
        channels.attached(1, first, Owner { pid: 5, uid: 6 });
        refused(&mut channels, "");
        channels.drains(1);
        refused(&mut channels, ", 1 of them left");
        let (owner, state) = (Owner { pid: 5, uid: 6 }, State::Draining);
        assert!(channels.rows().eq([Row { channel: 1, engine: 0, application: 1, owner, state }]));
        assert!(channels.over(1).is_some() && channels.over(1).is_none());
        let third = ask(&mut channels, None).unwrap();
        refused(&mut channels, "");
        drop((second, third));
        assert!(ask(&mut channels, None).is_ok());
    }

    #[test]
    fn channels_of_one_user_and_group_are_one_application() {
        let config = ChannelConfig { applications: 3, per_application: 3, ..CONFIG };
        let mut channels = Channels::new(config, 1);
        let mut one: Vec<_> =
            (0..3).map(|_| ask_as(&mut channels, 7, 50, None).expect("one of three")).collect();
        let others: Vec<_> = [(8, 50), (7, 51)]
            .map(|(user, group)| ask_as(&mut channels, user, group, None).expect("another application"))
            .into();
        let number = |place: &Place| place.member(0).application.map(|number| number.0);
        let numbers: Vec<_> = one.iter().chain(&others).map(number).collect();
        assert_eq!(numbers, [1, 1, 1, 2, 3].map(Some));
        // A channel of one that is there needs no place among the applications, whose limit is met.
        assert!(ask(&mut channels, None).unwrap_err().starts_with("3 applications"));
        assert!(ask_as(&mut channels, 7, 51, None).is_ok());
        let full =
            "this application has 3 channels, the most (channels.per_application); close some or raise it";
        assert_eq!(ask_as(&mut channels, 7, 50, None).unwrap_err(), full);
        // Attached, or draining, a channel counts once.
        for (channel, place) in (1..).zip(one.drain(..2)) {
            channels.attached(channel, place, Owner { pid: 1, uid: 7 });
        }
        channels.drains(2);
        assert_eq!(ask_as(&mut channels, 7, 50, None).unwrap_err(), full);
        assert!(channels.over(2).is_some());
        drop(ask_as(&mut channels, 7, 50, None).expect("in its place"));
        // With its last channel it is over, and its group means another one.
        drop(one);
        channels.drains(1);
        assert!(channels.rows().all(|row| row.application == 1));
        assert!(channels.over(1).is_some());
        assert_eq!(number(&ask_as(&mut channels, 7, 50, None).expect("a new one")), Some(4));
        drop(others);
        assert_eq!(channels.applications.count(), 0);
    }

    #[test]
    fn a_channel_without_group_is_alone() {
        let mut channels = Channels::new(CONFIG, 1);
        let places = [ask(&mut channels, None).unwrap(), ask(&mut channels, None).unwrap()];
        assert_eq!(channels.applications.count(), 2);
        assert!(places.iter().all(|place| place.member(5) == Member::alone(UserId(5))));
    }

    #[test]
    fn channels_are_bounded_by_the_descriptors_whoevers_they_are() {
        let descriptors = Some(Descriptors { limit: 1024, channels: 2 });
        let mut channels = Channels::new(ChannelConfig { descriptors, ..CONFIG }, 1);
        let full = "machnetd may open 1024 files (LimitNOFILE, ulimit -n), enough for 2 channels; raise that";
        let first = ask_as(&mut channels, 7, 50, None).unwrap();
        channels.attached(1, first, Owner::default());
        channels.drains(1);
        let _second = ask_as(&mut channels, 7, 50, None).unwrap();
        assert_eq!(ask_as(&mut channels, 7, 50, None).unwrap_err(), full);
        assert_eq!(ask(&mut channels, None).unwrap_err(), full);
        assert!(channels.over(1).is_some() && ask(&mut channels, None).is_ok());
    }

    #[test]
    fn the_limit_is_named_whatever_the_numbers() {
        for text in [full(1, 0), full(1024, 12), full(65_535, 65_535)] {
            assert!(text.as_str().contains("(control.max_channels)"), "{text}");
            assert!(text.as_str().ends_with("raise it"), "cut: {text}");
        }
        assert!(full_of_one(65_535).as_str().ends_with("raise it"));
        let most = Descriptors { limit: u64::from(u32::MAX), channels: usize::MAX / 1_000_000_000_000 };
        assert!(no_descriptors(most).as_str().ends_with("raise that"), "{}", no_descriptors(most));
    }
}

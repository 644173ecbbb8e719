//! Which application gets a channel, of which engine, and of what size; and the list of the channels there are.
//!
//! A channel is counted from the offer that an application gets until its engine reports it over: what the limit on channels bounds is
//! memory, which is in use for as long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use machnet_shm::{BadGeometry, ClientHello, Geometry, Status, Text, Welcome};
use machnet_wire as wire;

/// What channels are to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Most of them at once: offered, attached, or left by their application and not over yet.
    pub most: usize,
    /// Units under way per direction of a channel.
    pub units: u32,
    /// Connections of a channel.
    pub flows: u32,
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
}

impl Place {
    fn take(engine: u16, taken: &Arc<AtomicUsize>) -> Place {
        taken.fetch_add(1, Ordering::Relaxed);
        Place { engine, taken: Arc::clone(taken) }
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
    /// Its place at its engine. A channel that drains has none: another application may take it.
    place: Option<Place>,
}

impl Channel {
    pub fn state(&self) -> State {
        if self.place.is_some() { State::Attached } else { State::Draining }
    }
}

/// All channels of a host, and what the next one is to be like.
pub(crate) struct Channels {
    pub config: ChannelConfig,
    /// By engine: how many places are taken.
    taken: Vec<Arc<AtomicUsize>>,
    /// By number.
    all: BTreeMap<u64, Channel>,
}

impl Channels {
    /// None yet.
    pub fn new(config: ChannelConfig, engines: u16) -> Channels {
        Channels { config, taken: (0..engines).map(|_| Arc::default()).collect(), all: BTreeMap::new() }
    }

    /// What an application that says hello is told.
    pub fn offer(&self, hello: ClientHello, welcome: Welcome) -> Result<Offer, (Status, Text)> {
        let draining = self.all.values().filter(|channel| channel.state() == State::Draining).count();
        let taken: usize = self.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).sum();
        if taken + draining >= self.config.most {
            return Err((Status::NoResources, full(self.config.most, draining)));
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
        Ok(Offer { welcome: Welcome { engine: engine.into(), ..welcome }, place: Place::take(engine, taken) })
    }

    /// The engine with the fewest applications, the first of several.
    fn quietest(&self) -> Option<u16> {
        (0..)
            .zip(&self.taken)
            .min_by_key(|(_, taken)| taken.load(Ordering::Relaxed))
            .map(|(engine, _)| engine)
    }

    /// An engine has taken a channel.
    pub fn attached(&mut self, number: u64, place: Place, owner: Owner) {
        self.all.insert(number, Channel { engine: place.engine(), owner, place: Some(place) });
    }

    /// A channel is to be served no more; gives its engine.
    pub fn drains(&mut self, number: u64) -> Option<u16> {
        let channel = self.all.get_mut(&number)?;
        channel.place = None;
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
        Some(Row { channel, engine: known.engine, owner: known.owner, state: known.state() })
    }

    /// The list of all channels, in the order of their numbers.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.all.keys().filter_map(|&channel| self.row(channel))
    }
}

/// What one channel too many is told. The setting is `machnetd`'s.
fn full(most: usize, draining: usize) -> Text {
    let whose = match draining {
        0 => String::new(),
        n => format!(", {n} by applications that have left"),
    };
    Text::new(format_args!(
        "all {most} channels (control.max_channels) are taken{whose}; try later or raise it"
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CONFIG: ChannelConfig = ChannelConfig { most: 100, units: 1024, flows: 256 };

    fn ask(channels: &Channels, engine: Option<u32>) -> Result<Place, (Status, Text)> {
        let welcome = Welcome { geometry: Geometry::DEFAULT, engine: 0, ip: Ipv4Addr::LOCALHOST, mtu: 1500 };
        let offer = channels.offer(ClientHello { engine, group: 0 }, welcome)?;
        assert_eq!(offer.welcome.engine, u32::from(offer.place.engine()));
        Ok(offer.place)
    }

    #[test]
    fn the_quietest_engine_is_chosen_and_the_lowest_number_of_several() {
        let mut channels = Channels::new(CONFIG, 3);
        let mut places: Vec<_> = (0..6).map(|_| ask(&channels, None).unwrap()).collect();
        assert_eq!(places.iter().map(Place::engine).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        // One that was offered and has gone frees its place.
        drop(places.remove(4));
        let place = ask(&channels, None).unwrap();
        assert_eq!(place.engine(), 1);
        // And so does one that was attached and drains.
        channels.attached(7, places.remove(2), Owner::default());
        assert_eq!(ask(&channels, None).unwrap().engine(), 0, "attached ones count");
        assert_eq!(channels.drains(7), Some(2));
        assert_eq!(ask(&channels, None).unwrap().engine(), 2);
    }

    #[test]
    fn an_engine_that_is_named_is_had_however_busy_and_one_that_is_not_there_is_refused() {
        let channels = Channels::new(CONFIG, 2);
        let _busy: Vec<_> = (0..5).map(|_| ask(&channels, Some(1)).unwrap()).collect();
        assert_eq!(ask(&channels, Some(1)).unwrap().engine(), 1);
        for engine in [2, 65_536, u32::MAX - 1] {
            let (status, text) = ask(&channels, Some(engine)).unwrap_err();
            assert_eq!(status, Status::NoEngine);
            assert_eq!(text.as_str(), format!("there is no engine {engine}; this sidecar has 0 to 1"));
        }
    }

    #[test]
    fn channels_count_from_their_offer_until_they_are_over() {
        let mut channels = Channels::new(ChannelConfig { most: 2, ..CONFIG }, 1);
        let (first, second) = (ask(&channels, None).unwrap(), ask(&channels, None).unwrap());
        let refused = |channels: &Channels, whose: &str| {
            let (status, text) = ask(channels, None).unwrap_err();
            assert_eq!(status, Status::NoResources);
            let sentence =
                format!("all 2 channels (control.max_channels) are taken{whose}; try later or raise it");
            assert_eq!(text.as_str(), sentence);
        };
        refused(&channels, "");
        channels.attached(1, first, Owner { pid: 5, uid: 6 });
        refused(&channels, "");
        channels.drains(1);
        refused(&channels, ", 1 by applications that have left");
        let row = Row { channel: 1, engine: 0, owner: Owner { pid: 5, uid: 6 }, state: State::Draining };
        assert!(channels.rows().eq([row]));
        assert!(channels.over(1).is_some() && channels.over(1).is_none());
        let third = ask(&channels, None).unwrap();
        refused(&channels, "");
        drop((second, third));
        assert!(ask(&channels, None).is_ok());
    }

    #[test]
    fn the_limit_is_named_whatever_the_numbers() {
        for (most, draining) in [(1, 0), (1024, 12), (65_535, 65_535)] {
            let text = full(most, draining);
            assert!(text.as_str().contains("(control.max_channels)"), "{text}");
            assert!(text.as_str().ends_with("raise it"), "cut: {text}");
        }
    }
}

//! The host: what all its engines stand on, the engines themselves until threads take them, and what other threads ask of them.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::sync::Arc;

use machnet_engine::{End, Engine, EngineConfig, EngineHandle, Leftover, Report, Shared};
use machnet_nic::{Info, Queue};
use machnet_shm::{BadGeometry, ClientHello, EngineEnd, Geometry, Status, Text, Welcome};
use machnet_wire::Nanos;

use crate::channels::{ChannelConfig, Channels, Offer, Owner, Place, Row};
use crate::query::{NotAsked, Part, Question, Questions};

/// A sidecar: engines over the queues of one NIC, and the channels that they serve.
pub struct Host<Q> {
    shared: Arc<Shared>,
    /// Until threads of their own take them.
    engines: Vec<Engine<Q>>,
    handles: Vec<EngineHandle>,
    nic: Info,
    geometry: Geometry,
    channels: Channels,
    /// Channels that are to end, and why, whose engine had no room for the note that says so.
    undelivered: Vec<(u64, End)>,
    questions: Questions,
    /// By engine: whether it was told that the sidecar ends.
    ending: Vec<bool>,
}

/// What engines have done, or have to say.
pub enum Event {
    /// A channel is over.
    Over(Over),
    /// A part of the answer to a question.
    Answered(Part),
}

/// A channel that is over. There is one for each channel that was attached.
pub struct Over {
    /// Its number.
    pub channel: u64,
    /// Its engine.
    pub engine: u16,
    /// Whose it was.
    pub owner: Owner,
    /// Why it ended.
    pub why: End,
    /// Its memory, to be given back where that holds up nobody.
    pub leftover: Leftover,
}

impl<Q: Queue> Host<Q> {
    /// A host with an engine for each queue, at time `now`. None of them has run.
    ///
    /// # Errors
    /// There is no queue, channels would be out of bounds, or the system refuses a descriptor.
    pub fn new(
        config: EngineConfig,
        channels: ChannelConfig,
        queues: Vec<Q>,
        now: Nanos,
    ) -> Result<Host<Q>, HostError> {
        let (Some(first), Ok(count)) = (queues.first(), u16::try_from(queues.len())) else {
            return Err(HostError::Queues(queues.len()));
        };
        let nic = first.info().clone();
        let geometry = channels.geometry(nic.mtu).map_err(HostError::Channels)?;
        let shared = Shared::new(config, count).map_err(HostError::Bells)?;
        let engines =
            queues.into_iter().zip(0..).filter_map(|(queue, i)| Engine::new(&shared, i, queue, now));
        Ok(Host {
            engines: engines.collect(),
            handles: (0..count).filter_map(|engine| shared.handle(engine)).collect(),
            nic,
            geometry,
            channels: Channels::new(channels, count),
            undelivered: Vec::new(),
            questions: Questions::default(),
            ending: vec![false; usize::from(count)],
            shared,
        })
    }

    /// The engines, for whoever drives them all in one thread; none once they were taken.
    pub fn engines(&self) -> &[Engine<Q>] {
        &self.engines
    }

    /// The same, to be driven.
    pub fn engines_mut(&mut self) -> &mut [Engine<Q>] {
        &mut self.engines
    }
}

impl<Q> Host<Q> {
    /// Gives the engines away, in the order of their numbers, to be driven by threads of their own or to be dropped.
    pub fn take_engines(&mut self) -> Vec<Engine<Q>> {
        std::mem::take(&mut self.engines)
    }

    /// What the engines share: counters, neighbours, ports.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.shared.config.neighbor.ip
    }

    /// What its NIC is, by its first queue.
    pub fn nic(&self) -> &Info {
        &self.nic
    }

    /// Changes what channels offered from now on are like, and how many there may be.
    ///
    /// # Errors
    /// They would be out of bounds; all stays as it was.
    pub fn set_channels(&mut self, config: ChannelConfig) -> Result<(), HostError> {
        self.geometry = config.geometry(self.nic.mtu).map_err(HostError::Channels)?;
        self.channels.config = config;
        Ok(())
    }

    /// Answers the hello of an application of this user.
    ///
    /// # Errors
    /// It gets no channel: what it is to be told.
    pub fn offer(&mut self, hello: ClientHello, user: u32) -> Result<Offer, (Status, Text)> {
        let welcome = Welcome { geometry: self.geometry, engine: 0, ip: self.ip(), mtu: self.nic.mtu.into() };
        self.channels.offer(hello, user, welcome)
    }

    /// Gives the channel that was made for a place to its engine; returns the channel's number.
    ///
    /// # Errors
    /// The engine has too many notes to read: the channel comes back, and the place is given up.
    pub fn attach(&mut self, place: Place, owner: Owner, channel: EngineEnd) -> Result<u64, Box<EngineEnd>> {
        let Some(handle) = self.handles.get(usize::from(place.engine())) else {
            return Err(Box::new(channel));
        };
        let number = handle.attach(channel, place.member(owner.uid))?;
        self.channels.attached(number, place, owner);
        Ok(number)
    }

    /// The application of a channel is gone. What it submitted is delivered within the linger; an event tells when the channel is over.
    pub fn leave(&mut self, channel: u64) {
        self.end(channel, End::Left);
    }

    /// Ends a channel in the same way though its application is still there. False: there is no such channel.
    pub fn drain(&mut self, channel: u64) -> bool {
        self.end(channel, End::Drained)
    }

    fn end(&mut self, channel: u64, why: End) -> bool {
        let Some(engine) = self.channels.drains(channel) else { return false };
        let handle = self.handles.get(usize::from(engine));
        let told = handle.is_none_or(|handle| match why {
            End::Drained => handle.drain(channel),
            _ => handle.detach(channel),
        });
        if !told {
            self.undelivered.push((channel, why));
        }
        true
    }

    /// How long until [`Host::retry`] is to be called; `None`: there is nothing to send again.
    pub fn retry_in(&self) -> Option<Nanos> {
        (!self.undelivered.is_empty()).then_some(RETRY)
    }

    /// Sends again the notes that engines had no room for.
    pub fn retry(&mut self) {
        for (channel, why) in std::mem::take(&mut self.undelivered) {
            self.end(channel, why);
        }
    }

    /// Asks the engines something. The parts of the answer are events and carry the number that this returns.
    ///
    /// # Errors
    /// Too much is asked already, or there is no such engine.
    pub fn ask(&mut self, question: Question) -> Result<u64, NotAsked> {
        self.questions.ask(question, &self.handles, &self.channels)
    }

    /// The channels there are, in the order of their numbers.
    pub fn channels(&self) -> impl Iterator<Item = Row> {
        self.channels.rows()
    }

    /// Becomes readable when there are events.
    pub fn events_fd(&self) -> RawFd {
        self.shared.reports_fd()
    }

    /// What engines have done since the last call: the oldest `most` of their reports. If there are more, [`Host::events_fd`] stays readable.
    pub fn take_events(&mut self, most: usize) -> Vec<Event> {
        self.shared.drain_reports_bell();
        let mut events = Vec::new();
        for _ in 0..most {
            let Some(report) = self.shared.next_report() else { return events };
            match report {
                Report::Answer(answer) => {
                    let part = self.questions.take(answer, &self.shared, &self.channels);
                    events.extend(part.map(Event::Answered));
                }
                Report::ChannelOver { engine, channel, why, leftover } => {
                    let owner = self.channels.over(channel).map(|known| known.owner).unwrap_or_default();
                    events.push(Event::Over(Over { channel, engine, owner, why, leftover }));
                }
            }
        }
        // Nobody else rings for what is left.
        self.shared.ring_reports_bell();
        events
    }

    /// Has every engine deliver what was submitted, within the linger, and tell its peers of the end. False: an engine has too many notes
    /// to read and was not told; call this again. [`drive`](crate::drive) returns when its engine is done, within [`Host::patience`].
    pub fn shutdown(&mut self) -> bool {
        for (handle, told) in self.handles.iter().zip(&mut self.ending) {
            *told = *told || handle.shutdown();
        }
        self.ending.iter().all(|told| *told)
    }

    /// How long engines may take to end.
    pub fn patience(&self) -> Nanos {
        self.shared.config.linger.saturating_add(FAREWELL)
    }
}

/// Why there is no host.
#[derive(Debug)]
pub enum HostError {
    /// There are no queues, or more than can be numbered.
    Queues(usize),
    /// Channels would be of a size that there is not.
    Channels(BadGeometry),
    /// A descriptor is not to be had.
    Bells(std::io::Error),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Queues(count) => write!(f, "the NIC opened with {count} queues; it takes 1 to 65535"),
            HostError::Channels(BadGeometry(Geometry { units, flows, unit_size })) => write!(
                f,
                "channels of {units} units of {unit_size} bytes and {flows} connections; units are a power of two from 16 to 65536, connections 1 to 65536, and the MTU leaves a unit 1 to 9216 bytes"
            ),
            HostError::Bells(error) => write!(f, "engines: make their bells: {error}"),
        }
    }
}

impl std::error::Error for HostError {}

/// Between two attempts to send a note to an engine that has too many to read.
const RETRY: Nanos = Nanos::millis(1);
/// What engines have beyond the linger to tell their peers of the end.
const FAREWELL: Nanos = Nanos::millis(700);

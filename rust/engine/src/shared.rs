//! What the engines of one sidecar share, and how other threads reach an engine: bounded queues, and a bell for one
//! that sleeps.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::{ArrayQueue, SegQueue};
use machnet_rss::Pool;
use machnet_shm::{Bells, EngineEnd};
use machnet_wire::{Nanos, WarningLimit};

use crate::channel::{Channel, End};
use crate::config::EngineConfig;
use crate::counters::{Counters, Counts, Samples};
use crate::ids::{ChannelNumber, EngineIndex, Member};
use crate::neighbor::Neighbors;
use crate::path::Handed;
use crate::path_mtu::{Hint, PathMtus};
use crate::peers::Heard;
use crate::ports::Ports;
use crate::query::{Answer, Query};
use crate::rss::GivenUp;

/// The state that all engines of a sidecar stand on. Made once, before the engines.
pub struct Shared {
    /// The configuration at the start. While engines run only [`Shared::set_connect_timeout`] and
    /// [`Neighbors::set_fixed`] change what it said.
    pub config: EngineConfig,
    /// `config.flow`, as flows share it.
    pub(crate) flow: Arc<machnet_flow::Config>,
    /// Nanoseconds.
    connect_timeout: AtomicU64,
    /// Next hops.
    pub neighbors: Neighbors,
    /// Listeners and claimed local ports.
    pub ports: Ports,
    pub(crate) heard: Arc<Heard>,
    pub(crate) path_mtus: PathMtus,
    /// What is known of the queues of peers: asked at set-up and at reports, never at an ordinary packet.
    pool: Mutex<Pool>,
    /// On searches that were given up.
    given_up: Mutex<WarningLimit>,
    pub(crate) inboxes: Vec<Inbox>,
    /// One for each channel that is over, so as many at most as are attached or draining; nobody may lose one. And parts of answers, of as
    /// many questions as are asked.
    reports: SegQueue<Report>,
    reports_bell: Bell,
    channels: AtomicU64,
}

/// What the control thread learns from engines.
pub enum Report {
    /// A channel is over. Once for each that was attached.
    ChannelOver {
        /// Which engine served it.
        engine: u16,
        /// The number that [`EngineHandle::attach`] gave.
        channel: u64,
        /// Why it ended.
        why: End,
        /// What is left of it.
        leftover: Leftover,
    },
    /// A part of the answer to a question.
    Answer(Answer),
}

/// What an engine leaves of a channel: its memory, for another thread to give back.
pub struct Leftover(Box<Channel>);

impl Leftover {
    /// Gives the memory back in steps of `step` bytes, with `between` after each. To drop it does so at once.
    pub fn release(self, step: usize, between: &mut dyn FnMut()) {
        self.0.end.release(step, between);
    }
}

/// What other threads say to an engine.
pub(crate) enum Note {
    Attach(Box<Channel>),
    Detach(ChannelNumber, End),
    /// With the number that the answer is to carry.
    Query(u64, Query),
    /// What a router said of a packet that another engine may have sent.
    TooLong(Hint),
    Shutdown,
}

/// Where other threads leave things for one engine.
pub(crate) struct Inbox {
    pub notes: ArrayQueue<Note>,
    pub packets: ArrayQueue<Handed>,
    /// Empty buffers of packets handed over, so that handing over does not allocate for ever.
    pub spare: ArrayQueue<Vec<u8>>,
    pub bell: Bell,
    /// Those of the engine's channels.
    pub doorbells: Bells,
    pub counts: Counts,
}

/// Reaches one engine from any thread.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    engine: EngineIndex,
}

impl Shared {
    /// State for `engines` engines (at least one).
    pub fn new(config: EngineConfig, engines: u16) -> std::io::Result<Arc<Self>> {
        let inbox = || -> std::io::Result<Inbox> {
            Ok(Inbox {
                notes: ArrayQueue::new(NOTES),
                packets: ArrayQueue::new(config.handover.max(1)),
                spare: ArrayQueue::new(config.handover.max(1)),
                bell: Bell::new()?,
                doorbells: Bells::new().map_err(|e| std::io::Error::from_raw_os_error(e.errno))?,
                counts: Counts::default(),
            })
        };
        let inboxes = (0..engines.max(1)).map(|_| inbox()).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self {
            neighbors: Neighbors::new(config.neighbor.clone()),
            ports: Ports::new(config.secret),
            heard: Arc::default(),
            path_mtus: PathMtus::default(),
            pool: Mutex::new(Pool::new(config.rss.search.clone())),
            given_up: Mutex::new(WarningLimit::every(Nanos::secs(60))),
            inboxes,
            reports: SegQueue::new(),
            reports_bell: Bell::new()?,
            channels: AtomicU64::new(1),
            connect_timeout: AtomicU64::new(config.connect_timeout.0),
            flow: Arc::new(flow_config(&config)),
            config,
        }))
    }

    /// Silence that ends a connection attempt, where the application gives no time of its own.
    pub fn connect_timeout(&self) -> Nanos {
        Nanos(self.connect_timeout.load(Ordering::Relaxed))
    }

    /// The same for attempts that begin from now on.
    pub fn set_connect_timeout(&self, timeout: Nanos) {
        self.connect_timeout.store(timeout.0, Ordering::Relaxed);
    }

    /// What is known of the queues of peers.
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        // Whatever state it is in, it holds hints.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warns that searches at a peer were given up, at most once a minute.
    pub(crate) fn warn_given_up(&self, given_up: GivenUp<'_>, now: Nanos) {
        let mut limit = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = limit.allow(now) {
            log::warn!("{given_up}{suppressed}");
        }
    }

    /// How many engines there are.
    pub fn engines(&self) -> u16 {
        self.inboxes.len() as u16
    }

    /// The way to engine `engine`; `None` beyond the last.
    pub fn handle(self: &Arc<Self>, engine: u16) -> Option<EngineHandle> {
        (engine < self.engines())
            .then(|| EngineHandle { shared: Arc::clone(self), engine: EngineIndex(engine) })
    }

    /// The counters of engine `engine`; `None` beyond the last.
    pub fn counters(&self, engine: u16) -> Option<&Counters> {
        self.inboxes.get(usize::from(engine)).map(|inbox| &inbox.counts.engine)
    }

    /// Everything that is counted at engine `engine`, as it is now; `None` beyond the last.
    pub fn samples(&self, engine: u16) -> Option<Samples> {
        self.inboxes.get(usize::from(engine)).map(|inbox| inbox.counts.samples())
    }

    /// The oldest report not yet read.
    pub fn next_report(&self) -> Option<Report> {
        self.reports.pop()
    }

    /// A descriptor that becomes readable when a report comes after [`Shared::drain_reports_bell`].
    pub fn reports_fd(&self) -> RawFd {
        self.reports_bell.fd()
    }

    /// Empties the descriptor; call it before reading the reports, so that none is missed.
    pub fn drain_reports_bell(&self) {
        self.reports_bell.listen();
    }

    /// Has the descriptor readable again, for whoever leaves reports for later.
    pub fn ring_reports_bell(&self) {
        self.reports_bell.ring();
    }

    /// Tells the control thread, and wakes it.
    pub(crate) fn report(&self, report: Report) {
        self.reports.push(report);
        self.reports_bell.ring();
    }
}

impl EngineHandle {
    /// Gives a channel to the engine; returns the number by which it is detached and reported. The channel comes back
    /// when the engine has too many notes to read.
    pub fn attach(&self, channel: EngineEnd, member: Member) -> Result<u64, Box<EngineEnd>> {
        let id = self.shared.channels.fetch_add(1, Ordering::Relaxed);
        match self.inbox().notes.push(Note::Attach(Channel::new(ChannelNumber(id), member, channel))) {
            Ok(()) => {
                self.inbox().bell.ring();
                Ok(id)
            }
            Err(Note::Attach(channel)) => Err(Box::new(channel.end)),
            Err(_) => unreachable!("the queue gives back what it was given"),
        }
    }

    /// Says that the application of channel `id` is gone. What it submitted is delivered within the linger; a report tells when the
    /// channel is over. False: the engine has too many notes to read; try again.
    pub fn detach(&self, id: u64) -> bool {
        self.tell(Note::Detach(ChannelNumber(id), End::Left))
    }

    /// Ends channel `id` as if its application had left, though it may still be there: it is served no more, what it submitted is
    /// delivered within the linger, and a report tells when the channel is over. False: as with [`EngineHandle::detach`].
    pub fn drain(&self, id: u64) -> bool {
        self.tell(Note::Detach(ChannelNumber(id), End::Drained))
    }

    /// Asks the engine to deliver what was submitted, within the linger, to reset all flows behind that, and to take no more. Done
    /// when `Engine::is_drained`.
    pub fn shutdown(&self) -> bool {
        self.tell(Note::Shutdown)
    }

    /// Asks something; the parts of the answer are reports and carry `number`. False: the engine has too many notes to read; try again.
    pub fn ask(&self, number: u64, query: Query) -> bool {
        self.tell(Note::Query(number, query))
    }

    /// Wakes the engine's thread if it sleeps.
    pub fn wake(&self) {
        self.inbox().bell.ring();
    }

    /// Which engine this is.
    pub fn engine(&self) -> u16 {
        self.engine.0
    }

    /// The engine's counters.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.inbox().counts.engine
    }

    fn tell(&self, note: Note) -> bool {
        let told = self.inbox().notes.push(note).is_ok();
        self.inbox().bell.ring();
        told
    }

    /// What all engines of the sidecar share.
    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    #[inline]
    pub(crate) fn index(&self) -> EngineIndex {
        self.engine
    }

    #[inline]
    pub(crate) fn inbox(&self) -> &Inbox {
        &self.shared.inboxes[self.engine.place()]
    }

    /// The engine has done with a channel. Its memory is not given back here: that would hold up everybody else.
    pub(crate) fn report_over(&self, channel: Box<Channel>, why: End) {
        let (engine, number) = (self.engine.0, channel.number.0);
        self.shared.report(Report::ChannelOver { engine, channel: number, why, leftover: Leftover(channel) });
    }

    /// Wakes all engines but this one.
    pub(crate) fn wake_others(&self) {
        for (i, inbox) in self.shared.inboxes.iter().enumerate() {
            if i != self.engine.place() {
                inbox.bell.ring();
            }
        }
    }
}

/// Wakes a thread that sleeps on a descriptor, and costs nothing while it does not sleep.
///
/// The sleeper stores `armed`, fences, and then looks for work; the ringer leaves the work, fences, and then looks at
/// `armed`: one of the two sees the other.
#[derive(Debug)]
pub(crate) struct Bell {
    armed: AtomicBool,
    near: UnixStream,
    far: UnixStream,
}

impl Bell {
    fn new() -> std::io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self { armed: AtomicBool::new(true), near, far })
    }

    pub fn fd(&self) -> RawFd {
        self.near.as_raw_fd()
    }

    pub fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::Relaxed) {
            // A full socket is readable already.
            let _ = (&self.far).write(&[1]);
        }
    }

    /// Empties it for a sleeper that is awake, and goes on to listen; what is to be done is to be looked for after this. In this order: a ring
    /// between the two that was emptied at once would leave the bell disarmed, and the next report unheard.
    pub fn listen(&self) {
        self.drain();
        self.arm();
    }

    pub fn drain(&self) {
        let mut sink = [0; 64];
        while matches!((&self.near).read(&mut sink), Ok(n) if n == sink.len()) {}
    }
}

/// The settings of flows. The paper's engine asks again after 300 ms.
fn flow_config(config: &EngineConfig) -> machnet_flow::Config {
    let syn_retry = if config.rss.paper { Nanos::millis(300) } else { config.flow.syn_retry };
    machnet_flow::Config { syn_retry, ..config.flow }
}

const NOTES: usize = 256;

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::sync::Barrier;

    use super::*;
    use crate::neighbor;

    /// An engine that sleeps is woken by every note, the one included that finds no room: its reader is the one who sleeps.
    #[test]
    fn whatever_an_engine_is_told_wakes_it() {
        let address = neighbor::Config::new(Ipv4Addr::new(10, 0, 0, 1), 24, None);
        let shared = Shared::new(EngineConfig::new(address, 1, [1, 2]), 2).expect("sockets");
        let handle = shared.handle(1).expect("the second engine");
        let woken = |engine: usize| {
            let woken = matches!((&shared.inboxes[engine].bell.near).read(&mut [0; 8]), Ok(1..));
            shared.inboxes[engine].bell.arm();
            woken
        };
        let tell: [fn(&EngineHandle) -> bool; 4] =
            [|to| to.detach(7), |to| to.drain(7), |to| to.ask(1, Query::Peers), EngineHandle::shutdown];
        for (i, tell) in tell.iter().enumerate() {
            assert!(!woken(1) && tell(&handle), "note {i}");
            assert!(woken(1), "note {i} wakes nobody");
        }
        while handle.ask(1, Query::Peers) {}
        assert!(woken(1) && !handle.ask(1, Query::Peers));
        assert!(woken(1), "a queue that is full is still to be read");
        assert!(!woken(0), "those that are told nothing sleep on");
    }

    #[test]
    fn a_bell_that_rings_while_it_is_emptied_rings_again() {
        let bell = Bell::new().expect("sockets");
        let both = Barrier::new(2);
        let mut deaf = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    both.wait();
                    (0..20).for_each(|_| bell.ring());
                    both.wait();
                }
            });
            for _ in 0..ROUNDS {
                both.wait();
                (0..5).for_each(|_| bell.listen());
                both.wait();
                // Nobody does anything now: the next that rings is heard, or has been already.
                let heard = (&bell.near).read(&mut [0; 64]).is_ok();
                deaf += usize::from(!heard && !bell.armed.load(Ordering::Relaxed));
            }
        });
        assert_eq!(deaf, 0, "times of {ROUNDS} that nobody can wake the sleeper");
    }

    const ROUNDS: usize = 20_000;
}

//! Everything of an engine but its NIC queue, so that a frame can be handled while the queue lends it: the owners of an engine's
//! parts, and how a connection goes on after each call of its flow.

use machnet_flow::{Closed, Flow};
use machnet_shm::{HeldUnit, Origin, Reason, Reply, Returned};
use machnet_wire::Nanos;

use crate::admission::Admission;
use crate::answers::{Queries, Subjects};
use crate::channels::Channels;
use crate::clock::Clock;
use crate::conn::{self, Bound};
use crate::conns::{Conns, World};
use crate::counters::Counters;
use crate::ending::Ending;
use crate::ephemeral::Ephemeral;
use crate::full::Warnings;
use crate::ids::ConnIndex;
use crate::path_mtu::HintLimits;
use crate::random::{Random, RateLimit};
use crate::router::Router;
use crate::rss::{Paper, REPATHS};
use crate::shared::{EngineHandle, Report, Shared};
use crate::stats;
use crate::view::{News, Outgoing, View};

/// The state of one engine.
pub(crate) struct Core {
    /// This engine, as other threads reach it.
    pub own: EngineHandle,
    pub clock: Clock,
    pub router: Router,
    pub conns: Conns,
    pub channels: Channels,
    pub admission: Admission,
    pub random: Random,
    pub ephemeral: Ephemeral,
    pub ending: Ending,
    pub warnings: Warnings,
    /// A buffer for what a channel returned, kept for the next time.
    pub returned: Vec<Returned>,
    /// A buffer for connections that are due, kept for the next time.
    due: Vec<ConnIndex>,
    pub queries: Queries,
    pub hints: HintLimits,
    /// How many connections may go on with another pair.
    pub repaths: RateLimit,
    /// In the paper's form only.
    pub paper: Option<Paper>,
}

impl Core {
    pub fn new(own: EngineHandle, nic: &machnet_nic::Info, now: Nanos) -> Self {
        let (secret, stream) = (own.shared().config.secret, u64::from(own.index().0));
        let mut random = Random::new(secret, stream);
        let router = Router::new(own.clone(), nic, now);
        Self {
            clock: Clock::new(now),
            conns: Conns::new(own.clone(), random.draw(), now),
            channels: Channels::new(own.clone(), now),
            admission: Admission::new(&[(router.queue, nic.descriptors)]),
            router,
            ephemeral: Ephemeral::new(Random::new(secret, stream | 1 << 32)),
            random,
            ending: Ending::new(),
            warnings: Warnings::default(),
            returned: Vec::new(),
            due: Vec::new(),
            queries: Queries::default(),
            hints: HintLimits::new(now),
            repaths: RateLimit::new(REPATHS, now),
            paper: own.shared().config.rss.paper.then(|| Paper::at(now)),
            own,
        }
    }

    #[inline]
    pub fn counters(&self) -> &Counters {
        self.own.counters()
    }

    /// What all engines of the sidecar share.
    #[inline]
    pub fn shared(&self) -> &Shared {
        self.own.shared()
    }

    /// Calls a flow with its channel at hand, files it for sending, and sees to what became of it.
    #[inline]
    pub fn with<R>(
        &mut self,
        index: ConnIndex,
        call: impl FnOnce(&mut Flow<Outgoing, HeldUnit>, &mut View<'_>) -> R,
    ) -> Option<R> {
        let world =
            World { clock: &self.clock, channels: &mut self.channels, admission: &mut self.admission };
        let mut news = News::default();
        let out = self.conns.with(index, world, &mut news, call)?;
        if !news.is_none() {
            self.on_news(index, news);
        }
        Some(out)
    }

    /// Sees to what became of a flow.
    #[cold]
    pub fn on_news(&mut self, index: ConnIndex, news: News) {
        if news.established {
            self.on_established(index);
        }
        if let Some(closed) = news.closed {
            self.on_closed(index, closed);
        }
    }

    fn on_established(&mut self, index: ConnIndex) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Bound::Opening { channel, id } = conn.bound else { return };
        conn.bound = Bound::Open { channel, id };
        let (local, origin) = (conn.path.is_local(), conn.who.origin);
        if !local {
            self.conns.drain_epoch.newcomer(self.clock.now);
            self.rss_established(index);
        }
        match origin {
            Origin::Dialled(_) => self.counters().connects.add(1),
            Origin::Accepted(_) => {
                self.counters().accepts.add(1);
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.prove_place(id);
                }
                self.half_open_over(channel, origin);
            }
        }
    }

    /// The flow is over: the application learns of it, and the handle ends. The flow itself goes when it has nothing left to send.
    fn on_closed(&mut self, index: ConnIndex, closed: Closed) {
        let Some((handle, conn)) = self.conns.entry(index) else { return };
        let bound = core::mem::replace(&mut conn.bound, Bound::Free);
        self.admission.end(&mut conn.claim);
        let why = match conn.reason.unwrap_or(conn::reason(closed)) {
            // The listener closed before our ACK came: the application has been told that it is connected.
            Reason::Refused if matches!(bound, Bound::Open { .. }) => Reason::Reset,
            why => why,
        };
        let (origin, released) = (conn.who.origin, conn.who.released);
        if let (Bound::Open { channel, id }, false) = (bound, released)
            && let Some(channel) = self.channels.get_mut(channel)
        {
            channel.keep_last(id, stats::last(conn, self.own.index(), self.clock.now, why));
        }
        if conn.path.is_unknown() {
            // It may be parked until its next hop is known; it has nothing to wait for any more.
            self.conns.ready_again(handle);
        }
        let c = self.own.counters();
        match closed {
            Closed::ByPeer(_) => c.resets_received.add(1),
            Closed::Timeout => c.flow_timeouts.add(1),
            Closed::NoProgress => c.no_progress.add(1),
            Closed::Clean | Closed::ByUs(_) => {}
        }
        if let (Bound::Opening { channel, .. }, Origin::Dialled(id)) = (bound, origin) {
            match why {
                Reason::Refused => c.connects_refused.add(1),
                Reason::Timeout => c.connects_timeout.add(1),
                Reason::Unreachable => c.unreachable.add(1),
                Reason::Full(..) | Reason::PeerEnding => c.connects_peer_full.add(1),
                _ => {}
            }
            if let Some(channel) = self.channels.get_mut(channel) {
                channel.end.reply(Reply::ConnectFailed { id, reason: why });
            }
        }
        self.end_place(bound, origin, released, why);
    }

    /// Forgets a flow that has nothing left to do.
    #[cold]
    pub fn drop_flow(&mut self, index: ConnIndex) {
        let Some(mut conn) = self.conns.remove(index) else { return };
        self.admission.end(&mut conn.claim);
        if conn.claimed {
            self.shared().ports.claims.release(conn.who.key);
        }
        self.router.end_path(&conn.path);
        if conn.bound != Bound::Free {
            // Superseded before it was established: the application never heard of it.
            self.end_place(conn.bound, conn.who.origin, conn.who.released, Reason::Gone);
        }
    }

    /// A flow has ended: its handle is the application's until it lets go, or free at once.
    fn end_place(&mut self, bound: Bound, origin: Origin, released: bool, why: Reason) {
        let Some((at, id)) = bound.place() else { return };
        let Some(channel) = self.channels.touch(at) else { return };
        channel.unname(id);
        if matches!(bound, Bound::Opening { .. }) {
            channel.free_place(id);
            channel.end.discard_flow(id);
            self.half_open_over(at, origin);
        } else {
            if !released {
                channel.end.reset(id, why);
            }
            channel.end.flow_done(id);
        }
        self.drop_if_idle(at);
    }

    /// Calls the flows whose time has come.
    #[inline]
    pub fn timers(&mut self) -> usize {
        let mut due = core::mem::take(&mut self.due);
        let passed = self.conns.due(self.clock.now, |index| due.push(index));
        for index in due.drain(..) {
            let due = self.with(index, |flow, io| {
                if flow.next_timeout().is_some_and(|due| due <= io.now()) {
                    flow.on_timeout(io.now(), io);
                }
                let unanswered = flow.take_unanswered();
                let silent = unanswered > 0 || flow.is_calling();
                (unanswered, silent, io.path.rss_due() <= io.now(), io.path.is_unknown())
            });
            let Some((unanswered, silent, rss, is_unknown)) = due else { continue };
            if silent {
                self.doubt_next_hop(index);
            }
            if is_unknown {
                // Parked, it gets no turn, after which it would be filed again.
                self.conns.schedule(index);
            }
            if unanswered > 0 && unanswered % LOST == 0 {
                // A dead peer is not sprayed to again and again.
                self.repath(index, unanswered == LOST);
            }
            if rss {
                self.rss_due(index);
            }
        }
        self.due = due;
        passed
    }

    /// What a connection sends seems not to arrive: perhaps its next hop has another MAC by now.
    #[cold]
    pub fn doubt_next_hop(&self, index: ConnIndex) {
        let hop = self.conns.get(index).and_then(|conn| conn.path.next_hop());
        if let Some((ip, Some(_))) = hop
            && self.shared().neighbors.doubt(ip, self.clock.now)
        {
            self.counters().arp_doubts.add(1);
        }
    }

    /// Works at what other threads asked, for one step.
    #[cold]
    pub fn answer(&mut self) -> usize {
        let engine = self.own.index();
        let subjects = Subjects { now: self.clock.now, engine, channels: &self.channels, conns: &self.conns };
        if let Some(answer) = self.queries.step(&subjects) {
            self.shared().report(Report::Answer(answer));
        }
        1
    }

    /// Follows the neighbours: sends requests that are due, and wakes the flows whose next hop has news. Returns what there was to do.
    #[inline]
    pub fn neighbors(&mut self) -> usize {
        let news = self.router.poll_neighbors(self.clock.now);
        if news {
            self.conns.unpark();
        }
        usize::from(news)
    }
}

/// Retransmission timeouts in a row, or as many questions without an answer, after which a path is given up.
const LOST: u32 = 2;

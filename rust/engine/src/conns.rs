//! The connections of one engine: where each is, when each is due, whose turn it is to send, and the one way to call a flow.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use machnet_flow::{CreditWait, Flow};
use machnet_shm::HeldUnit;
use machnet_wire::Nanos;

use crate::admission::Admission;
use crate::channels::Channels;
use crate::clock::Clock;
use crate::conn::Conn;
use crate::drain_epoch::DrainEpoch;
use crate::ids::{ConnHandle, ConnIndex, ConnKey};
use crate::peers::Peers;
use crate::shared::EngineHandle;
use crate::table::Table;
use crate::timer_wheel::TimerWheel;
use crate::totals::Totals;
use crate::view::{News, Outgoing, View};

/// The connections of one engine.
pub(crate) struct Conns {
    own: EngineHandle,
    table: Table<Conn>,
    pub peers: Peers,
    pub drain_epoch: DrainEpoch,
    totals: Totals,
    /// By when connections ask to be called. A connection has an entry for `Conn::scheduled` and perhaps older ones, or such of one
    /// that had its place before: they are passed over.
    wheel: TimerWheel<ConnIndex>,
    /// Connections that may have something to send, oldest first.
    ready: VecDeque<ConnHandle>,
    /// Connections that wait for their next hop.
    parked: Vec<ConnHandle>,
}

/// What of the engine a flow may touch during a call, beside its own connection.
pub(crate) struct World<'a> {
    pub clock: &'a Clock,
    pub channels: &'a mut Channels,
    pub admission: &'a mut Admission,
}

/// How a connection's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has nothing more to send now.
    Done,
    /// The same, and it asks that its peer may send: it waits for this.
    Waits(CreditWait),
    /// It has sent its last, and is to be forgotten.
    Over,
    /// It has more to send, and waits for its next turn.
    More,
    /// The NIC, or the local loop, is full, or this round has sent enough; the turn goes on in the next.
    NoRoom,
    /// Its next hop is not known, so it could not begin.
    NoRoute,
}

impl Conns {
    /// None yet. `secret` keeps peers from choosing collisions in the table.
    pub fn new(own: EngineHandle, secret: u64, now: Nanos) -> Self {
        let peers = Peers::new(std::sync::Arc::clone(&own.shared().heard));
        Self {
            own,
            table: Table::new(secret),
            peers,
            drain_epoch: DrainEpoch::new(now),
            totals: Totals::default(),
            wheel: TimerWheel::new(now),
            ready: VecDeque::new(),
            parked: Vec::new(),
        }
    }

    /// Our address.
    pub fn ip(&self) -> Ipv4Addr {
        self.own.shared().config.neighbor.ip
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// The connection with this key.
    #[inline]
    pub fn find(&self, key: ConnKey) -> Option<ConnIndex> {
        self.table.find(key)
    }

    /// The connection at an index.
    #[inline]
    pub fn get(&self, index: ConnIndex) -> Option<&Conn> {
        self.table.get(index)
    }

    /// The same, to change it.
    #[inline]
    pub fn get_mut(&mut self, index: ConnIndex) -> Option<&mut Conn> {
        self.table.get_mut(index)
    }

    /// The same with its handle.
    #[inline]
    pub fn entry(&mut self, index: ConnIndex) -> Option<(ConnHandle, &mut Conn)> {
        self.table.entry(index)
    }

    /// How many places the table has, used and free ones.
    pub fn places(&self) -> usize {
        self.table.places()
    }

    /// The connection with this handle, if it is still there.
    pub fn resolve(&self, handle: ConnHandle) -> Option<&Conn> {
        self.table.resolve(handle)
    }

    /// The connection at a place of the table, with its handle.
    pub fn at(&self, place: usize) -> Option<(ConnHandle, &Conn)> {
        self.table.at(place)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.table.iter()
    }

    /// Where all connections are.
    pub fn indices(&self) -> Vec<ConnIndex> {
        self.table.indices()
    }

    /// Files a connection that begins. `None`: there is one with this key.
    pub fn insert(&mut self, conn: Conn) -> Option<ConnIndex> {
        let index = self.table.insert(conn)?;
        self.own.counters().flows.set(self.table.len() as u64);
        Some(index)
    }

    /// Takes a connection out.
    pub fn remove(&mut self, index: ConnIndex) -> Option<Conn> {
        let conn = self.table.remove(index)?;
        self.peers.release(conn.who.peer);
        self.totals.retire(index.place(), &conn.flow.stats());
        self.own.counters().flows.set(self.table.len() as u64);
        Some(conn)
    }

    /// Calls a flow with its channel at hand, and files it for sending. `None`: there is no such connection. What became of the flow is for
    /// the caller to see to.
    #[inline]
    pub fn with<R>(
        &mut self,
        index: ConnIndex,
        world: World<'_>,
        news: &mut News,
        call: impl FnOnce(&mut Flow<Outgoing, HeldUnit>, &mut View<'_>) -> R,
    ) -> Option<R> {
        let (handle, conn) = self.table.entry(index)?;
        let common = Common { own: &self.own, peers: &self.peers, drain_epoch: self.drain_epoch.bit() };
        let called = common.call(conn, world, news, call);
        if !conn.queued {
            conn.queued = true;
            self.ready.push_back(handle);
        }
        Some(called)
    }
}

/// What the connections of an engine have in common, for a call of a flow.
struct Common<'a> {
    own: &'a EngineHandle,
    peers: &'a Peers,
    drain_epoch: bool,
}

impl Common<'_> {
    /// Calls a flow with its channel at hand.
    #[inline]
    fn call<R>(
        self,
        conn: &mut Conn,
        world: World<'_>,
        news: &mut News,
        call: impl FnOnce(&mut Flow<Outgoing, HeldUnit>, &mut View<'_>) -> R,
    ) -> R {
        let World { clock, channels, admission } = world;
        if conn.stalls != clock.stalls {
            conn.stalls = clock.stalls;
            conn.flow.stalled(clock.now);
        }
        let lane = match conn.bound.place() {
            Some((at, id)) => channels.touch(at).map(|channel| (&mut channel.end, id)),
            None => None,
        };
        let mut view = View {
            lane,
            own: self.own,
            clock,
            who: &conn.who,
            peers: self.peers,
            drain_epoch: self.drain_epoch,
            path: &mut conn.path,
            admission,
            claim: &mut conn.claim,
            news,
        };
        call(&mut conn.flow, &mut view)
    }
}

/// Turns to send.
impl Conns {
    /// Whether a connection may have something to send.
    #[inline]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many there are.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The connection whose turn it is.
    #[inline]
    pub fn next_ready(&mut self) -> Option<ConnHandle> {
        self.ready.pop_front()
    }

    /// It has more to send, after all others.
    #[inline]
    pub fn ready_again(&mut self, handle: ConnHandle) {
        self.ready.push_back(handle);
    }

    /// Its turn goes on as soon as there is room.
    #[inline]
    pub fn ready_first(&mut self, handle: ConnHandle) {
        self.ready.push_front(handle);
    }

    /// It waits for its next hop.
    pub fn park(&mut self, handle: ConnHandle) {
        self.parked.push(handle);
    }

    /// There is news of next hops: those that wait for one ask again.
    pub fn unpark(&mut self) {
        self.ready.extend(self.parked.drain(..));
    }

    /// Gives a connection its turn: `send` may use its deficit up. With nothing more to send it is called again when it asks to be, or when
    /// something happens to it. `None`: it is gone, or was filed twice (`Core::on_closed`) and has had its turn; another one would file
    /// it again, without end. `ending`: the sidecar ends, and does not stay to acknowledge repetitions.
    #[inline]
    pub fn turn(
        &mut self,
        handle: ConnHandle,
        world: World<'_>,
        news: &mut News,
        ending: bool,
        send: impl FnOnce(&mut Flow<Outgoing, HeldUnit>, &mut View<'_>, &mut i32) -> Turn,
    ) -> Option<Turn> {
        let conn = self.table.resolve_mut(handle).filter(|conn| conn.queued)?;
        let common = Common { own: &self.own, peers: &self.peers, drain_epoch: self.drain_epoch.bit() };
        let mut deficit = conn.deficit;
        let turn = common.call(conn, world, news, |flow, view| send(flow, view, &mut deficit));
        if turn != Turn::Done {
            conn.deficit = deficit;
            return Some(turn);
        }
        conn.queued = false;
        conn.deficit = deficit.min(0);
        if conn.flow.is_done() || ending && conn.flow.is_lingering() {
            return Some(Turn::Over);
        }
        schedule(&mut self.wheel, handle.index, conn);
        Some(match conn.flow.credit_wait() {
            Some(wait) if conn.claim.has_to_wait(wait) => Turn::Waits(wait),
            _ => Turn::Done,
        })
    }
}

/// Timers.
impl Conns {
    /// Has a connection called when it asks to be.
    pub fn schedule(&mut self, index: ConnIndex) {
        if let Some(conn) = self.table.get_mut(index) {
            schedule(&mut self.wheel, index, conn);
        }
    }

    /// Shows `each` connection that asked to be called by `now`. Returns how many entries of the wheel have passed, those included of
    /// connections that have asked for another time since.
    #[inline]
    pub fn due(&mut self, now: Nanos, mut each: impl FnMut(ConnIndex)) -> usize {
        let mut passed = 0;
        let table = &mut self.table;
        self.wheel.expire(now, |at, index| {
            passed += 1;
            if let Some(conn) = table.get_mut(index)
                && conn.scheduled == at
            {
                conn.scheduled = Nanos::MAX;
                each(index);
            }
        });
        passed
    }

    /// When a connection is due, or the counts of flows are to be summed.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.wheel.next_deadline().into_iter().chain(self.totals.due()).min()
    }

    /// When a thread that sleeps must be awake for a connection: the wheel is early for what is far away, and for deadlines that have moved
    /// since they were filed, so where there are few connections they are asked. Acknowledgements may be late by `patience`.
    pub fn sleep_deadline(&self, patience: Nanos) -> Option<Nanos> {
        if self.table.places() > FEW {
            return self.next_deadline();
        }
        let due =
            |conn: &Conn| conn.flow.next_timeout_but(patience).unwrap_or(Nanos::MAX).min(conn.path.rss_due());
        let due = self.table.iter().map(due).min().filter(|due| *due != Nanos::MAX);
        due.into_iter().chain(self.totals.due()).min()
    }

    /// Lets other threads read what flows counted, once in a while and in steps; whether it did one. `worked`: something happened in this round.
    #[inline]
    pub fn publish(&mut self, worked: bool, now: Nanos) -> bool {
        let due = self.totals.is_due(worked, now);
        if due {
            let table = &self.table;
            let stats = |place| table.at(place).map(|(_, conn)| conn.flow.stats());
            if let Some(sums) = self.totals.step(now, table.places(), stats) {
                self.own.inbox().counts.flows.set(sums);
            }
        }
        due
    }

    /// Whether [`Conns::publish`] has more to do.
    #[inline]
    pub fn is_publishing(&self) -> bool {
        self.totals.is_summing()
    }
}

/// So many places for connections are looked through before a sleep.
const FEW: usize = 32;

/// Files a connection under the time it asks for, unless it is called earlier anyway.
#[inline]
fn schedule(wheel: &mut TimerWheel<ConnIndex>, index: ConnIndex, conn: &mut Conn) {
    let at = conn.flow.next_timeout().unwrap_or(Nanos::MAX).min(conn.path.rss_due());
    if at < conn.scheduled {
        conn.scheduled = at;
        wheel.insert(at, index);
    }
}

//! What follows from reports, from time and from silence: another pair, probes, or that there is none.

use machnet_rss::{Learned, Pair, Reach, Search, Step, spray};
use machnet_wire::{Nanos, PathEntry};

use super::GivenUp;
use crate::ids::ConnIndex;
use crate::path::{Form, InPath};
use crate::state::Core;

/// Probes of a first batch to a peer with `queues` queues from a host with `own`.
pub(super) fn batch(form: Form, queues: u16, own: u16) -> u16 {
    match form {
        Form::Mirrored => spray::mirrored_batch(queues, own),
        Form::Own | Form::Mirror => spray::batch(queues),
    }
}

/// Where a pair of ours has to lead: to the `queue` that the peer wants and, in the mirrored form, its mirror to our `own` one.
fn wanted(form: Form, queue: u16, own: u16) -> Reach {
    Reach { queue, home: super::home(form, own) }
}

impl Core {
    /// The peer of a connection says that a pair of ours led to a queue of its own, by a packet that came as `came` says.
    pub(super) fn on_report(&mut self, index: ConnIndex, entry: PathEntry, came: InPath) {
        let (now, own) = (self.clock.now, self.router.queue.0);
        let shared = self.own.shared();
        let config = &shared.config;
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(peer) = conn.flow.peer() else { return };
        let (path, pair) = (&mut conn.path, Pair { src: entry.src, dst: entry.dst });
        let mirrored = path.form() == Form::Mirrored;
        // Whatever a peer says, nothing leaves by ports that a firewall does not expect.
        let ours = |port| config.udp_ports.contains(&port);
        if config.rss.off
            || path.form() == Form::Mirror
            || !ours(pair.src)
            || !(ours(pair.dst) || pair.dst == peer.steer)
        {
            return;
        }
        if mirrored && came.pair.mirrored() != pair {
            return;
        }
        let reach = wanted(path.form(), entry.queue, came.queue.0);
        let hit = reach == wanted(path.form(), peer.queue, own);
        if config.rss.paper {
            if hit && !path.is_verified() {
                path.set_pair(pair, true);
            }
            return;
        }
        let counters = self.own.counters();
        // Between single queues there is nothing to learn but that a pair gets through.
        let single = !mirrored && peer.queues <= 1 && self.router.queues() <= 1;
        let learned = if single {
            Learned::Known
        } else {
            let mut pool = shared.pool();
            if pool.queues(path.peer()).is_none() {
                // It has made room for others since they met.
                pool.meet(path.peer(), peer.epoch, peer.queues, now);
            }
            pool.learn(path.peer(), peer.epoch, pair, reach, now)
        };
        match learned {
            Learned::Ignored => return,
            Learned::New => counters.pairs_verified.add(1),
            Learned::Remapped => counters.rss_remapped.add(1),
            Learned::Wanders => {
                counters.rss_remapped.add(1);
                counters.searches_given_up.add(1);
                let (peer, wanted, queues) = (path.peer(), peer.queue, peer.queues);
                let given_up = GivenUp { peer, wanted, queues, reached: &[], wanders: true };
                shared.warn_given_up(given_up, now);
            }
            Learned::Known => {}
        }
        if hit {
            let feels = path.rss_mut().is_some_and(|rss| core::mem::take(&mut rss.feels));
            if feels || !path.is_verified() {
                path.set_pair(pair, true);
                path.end_search();
            }
            return;
        }
        if path.is_verified() && path.pair() != pair {
            return;
        }
        // At least it gets through.
        path.set_pair(pair, false);
        let size = batch(path.form(), peer.queues, self.router.queues());
        let rss = path.rss_or_new(now);
        let step = match &mut rss.search {
            Some(search) => search.on_report(false),
            None => rss.seek(Search::new(&config.rss.search, size, now)).on_time(now),
        };
        rss.heard = true;
        self.pursue(index, step);
    }

    /// Does what a search asks for.
    fn pursue(&mut self, index: ConnIndex, step: Step) {
        let Step::Spray(probes) = step else {
            if step == Step::GiveUp {
                self.give_up(index, true);
            }
            return;
        };
        let (now, own) = (self.clock.now, self.router.queue.0);
        let shared = self.own.shared();
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(peer) = conn.flow.peer() else { return };
        let path = &mut conn.path;
        if !conn.flow.is_established() {
            // It is over, and sends no probes.
            return path.end_search();
        }
        let (address, tag) = (path.peer(), conn.flow.tag());
        let mut pool = shared.pool();
        // Another connection may have found one.
        let reach = wanted(path.form(), peer.queue, own);
        if let Some(pair) = pool.pick(address, peer.epoch, reach, now, &mut self.random) {
            path.set_pair(pair, true);
            return path.end_search();
        }
        let Some(rss) = path.rss_mut() else { return };
        let Some(search) = &mut rss.search else { return };
        if search.batch() > 1 && !rss.heard {
            // The peer is silent, which says nothing about its NIC. When it speaks again it will say where our packets go.
            return path.end_search();
        }
        if pool.may_spray(address, tag, now) {
            let counters = self.own.counters();
            if search.batch() > 1 {
                counters.searches_retried.add(1);
            }
            if !core::mem::replace(&mut rss.counted, true) {
                counters.searches.add(1);
            }
            search.on_sent(probes, now);
            drop(pool);
            self.probe(index, probes);
        } else if pool.has_given_up(address, now) {
            drop(pool);
            self.give_up(index, false);
        } else {
            search.put_off(now);
        }
    }

    /// No pair of ours reaches the wanted queue, as far as was tried. `tried`: by this connection itself.
    fn give_up(&mut self, index: ConnIndex, tried: bool) {
        let now = self.clock.now;
        let shared = self.own.shared();
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(peer) = conn.flow.peer() else { return };
        let (queue, queues) = (peer.queue, peer.queues);
        let path = &mut conn.path;
        path.end_search();
        path.rss_or_new(now).given_up = true;
        if !tried {
            return;
        }
        self.own.counters().searches_given_up.add(1);
        let peer = path.peer();
        let mut pool = shared.pool();
        if pool.give_up(peer, now) {
            let reached = pool.reached(peer);
            drop(pool);
            let given_up = GivenUp { peer, wanted: queue, queues, reached: &reached, wanders: false };
            shared.warn_given_up(given_up, now);
        }
    }

    /// Time has come for what a connection has to do for RSS--, if it has.
    #[cold]
    pub fn rss_due(&mut self, index: ConnIndex) {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(rss) = conn.path.rss_mut() else { return };
        let tell = rss.tell_at <= now;
        if tell {
            rss.tell_at = Nanos::MAX;
        }
        let step = rss.search.as_mut().map_or(Step::Wait, |search| search.on_time(now));
        if tell {
            self.with(index, |flow, _| flow.report_pairs());
        }
        self.pursue(index, step);
        if let Some(conn) = self.conns.get_mut(index) {
            conn.path.tidy();
        }
        // Files it under its next time.
        self.with(index, |_, _| ());
    }

    /// Packets of a connection on a pair of ours seem not to arrive. Where it was known to the pool a probe asks by it whether it still
    /// leads anywhere: perhaps the peer had no time to answer.
    pub(super) fn doubt(&mut self, index: ConnIndex, pair: Pair) {
        let now = self.clock.now;
        let shared = self.own.shared();
        let Some(conn) = self.conns.get_mut(index) else { return };
        if !shared.pool().doubt(conn.path.peer(), pair, now) {
            return;
        }
        conn.path.rss_or_new(now).doubted = Some(pair);
        self.probe(index, 1);
    }

    /// Asks where packets of a connection lead that go by pairs of their own.
    fn probe(&mut self, index: ConnIndex, probes: u16) {
        self.own.counters().probes_sent.add(probes.into());
        self.with(index, |flow, _| flow.probe_pairs(probes));
    }

    /// What goes out on a connection's path seems not to arrive: another one is tried. `search`: and looked for.
    #[cold]
    pub fn repath(&mut self, index: ConnIndex, search: bool) {
        let (now, own, queues) = (self.clock.now, self.router.queue.0, self.router.queues());
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(peer) = conn.flow.peer().copied() else { return };
        let (form, before) = (conn.path.form(), conn.path.pair());
        if conn.path.is_local() || form == Form::Mirror || self.shared().config.rss.paper {
            return;
        }
        if !self.repaths.allow(now) {
            return self.counters().repaths_limited.add(1);
        }
        self.counters().repathed.add(1);
        self.doubt(index, before);
        let config = &self.own.shared().config;
        let Some(conn) = self.conns.get_mut(index) else { return };
        let path = &mut conn.path;
        let reach = wanted(form, peer.queue, own);
        let known = self.own.shared().pool().pick(path.peer(), peer.epoch, reach, now, &mut self.random);
        let mut pair = known.unwrap_or_else(|| Pair::draw(&mut self.random, &config.udp_ports));
        let (any, steers) = (form == Form::Own && peer.queues <= 1, form == Form::Own && peer.steer != 0);
        if known.is_none() && steers {
            pair.dst = peer.steer;
        }
        path.set_pair(pair, known.is_some() || any || steers);
        if config.rss.off {
            return;
        }
        let verified = path.is_verified();
        let rss = path.rss_or_new(now);
        if search && !verified && rss.search.is_none() {
            let size = batch(form, peer.queues, queues);
            let step = rss.seek(Search::new(&config.rss.search, size, now)).on_time(now);
            self.pursue(index, step);
        } else {
            // Of the new pair nothing is known either, as of the peer's own that answers come by: each of these is another chance for both.
            rss.feels = true;
            self.counters().probes_sent.add(FEELERS.into());
            self.with(index, |flow, _| flow.feel_pairs(FEELERS));
        }
    }
}

/// So many connections a second go on with another pair, a tenth of them at once. Where more seem to have lost their way, the hosts are late: 10 000
/// connections that become busy at once on cores that others share time out together, and if each sent feelers then, and for every copy that
/// a late peer sends again, these would be nine tenths of the frames and make both ends later still.
pub(crate) const REPATHS: u32 = 2000;
/// Probes by which a connection whose packets seem not to arrive feels for a pair that gets through.
const FEELERS: u16 = 2;

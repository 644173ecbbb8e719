//! How a connection begins: by which UDP ports its first packets go, and how many there are.

use core::net::Ipv4Addr;

use machnet_flow::Syns;
use machnet_rss::{Pair, Reach, Search, spray};
use machnet_shm::Origin;
use machnet_wire::Hello;

use super::Rss;
use crate::ids::ConnIndex;
use crate::path::{Form, InPath};
use crate::state::Core;

/// How the packets of a connection that begins go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contact {
    pub pair: Pair,
    /// It reaches the queue that the peer wants.
    pub verified: bool,
    pub form: Form,
    pub syns: Syns,
    /// How the SYN came that is answered, where that has to be told of each.
    pub syn: Option<InPath>,
    /// The SYN-ACKs' pairs are to be reported.
    pub asks: bool,
}

impl Contact {
    /// Of a connection with this host itself, whose packets see no NIC.
    pub const LOCAL: Self =
        Self { pair: Pair::NONE, verified: true, form: Form::Own, syns: Syns::ONE, syn: None, asks: false };
}

impl Core {
    /// How a connection that is dialled here, under the tag `tag`, calls its peer. Where nothing is known, as many SYNs go out as make it
    /// likely that one reaches the queue that the peer will want, and one of the SYN-ACKs that they buy ours.
    pub fn first_contact(&mut self, (peer, port): (Ipv4Addr, u16), tag: u32) -> Contact {
        let (now, own) = (self.clock.now, self.router.queue.0);
        let config = &self.own.shared().config;
        let rss = &config.rss;
        let form = if rss.mirrored { Form::Mirrored } else { Form::Own };
        // Where the NIC steers, every SYN-ACK finds our queue.
        let steered = self.router.steer != 0 && !rss.mirrored;
        let queues = if steered { 1 } else { self.router.queues() };
        let mut contact = Contact {
            pair: Pair::draw(&mut self.random, &config.udp_ports),
            verified: false,
            form,
            ..Contact::LOCAL
        };
        if rss.off {
            return contact;
        }
        if rss.paper {
            let batch = spray::batch(queues);
            contact.syns = Syns { first: batch, again: batch, answers: 1 };
            return contact;
        }
        let mut pool = self.own.shared().pool();
        if let Some(pair) = pool.pick_for(peer, port, super::home(form, own), now, &mut self.random) {
            self.own.counters().pool_hits.add(1);
            contact.pair = pair;
            return contact;
        }
        let known = pool.queues(peer);
        let batch = if rss.mirrored {
            spray::mirrored_batch(known.unwrap_or(queues), queues)
        } else {
            spray::batch(known.unwrap_or(1).max(queues))
        };
        if batch > 1 && pool.may_spray(peer, tag, now) {
            self.own.counters().syn_sprayed.add(batch.into());
            contact.syns.first = batch;
        }
        contact
    }

    /// How a connection answers that a peer asks for. Nothing that a SYN says is proven: it changes nothing in the pool.
    pub fn answer_contact(&mut self, from: InPath, hello: &Hello) -> Contact {
        let (now, shared) = (self.clock.now, self.own.shared());
        let config = &shared.config;
        let pair = Pair::draw(&mut self.random, &config.udp_ports);
        let told = self.router.queues() > 1 || hello.queues > 1 || hello.mirrored;
        let mut contact =
            Contact { pair, verified: hello.queues <= 1, syn: told.then_some(from), ..Contact::LOCAL };
        if hello.mirrored {
            return Contact { pair: from.pair.mirrored(), form: Form::Mirror, ..contact };
        }
        if config.rss.off {
            return Contact { syn: None, ..contact };
        }
        contact.asks = hello.queues > 1;
        if config.rss.paper {
            contact.syns.answers = spray::batch(hello.queues);
            return contact;
        }
        if contact.asks && hello.steer != 0 {
            contact.pair.dst = hello.steer;
            contact.verified = true;
        } else if contact.asks {
            let reach = Reach { queue: hello.queue, home: 0 };
            if let Some(pair) = shared.pool().pick(from.peer, hello.epoch, reach, now, &mut self.random) {
                self.own.counters().pool_hits.add(1);
                contact.pair = pair;
                contact.verified = true;
            }
        }
        contact
    }

    /// What a connection that begins has to do for RSS--.
    pub fn begin_rss(&self, contact: &Contact) -> Option<Box<Rss>> {
        let syn = contact.syn?;
        let mut rss = Rss::new(self.clock.now);
        rss.asks = contact.asks;
        rss.syns.push_back(syn.entry());
        Some(Box::new(rss))
    }

    /// Both ends know of each other: what they say of themselves is true, and what came of their SYNs and SYN-ACKs counts.
    pub fn rss_established(&mut self, index: ConnIndex) {
        self.rss_met(index);
        let doubted =
            self.conns.get_mut(index).and_then(|conn| conn.path.rss_mut()).and_then(|rss| rss.begin());
        if let Some(pair) = doubted {
            self.doubt(index, pair);
        }
    }

    /// A search begins whose first probes were SYNs or SYN-ACKs, unless the path needs none.
    fn rss_met(&mut self, index: ConnIndex) {
        let (now, queues) = (self.clock.now, self.router.queues());
        let shared = self.own.shared();
        let config = &shared.config;
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(peer) = conn.flow.peer().copied() else { return };
        let path = &mut conn.path;
        if peer.mirrored && path.form() == Form::Own {
            // Both ends called each other.
            path.mirror();
        }
        if path.is_local() || path.form() == Form::Own && queues <= 1 && peer.queues <= 1 {
            return path.verify();
        }
        if config.rss.paper || config.rss.off {
            return;
        }
        {
            let mut pool = shared.pool();
            pool.meet(path.peer(), peer.epoch, peer.queues, now);
            if let Origin::Dialled(_) = conn.who.origin {
                pool.lives(path.peer(), conn.who.key.peer().1, peer.queue);
            }
        }
        match path.form() {
            Form::Mirror => return path.verify(),
            Form::Own if peer.queues <= 1 => path.verify(),
            Form::Own if peer.steer != 0 && !path.is_verified() => {
                let src = Pair::draw(&mut self.random, &config.udp_ports).src;
                return path.set_pair(Pair { src, dst: peer.steer }, true);
            }
            Form::Own | Form::Mirrored => {}
        }
        if path.is_verified() {
            return path.tidy();
        }
        let batch = super::search::batch(path.form(), peer.queues, queues);
        let mut search = Search::new(&config.rss.search, batch, now);
        let sent = conn.flow.stats().hellos_sent.min(u16::MAX.into()) as u16;
        search.on_sent(sent, now);
        path.rss_or_new(now).seek(search);
    }
}

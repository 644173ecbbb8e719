//! What somebody hears who listens on the wire: enough to forge packets of connections that live.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use machnet_nic::sim::Net;
use machnet_wire::frame::{self, Frame};
use machnet_wire::{Header, Hello, Kind, Packet, Seq};

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    /// Machnet ports.
    pub src_port: u16,
    pub dst_port: u16,
}

impl Way {
    pub fn back(self) -> Way {
        Way { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// A connection as it looks to who forges packets of one end.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// From whom they pretend to come, and to whom they go.
    pub way: Way,
    /// The tag that packets this way carry; 0 as long as it was not heard.
    pub tag: u32,
    /// The last packet's header this way, and the other way.
    pub said: Option<Header>,
    pub heard: Option<Header>,
}

/// What was heard.
#[derive(Debug, Default)]
struct Heard {
    newest: BTreeMap<Way, Header>,
    /// The tag that the sender of this way asked for.
    tags: BTreeMap<Way, u32>,
    /// The last frames, and the hosts they were for.
    frames: VecDeque<(usize, Vec<u8>)>,
}

/// Hears every frame of a network.
#[derive(Debug, Clone, Default)]
pub struct Wiretap(Arc<Mutex<Heard>>);

impl Wiretap {
    /// Listens on all links between hosts `0..hosts`.
    pub fn on(net: &Net, hosts: usize) -> Wiretap {
        let tap = Wiretap::default();
        for from in 0..hosts {
            for to in (0..hosts).filter(|to| *to != from) {
                let tap = tap.clone();
                net.lose_if(from, to, move |frame| {
                    tap.hear(to, frame);
                    false
                });
            }
        }
        tap
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().expect("one thread")
    }

    fn hear(&self, to: usize, bytes: &[u8]) {
        let mut heard = self.heard();
        if heard.frames.len() == FRAMES {
            heard.frames.pop_front();
        }
        heard.frames.push_back((to, bytes.to_vec()));
        heard.note(bytes);
    }

    /// Remembers a forged packet, so that the next one goes on from it.
    pub fn note_forged(&self, way: Way, tx: Seq) {
        if let Some(header) = self.heard().newest.get_mut(&way)
            && header.tx.before(tx)
        {
            header.tx = tx;
        }
    }

    /// A frame heard lately, and the host it was for. `which` may be any number.
    pub fn frame(&self, which: usize) -> Option<(usize, Vec<u8>)> {
        let heard = self.heard();
        heard.frames.get(which % heard.frames.len().max(1)).cloned()
    }

    /// Whether this very frame was heard lately.
    pub fn has(&self, bytes: &[u8]) -> bool {
        self.heard().frames.iter().any(|(_, frame)| frame == bytes)
    }

    /// Connections one end of which is at `victim`.
    pub fn targets(&self, victim: Ipv4Addr) -> Vec<Target> {
        let heard = self.heard();
        let ways: BTreeSet<Way> = heard
            .newest
            .keys()
            .filter_map(|way| {
                if way.dst == victim { Some(*way) } else { Some(way.back()).filter(|w| w.dst == victim) }
            })
            .collect();
        ways.into_iter().map(|way| heard.target(way)).collect()
    }

    /// The connection that goes this way.
    pub fn target(&self, way: Way) -> Target {
        self.heard().target(way)
    }
}

impl Heard {
    fn note(&mut self, bytes: &[u8]) {
        let Ok(Frame::Udp { ip, payload, .. }) = frame::parse(bytes) else { return };
        let Ok(packet) = Packet::parse(payload) else { return };
        let header = packet.header;
        if header.kind == Kind::Rst {
            return;
        }
        let way = Way { src: ip.src, dst: ip.dst, src_port: header.src, dst_port: header.dst };
        self.newest.insert(way, header);
        if let (Kind::Syn | Kind::SynAck, Ok(hello)) = (header.kind, Hello::parse(packet.payload)) {
            self.tags.insert(way, hello.tag);
        }
    }

    fn target(&self, way: Way) -> Target {
        let (said, heard) = (self.newest.get(&way).copied(), self.newest.get(&way.back()).copied());
        let asked_for = self.tags.get(&way.back()).copied();
        Target { way, tag: asked_for.or(said.map(|header| header.tag)).unwrap_or(0), said, heard }
    }
}

/// Frames that are remembered.
const FRAMES: usize = 32;

//! An application as tests need one: queues of messages, on its end of a channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use crate::world::Place;
use machnet_engine::EngineHandle;
use machnet_shm::{
    AppEnd, Delivery, Established, FlowId, Fragment, KeepAlive, Origin, Reason, Reply, Request,
};
use machnet_wire::Nanos;

/// An application: queues of messages on its end of a channel.
pub struct App {
    /// Where it runs.
    pub sidecar: usize,
    /// Something may have changed for it since it was last polled.
    pub touched: bool,
    /// Where it runs, if it shares a core, and what each thing that it does takes of that.
    pub(crate) place: Place,
    pub(crate) item: Nanos,
    pub end: AppEnd,
    pub number: u64,
    pub engine: EngineHandle,
    pub conns: BTreeMap<u64, Conn>,
    /// Connections that may have something to send.
    pub busy: BTreeSet<u64>,
    pub accepted: Vec<Established>,
    pub dialled: Vec<Established>,
    pub replies: Vec<Reply>,
    /// Whether units are returned as they come.
    pub reads: bool,
    pub unread: Vec<machnet_shm::RxToken>,
    /// Whether connections of its listeners are taken as they come.
    pub accepts: bool,
    /// How many of `accepted` were taken.
    pub taken: usize,
    /// Whether it echoes each message.
    pub echoes: bool,
    /// Whether messages are only counted, and not kept.
    pub counts: bool,
    pub alive: bool,
    next_id: u32,
    turn: u64,
    flows: BTreeMap<u64, FlowId>,
}

/// What an application knows of a connection.
#[derive(Default)]
pub struct Conn {
    pub received: VecDeque<Vec<u8>>,
    /// Bytes of messages received so far, unfinished ones included.
    pub bytes: u64,
    pub partial: Option<(usize, Vec<u8>)>,
    pub outgoing: VecDeque<Out>,
    pub offset: usize,
    pub aborted: u32,
    pub fin: bool,
    pub over: Option<Reason>,
    pub closed: bool,
}

/// Something to send.
pub enum Out {
    Message(Vec<u8>),
    /// The first bytes of a longer message, which is then given up.
    Aborted(Vec<u8>, usize),
    Fin,
    Close,
}

trait Key {
    fn key(self) -> u64;
}

impl Key for FlowId {
    fn key(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

impl Key for u64 {
    fn key(self) -> u64 {
        self
    }
}

impl App {
    pub fn new(sidecar: usize, end: AppEnd, number: u64, engine: EngineHandle) -> Self {
        Self {
            sidecar,
            touched: true,
            place: Place::default(),
            item: Nanos::ZERO,
            end,
            number,
            engine,
            conns: BTreeMap::new(),
            busy: BTreeSet::new(),
            accepted: Vec::new(),
            dialled: Vec::new(),
            replies: Vec::new(),
            reads: true,
            unread: Vec::new(),
            accepts: true,
            taken: 0,
            echoes: false,
            counts: false,
            alive: true,
            next_id: 1,
            turn: 0,
            flows: BTreeMap::new(),
        }
    }

    pub fn listen(&mut self, port: u16) -> u32 {
        self.listen_for(port, 64)
    }

    pub fn listen_for(&mut self, port: u16, backlog: u32) -> u32 {
        let id = self.id();
        self.listen_as(id, port, backlog);
        id
    }

    pub fn listen_as(&mut self, id: u32, port: u16, backlog: u32) {
        self.ask_to_listen(id, port, backlog, false, false);
    }

    /// Listens on a port that others may have, too.
    pub fn listen_shared(&mut self, port: u16, backlog: u32) -> u32 {
        let id = self.id();
        self.ask_to_listen(id, port, backlog, true, false);
        id
    }

    /// Listens on a port that the other channels of the application may have, too, and with `reuse_port` others of the user.
    pub fn listen_grouped(&mut self, port: u16, backlog: u32, reuse_port: bool) -> u32 {
        let id = self.id();
        self.ask_to_listen(id, port, backlog, reuse_port, true);
        id
    }

    fn ask_to_listen(&mut self, id: u32, port: u16, backlog: u32, reuse_port: bool, group: bool) {
        self.touched = true;
        let ip = Ipv4Addr::UNSPECIFIED;
        assert!(self.end.tx.request(Request::Listen { id, ip, port, backlog, reuse_port, group }));
        self.end.tx.flush();
    }

    pub fn unlisten(&mut self, id: u32) {
        self.touched = true;
        assert!(self.end.tx.request(Request::Unlisten { id }));
        self.end.tx.flush();
    }

    /// Takes the connection that has waited longest.
    pub fn accept(&mut self) -> Established {
        let e = self.accepted[self.taken];
        self.taken += 1;
        self.end.rx.accepted(e.flow);
        e
    }

    pub fn dial(&mut self, ip: Ipv4Addr, port: u16, local_port: u16, timeout_ms: u32) -> u32 {
        let id = self.id();
        assert!(self.end.tx.request(Request::Connect { id, ip, port, local_port, timeout_ms }));
        self.end.tx.flush();
        id
    }

    /// Asks what is known of a connection; the number by which [`App::take_reply`] has the answer.
    pub fn ask_about(&mut self, flow: FlowId) -> u32 {
        let id = self.id();
        assert!(self.end.tx.request(Request::Stats { id, flow }));
        self.end.tx.flush();
        id
    }

    /// Sets after how much silence the peer of a connection is asked whether it lives.
    pub fn keep_alive(&mut self, flow: FlowId, after: KeepAlive) {
        self.touched = true;
        assert!(self.end.tx.request(Request::KeepAlive { flow, after }));
        self.end.tx.flush();
    }

    fn id(&mut self) -> u32 {
        self.touched = true;
        self.next_id += 1;
        self.next_id
    }

    pub fn reply(&self, id: u32) -> Option<Reply> {
        self.replies.iter().copied().find(|reply| id_of(reply) == id)
    }

    pub fn take_reply(&mut self, id: u32) -> Option<Reply> {
        let at = self.replies.iter().position(|reply| id_of(reply) == id)?;
        Some(self.replies.remove(at))
    }

    pub fn dialled(&self, id: u32) -> Option<Established> {
        self.dialled.iter().copied().find(|e| e.origin == Origin::Dialled(id))
    }

    pub fn conn(&mut self, flow: FlowId) -> &mut Conn {
        self.touched = true;
        self.busy.insert(flow.key());
        self.conns.get_mut(&flow.key()).expect("known connection")
    }

    /// The same for one who only looks.
    pub fn peek(&mut self, flow: FlowId) -> &mut Conn {
        self.conns.get_mut(&flow.key()).expect("known connection")
    }

    pub fn send(&mut self, flow: FlowId, message: Vec<u8>) {
        self.conn(flow).outgoing.push_back(Out::Message(message));
    }

    #[allow(private_bounds)]
    pub fn close(&mut self, flow: impl Key + Copy) {
        if let Some(conn) = self.conns.get_mut(&flow.key())
            && !conn.closed
        {
            conn.closed = true;
            conn.outgoing.push_back(Out::Close);
            self.touched = true;
            self.busy.insert(flow.key());
        }
    }

    /// Forgets the connections that are closed, so that a test of very many stays quick.
    pub fn forget_closed(&mut self) {
        self.conns.retain(|_, conn| !conn.closed || !conn.outgoing.is_empty());
        let conns = &self.conns;
        self.flows.retain(|key, _| conns.contains_key(key));
        self.dialled.retain(|e| conns.contains_key(&e.flow.key()));
        self.accepted.retain(|e| conns.contains_key(&e.flow.key()));
        self.busy.retain(|key| conns.contains_key(key));
        self.taken = self.accepted.len();
    }

    /// Takes what came and sends what fits; how much that was.
    pub fn poll(&mut self) -> usize {
        self.touched = false;
        if !self.alive {
            return 0;
        }
        let mut work = self.end.tx.reclaim(|_| {}).expect("sound completions") as usize;
        while let Some(reply) = self.end.rx.reply().expect("sound replies") {
            self.replies.push(reply);
            work += 1;
        }
        if self.reads {
            for token in std::mem::take(&mut self.unread) {
                self.end.rx.give_back(token);
                work += 1;
            }
        }
        while let Some(delivery) = self.end.rx.delivery().expect("sound deliveries") {
            self.take(delivery);
            work += 1;
        }
        // Each time another connection is the first to get tokens.
        let later = self.busy.range(self.turn + 1..).chain(self.busy.range(..=self.turn));
        let order: Vec<u64> = later.copied().collect();
        self.turn = order.first().copied().unwrap_or(0);
        for key in order {
            let (Some(conn), flow) = (self.conns.get_mut(&key), self.flows[&key]) else { continue };
            while let Some(out) = conn.outgoing.front() {
                if !submit(&mut self.end, flow, out, &mut conn.offset) {
                    break;
                }
                work += 1;
                if conn.offset == usize::MAX {
                    conn.offset = 0;
                    conn.outgoing.pop_front();
                }
            }
            if conn.outgoing.is_empty() {
                self.busy.remove(&key);
            }
        }
        self.end.tx.flush();
        work
    }

    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Established(e) => {
                self.flows.insert(e.flow.key(), e.flow);
                self.conns.insert(e.flow.key(), Conn::default());
                match e.origin {
                    Origin::Dialled(_) => self.dialled.push(e),
                    Origin::Accepted(_) => {
                        self.accepted.push(e);
                        if self.accepts {
                            self.accept();
                        }
                    }
                }
            }
            Delivery::Data(data) => {
                let mut bytes = vec![0; data.len.into()];
                if data.token.has_buffer() {
                    self.end.rx.read(data.token, 0, &mut bytes);
                } else {
                    bytes.copy_from_slice(&data.inline[..data.len.into()]);
                }
                self.give_back(data.token);
                let (echoes, counts) = (self.echoes, self.counts);
                let Some(conn) = self.conns.get_mut(&data.flow.key()) else { return };
                conn.bytes += bytes.len() as u64;
                if counts {
                    return;
                }
                if data.fragment.begin {
                    assert!(conn.partial.is_none(), "a message within a message");
                    conn.partial = Some((data.fragment.message_len as usize, Vec::new()));
                }
                let (total, message) = conn.partial.as_mut().expect("a message has begun");
                message.extend_from_slice(&bytes);
                assert!(message.len() <= *total);
                if data.fragment.end {
                    let (total, message) = conn.partial.take().expect("a message has begun");
                    assert_eq!(message.len(), total);
                    if echoes && conn.closed {
                        // What still comes crossed the close.
                    } else if echoes {
                        conn.outgoing.push_back(Out::Message(message));
                        self.busy.insert(data.flow.key());
                    } else {
                        conn.received.push_back(message);
                    }
                }
            }
            Delivery::Aborted { flow, token } => {
                self.give_back(token);
                if let Some(conn) = self.conns.get_mut(&flow.key()) {
                    conn.aborted += 1;
                    conn.partial = None;
                }
            }
            Delivery::Fin { flow, token } => {
                self.give_back(token);
                if let Some(conn) = self.conns.get_mut(&flow.key()) {
                    conn.fin = true;
                }
            }
            Delivery::Reset { flow, reason } => {
                if let Some(conn) = self.conns.get_mut(&flow.key()) {
                    assert_eq!(conn.over.replace(reason), None, "told twice");
                    conn.outgoing.retain(|out| matches!(out, Out::Close));
                    conn.offset = 0;
                }
            }
        }
    }

    fn give_back(&mut self, token: machnet_shm::RxToken) {
        if self.reads {
            self.end.rx.give_back(token);
        } else {
            self.unread.push(token);
        }
    }
}

/// Submits the next unit of `out`. False: no token. `offset` becomes `usize::MAX` when all of it is submitted.
fn submit(end: &mut AppEnd, flow: FlowId, out: &Out, offset: &mut usize) -> bool {
    let unit = end.tx.geometry().unit_size as usize;
    match out {
        Out::Message(bytes) | Out::Aborted(bytes, _) => {
            let total = if let Out::Aborted(_, total) = out { *total } else { bytes.len() };
            if *offset == bytes.len() && *offset < total {
                if end.tx.abort(flow).is_err() {
                    return false;
                }
                *offset = usize::MAX;
                return true;
            }
            let stop = bytes.len().min(*offset + unit);
            let begin = *offset == 0;
            let fragment =
                Fragment { begin, end: stop == total, message_len: if begin { total as u32 } else { 0 } };
            if end.tx.data(flow, fragment, &bytes[*offset..stop]).is_err() {
                return false;
            }
            *offset = if stop == total { usize::MAX } else { stop };
        }
        Out::Fin => {
            if end.tx.fin(flow).is_err() {
                return false;
            }
            *offset = usize::MAX;
        }
        Out::Close => {
            end.tx.close(flow);
            *offset = usize::MAX;
        }
    }
    true
}

fn id_of(reply: &Reply) -> u32 {
    match *reply {
        Reply::Listening { id, .. }
        | Reply::ListenFailed { id, .. }
        | Reply::Unlistened { id }
        | Reply::ConnectFailed { id, .. }
        | Reply::Stats { id, .. } => id,
    }
}

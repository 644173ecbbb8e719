//! The calls that wait, for C: each tries, waits as `patience` says until it may go on, and tries once more.
use crate::client::machnet_channel;
use crate::code::{
    MACHNET_EADDR, MACHNET_EAGAIN, MACHNET_EBUSY, MACHNET_ECLOSED, MACHNET_EINTR, MACHNET_EINVAL,
    MACHNET_ENETDOWN, MACHNET_ENOTATTACHED, MACHNET_ETIMEDOUT, MACHNET_ETOOBIG, MACHNET_EVENT_CONNECT_FAILED,
    MACHNET_EVENT_LISTEN_FAILED, MACHNET_EVENT_LISTENING, MACHNET_EVENT_STATS,
};
use crate::ends::flow;
use crate::gate::{Gate, Inside};
use crate::inbox::{Got, Mode};
use crate::outbox::Flat;
use crate::patience::{Patience, Woken, YIELD, now, yielded};
use crate::rx::Refused;
use crate::sides::{RxSide, TxSide};
use crate::signals::{KEPT, REFUSED};
use crate::types::{machnet_conn, machnet_event, machnet_peer, machnet_stats_t};
use crate::words::Failure;
use core::mem::MaybeUninit;
use core::net::Ipv4Addr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use machnet_shm::sleep::{ROOM, TOKENS};
use machnet_shm::{Origin, Request};

impl machnet_channel {
    /// Attaches to the end.
    pub(crate) fn attach(&self) -> Result<(), i32> {
        let mut patience = Patience::new(&self.hogs);
        loop {
            match self.step() {
                Err(MACHNET_EAGAIN) if patience.yielded() => {}
                Err(MACHNET_EAGAIN) => {
                    // Without a socket yet (the sidecar's queue of connections is full) this is a millisecond.
                    let socket = self.socket();
                    let until = (socket < 0).then(|| now().saturating_add(MILLISECOND));
                    if patience.sleep(-1, socket, until).signal {
                        return Err(MACHNET_EINTR);
                    }
                }
                done => return done,
            }
        }
    }

    /// Sets the local address for the next listen or connect.
    pub(crate) fn bind(&self, ip: u32, port: u16) -> Result<(), i32> {
        let own = self.fixed.get().ok_or(MACHNET_ENOTATTACHED)?.info.ip;
        if ip != 0 && ip != own {
            let (asked, own) = (Ipv4Addr::from_bits(ip), Ipv4Addr::from_bits(own));
            self.last_error.explain(format_args!(
                "bind {asked}:{port}: the sidecar's address is {own}; bind that, or 0.0.0.0"
            ));
            return Err(MACHNET_EADDR);
        }
        enter(&self.tx)?.bound = (ip, port);
        Ok(())
    }

    /// Listens where `bind` said, and gives the listener and its port. The port is shared with other listeners of the user (`reuse_port`), of
    /// the application (`group`).
    pub(crate) fn listen(&self, backlog: u32, (reuse_port, group): (bool, bool)) -> Result<(u32, u16), i32> {
        let mut rx = enter(&self.rx)?;
        let id = self.id();
        let (ip, port) = enter(&self.tx)?.bound;
        let at = Ipv4Addr::from_bits(ip);
        let request = Request::Listen { id, ip: at, port, backlog: backlog.max(1), reuse_port, group };
        self.ask_wait(&mut rx, request, None)?;
        let mut patience = Patience::new(&self.hogs);
        loop {
            let reply = self.with_entered_rx(&mut rx, |side, _| {
                side.reply(|event| listens(event.kind) && event.id == id)
            })?;
            match reply {
                Some(event) if event.kind == MACHNET_EVENT_LISTENING => return Ok((id, event.local_port)),
                Some(event) => {
                    self.last_error.explain(format_args!("listen {at}:{port}: {}", Failure::of(&event)));
                    return Err(event.code);
                }
                // The sidecar itself answers, and at once.
                None => go_on(self.pause(&mut rx, &mut patience, None))?,
            }
        }
    }

    /// The next connection of a listener.
    pub(crate) fn accept(&self, listener: u32, wait: bool) -> Result<(machnet_conn, machnet_peer), i32> {
        let mut rx = enter(&self.rx)?;
        let mut patience = Patience::new(&self.hogs);
        loop {
            let taken = self.with_entered_rx(&mut rx, |side, conns| {
                Ok(side.open()?.take_new(conns, Origin::Accepted(listener)))
            })?;
            match taken {
                Some(accepted) => return Ok(accepted),
                None if wait => self.pause(&mut rx, &mut patience, None)?,
                None => return Err(MACHNET_EAGAIN),
            }
        }
    }

    /// Connects, from where `bind` said.
    pub(crate) fn connect(&self, ip: u32, port: u16, timeout_ms: u32) -> Result<machnet_conn, i32> {
        if ip == 0 || port == 0 {
            return Err(MACHNET_EINVAL);
        }
        let mut rx = enter(&self.rx)?;
        let id = self.id();
        let to = Ipv4Addr::from_bits(ip);
        let (_, local_port) = enter(&self.tx)?.bound;
        let until = (timeout_ms != 0).then(|| now().saturating_add(u64::from(timeout_ms) * 1_000_000));
        self.ask_wait(&mut rx, Request::Connect { id, ip: to, port, local_port, timeout_ms }, until)?;
        let mut patience = Patience::new(&self.hogs);
        let (mut interrupted, mut cancelled) = (false, false);
        loop {
            let (made, failed) = self.with_entered_rx(&mut rx, |side, conns| {
                match side.open()?.take_new(conns, Origin::Dialled(id)) {
                    None => Ok((
                        None,
                        side.reply(|event| event.kind == MACHNET_EVENT_CONNECT_FAILED && event.id == id)?,
                    )),
                    made => Ok((made, None)),
                }
            })?;
            match (made, failed) {
                (Some((conn, _)), _) => return Ok(conn),
                (None, Some(_)) if cancelled => return Err(MACHNET_EINTR),
                (None, Some(event)) => {
                    self.last_error.explain(format_args!("connect {to}:{port}: {}", Failure::of(&event)));
                    return Err(event.code);
                }
                // A dial that nobody waits for any more would leave a connection that nobody closes: it is called off, and its end, which
                // the sidecar tells at once, awaited.
                (None, None) if interrupted && !cancelled => {
                    cancelled = self.request_or_keep(Request::Cancel { id }).is_ok();
                    let soon = (!cancelled).then(|| now().saturating_add(MILLISECOND));
                    go_on(self.pause(&mut rx, &mut patience, soon))?;
                }
                (None, None) => match self.pause(&mut rx, &mut patience, None) {
                    Err(MACHNET_EINTR) => interrupted = true,
                    paused => paused?,
                },
            }
        }
    }

    /// What the sidecar knows of a connection; waits for it until `until` nanoseconds.
    pub(crate) fn stats(&self, conn: machnet_conn, until: Option<u64>) -> Result<machnet_stats_t, i32> {
        let mut rx = enter(&self.rx)?;
        self.fixed.get().ok_or(MACHNET_ENOTATTACHED)?.conns.check(conn)?;
        let id = self.id();
        self.ask_wait(&mut rx, Request::Stats { id, flow: flow(conn) }, until)?;
        let mut patience = Patience::new(&self.hogs);
        loop {
            let answered = self.with_entered_rx(&mut rx, |side, _| {
                let mine = |event: &machnet_event| event.kind == MACHNET_EVENT_STATS && event.id == id;
                Ok(side.reply(mine)?.map(|_| side.answers.take(id)))
            })?;
            match answered {
                Some(answer) => return answer.ok_or(MACHNET_ECLOSED),
                None if until.is_some_and(|until| now() >= until) => return Err(MACHNET_ETIMEDOUT),
                None => self.pause(&mut rx, &mut patience, until)?,
            }
        }
    }

    /// Sends a whole message, or (not `wait`) all of it at once or nothing.
    pub(crate) fn send_all(&self, conn: machnet_conn, message: &[u8], wait: bool) -> Result<(), i32> {
        let mut tx = enter(&self.tx)?;
        if !wait {
            return self.with_entered_tx(&mut tx, |side, conns| {
                let sender = side.open()?;
                if !sender.fits(message.len()) {
                    return Err(MACHNET_ETOOBIG);
                }
                sender.send_whole(conns, conn, &mut Flat(message)).map(drop)
            });
        }
        let mut sent = 0;
        let mut patience = Patience::new(&self.hogs);
        loop {
            let rest = message.get(sent..).unwrap_or_default();
            let more = self.with_entered_tx(&mut tx, |side, conns| {
                let sender = side.open()?;
                let more = sender.send(conns, conn, &mut Flat(rest), sent > 0);
                // It waits below, at the sending direction's own bell: no event for it, which would wake a thread that waits for events.
                sender.waits_itself(conn);
                more
            });
            match more {
                Ok(more) => {
                    sent += more;
                    patience.renew();
                    if sent == message.len() {
                        return Ok(());
                    }
                }
                // Half a message helps nobody: once begun, all of it goes.
                Err(MACHNET_EAGAIN) if sent > 0 => go_on(self.pause_tx(&mut tx, conn, &mut patience))?,
                Err(MACHNET_EAGAIN) => self.pause_tx(&mut tx, conn, &mut patience)?,
                Err(code) => return Err(code),
            }
        }
    }

    /// Receives; a whole message in message mode. Where there is nothing: waits until `until` nanoseconds, or for ever, or (not `wait`)
    /// not at all.
    pub(crate) fn recv_wait(
        &self,
        conn: machnet_conn,
        mode: Mode,
        out: &mut [MaybeUninit<u8>],
        wait: bool,
        until: Option<u64>,
    ) -> Result<Got, Refused> {
        let refused = |code| Refused { code, message_len: 0 };
        let mut rx = enter(&self.rx).map_err(refused)?;
        let mut patience = Patience::new(&self.hogs);
        let mut whole = Got::default();
        loop {
            let room = out.get_mut(whole.bytes..).unwrap_or_default();
            let mut message_len = 0;
            let got = self.with_entered_rx(&mut rx, |side, conns| {
                side.open()?.recv(conns, conn, mode, room).map_err(|refused| {
                    message_len = refused.message_len;
                    refused.code
                })
            });
            match got {
                Ok(got) => {
                    let first = whole.bytes == 0;
                    whole = Got {
                        bytes: whole.bytes + got.bytes,
                        begin: if first { got.begin } else { whole.begin },
                        offset: if first { got.offset } else { whole.offset },
                        ..got
                    };
                    if mode != Mode::Message || got.end || whole.bytes == out.len() {
                        return Ok(whole);
                    }
                    patience.renew();
                }
                // A message that was begun is awaited in any case: half of one is of no use.
                Err(MACHNET_EAGAIN) if whole.bytes > 0 => {
                    go_on(self.pause(&mut rx, &mut patience, None)).map_err(refused)?;
                }
                // When the time is over that is all there is to say: MACHNET_ETIMEDOUT is what a dead peer's connection says.
                Err(MACHNET_EAGAIN) if wait && until.is_none_or(|until| now() < until) => {
                    self.pause(&mut rx, &mut patience, until).map_err(refused)?;
                }
                Err(code) => return Err(Refused { code, message_len }),
            }
        }
    }

    /// Waits for anything to receive or poll, until `until` nanoseconds. False: the time is over.
    pub(crate) fn wait(&self, until: Option<u64>) -> Result<bool, i32> {
        let mut rx = enter(&self.rx)?;
        let mut patience = Patience::new(&self.hogs);
        loop {
            self.send_kept();
            let some = self.with_entered_rx(&mut rx, |side, _| {
                Ok(side.pending() != 0
                    || side.open()?.channel.ready()
                    || self.room_came(&side.open()?.channel))
            })?;
            let tokens = self.reap();
            if some || self.signals.events_tx.load(Acquire) != 0 {
                return Ok(true);
            }
            if until.is_some_and(|until| now() >= until) {
                return Ok(false);
            }
            self.pause_for(REFUSED | KEPT, &mut rx, &mut patience, until, tokens)?;
        }
    }

    /// Sends a request, and forgets what `bind` said once that was used; waits, until `until` nanoseconds, while there is no room for it.
    fn ask_wait(&self, rx: &mut Inside<'_, RxSide>, request: Request, until: Option<u64>) -> Result<(), i32> {
        // A caller that gives up no longer waits for room.
        self.ask_until(rx, request, until).inspect_err(|_| {
            self.signals.room.fetch_and(!REFUSED, Relaxed);
        })
    }

    fn ask_until(
        &self,
        rx: &mut Inside<'_, RxSide>,
        request: Request,
        until: Option<u64>,
    ) -> Result<(), i32> {
        let mut patience = Patience::new(&self.hogs);
        loop {
            // What came in is set aside: it would keep the bell from being armed, and answers that nobody takes keep the engine
            // from taking requests. This comes first: where there is no place for an answer, nothing is to be asked.
            self.with_entered_rx(rx, |side, conns| {
                side.reply(|_| false).inspect_err(|_| {
                    self.last_error.explain(format_args!(
                        "request: too many answers wait for machnet_poll; call it first"
                    ));
                })?;
                let receiver = side.open()?;
                while receiver.drain(conns, usize::MAX) {}
                Ok(())
            })?;
            let asked = self.with_entered_tx(&mut enter(&self.tx)?, |side, _| {
                self.ask(side, request)?;
                if !matches!(request, Request::Stats { .. }) {
                    side.bound = (0, 0);
                }
                Ok(())
            });
            match asked {
                Err(MACHNET_EAGAIN) if until.is_some_and(|until| now() >= until) => {
                    self.last_error.explain(format_args!(
                        "the sidecar took no request within timeout_ms; it is stopped, or very busy"
                    ));
                    return Err(MACHNET_ETIMEDOUT);
                }
                Err(MACHNET_EAGAIN) => {}
                done => return done,
            }
            self.pause_for(REFUSED | KEPT, rx, &mut patience, until, false)?;
        }
    }

    /// One step of waiting in the receiving direction: yields while it pays, then sleeps until the doorbell rings.
    fn pause(
        &self,
        rx: &mut Inside<'_, RxSide>,
        patience: &mut Patience,
        until: Option<u64>,
    ) -> Result<(), i32> {
        self.pause_for(KEPT, rx, patience, until, false)
    }

    /// The same, that ends also when there is room for a request of these, [`REFUSED`] and [`KEPT`], and (`tokens`) when there are
    /// completions.
    fn pause_for(
        &self,
        requests: u32,
        rx: &mut Inside<'_, RxSide>,
        patience: &mut Patience,
        until: Option<u64>,
        tokens: bool,
    ) -> Result<(), i32> {
        if self.set_aside(rx)? {
            return Ok(());
        }
        while patience.yielded() {
            if self.signals.down.load(Relaxed) != 0 {
                return Err(MACHNET_ENETDOWN);
            }
            if rx.open()?.channel.ready() {
                return Ok(());
            }
        }
        self.send_kept();
        let tokens = if tokens { TOKENS } else { 0 };
        // For room always: another thread may keep a request while this one sleeps.
        if !rx.open()?.channel.arm(tokens | ROOM, || self.signals.room.load(Relaxed) & requests != 0) {
            if !rx.open()?.channel.ready() {
                // Only completions wait, or room for a request, for another thread: its turn.
                yielded();
            } else if !rx.stash.has_room() {
                // Answers that there is no place for keep the bell from being armed until machnet_poll takes some: a short sleep, which
                // lets signals in.
                let soon = now().saturating_add(MILLISECOND);
                let woken =
                    patience.sleep(-1, self.socket(), Some(until.map_or(soon, |until| until.min(soon))));
                return self.woken(self.doorbell(), woken);
            }
            return Ok(());
        }
        let woken = patience.sleep(self.doorbell(), self.socket(), until);
        rx.open()?.channel.disarm();
        patience.renew();
        self.woken(self.doorbell(), woken)
    }

    /// Sets aside the answers that have come, for machnet_poll or the call that waits for one: they would keep the bell from being armed.
    /// Whether there were any.
    fn set_aside(&self, rx: &mut Inside<'_, RxSide>) -> Result<bool, i32> {
        self.with_entered_rx(rx, |side, _| {
            let before = side.pending();
            // Refused only for want of a place.
            let _ = side.reply(|_| false);
            Ok(side.pending() != before)
        })
    }

    /// The same for a sender without tokens for `conn`, at the sending direction's own doorbell: the other one belongs to the receiving
    /// direction, in which another thread may sleep, or none may be. The end of the connection rings here, too.
    fn pause_tx(
        &self,
        tx: &mut Inside<'_, TxSide>,
        conn: machnet_conn,
        patience: &mut Patience,
    ) -> Result<(), i32> {
        while patience.yielded() {
            if self.signals.down.load(Relaxed) != 0 {
                return Err(MACHNET_ENETDOWN);
            }
            if tx.open()?.channel.ready() {
                return Ok(());
            }
        }
        let kept = self.signals.room.load(Relaxed) & KEPT != 0;
        let channel = &mut tx.open()?.channel;
        if !channel.arm(conn, kept) {
            return Ok(());
        }
        let woken = patience.sleep(channel.doorbell(), self.socket(), None);
        channel.disarm();
        patience.renew();
        self.woken(channel.doorbell(), woken)
    }

    /// If nobody is in the sending direction, takes completions there, for which sends that got MACHNET_EAGAIN wait. Whether such sends still
    /// wait.
    fn reap(&self) -> bool {
        if self.signals.blocked.load(Acquire) == 0 {
            return false;
        }
        let Some(mut tx) = self.tx.visit() else { return false };
        let Some(sender) = tx.sender.as_mut() else { return false };
        sender.reap();
        self.signals.events_tx.store(sender.pending(), Release);
        sender.waits()
    }

    /// After a sleep: answers the bell, looks whether the socket says the end, and says whether a signal ended it.
    fn woken(&self, bell: i32, woken: Woken) -> Result<(), i32> {
        if woken.bell {
            self.drain(bell)?;
        }
        if woken.socket {
            self.alive()?;
        }
        if woken.signal { Err(MACHNET_EINTR) } else { Ok(()) }
    }
}

/// Of a wait that signals do not end.
fn go_on(paused: Result<(), i32>) -> Result<(), i32> {
    match paused {
        Err(MACHNET_EINTR) => Ok(()),
        paused => paused,
    }
}

/// Comes in as soon as the one inside leaves; gives up after a while, since that one may be waiting for ever.
fn enter<T>(gate: &Gate<T>) -> Result<Inside<'_, T>, i32> {
    let until = now().saturating_add(YIELD);
    loop {
        if let Some(inside) = gate.enter() {
            return Ok(inside);
        }
        yielded();
        if now() >= until {
            return Err(MACHNET_EBUSY);
        }
    }
}

fn listens(kind: u32) -> bool {
    kind == MACHNET_EVENT_LISTENING || kind == MACHNET_EVENT_LISTEN_FAILED
}

const MILLISECOND: u64 = 1_000_000;

//! A channel: what the C functions call. Safe code; the gates keep one caller per direction.
#![allow(non_camel_case_types, reason = "the name that C and Go see")]

use crate::attach::Attach;
use crate::attached::{Attached, Fixed};
use crate::code::{
    MACHNET_EAGAIN, MACHNET_EBUSY, MACHNET_ECLOSED, MACHNET_EINVAL, MACHNET_ENETDOWN, MACHNET_ENOBUFS,
    MACHNET_ENOTATTACHED,
};
use crate::conns::Conns;
use crate::ends::{DeliverEnd, flow};
use crate::gate::{Gate, Inside, Once};
use crate::hogs::Hogs;
use crate::inbox::{Got, Mode};
use crate::kept::Kept;
use crate::last_error::LastError;
use crate::mark::Mark;
use crate::memory::Memory;
use crate::outbox::{Bytes, Gather};
use crate::replies::{Answers, Stash};
use crate::rx::Refused;
use crate::sides::{RxSide, TxSide};
use crate::signals::{KEPT, REFUSED, Signals};
use crate::types::{machnet_conn, machnet_event, machnet_stats_t};
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicI32, AtomicU32, fence};
use machnet_shm::sleep::{ROOM, TOKENS};
use machnet_shm::{Fd, KeepAlive, PeerFault, Request, Rung};

/// One attachment to a sidecar.
pub struct machnet_channel {
    /// Waiters may load some of them; their addresses are in the wait view.
    pub(crate) signals: Signals,
    pub(crate) rx: Gate<RxSide>,
    pub(crate) tx: Gate<TxSide>,
    pub(crate) fixed: Once<Fixed>,
    /// Of the process that attached.
    pub(crate) mark: Mark,
    pub(crate) last_error: LastError,
    pub(crate) hogs: Hogs,
    socket: AtomicI32,
    ids: AtomicU32,
    // Last: the slices that the fields above hold are cut from the memory. The sidecar takes the socket's end for that of this process.
    held: Gate<Option<(Memory, Fd)>>,
}

impl machnet_channel {
    /// A channel that has yet to attach.
    pub(crate) fn new(attach: Attach, mark: Mark) -> Self {
        Self {
            signals: Signals::default(),
            socket: AtomicI32::new(attach.socket()),
            rx: Gate::new(RxSide {
                attach: Some(attach),
                receiver: None,
                stash: Stash::new(),
                answers: Answers::new(),
                failed: 0,
            }),
            tx: Gate::new(TxSide { sender: None, kept: Kept::new(&mut []), scratch: &mut [], bound: (0, 0) }),
            fixed: Once::new(),
            mark,
            last_error: LastError::new(),
            hogs: Hogs::default(),
            ids: AtomicU32::new(0),
            held: Gate::new(None),
        }
    }

    /// Goes on attaching.
    pub(crate) fn step(&self) -> Result<(), i32> {
        if self.fixed.get().is_some() {
            return Ok(());
        }
        let (mut rx, mut tx) = (self.rx.enter().ok_or(MACHNET_EBUSY)?, self.tx.enter().ok_or(MACHNET_EBUSY)?);
        if rx.failed != 0 {
            self.last_error.explain_as_before(rx.failed);
            return Err(rx.failed);
        }
        let attach = rx.attach.as_mut().ok_or(MACHNET_EINVAL)?;
        let stepped = attach.step(&self.signals);
        self.socket.store(attach.socket(), Relaxed);
        match stepped {
            Ok(None) => Err(MACHNET_EAGAIN),
            Ok(Some(Attached { memory, socket, receiver, sender, kept, scratch, fixed })) => {
                self.socket.store(socket.raw(), Relaxed);
                rx.attach = None;
                rx.receiver = Some(receiver);
                tx.sender = Some(sender);
                tx.kept = kept;
                tx.scratch = scratch;
                if let Some(mut held) = self.held.enter() {
                    *held = Some((memory, socket));
                }
                self.fixed.set(fixed);
                Ok(())
            }
            Err((code, text)) => {
                self.last_error.explain(format_args!("{text}"));
                rx.failed = code;
                Err(code)
            }
        }
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> i32 {
        self.socket.load(Relaxed)
    }

    /// The doorbell's read end.
    pub(crate) fn doorbell(&self) -> i32 {
        self.fixed.get().map_or(-1, |fixed| fixed.doorbell)
    }

    /// Looks at the socket: nothing ever comes there once attached but its end.
    pub(crate) fn alive(&self) -> Result<(), i32> {
        if self.signals.down.load(Acquire) != 0 {
            return Err(MACHNET_ENETDOWN);
        }
        self.fixed.get().ok_or(MACHNET_ENOTATTACHED)?;
        if machnet_shm::hung_up(self.socket()) { Err(self.went_down()) } else { Ok(()) }
    }

    /// The sidecar is gone.
    pub(crate) fn went_down(&self) -> i32 {
        if self.signals.down.swap(1, Release) == 0 {
            self.last_error
                .explain(format_args!("channel: the sidecar is gone or has dropped it; attach anew"));
        }
        MACHNET_ENETDOWN
    }

    /// Empties a doorbell.
    pub(crate) fn drain(&self, bell: i32) -> Result<(), i32> {
        if machnet_shm::drain_doorbell(bell) == Rung::HungUp { Err(self.went_down()) } else { Ok(()) }
    }

    /// A number for a listener or dial; never 0.
    pub(crate) fn id(&self) -> u32 {
        self.ids.fetch_add(1, Relaxed).wrapping_add(1).max(1)
    }

    /// The connections, if attached and not down.
    #[inline]
    fn up(&self) -> Result<&Fixed, i32> {
        if self.signals.down.load(Relaxed) != 0 {
            return Err(MACHNET_ENETDOWN);
        }
        self.fixed.get().ok_or(MACHNET_ENOTATTACHED)
    }

    /// Enters the receiving direction and does something there.
    #[inline]
    pub(crate) fn with_rx<T>(
        &self,
        what: impl FnOnce(&mut RxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        let mut side = self.rx.enter().ok_or(MACHNET_EBUSY)?;
        self.run_rx(fixed, &mut side, what)
    }

    /// The same for a caller that has entered the direction already.
    pub(crate) fn with_entered_rx<T>(
        &self,
        side: &mut Inside<'_, RxSide>,
        what: impl FnOnce(&mut RxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        self.run_rx(fixed, side, what)
    }

    #[inline]
    fn run_rx<T>(
        &self,
        fixed: &Fixed,
        side: &mut RxSide,
        what: impl FnOnce(&mut RxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let done = what(side, &fixed.conns);
        self.signals.events.store(side.pending(), Release);
        match side.receiver.as_ref().and_then(|receiver| receiver.channel.fault()) {
            Some(fault) => Err(self.broken(fault)),
            None => done,
        }
    }

    #[cold]
    fn broken(&self, fault: PeerFault) -> i32 {
        if self.signals.down.swap(1, Release) == 0 {
            self.last_error.explain(format_args!(
                "channel: the sidecar wrote what no sidecar writes ({fault}); attach anew"
            ));
        }
        MACHNET_ENETDOWN
    }

    /// Enters the sending direction and does something there.
    #[inline]
    pub(crate) fn with_tx<T>(
        &self,
        what: impl FnOnce(&mut TxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        let mut side = self.tx.enter().ok_or(MACHNET_EBUSY)?;
        self.run_tx(fixed, &mut side, what)
    }

    /// The same for a caller that has entered the direction already.
    pub(crate) fn with_entered_tx<T>(
        &self,
        side: &mut Inside<'_, TxSide>,
        what: impl FnOnce(&mut TxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        self.run_tx(fixed, side, what)
    }

    #[inline]
    fn run_tx<T>(
        &self,
        fixed: &Fixed,
        side: &mut TxSide,
        what: impl FnOnce(&mut TxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let done = what(side, &fixed.conns);
        let Some(sender) = &mut side.sender else { return Err(MACHNET_ENOTATTACHED) };
        if self.signals.room.load(Relaxed) & KEPT != 0
            && side.kept.send(|request| sender.channel.request(request))
        {
            self.signals.room.fetch_and(!KEPT, Relaxed);
        }
        sender.channel.publish();
        self.signals.events_tx.store(sender.pending(), Release);
        self.signals.blocked.store(u32::from(sender.waits()), Release);
        match sender.channel.fault() {
            Some(fault) => Err(self.broken(fault)),
            None => done,
        }
    }

    /// Sends; see `Outbox::send`.
    #[inline]
    pub(crate) fn send(&self, conn: machnet_conn, bytes: &mut impl Bytes, go_on: bool) -> Result<usize, i32> {
        self.with_tx(|side, conns| side.open()?.send(conns, conn, bytes, go_on))
    }

    /// Sends a message together; see `Sender::send_together`.
    #[inline]
    pub(crate) fn send_together(&self, conn: machnet_conn, bytes: &mut impl Bytes) -> Result<usize, i32> {
        self.with_tx(|side, conns| side.open()?.send_together(conns, conn, bytes))
    }

    /// Sends a message in parts, of which `skip` bytes were accepted before.
    pub(crate) fn sendv<'a>(
        &self,
        conn: machnet_conn,
        mut parts: impl Iterator<Item = &'a [u8]> + Clone,
        mut skip: usize,
        go_on: bool,
    ) -> Result<usize, i32> {
        let total = parts.clone().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let left = total.checked_sub(skip).ok_or(MACHNET_EINVAL)?;
        let mut part: &[u8] = &[];
        while skip > 0 {
            part = parts.next().ok_or(MACHNET_EINVAL)?;
            let here = skip.min(part.len());
            part = part.get(here..).unwrap_or_default();
            skip -= here;
        }
        self.with_tx(|side, conns| {
            let sender = side.sender.as_mut().ok_or(MACHNET_ENOTATTACHED)?;
            sender.send(conns, conn, &mut Gather { parts, part, left, scratch: &mut *side.scratch }, go_on)
        })
    }

    /// Receives.
    #[inline]
    pub(crate) fn recv(
        &self,
        conn: machnet_conn,
        mode: Mode,
        out: &mut [MaybeUninit<u8>],
    ) -> Result<Got, Refused> {
        let mut message_len = 0;
        self.with_rx(|side, conns| {
            side.open()?.recv(conns, conn, mode, out).map_err(|refused| {
                message_len = refused.message_len;
                refused.code
            })
        })
        .map_err(|code| Refused { code, message_len })
    }

    /// Hands out events.
    pub(crate) fn poll(&self, out: &mut [MaybeUninit<machnet_event>]) -> Result<usize, i32> {
        self.send_kept();
        self.with_rx(|side, conns| side.poll(conns, out))
    }

    /// Frees the place in the backlog of a connection that an event told of.
    pub(crate) fn accepted(&self, conn: machnet_conn) -> Result<(), i32> {
        self.with_rx(|side, conns| side.open()?.accepted(conns, conn))
    }

    /// Sets after how much silence the peer of a connection is asked whether it lives.
    pub(crate) fn keep_alive(&self, conn: machnet_conn, after_ms: u32) -> Result<(), i32> {
        let after = KeepAlive::from_word(after_ms).ok_or_else(|| {
            let (least, most) = (KeepAlive::LEAST_MS, KeepAlive::MOST_MS);
            self.last_error.explain(format_args!(
                "keep-alive after {after_ms} ms: {least} to {most} are possible, 0 for never, or MACHNET_KEEPALIVE_DEFAULT"
            ));
            MACHNET_EINVAL
        })?;
        self.with_tx(|side, conns| {
            conns.check(conn)?;
            self.ask(side, Request::KeepAlive { flow: flow(conn), after })
        })
    }

    /// Asks about a connection; the answer names `id`.
    pub(crate) fn ask_stats(&self, conn: machnet_conn, id: u32) -> Result<(), i32> {
        self.with_tx(|side, conns| {
            conns.check(conn)?;
            self.ask(side, Request::Stats { id, flow: flow(conn) })
        })
    }

    /// The answer to a question about a connection.
    pub(crate) fn take_stats(&self, id: u32) -> Result<machnet_stats_t, i32> {
        self.with_rx(|side, _| side.answers.take(id).ok_or(MACHNET_ECLOSED))
    }

    /// Asks the sidecar for something. MACHNET_EAGAIN: there is no room now; `arm` and `wait` see it come.
    pub(crate) fn request(&self, request: Request) -> Result<(), i32> {
        self.with_tx(|side, _| self.ask(side, request))
    }

    /// The same for a caller that has entered the sending direction already.
    pub(crate) fn ask(&self, side: &mut TxSide, request: Request) -> Result<(), i32> {
        if !side.request(request)? {
            self.signals.room.fetch_or(REFUSED, Relaxed);
            // As in `request_or_keep`: a thread that waits has armed without it, and the room may have come before that.
            fence(SeqCst);
            if !side.request(request)? {
                return Err(MACHNET_EAGAIN);
            }
        }
        self.signals.room.fetch_and(!REFUSED, Relaxed);
        Ok(())
    }

    /// Ends a listener or a dial. What finds no room is kept, and goes out with a later call: by [`Self::send_kept`] at the latest,
    /// once the next thread that sleeps was rung for the room.
    pub(crate) fn request_or_keep(&self, last: Request) -> Result<(), i32> {
        self.with_tx(|side, _| {
            if side.request(last)? {
                return Ok(());
            }
            side.kept.keep(last).ok_or(MACHNET_ENOBUFS)?;
            self.signals.room.fetch_or(KEPT, Relaxed);
            // Another thread may have armed without it: either it sees that something is kept, or `run_tx` sees the room.
            fence(SeqCst);
            Ok(())
        })
    }

    /// Sends what was kept, unless another thread is sending something: that one does it.
    pub(crate) fn send_kept(&self) {
        if self.signals.room.load(Relaxed) & KEPT != 0
            && let (Ok(fixed), Some(mut side)) = (self.up(), self.tx.visit())
        {
            let _ = self.run_tx(fixed, &mut side, |_, _| Ok(()));
        }
    }

    /// Whether a request waits for room and there is some. A caller that was refused learns of it once: this forgets that it waits.
    pub(crate) fn room_came(&self, channel: &DeliverEnd) -> bool {
        self.signals.room.load(Relaxed) != 0 && channel.has_room() && {
            self.signals.room.fetch_and(!REFUSED, Relaxed);
            true
        }
    }

    /// Arms the doorbell; false when there is work.
    pub(crate) fn arm(&self) -> Result<bool, i32> {
        let tokens = if self.signals.blocked.load(Acquire) != 0 { TOKENS } else { 0 };
        let room = if self.signals.room.load(Relaxed) != 0 { ROOM } else { 0 };
        let events_tx = self.signals.events_tx.load(Acquire) != 0;
        self.with_rx(|side, _| {
            if events_tx || side.pending() != 0 || self.room_came(&side.open()?.channel) {
                return Ok(false);
            }
            Ok(side.open()?.channel.arm(tokens | room, || room != 0))
        })
    }

    /// Takes the armed state back.
    pub(crate) fn disarm(&self) -> Result<(), i32> {
        self.with_rx(|side, _| {
            side.open()?.channel.disarm();
            Ok(())
        })
    }
}

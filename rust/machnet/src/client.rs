//! A channel: what the C functions call. Safe code; the gates keep one caller per direction.
#![allow(non_camel_case_types, reason = "the name that C and Go see")]

use crate::attach::{Attach, Attached};
use crate::code::*;
use crate::conns::Conns;
use crate::ends::{DeliverEnd, SubmitEnd, code_of};
use crate::gate::{Gate, Inside, Once};
use crate::inbox::{Got, Mode};
use crate::kept::Kept;
use crate::mark::Mark;
use crate::memory::Memory;
use crate::outbox::{Bytes, Gather};
use crate::rx::{Receiver, Refused};
use crate::text::Text;
use crate::tx::Sender;
use crate::types::{machnet_conn, machnet_event, machnet_info_t, machnet_wait_view_t};
use core::fmt::Arguments;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicI32, AtomicU32, fence};
use machnet_shm::sleep::{ROOM, TOKENS};
use machnet_shm::{Fd, PeerFault, Reply, Request};

/// One attachment to a sidecar.
pub struct machnet_channel {
    /// Words that waiters may load; their addresses are in the wait view.
    pub(crate) words: Words,
    pub(crate) rx: Gate<RxSide>,
    pub(crate) tx: Gate<TxSide>,
    pub(crate) fixed: Once<Fixed>,
    /// Of the process that attached.
    pub(crate) mark: Mark,
    text: Gate<Text>,
    socket: AtomicI32,
    ids: AtomicU32,
    // Last: the slices that the fields above hold are cut from the memory. The socket is the life line.
    kept: Gate<Option<(Memory, Fd)>>,
}

/// See `machnet_wait_view_t`.
#[derive(Default)]
pub(crate) struct Words {
    pub events: AtomicU32,
    pub events_tx: AtomicU32,
    pub down: AtomicU32,
    /// Not 0 while a send waits for tokens.
    pub blocked: AtomicU32,
    /// Which requests wait for room: [`REFUSED`], [`KEPT`].
    pub room: AtomicU32,
    /// The code that the kept sentence is about; 0: there is none; `FRESH`: its call has not ended yet.
    pub told: AtomicI32,
}

/// A request that asks for something was told MACHNET_EAGAIN, and nobody was told since that there is room.
pub(crate) const REFUSED: u32 = 1;
/// Requests that end something are kept until there is room.
pub(crate) const KEPT: u32 = 2;

/// What does not change once attached.
pub(crate) struct Fixed {
    pub conns: Conns,
    pub info: machnet_info_t,
    pub view: machnet_wait_view_t,
    pub doorbell: i32,
}

// SAFETY: the view's pointers are addresses to tell, not to follow; the rest is shared by atomics.
unsafe impl Send for Fixed {}
// SAFETY: as above.
unsafe impl Sync for Fixed {}

/// The receiving direction, and attaching before that.
pub(crate) struct RxSide {
    pub attach: Option<Attach>,
    pub receiver: Option<Receiver<DeliverEnd>>,
    /// Replies that a blocking call took from the ring while it looked for its own.
    pub stash: Stash,
    failed: i32,
}

/// The sending direction.
pub(crate) struct TxSide {
    pub sender: Option<Sender<SubmitEnd>>,
    kept: Kept,
    pub scratch: &'static mut [u8],
    /// What machnet_bind said.
    pub bound: (u32, u16),
}

impl machnet_channel {
    /// A channel that has yet to attach.
    pub(crate) fn new(attach: Attach, mark: Mark) -> Self {
        Self {
            words: Words::default(),
            socket: AtomicI32::new(attach.socket()),
            rx: Gate::new(RxSide { attach: Some(attach), receiver: None, stash: Stash::new(), failed: 0 }),
            tx: Gate::new(TxSide { sender: None, kept: Kept::new(&mut []), scratch: &mut [], bound: (0, 0) }),
            fixed: Once::new(),
            mark,
            text: Gate::new(Text::EMPTY),
            ids: AtomicU32::new(0),
            kept: Gate::new(None),
        }
    }

    /// Goes on attaching.
    pub(crate) fn step(&self) -> Result<(), i32> {
        if self.fixed.get().is_some() {
            return Ok(());
        }
        let (mut rx, mut tx) = (self.rx.enter().ok_or(MACHNET_EBUSY)?, self.tx.enter().ok_or(MACHNET_EBUSY)?);
        if rx.failed != 0 {
            if self.words.told.load(Relaxed) == rx.failed {
                self.words.told.store(FRESH, Relaxed); // and so does the sentence
            }
            return Err(rx.failed);
        }
        let attach = rx.attach.as_mut().ok_or(MACHNET_EINVAL)?;
        let stepped = attach.step(&self.words);
        self.socket.store(attach.socket(), Relaxed);
        match stepped {
            Ok(None) => Err(MACHNET_EAGAIN),
            Ok(Some(Attached { memory, socket, receiver, sender, kept, scratch, fixed })) => {
                self.socket.store(socket.raw(), Relaxed);
                rx.attach = None;
                rx.receiver = Some(receiver);
                tx.sender = Some(sender);
                tx.kept = Kept::new(kept);
                tx.scratch = scratch;
                if let Some(mut kept) = self.kept.enter() {
                    *kept = Some((memory, socket));
                }
                self.fixed.set(fixed);
                Ok(())
            }
            Err((code, text)) => {
                self.say(format_args!("{text}"));
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
        if self.words.down.load(Acquire) != 0 {
            return Err(MACHNET_ENETDOWN);
        }
        self.fixed.get().ok_or(MACHNET_ENOTATTACHED)?;
        if crate::attach::hung_up(self.socket()) { Err(self.went_down()) } else { Ok(()) }
    }

    /// The sidecar is gone.
    pub(crate) fn went_down(&self) -> i32 {
        if self.words.down.swap(1, Release) == 0 {
            self.say(format_args!("channel: the sidecar is gone or has dropped it; attach anew"));
        }
        MACHNET_ENETDOWN
    }

    /// Empties a doorbell.
    pub(crate) fn drain(&self, bell: i32) -> Result<(), i32> {
        if crate::attach::drained(bell) { Ok(()) } else { Err(self.went_down()) }
    }

    /// Keeps a sentence about the error that this call ends with.
    pub(crate) fn say(&self, sentence: Arguments<'_>) {
        self.keep(Text::of(sentence), FRESH);
    }

    fn keep(&self, sentence: Text, told: i32) {
        if let Some(mut text) = self.text.enter() {
            *text = sentence;
            self.words.told.store(told, Relaxed);
        }
    }

    /// A call ends: the sentence is that of the last one that failed, and none after one that did not. One that would have to wait has
    /// nothing to explain.
    #[inline]
    pub(crate) fn settle(&self, what: &str, code: i32) {
        let failed = code < 0 && code != MACHNET_EAGAIN;
        if failed || self.words.told.load(Relaxed) != 0 {
            self.tell(what, failed, code);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell(&self, what: &str, failed: bool, code: i32) {
        match self.words.told.load(Relaxed) {
            _ if !failed => self.keep(Text::EMPTY, 0),
            FRESH => self.words.told.store(code, Relaxed),
            // Why it went down is worth more than that it is down.
            MACHNET_ENETDOWN if code == MACHNET_ENETDOWN => {}
            _ => self.keep(Text::of(format_args!("{what}: {}", crate::words::said(code))), code),
        }
    }

    /// The last sentence.
    pub(crate) fn said(&self) -> Text {
        self.text.enter().map_or(Text::EMPTY, |text| *text)
    }

    /// A number for a listener or dial; never 0.
    pub(crate) fn id(&self) -> u32 {
        self.ids.fetch_add(1, Relaxed).wrapping_add(1).max(1)
    }

    /// The connections, if attached and not down.
    #[inline]
    fn up(&self) -> Result<&Fixed, i32> {
        if self.words.down.load(Relaxed) != 0 {
            return Err(MACHNET_ENETDOWN);
        }
        self.fixed.get().ok_or(MACHNET_ENOTATTACHED)
    }

    /// Does something in the receiving direction.
    #[inline]
    pub(crate) fn with_rx<T>(
        &self,
        what: impl FnOnce(&mut RxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        let mut side = self.rx.enter().ok_or(MACHNET_EBUSY)?;
        self.inside_rx(fixed, &mut side, what)
    }

    /// The same for a caller who is inside already.
    pub(crate) fn again_rx<T>(
        &self,
        side: &mut Inside<'_, RxSide>,
        what: impl FnOnce(&mut RxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        self.inside_rx(fixed, side, what)
    }

    #[inline]
    fn inside_rx<T>(
        &self,
        fixed: &Fixed,
        side: &mut RxSide,
        what: impl FnOnce(&mut RxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let done = what(side, &fixed.conns);
        self.words.events.store(side.pending(), Release);
        match side.receiver.as_ref().and_then(|receiver| receiver.ring.fault()) {
            Some(fault) => Err(self.broken(fault)),
            None => done,
        }
    }

    #[cold]
    fn broken(&self, fault: PeerFault) -> i32 {
        if self.words.down.swap(1, Release) == 0 {
            self.say(format_args!(
                "channel: the sidecar wrote what no sidecar writes ({fault}); attach anew"
            ));
        }
        MACHNET_ENETDOWN
    }

    /// Does something in the sending direction.
    #[inline]
    pub(crate) fn with_tx<T>(
        &self,
        what: impl FnOnce(&mut TxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        let mut side = self.tx.enter().ok_or(MACHNET_EBUSY)?;
        self.inside_tx(fixed, &mut side, what)
    }

    /// The same for a caller who is inside already.
    pub(crate) fn again_tx<T>(
        &self,
        side: &mut Inside<'_, TxSide>,
        what: impl FnOnce(&mut TxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let fixed = self.up()?;
        self.inside_tx(fixed, side, what)
    }

    #[inline]
    fn inside_tx<T>(
        &self,
        fixed: &Fixed,
        side: &mut TxSide,
        what: impl FnOnce(&mut TxSide, &Conns) -> Result<T, i32>,
    ) -> Result<T, i32> {
        let done = what(side, &fixed.conns);
        let Some(sender) = &mut side.sender else { return Err(MACHNET_ENOTATTACHED) };
        if self.words.room.load(Relaxed) & KEPT != 0 && side.kept.send(|request| sender.ring.request(request))
        {
            self.words.room.fetch_and(!KEPT, Relaxed);
        }
        sender.ring.publish();
        self.words.events_tx.store(sender.pending(), Release);
        self.words.blocked.store(u32::from(sender.waits()), Release);
        match sender.ring.fault() {
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
    pub(crate) fn recv(&self, conn: machnet_conn, mode: Mode, out: &mut [u8]) -> Result<Got, Refused> {
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
    pub(crate) fn poll(&self, out: &mut [machnet_event]) -> Result<usize, i32> {
        self.send_kept();
        self.with_rx(|side, conns| side.poll(conns, out))
    }

    /// Frees the place in the backlog of a connection that an event told of.
    pub(crate) fn accepted(&self, conn: machnet_conn) -> Result<(), i32> {
        self.with_rx(|side, conns| side.open()?.accepted(conns, conn))
    }

    /// Asks the sidecar for something. MACHNET_EAGAIN: there is no room now; `arm` and `wait` see it come.
    pub(crate) fn request(&self, request: Request) -> Result<(), i32> {
        self.with_tx(|side, _| self.ask(side, request))
    }

    /// The same for a caller who is inside already.
    pub(crate) fn ask(&self, side: &mut TxSide, request: Request) -> Result<(), i32> {
        if !side.request(request)? {
            self.words.room.fetch_or(REFUSED, Relaxed);
            // As in `last_word`: a thread that waits has armed without it, and the room may have come before that.
            fence(SeqCst);
            if !side.request(request)? {
                return Err(MACHNET_EAGAIN);
            }
        }
        self.words.room.fetch_and(!REFUSED, Relaxed);
        Ok(())
    }

    /// Ends a listener or a dial. What finds no room is kept, and goes out with a later call: by [`Self::send_kept`] at the latest,
    /// once whoever sleeps next was rung for the room.
    pub(crate) fn last_word(&self, last: Request) -> Result<(), i32> {
        self.with_tx(|side, _| {
            if side.request(last)? {
                return Ok(());
            }
            side.kept.keep(last).ok_or(MACHNET_ENOBUFS)?;
            self.words.room.fetch_or(KEPT, Relaxed);
            // Another thread may have armed without it: either it sees that something is kept, or `inside_tx` sees the room.
            fence(SeqCst);
            Ok(())
        })
    }

    /// Sends what was kept, unless another thread is sending something: that one does it.
    pub(crate) fn send_kept(&self) {
        if self.words.room.load(Relaxed) & KEPT != 0
            && let (Ok(fixed), Some(mut side)) = (self.up(), self.tx.visit())
        {
            let _ = self.inside_tx(fixed, &mut side, |_, _| Ok(()));
        }
    }

    /// Whether a request waits for room and there is some. Who asked for something and was refused is told so once.
    pub(crate) fn room_came(&self, ring: &DeliverEnd) -> bool {
        self.words.room.load(Relaxed) != 0 && ring.has_room() && {
            self.words.room.fetch_and(!REFUSED, Relaxed);
            true
        }
    }

    /// Arms the doorbell; false when there is work.
    pub(crate) fn arm(&self) -> Result<bool, i32> {
        let tokens = if self.words.blocked.load(Acquire) != 0 { TOKENS } else { 0 };
        let room = if self.words.room.load(Relaxed) != 0 { ROOM } else { 0 };
        let events_tx = self.words.events_tx.load(Acquire) != 0;
        self.with_rx(|side, _| {
            if events_tx || side.pending() != 0 || self.room_came(&side.open()?.ring) {
                return Ok(false);
            }
            Ok(side.open()?.ring.arm(tokens | room, || room != 0))
        })
    }

    /// Takes the armed state back.
    pub(crate) fn disarm(&self) -> Result<(), i32> {
        self.with_rx(|side, _| {
            side.open()?.ring.disarm();
            Ok(())
        })
    }
}

impl RxSide {
    /// The direction, once attached.
    #[inline]
    pub fn open(&mut self) -> Result<&mut Receiver<DeliverEnd>, i32> {
        self.receiver.as_mut().ok_or(MACHNET_ENOTATTACHED)
    }

    /// Events to hand out.
    pub fn pending(&self) -> u32 {
        self.stash.len as u32 + self.receiver.as_ref().map_or(0, Receiver::pending)
    }

    fn poll(&mut self, conns: &Conns, out: &mut [machnet_event]) -> Result<usize, i32> {
        let mut have = 0;
        while let Some(event) = out.get_mut(have) {
            match self.stash.take(|_| true) {
                Some(stashed) => *event = stashed,
                None => match self.open()?.ring.reply() {
                    Some(reply) => *event = event_of(reply),
                    None => break,
                },
            }
            have += 1;
        }
        Ok(have + self.open()?.poll(conns, out.get_mut(have..).unwrap_or_default()))
    }

    /// The reply that `wanted` picks; others are kept for machnet_poll.
    pub fn reply(&mut self, wanted: impl Fn(&machnet_event) -> bool) -> Result<Option<machnet_event>, i32> {
        if let Some(event) = self.stash.take(&wanted) {
            return Ok(Some(event));
        }
        while self.stash.has_room() {
            let Some(reply) = self.open()?.ring.reply() else { return Ok(None) };
            let event = event_of(reply);
            if wanted(&event) {
                return Ok(Some(event));
            }
            self.stash.put(event);
        }
        // Only who mixes the blocking calls with dozens of begun ones and never polls comes here.
        Err(MACHNET_ENOBUFS)
    }
}

impl TxSide {
    /// The direction, once attached.
    #[inline]
    pub fn open(&mut self) -> Result<&mut Sender<SubmitEnd>, i32> {
        self.sender.as_mut().ok_or(MACHNET_ENOTATTACHED)
    }

    /// Sends a request behind those that were kept: who listens on a port that was just given up must not come before that. False: there
    /// is no room.
    fn request(&mut self, request: Request) -> Result<bool, i32> {
        let TxSide { sender, kept, .. } = self;
        let ring = &mut sender.as_mut().ok_or(MACHNET_ENOTATTACHED)?.ring;
        Ok(kept.send(|request| ring.request(request)) && ring.request(request))
    }
}

/// `Words::told` of a sentence whose call goes on: no code.
const FRESH: i32 = 1;

/// A few events, oldest first.
pub(crate) struct Stash {
    events: [machnet_event; 32],
    len: usize,
}

impl Stash {
    const fn new() -> Self {
        const NONE: machnet_event = machnet_event {
            kind: 0,
            code: 0,
            conn: 0,
            id: 0,
            local_ip: 0,
            remote_ip: 0,
            local_port: 0,
            remote_port: 0,
            limit: 0,
            reserved: 0,
        };
        Self { events: [NONE; 32], len: 0 }
    }

    pub fn has_room(&self) -> bool {
        self.len < self.events.len()
    }

    fn put(&mut self, event: machnet_event) {
        if let Some(place) = self.events.get_mut(self.len) {
            *place = event;
            self.len += 1;
        }
    }

    fn take(&mut self, wanted: impl Fn(&machnet_event) -> bool) -> Option<machnet_event> {
        let filled = self.events.get_mut(..self.len)?;
        let at = filled.iter().position(wanted)?;
        let rest = filled.get_mut(at..)?;
        let taken = *rest.first()?;
        rest.rotate_left(1);
        self.len -= 1;
        Some(taken)
    }
}

/// A reply as an event.
fn event_of(reply: Reply) -> machnet_event {
    let event = |kind, id| machnet_event { kind, id, ..machnet_event::default() };
    let failed = |kind, id, reason| {
        let (code, limit) = code_of(reason);
        machnet_event { code, limit, ..event(kind, id) }
    };
    match reply {
        Reply::Listening { id, port } => {
            machnet_event { local_port: port, ..event(MACHNET_EVENT_LISTENING, id) }
        }
        Reply::ListenFailed { id, reason } => failed(MACHNET_EVENT_LISTEN_FAILED, id, reason),
        Reply::Unlistened { id } => event(MACHNET_EVENT_UNLISTENED, id),
        Reply::ConnectFailed { id, reason } => failed(MACHNET_EVENT_CONNECT_FAILED, id, reason),
    }
}

//! What a queue looks at before each burst, and how it tells that it is in one: the engines' side of the [gate](super::gate).
//!
//! The cost per burst is two relaxed loads, of [`Line`]'s word and of the queue's own [`Member`].

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the queues of one port look at before each burst: zero means go.
#[derive(Default)]
pub(super) struct Line {
    word: AtomicU32,
    /// Times the link came up.
    pub ups: AtomicU64,
    /// Times the link was lost.
    pub downs: AtomicU64,
    /// Peers that were turned away.
    pub refused: AtomicU64,
}

/// One queue, as the gate sees it.
#[derive(Default)]
pub(super) struct Member {
    /// The token of the thread that may be in a burst on this queue, 0 when nobody is.
    online: AtomicU64,
}

impl Line {
    /// A line whose link is up as long as nobody says otherwise.
    pub(super) fn open() -> Arc<Line> {
        Arc::default()
    }

    /// A line that waits for its link.
    pub(super) fn down() -> Arc<Line> {
        Arc::new(Line { word: AtomicU32::new(DOWN), ..Line::default() })
    }

    /// Whether a burst must first ask [`Member::enter`]. One relaxed load.
    #[inline(always)]
    pub(super) fn raised(&self) -> bool {
        self.word.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_up(&self) -> bool {
        self.word.load(Ordering::Relaxed) & DOWN == 0
    }

    /// Says whether a link change is under way, or wants to be: then nobody begins a burst.
    pub(super) fn set_changing(&self, changing: bool) {
        self.set(CHANGING, changing);
    }

    /// The link has come up: bursts may touch the port.
    pub(super) fn link_up(&self) {
        self.ups.fetch_add(1, Ordering::Relaxed);
        self.set(DOWN, false);
    }

    /// The link is lost: no burst may touch the port.
    pub(super) fn link_down(&self) {
        self.set(DOWN, true);
        self.downs.fetch_add(1, Ordering::Relaxed);
    }

    fn set(&self, bit: u32, on: bool) {
        if on {
            self.word.fetch_or(bit, Ordering::Release);
        } else {
            self.word.fetch_and(!bit, Ordering::Release);
        }
    }
}

impl Member {
    /// Whether the calling thread is online with this queue. One relaxed load.
    #[inline(always)]
    pub(super) fn is_mine(&self) -> bool {
        let token = TOKEN.get();
        token != 0 && self.online.load(Ordering::Relaxed) == token
    }

    /// Whether some thread is online with this queue.
    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire) != 0
    }

    /// Goes offline: between this and the next [`Member::enter`] links may change.
    pub(super) fn leave(&self) {
        self.online.store(0, Ordering::Release);
    }

    /// Waits until no link change is under way and comes online. Returns whether the link is up.
    ///
    /// While it waits the thread is in none of its bursts, so its other queues go offline too; they come back with
    /// their own next burst.
    #[cold]
    pub(super) fn enter(self: &Arc<Self>, line: &Line) -> bool {
        let token = token();
        MINE.with_borrow_mut(|mine| {
            if !mine.iter().any(|other| other.as_ptr() == Arc::as_ptr(self)) {
                mine.retain(|other| other.strong_count() > 0);
                mine.push(Arc::downgrade(self));
            }
        });
        let mut looks = 0u32;
        loop {
            while line.word.load(Ordering::Acquire) & CHANGING != 0 {
                leave_all();
                // The interrupt thread may share this core.
                looks += 1;
                if looks < 1000 { std::thread::yield_now() } else { std::thread::sleep(NAP) }
            }
            self.online.store(token, Ordering::Relaxed);
            // Pairs with the fence in the gate's `quiesce`: either we see CHANGING, or it sees us online.
            fence(Ordering::SeqCst);
            let word = line.word.load(Ordering::Acquire);
            if word & CHANGING == 0 {
                return word & DOWN == 0;
            }
        }
    }

    /// Goes offline if it is still the thread `token` that is online: a queue may have moved to another one.
    fn leave_if(&self, token: u64) {
        let _ = self.online.compare_exchange(token, 0, Ordering::Release, Ordering::Relaxed);
    }
}

thread_local! {
    /// Names this thread; 0 until it is first needed. Never used twice, unlike addresses.
    static TOKEN: Cell<u64> = const { Cell::new(0) };
    /// The queues this thread was online with.
    static MINE: RefCell<Vec<Weak<Member>>> = const { RefCell::new(Vec::new()) };
}

/// All queues of this thread go offline: it is about to wait.
pub(super) fn leave_all() {
    let token = TOKEN.get();
    // A thread that ends may have lost its list already; then it was online with nothing.
    let _ = MINE.try_with(|mine| {
        mine.borrow().iter().filter_map(Weak::upgrade).for_each(|member| member.leave_if(token));
    });
}

fn token() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if TOKEN.get() == 0 {
        TOKEN.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    TOKEN.get()
}

/// A link change is under way or wants to be.
const CHANGING: u32 = 1;
/// The link is down: no burst may touch the port.
const DOWN: u32 = 2;
/// Between two looks at a link change that takes long.
const NAP: Duration = Duration::from_micros(50);

//! What a queue looks at before each burst, and how whoever works on its port gets it to stay out of bursts.
//!
//! The cost per burst is two relaxed loads, of [`Line`]'s word and of the queue's own [`Member`]. The word is raised by the
//! [gate](super::gate), for as long as a memif's driver may change its link, and by a port's [keeper](super::keeper), for as long as the
//! device is started again or is not there. An engine waits for the former, which takes microseconds, and never for the latter.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What the queues of one port look at before each burst: zero means go.
#[derive(Default)]
pub(super) struct Line {
    word: AtomicU32,
    members: Mutex<Vec<Arc<Member>>>,
    /// Times the link came up.
    pub ups: AtomicU64,
    /// Times the link was lost.
    pub downs: AtomicU64,
    /// Peers that were turned away.
    pub refused: AtomicU64,
}

/// One queue, as those who want it to stay out of bursts see it.
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

    /// One more queue.
    pub(super) fn join(&self) -> Arc<Member> {
        let member = Arc::<Member>::default();
        self.members().push(member.clone());
        member
    }

    /// One queue less.
    pub(super) fn part(&self, member: &Arc<Member>) {
        member.leave();
        self.members().retain(|m| !Arc::ptr_eq(m, member));
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

    /// Says whether bursts are to stay away from the port, whatever its link. They do once [`Line::is_quiet`] has said so.
    pub(super) fn set_parked(&self, parked: bool) {
        self.set(DOWN, parked);
    }

    /// Whether no queue is in a burst, nor will be before the word is lowered. It was raised before.
    pub(super) fn is_quiet(&self) -> bool {
        // Pairs with the fence in `Member::enter`: either it sees the raised word, or we see it online.
        fence(Ordering::SeqCst);
        !self.members().iter().any(|member| member.is_online())
    }

    /// Waits until the line is quiet, or that long. Whether it is.
    pub(super) fn wait_until_quiet(&self, longest: Duration) -> bool {
        let begun = Instant::now();
        let mut looks = 0u32;
        while !self.is_quiet() {
            if begun.elapsed() > longest {
                return false;
            }
            looks += 1;
            if looks < 100 { std::thread::yield_now() } else { std::thread::sleep(NAP) }
        }
        true
    }

    fn set(&self, bit: u32, on: bool) {
        if on {
            self.word.fetch_or(bit, Ordering::Release);
        } else {
            self.word.fetch_and(!bit, Ordering::Release);
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire) != 0
    }

    /// Goes offline: between this and the next [`Member::enter`] anything may be done to the port.
    pub(super) fn leave(&self) {
        self.online.store(0, Ordering::Release);
    }

    /// Comes online, unless the port is not to be touched; whether it did. Waits while a link change is under way.
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
            let word = line.word.load(Ordering::Acquire);
            if word & DOWN != 0 {
                self.leave();
                return false;
            }
            if word & CHANGING != 0 {
                leave_all();
                // Whoever changes it may share this core.
                looks += 1;
                if looks < 1000 {
                    std::thread::yield_now()
                } else {
                    std::thread::sleep(NAP)
                }
                continue;
            }
            self.online.store(token, Ordering::Relaxed);
            // Pairs with the fence in `Line::is_quiet`: either we see the raised word, or it sees us online.
            fence(Ordering::SeqCst);
            if line.word.load(Ordering::Acquire) == 0 {
                return true;
            }
            self.leave();
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
/// No burst may touch the port.
const DOWN: u32 = 2;
/// Between two looks at something that takes long.
const NAP: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_line_keeps_queues_out_without_making_them_wait() {
        let line = Line::open();
        let member = line.join();
        assert!(member.enter(&line) && member.is_mine());
        line.set_parked(true);
        assert!(line.raised() && !line.is_quiet(), "the burst under way is waited for");
        assert!(!member.enter(&line), "the next one does not begin, and does not wait");
        assert!(line.is_quiet());
        line.set_parked(false);
        assert!(member.enter(&line) && !line.is_quiet());
        line.part(&member);
        assert!(line.is_quiet(), "a queue that is gone is waited for by nobody");
    }

    #[test]
    fn nobody_is_in_a_burst_while_the_line_is_quiet() {
        let line = Line::open();
        // A burst begins and ends; while the line is quiet none is between the two.
        let (begun, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let ending = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let engine = {
            let (line, begun, ended, ending) = (line.clone(), begun.clone(), ended.clone(), ending.clone());
            let member = line.join();
            std::thread::spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    if (member.is_mine() && !line.raised()) || member.enter(&line) {
                        begun.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(20));
                        ended.fetch_add(1, Ordering::SeqCst);
                    }
                }
                member.leave();
            })
        };
        for _ in 0..200 {
            line.set_parked(true);
            assert!(line.wait_until_quiet(Duration::from_secs(30)));
            let before = begun.load(Ordering::SeqCst);
            assert_eq!(ended.load(Ordering::SeqCst), before, "a burst runs on a parked port");
            std::thread::sleep(Duration::from_micros(50));
            assert_eq!(begun.load(Ordering::SeqCst), before, "a burst began on a parked port");
            line.set_parked(false);
            while begun.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
        }
        ending.store(true, Ordering::Relaxed);
        engine.join().unwrap();
    }
}

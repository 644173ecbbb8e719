//! Rings and sleep protocol in every interleaving that loom finds, weak memory included:
//! `RUSTFLAGS="--cfg loom" cargo test -p machnet-shm --test loom_ring --release`.
//!
//! The payload here is a cell that loom watches, where shared memory has relaxed words: an access that the sequence words do not
//! order is reported, even if its outcome would do no harm.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use machnet_shm::INLINE;
use machnet_shm::ring::{Consumer, Producer, Slots};
use machnet_shm::sleep::{self, EVENTS, ROOM, SENDER_TOKENS, TOKENS, Word};
use machnet_shm::slot::Head;

#[derive(Clone)]
struct Ring(Arc<[Slot; 2]>);

struct Slot {
    sequence: AtomicU32,
    value: UnsafeCell<u32>,
}

// SAFETY: loom itself checks that the cells are not raced for.
unsafe impl Sync for Slot {}

impl Ring {
    fn new() -> (Producer<Ring>, Consumer<Ring>) {
        let slot = || Slot { sequence: AtomicU32::new(0), value: UnsafeCell::new(0) };
        let ring = Ring(Arc::new([slot(), slot()]));
        (Producer::new(ring.clone()), Consumer::new(ring))
    }
}

impl Slots for Ring {
    fn mask(&self) -> u32 {
        1
    }

    fn sequence(&self, i: u32) -> u32 {
        self.0[i as usize].sequence.load(Ordering::Acquire)
    }

    fn announce(&self, i: u32, sequence: u32) {
        self.0[i as usize].sequence.store(sequence, Ordering::Release);
    }

    fn store(&self, i: u32, head: &Head, _: &[u8]) {
        // SAFETY: loom reports a race.
        self.0[i as usize].value.with_mut(|value| unsafe { *value = head.a });
    }

    fn head(&self, i: u32) -> Head {
        // SAFETY: loom reports a race.
        value(self.0[i as usize].value.with(|value| unsafe { *value }))
    }

    fn inline(&self, _: u32, _: usize, _: &mut [u8; INLINE]) {}
}

struct SleepWord(AtomicU32);

impl Word for SleepWord {
    fn load(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn swap(&self, value: u32) -> u32 {
        self.0.swap(value, Ordering::Relaxed)
    }

    fn set(&self, bits: u32) {
        self.0.fetch_or(bits, Ordering::Relaxed);
    }

    fn clear(&self, bits: u32) {
        self.0.fetch_and(!bits, Ordering::Relaxed);
    }
}

/// One end's sleep word and the doorbells that wake it: one, or two for the halves of an application.
#[derive(Clone)]
struct Bed {
    word: Arc<SleepWord>,
    bell: Bell,
    sender: Bell,
}

type Bell = Arc<(Mutex<u32>, Condvar)>;

impl Bed {
    fn new() -> Bed {
        let bell = || Arc::new((Mutex::new(0), Condvar::new()));
        Bed { word: Arc::new(SleepWord(AtomicU32::new(0))), bell: bell(), sender: bell() }
    }

    fn wake(&self, what: u32) {
        let asleep = sleep::must_ring(&*self.word, what);
        for (bell, bits) in [(&self.bell, sleep::RECEIVER), (&self.sender, sleep::SENDER)] {
            if asleep & bits != 0 {
                *bell.0.lock().unwrap() += 1;
                bell.1.notify_one();
            }
        }
    }

    fn sleep(&self) {
        sleep_on(&self.bell);
    }
}

/// Sleeps until the bell has rung, and empties it.
fn sleep_on(bell: &Bell) {
    let mut rung = bell.0.lock().unwrap();
    while *rung == 0 {
        rung = bell.1.wait(rung).unwrap();
    }
    *rung = 0;
}

fn value(a: u32) -> Head {
    Head { a, ..Head::default() }
}

/// Two tokens and three messages: the third may only be written after a token came back, and so never meets its reader. Nobody
/// looks at an index of the other side.
#[test]
fn tokens_keep_a_slot_from_being_written_while_it_is_read() {
    loom::model(|| {
        let (mut submit, mut submitted) = Ring::new();
        let (mut complete, mut completed) = Ring::new();
        let reader = thread::spawn(move || {
            for expected in 1..=3 {
                let got = loop {
                    if let Some(record) = submitted.pop() {
                        break record.head.a;
                    }
                    thread::yield_now();
                };
                assert_eq!(got, expected);
                complete.push(&value(got), &[]);
            }
        });
        let mut tokens = 2;
        for message in 1..=3 {
            while tokens == 0 {
                match completed.pop() {
                    Some(_) => tokens += 1,
                    None => thread::yield_now(),
                }
            }
            tokens -= 1;
            submit.push(&value(message), &[]);
        }
        reader.join().unwrap();
    });
}

/// A lost wake-up shows as a deadlock, which loom reports.
#[test]
fn a_sleeper_is_woken_for_everything_that_is_pushed() {
    loom::model(|| {
        let (mut submit, mut submitted) = Ring::new();
        let bed = Bed::new();
        let waker = bed.clone();
        let producer = thread::spawn(move || {
            for message in 1..=2 {
                submit.push(&value(message), &[]);
                waker.wake(EVENTS);
            }
        });
        let mut got = 0;
        while got < 2 {
            match submitted.pop() {
                Some(record) => {
                    got += 1;
                    assert_eq!(record.head.a, got);
                }
                None => {
                    if sleep::arm(&*bed.word, EVENTS, || submitted.ready()) {
                        bed.sleep();
                    }
                }
            }
        }
        producer.join().unwrap();
    });
}

/// The two halves of an application ring the same engine. Whatever the engine waits for, a bell of the one half must not swallow
/// that of the other.
#[test]
fn two_halves_that_ring_one_sleeper_lose_no_bell() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut submit, mut submitted) = Ring::new();
        let (mut giveback, mut given) = Ring::new();
        let bed = Bed::new();
        let (tx, rx) = (bed.clone(), bed.clone());
        let sender = thread::spawn(move || {
            submit.push(&value(1), &[]);
            tx.wake(EVENTS);
        });
        let receiver = thread::spawn(move || {
            giveback.push(&value(2), &[]);
            rx.wake(TOKENS);
        });
        let (mut events, mut tokens) = (0, 0);
        while (events, tokens) != (1, 1) {
            events += submitted.pop().is_some() as u32;
            tokens += given.pop().is_some() as u32;
            // It waits for one kind only once it has the other: then the bell for what it has already is not its business.
            let wants = if events == 0 { EVENTS } else { 0 } | if tokens == 0 { TOKENS } else { 0 };
            if wants != 0 && sleep::arm(&*bed.word, wants, || submitted.ready() || given.ready()) {
                bed.sleep();
            }
        }
        sender.join().unwrap();
        receiver.join().unwrap();
    });
}

/// A control ring, here of one slot, has no tokens: its reader says how many it took. Who found it full sleeps until one more is taken.
#[test]
fn who_waits_for_room_is_woken_when_there_is_some() {
    loom::model(|| {
        let (mut requests, mut requested) = Ring::new();
        let taken = Arc::new(AtomicU32::new(0));
        let bed = Bed::new();
        let (tells, waker) = (taken.clone(), bed.clone());
        let reader = thread::spawn(move || {
            for expected in 1..=2 {
                let got = loop {
                    if let Some(record) = requested.pop() {
                        break record.head.a;
                    }
                    thread::yield_now();
                };
                assert_eq!(got, expected);
                tells.store(requested.taken(), Ordering::Release);
                waker.wake(ROOM);
            }
        });
        let mut next = 1;
        while next <= 2 {
            let full = |written: u32| written - taken.load(Ordering::Acquire) >= 1;
            if !full(requests.written()) {
                requests.push(&value(next), &[]);
                next += 1;
            } else if sleep::arm(&*bed.word, ROOM, || !full(requests.written())) {
                bed.sleep();
            }
        }
        reader.join().unwrap();
    });
}

/// The halves of an application sleep in two threads, at one word and two bells. The engine's swap takes both out of bed, whatever it
/// was for; neither may sleep on.
#[test]
fn two_halves_that_sleep_at_one_word_are_each_woken() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut deliver, mut delivered) = Ring::new();
        let (mut complete, mut completed) = Ring::new();
        let bed = Bed::new();
        let (rx, tx) = (bed.clone(), bed.clone());
        let receiver = thread::spawn(move || {
            while delivered.pop().is_none() {
                if sleep::arm(&*rx.word, EVENTS, || delivered.ready()) {
                    sleep_on(&rx.bell);
                    rx.word.clear(EVENTS);
                }
            }
        });
        let sender = thread::spawn(move || {
            while completed.pop().is_none() {
                if sleep::arm(&*tx.word, SENDER_TOKENS, || completed.ready()) {
                    sleep_on(&tx.sender);
                    tx.word.clear(SENDER_TOKENS);
                }
            }
        });
        deliver.push(&value(1), &[]);
        bed.wake(EVENTS);
        complete.push(&value(2), &[]);
        bed.wake(TOKENS | SENDER_TOKENS);
        receiver.join().unwrap();
        sender.join().unwrap();
    });
}

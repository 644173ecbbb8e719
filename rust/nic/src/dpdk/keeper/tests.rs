//! The keeper's work on a fake device in virtual time: what no virtual machine shows at will.

use super::*;
use std::collections::VecDeque;

/// A device that does as the test says, and minds its own rules.
#[derive(Default)]
struct Fake {
    now: Nanos,
    /// What was done to it, in order.
    did: Vec<&'static str>,
    /// What the next restarts and openings come to; those after them succeed.
    outcomes: VecDeque<Outcome>,
    /// How long each takes.
    takes: Nanos,
    /// What it says while the next is under way.
    says: Vec<Event>,
    /// A queue is in a burst that does not end.
    in_burst: bool,
    absent: bool,
    no_link: bool,
    parked: bool,
    released: bool,
    /// Resources of the driver that are in use: one while the port is open.
    open: i64,
}

/// The test's hold of it.
#[derive(Clone, Default)]
struct Handle(Arc<Mutex<Fake>>, Arc<Events>);

impl Handle {
    fn fake(&self) -> MutexGuard<'_, Fake> {
        self.0.lock().unwrap()
    }

    fn start(&self, what: &'static str) -> Outcome {
        let mut fake = self.fake();
        assert!(fake.parked && !fake.in_burst, "{what} under a burst: {:?}", fake.did);
        assert_eq!(fake.released, what == "open", "{what}: {:?}", fake.did);
        fake.did.push(what);
        let takes = fake.takes;
        fake.now += takes;
        std::mem::take(&mut fake.says).into_iter().for_each(|event| self.1.say(event));
        let outcome = match fake.outcomes.pop_front() {
            _ if fake.absent => Outcome::Absent,
            outcome => outcome.unwrap_or(Outcome::Done),
        };
        if outcome == Outcome::Done && what == "open" {
            fake.released = false;
            fake.open += 1;
        }
        outcome
    }
}

impl Device for Handle {
    fn park(&mut self) -> bool {
        let mut fake = self.fake();
        fake.parked = true;
        !fake.in_burst
    }

    fn resume(&mut self) {
        let mut fake = self.fake();
        assert!(!fake.released, "queues of a closed port: {:?}", fake.did);
        fake.parked = false;
    }

    fn restart(&mut self) -> Outcome {
        self.start("restart")
    }

    fn release(&mut self) {
        let mut fake = self.fake();
        assert!(fake.parked && !fake.in_burst && !fake.released, "{:?}", fake.did);
        fake.did.push("release");
        fake.released = true;
        fake.open -= 1;
    }

    fn open(&mut self) -> Outcome {
        self.start("open")
    }

    fn link_is_up(&mut self) -> bool {
        assert!(!self.fake().released);
        !self.fake().no_link
    }

    fn is_there(&mut self) -> bool {
        !self.fake().absent
    }

    fn tick(&mut self) {}

    fn end(&mut self, released: bool) {
        let mut fake = self.fake();
        assert_eq!(fake.released, released);
        fake.did.push("end");
    }
}

/// The keeper's thread without the thread.
struct Bench {
    device: Handle,
    work: Work<Handle>,
    next: Nanos,
}

impl Bench {
    /// A port that runs, and whose link was seen.
    fn new() -> Bench {
        let device = Handle::default();
        device.fake().open = 1;
        let recovery = Recovery::new("fake".to_owned());
        let status = Status { state: recovery.state(), counts: recovery.counts() };
        let work =
            Work { recovery, device: device.clone(), looked: None, status: Arc::new(Mutex::new(status)) };
        let mut bench = Bench { device, work, next: Nanos::ZERO };
        bench.run(Nanos::millis(1));
        assert_eq!((bench.state(), bench.counts().link_ups), (PortState::Up, 1));
        bench
    }

    /// Lets so much time pass.
    fn run(&mut self, time: Nanos) {
        let until = self.device.fake().now + time;
        loop {
            let said = self.device.1.take(Duration::ZERO);
            let spoken = said.events().next().is_some();
            let now = self.device.fake().now;
            if !spoken && self.next > until {
                break;
            }
            if !spoken {
                self.device.fake().now = now.max(self.next);
            }
            let device = self.device.clone();
            self.next = self.work.step(&move || device.fake().now, said.events());
            assert!(self.next >= self.device.fake().now || self.next + TICK > self.device.fake().now);
        }
        let mut fake = self.device.fake();
        fake.now = fake.now.max(until);
    }

    fn say(&mut self, event: Event) {
        self.device.1.say(event);
        self.run(Nanos::ZERO);
    }

    fn fails(&self, times: usize) {
        self.device.fake().outcomes.extend((0..times).map(|_| Outcome::Failed("it does not".to_owned())));
    }

    fn did(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.device.fake().did)
    }

    fn state(&self) -> PortState {
        self.work.status.lock().unwrap().state
    }

    fn counts(&self) -> Counts {
        self.work.status.lock().unwrap().counts
    }

    /// The queues run on an open port.
    fn runs(&self) -> bool {
        let fake = self.device.fake();
        !fake.parked && !fake.released && fake.open == 1 && self.work.recovery.runs()
    }
}

#[test]
fn a_device_that_asks_for_it_is_started_again_at_once() {
    let mut bench = Bench::new();
    bench.say(Event::Reset);
    assert_eq!(bench.did(), ["restart"]);
    assert!(bench.runs());
    assert_eq!((bench.state(), bench.counts().resets, bench.counts().link_downs), (PortState::Up, 1, 0));
}

#[test]
fn a_reset_waits_for_the_burst_that_is_under_way() {
    let mut bench = Bench::new();
    bench.device.fake().in_burst = true;
    bench.say(Event::Reset);
    bench.run(Nanos::secs(3));
    assert_eq!((bench.did(), bench.state()), (vec![], PortState::Resetting));
    bench.device.fake().in_burst = false;
    bench.run(Nanos::millis(2));
    assert_eq!(bench.did(), ["restart"]);
    assert!(bench.runs());
}

#[test]
fn a_reset_that_fails_twice_and_then_works_needs_no_more() {
    let mut bench = Bench::new();
    bench.fails(2);
    bench.say(Event::Reset);
    assert_eq!((bench.did(), bench.state()), (vec!["restart"], PortState::Resetting));
    bench.run(Nanos::millis(350));
    assert_eq!(bench.did(), ["restart", "restart"]);
    assert!(bench.runs());
    assert_eq!((bench.counts().resets, bench.counts().removals), (1, 0));
}

#[test]
fn a_port_that_does_not_start_again_is_closed_and_opened_with_ever_longer_pauses() {
    let mut bench = Bench::new();
    bench.fails(10);
    bench.say(Event::Reset);
    bench.run(Nanos::secs(5));
    assert_eq!(bench.did(), ["restart", "restart", "restart", "release", "open", "open", "open"]);
    assert_eq!(bench.state(), PortState::Resetting);
    bench.run(Nanos::secs(60));
    assert!(bench.runs());
    assert_eq!((bench.counts().resets, bench.counts().removals), (1, 0));
}

#[test]
fn a_device_that_was_taken_away_is_let_go_and_opened_when_it_is_back() {
    let mut bench = Bench::new();
    bench.device.fake().absent = true;
    bench.say(Event::Removed);
    assert_eq!(bench.state(), PortState::Gone);
    bench.run(Nanos::secs(10));
    let did = bench.did();
    assert_eq!(did[..2], ["release", "open"]);
    assert!((30..40).contains(&did.len()), "four looks a second: {}", did.len());
    assert_eq!((bench.state(), bench.counts().link_downs), (PortState::Gone, 1));
    bench.device.fake().absent = false;
    bench.say(Event::Appeared);
    assert!(bench.runs(), "at once");
    bench.run(Nanos::millis(100));
    let Counts { removals, returns, resets, link_ups, .. } = bench.counts();
    assert_eq!((removals, returns, resets, link_ups), (1, 1, 0, 2));
}

#[test]
fn a_device_whose_removal_nobody_tells_of_is_missed() {
    let mut bench = Bench::new();
    bench.device.fake().absent = true;
    bench.run(Nanos::millis(100));
    assert_eq!(bench.state(), PortState::Gone);
    bench.device.fake().absent = false;
    bench.run(Nanos::secs(2));
    assert!(bench.runs());
    assert_eq!((bench.counts().removals, bench.counts().returns), (1, 1));
}

#[test]
fn a_device_may_be_taken_away_while_it_is_started_again() {
    for fails in [0, 1] {
        let mut bench = Bench::new();
        bench.fails(fails);
        bench.device.fake().says = vec![Event::Removed];
        bench.say(Event::Reset);
        assert_eq!(bench.state(), PortState::Gone);
        bench.run(Nanos::secs(2));
        assert_eq!(bench.did(), ["restart", "release", "open"]);
        assert!(bench.runs());
        assert_eq!((bench.counts().removals, bench.counts().returns), (1, 1));
    }
    // And the restart itself may be what finds out.
    let mut bench = Bench::new();
    bench.device.fake().outcomes.push_back(Outcome::Absent);
    bench.say(Event::Reset);
    bench.run(Nanos::secs(2));
    assert_eq!(bench.did(), ["restart", "release", "open"]);
    assert!(bench.runs());
}

#[test]
fn a_driver_that_mends_its_device_is_left_alone_until_its_time_is_over() {
    let mut bench = Bench::new();
    bench.say(Event::Recovering);
    bench.run(Nanos::secs(9));
    assert!(bench.device.fake().parked);
    bench.say(Event::Recovered);
    assert!(bench.runs());
    assert_eq!((bench.did(), bench.counts().resets), (vec![], 1));

    bench.say(Event::Recovering);
    bench.run(Nanos::secs(5));
    bench.say(Event::Recovering);
    bench.run(Nanos::millis(5_500));
    assert_eq!(bench.did(), ["restart"], "saying so again buys no time");
    assert!(bench.runs());

    bench.say(Event::Recovering);
    bench.say(Event::RecoveryFailed);
    assert_eq!(bench.did(), ["release", "open"]);
    assert!(bench.runs());
    assert_eq!(bench.counts().resets, 3);
}

#[test]
fn a_storm_of_events_is_a_few_restarts() {
    let mut bench = Bench::new();
    for _ in 0..10_000 {
        bench.say(Event::Reset);
        bench.say(Event::Recovering);
        bench.say(Event::Recovered);
        bench.run(Nanos::micros(100));
    }
    let restarts = bench.did().len();
    assert!((5..12).contains(&restarts), "{restarts} in a second");
    bench.run(Nanos::secs(20));
    assert!(bench.runs());
    bench.did();
    bench.say(Event::Reset);
    assert_eq!(bench.did(), ["restart"], "after a calm at once again");

    // Said before anybody listens, each kind counts once.
    for _ in 0..10_000 {
        bench.device.1.say(Event::Removed);
        bench.device.1.say(Event::Reset);
    }
    bench.run(Nanos::secs(20));
    assert!(bench.runs());
    assert_eq!(bench.counts().removals, 1);
}

#[test]
fn a_thousand_resets_and_removals_leave_one_open_port() {
    let mut bench = Bench::new();
    for i in 0..1000 {
        bench.say(if i % 10 == 0 { Event::Removed } else { Event::Reset });
        bench.run(Nanos::secs(30));
        assert!(bench.runs(), "after {i}");
    }
    assert_eq!((bench.counts().resets, bench.counts().removals, bench.counts().returns), (900, 100, 100));
}

#[test]
fn a_link_that_is_lost_is_counted_and_stops_nothing() {
    let mut bench = Bench::new();
    bench.device.fake().no_link = true;
    bench.run(Nanos::millis(100));
    assert_eq!(bench.state(), PortState::LinkDown);
    assert!(bench.runs(), "a driver may be wrong about its link");
    bench.device.fake().no_link = false;
    bench.run(Nanos::millis(100));
    assert_eq!(bench.state(), PortState::Up);
    assert_eq!((bench.counts().link_ups, bench.counts().link_downs), (2, 1));
    assert_eq!(bench.did(), [""; 0]);
}

/// A device in whose driver a call does not come back before the test says so.
struct Hanging(std::sync::mpsc::Receiver<()>);

impl Device for Hanging {
    fn park(&mut self) -> bool {
        true
    }
    fn resume(&mut self) {}
    fn restart(&mut self) -> Outcome {
        let _ = self.0.recv();
        Outcome::Done
    }
    fn release(&mut self) {}
    fn open(&mut self) -> Outcome {
        Outcome::Done
    }
    fn link_is_up(&mut self) -> bool {
        true
    }
    fn is_there(&mut self) -> bool {
        true
    }
    fn tick(&mut self) {}
    fn end(&mut self, _: bool) {}
}

#[test]
fn the_sidecar_ends_while_a_port_is_being_started_again_and_also_if_its_driver_hangs() {
    let (done, wait) = channel();
    let events: &'static Events = Box::leak(Box::default());
    let keeper = Keeper::start("hanging".to_owned(), Hanging(wait), events).unwrap();
    events.say(Event::Reset);
    while keeper.status().state != PortState::Resetting {
        std::thread::yield_now();
    }
    // Bounded: it comes back though the driver does not.
    keeper.end();
    assert_eq!(keeper.status().state, PortState::Resetting);
    done.send(()).unwrap();

    let device = Handle::default();
    device.fake().open = 1;
    device.fake().absent = true;
    let events: &'static Events = Box::leak(Box::default());
    let keeper = Keeper::start("gone".to_owned(), device.clone(), events).unwrap();
    while keeper.status().state != PortState::Gone {
        std::thread::yield_now();
    }
    keeper.end();
    assert_eq!(device.fake().did.last(), Some(&"end"), "a port that was let go is not closed again");
}

//! What becomes of a NIC that asks to be started again, fails, or is taken away: a state machine that knows neither DPDK nor threads nor a
//! clock. Events go in, with the time; actions come out, each of which is reported back when it has been done. The
//! [keeper](super) does them.
//!
//! ```text
//!              the device asks for it, or its driver gave up
//!   running ------------------------------------------------> park, restart, resume
//!      |  |                                                        | failed three times
//!      |  |  its driver mends it: park, wait for its word          v
//!      |  +------------------------------------------------> park, release, open, resume
//!      |                                                           ^
//!      +--- it was taken away -------------------------------------+ as soon as it is there
//! ```

use crate::PortState;
use machnet_wire::Nanos;

/// What a device, its driver or its bus says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Event {
    /// It wants to be started again.
    Reset,
    /// Its driver is mending an error by itself.
    Recovering,
    /// Its driver has.
    Recovered,
    /// Its driver could not.
    RecoveryFailed,
    /// It is no longer there.
    Removed,
    /// Some device has come to the machine.
    Appeared,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Action {
    /// Keep the queues out of bursts.
    Park,
    /// Stop the port, have the driver begin anew, and start it as it was.
    Restart,
    /// Close the port and give the device back.
    Release,
    /// Find the device and open it as it was.
    Open,
    /// Let the queues go on.
    Resume,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    Done,
    /// Ask again in a moment.
    NotYet,
    /// The device is not there.
    Absent,
    /// Why not.
    Failed(String),
}

/// How often things happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Counts {
    pub resets: u64,
    pub removals: u64,
    pub returns: u64,
    pub link_ups: u64,
    pub link_downs: u64,
}

/// One NIC's.
pub(in super::super) struct Recovery {
    /// Its name in the log.
    name: String,
    goal: Goal,
    queues: Queues,
    /// The port is closed.
    released: bool,
    /// Not before this is the next action due.
    at: Nanos,
    /// When the trouble began.
    since: Nanos,
    /// Restarts and openings that failed since then.
    attempts: u32,
    /// When it was last seen whether they still are.
    asked: Nanos,
    /// When the queues last went on.
    resumed: Nanos,
    /// Parking takes so long that the log says so.
    slow: bool,
    link: Option<bool>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// That it goes on as it is.
    Run,
    /// That its driver mends it, until then.
    DriverRecovers(Nanos),
    Restart,
    /// That it is opened anew; `gone`: it was taken away.
    Return {
        gone: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queues {
    Running,
    /// They begin no burst; some may still be in one.
    Asked,
    Parked,
}

impl Recovery {
    /// Of a port that was just started.
    pub(in super::super) fn new(name: String) -> Recovery {
        Recovery {
            name,
            goal: Goal::Run,
            queues: Queues::Running,
            released: false,
            at: Nanos::ZERO,
            since: Nanos::ZERO,
            asked: Nanos::ZERO,
            attempts: 0,
            resumed: Nanos::ZERO,
            slow: false,
            link: None,
            counts: Counts::default(),
        }
    }

    /// Something was said.
    pub(in super::super) fn on_event(&mut self, now: Nanos, event: Event) {
        let name = &self.name;
        match (event, self.goal) {
            (Event::Removed, Goal::Return { gone: true }) => {}
            (Event::Removed, _) => {
                log::warn!("{name}: the device was taken away; its frames are dropped until it is back");
                self.gone();
                self.aim(now, Goal::Return { gone: true });
                self.at = now + LET_GO;
            }
            (Event::Reset, Goal::Run | Goal::DriverRecovers(_)) => {
                log::warn!("{name}: the device asks to be started again");
                self.aim(now, Goal::Restart);
            }
            (Event::Recovering, Goal::Run) => {
                log::warn!("{name}: the driver is mending an error of the device");
                self.aim(now, Goal::DriverRecovers(now + DRIVER_PATIENCE));
            }
            (Event::Recovered, Goal::DriverRecovers(_)) => {
                log::info!("{name}: the driver has mended the device");
                self.counts.resets += 1;
                self.goal = Goal::Run;
            }
            (Event::RecoveryFailed, Goal::Run | Goal::DriverRecovers(_)) => {
                log::warn!("{name}: the driver could not mend the device; it is opened anew");
                self.aim(now, Goal::Return { gone: false });
            }
            (Event::Appeared, Goal::Return { .. }) if self.released => self.at = self.at.min(now),
            // A device under repair may say anything.
            (Event::Reset | Event::Recovering, _) => {}
            (Event::Recovered | Event::RecoveryFailed | Event::Appeared, _) => {}
        }
    }

    /// The link as it is; asked only while [`Recovery::runs`].
    pub(in super::super) fn on_link(&mut self, up: bool) {
        let before = self.link.replace(up);
        if before == Some(up) {
            return;
        }
        match (before, up) {
            (_, true) => {
                self.counts.link_ups += 1;
                log::info!("{}: link up", self.name);
            }
            (Some(true), false) => {
                self.counts.link_downs += 1;
                log::warn!("{}: link down", self.name);
            }
            (_, false) => log::warn!("{}: no link yet", self.name),
        }
    }

    /// What to do now; each is to be reported by [`Recovery::on_done`] before the next is asked for.
    pub(in super::super) fn poll(&mut self, now: Nanos) -> Option<Action> {
        if let Goal::DriverRecovers(until) = self.goal
            && until <= now
        {
            let patience = millis(DRIVER_PATIENCE);
            log::warn!(
                "{}: the driver has not mended the device in {patience} ms; it is started again",
                self.name
            );
            self.aim(now, Goal::Restart);
        }
        let due = self.at <= now;
        match (self.goal, self.queues) {
            (Goal::Run, Queues::Running) => None,
            (Goal::Run, _) => Some(Action::Resume),
            (Goal::Restart, Queues::Running) => due.then_some(Action::Park),
            (_, Queues::Running) => Some(Action::Park),
            (_, Queues::Asked) => (self.asked + PARK_RETRY <= now).then_some(Action::Park),
            (Goal::DriverRecovers(_), Queues::Parked) => None,
            (Goal::Restart, Queues::Parked) => due.then_some(Action::Restart),
            (Goal::Return { .. }, Queues::Parked) if !self.released => due.then_some(Action::Release),
            (Goal::Return { .. }, Queues::Parked) => due.then_some(Action::Open),
        }
    }

    /// When [`Recovery::poll`] is to be asked again though nothing is said; `None`: not before.
    pub(in super::super) fn due(&self) -> Option<Nanos> {
        match (self.goal, self.queues) {
            (Goal::Run, Queues::Running) => None,
            (Goal::DriverRecovers(until), Queues::Parked) => Some(until),
            (_, Queues::Asked) => Some(self.asked + PARK_RETRY),
            _ => Some(self.at),
        }
    }

    /// An action was done, and this came of it.
    pub(in super::super) fn on_done(&mut self, now: Nanos, action: Action, outcome: Outcome) {
        match (action, outcome) {
            (Action::Park, Outcome::Done) => self.queues = Queues::Parked,
            (Action::Park, _) => {
                self.queues = Queues::Asked;
                self.asked = now;
                if now > self.since + PARK_PATIENCE && !std::mem::replace(&mut self.slow, true) {
                    log::warn!("{}: waits for an engine to come between two bursts", self.name);
                }
            }
            (Action::Resume, _) => {
                self.queues = Queues::Running;
                self.resumed = now;
                self.slow = false;
            }
            (Action::Release, _) => {
                self.released = true;
                // One that was taken away may still be seen for a moment, and whoever takes it away waits for us to let go.
                if self.goal == (Goal::Return { gone: true }) {
                    self.at = now + SETTLE;
                }
            }
            (Action::Restart | Action::Open, Outcome::Done) => self.works(now),
            (Action::Restart, Outcome::Absent) => self.on_event(now, Event::Removed),
            (Action::Open, Outcome::Absent) => {
                if self.goal == (Goal::Return { gone: false }) {
                    self.on_event(now, Event::Removed);
                }
                self.at = now + LOOK;
            }
            (Action::Restart | Action::Open, Outcome::Failed(why)) => self.failed(now, action, &why),
            (Action::Restart | Action::Open, Outcome::NotYet) => self.at = now + PARK_RETRY,
        }
    }

    /// The port is in operation, and may be asked for its link.
    pub(in super::super) fn runs(&self) -> bool {
        self.goal == Goal::Run && self.queues == Queues::Running
    }

    /// Whether the port is closed, and its number means nothing.
    pub(in super::super) fn is_released(&self) -> bool {
        self.released
    }

    pub(in super::super) fn state(&self) -> PortState {
        match self.goal {
            Goal::Return { gone: true } => PortState::Gone,
            Goal::Run if self.queues == Queues::Running && self.link == Some(false) => PortState::LinkDown,
            Goal::Run if self.queues == Queues::Running => PortState::Up,
            _ => PortState::Resetting,
        }
    }

    pub(in super::super) fn counts(&self) -> Counts {
        self.counts
    }

    /// A goal that was not there before.
    fn aim(&mut self, now: Nanos, goal: Goal) {
        self.goal = goal;
        self.since = now;
        self.attempts = 0;
        // A device that asks in every moment has the queues run in between.
        self.at = if self.resumed > Nanos::ZERO { now.max(self.resumed + SPACING) } else { now };
    }

    fn gone(&mut self) {
        self.counts.removals += 1;
        if self.link.replace(false) == Some(true) {
            self.counts.link_downs += 1;
        }
    }

    fn works(&mut self, now: Nanos) {
        let took = millis(now - self.since);
        if self.goal == (Goal::Return { gone: true }) {
            self.counts.returns += 1;
            log::info!("{}: the device is back and started, {took} ms after it was taken away", self.name);
        } else {
            self.counts.resets += 1;
            log::info!("{}: started again, after {took} ms", self.name);
        }
        self.goal = Goal::Run;
        self.released = false;
    }

    fn failed(&mut self, now: Nanos, action: Action, why: &str) {
        self.attempts += 1;
        self.at = now + delay(self.attempts);
        let what = if action == Action::Restart { "start it again" } else { "open it" };
        // The first few, and then about one a minute.
        if self.attempts <= 3 || self.attempts.is_multiple_of(30) {
            let next = millis(delay(self.attempts));
            log::warn!("{}: {what}: {why}; attempt {}, the next in {next} ms", self.name, self.attempts);
        }
        if action == Action::Restart && self.attempts >= SOFT_ATTEMPTS {
            self.goal = Goal::Return { gone: false };
        }
    }
}

/// Before the attempt after so many.
fn delay(attempts: u32) -> Nanos {
    match attempts {
        0 => Nanos::ZERO,
        n => Nanos(FIRST_DELAY.0 << (n - 1).min(10)).min(LONGEST_DELAY),
    }
}

fn millis(time: Nanos) -> u64 {
    time.0 / 1_000_000
}

/// A driver that mends its device has this long; those that do take seconds at most.
const DRIVER_PATIENCE: Nanos = Nanos::millis(10_000);
/// From the word that a device is gone to letting go of it: EAL gives it back only when whoever said so is done.
const LET_GO: Nanos = Nanos::millis(100);
/// Between two looks at queues that are in a burst.
const PARK_RETRY: Nanos = Nanos::millis(1);
/// After this the log says that one is.
const PARK_PATIENCE: Nanos = Nanos::millis(2_000);
/// From letting a device go to the first look for it.
const SETTLE: Nanos = Nanos::millis(1_000);
/// Between two looks for a device that is not there.
const LOOK: Nanos = Nanos::millis(250);
/// Restarts that may fail before the port is closed and opened.
const SOFT_ATTEMPTS: u32 = 3;
const FIRST_DELAY: Nanos = Nanos::millis(100);
const LONGEST_DELAY: Nanos = Nanos::millis(2_000);
/// A port that was started again runs at least this long before it is again.
const SPACING: Nanos = Nanos::millis(100);

//! The thread that keeps a NIC in operation: it hears what the device says, has the queues stay out of bursts while it works on the port, runs
//! what drivers leave to timers, and watches the link. Engines never wait for it: a parked queue receives nothing and drops what it is to send.
//!
//! What is done when is decided by [`Recovery`]; how it is done is a [`Device`]'s, DPDK's [`Kept`](super::kept::Kept) or a test's.

mod recovery;

pub(super) use recovery::{Event, Outcome};

use crate::PortState;
use machnet_wire::Nanos;
use recovery::{Action, Counts, Recovery};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A port and its device. Every call may take its time.
pub(super) trait Device: Send + 'static {
    /// Keeps the queues out of bursts; whether none is in one any more.
    fn park(&mut self) -> bool;
    /// Lets them go on.
    fn resume(&mut self);
    /// Starts the port again, as it was. The queues are parked.
    fn restart(&mut self) -> Outcome;
    /// Closes the port and lets the device go. The queues are parked.
    fn release(&mut self);
    /// Finds the device again and opens it as it was. The port was released.
    fn open(&mut self) -> Outcome;
    /// Whether it has its link; asked while the queues run.
    fn link_is_up(&mut self) -> bool;
    /// Whether the machine still has the device; asked while the queues run.
    fn is_there(&mut self) -> bool;
    /// A tenth of a second has passed.
    fn tick(&mut self);
    /// The port is not used any more. It is closed unless it was `released`.
    fn end(&mut self, released: bool);
}

/// What was said and not yet heard. It has room for a storm, since of each kind only the last counts.
#[derive(Default)]
pub(super) struct Events {
    said: Mutex<Said>,
    bell: Condvar,
}

#[derive(Default)]
struct Said {
    removed: bool,
    reset: bool,
    /// The last of what the driver said of its recovery.
    recovery: Option<Event>,
    appeared: bool,
    ending: bool,
}

impl Events {
    /// From any thread; never blocks.
    pub(super) fn say(&self, event: Event) {
        let mut said = self.lock();
        match event {
            Event::Removed => said.removed = true,
            Event::Reset => said.reset = true,
            Event::Appeared => said.appeared = true,
            Event::Recovering | Event::Recovered | Event::RecoveryFailed => said.recovery = Some(event),
        }
        self.bell.notify_one();
    }

    fn end(&self) {
        self.lock().ending = true;
        self.bell.notify_one();
    }

    /// What was said since; waits for it, at most this long.
    fn take(&self, longest: Duration) -> Said {
        let said = self.lock();
        let quiet = |said: &mut Said| {
            !(said.removed || said.reset || said.appeared || said.ending) && said.recovery.is_none()
        };
        let waited = self.bell.wait_timeout_while(said, longest, quiet);
        let mut said = waited.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::take(&mut *said)
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// In an order in which each still tells: what is gone cannot be reset, and what is back was gone before.
    fn events(&self) -> impl Iterator<Item = Event> + use<> {
        let one = |yes: bool, event| yes.then_some(event);
        let all = [
            self.recovery,
            one(self.reset, Event::Reset),
            one(self.removed, Event::Removed),
            one(self.appeared, Event::Appeared),
        ];
        all.into_iter().flatten()
    }
}

/// What the keeper tells of its port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub state: PortState,
    pub counts: Counts,
}

/// A running keeper.
pub(super) struct Keeper {
    events: &'static Events,
    status: Arc<Mutex<Status>>,
    ended: Mutex<Receiver<()>>,
}

impl Keeper {
    /// Keeps this device, known by `name` in the log, whose driver speaks to `events`.
    pub(super) fn start(
        name: String,
        device: impl Device,
        events: &'static Events,
    ) -> std::io::Result<Keeper> {
        let recovery = Recovery::new(name);
        let status = Arc::new(Mutex::new(Status { state: recovery.state(), counts: recovery.counts() }));
        let mut work = Work { recovery, device, looked: None, status: status.clone() };
        let (end, ended) = channel();
        std::thread::Builder::new().name("nic".to_owned()).spawn(move || {
            let begun = Instant::now();
            let now = move || Nanos(begun.elapsed().as_nanos() as u64);
            let mut wait = Duration::ZERO;
            loop {
                let said = events.take(wait);
                if said.ending {
                    break;
                }
                let next = work.step(&now, said.events());
                wait = Duration::from_nanos((next - now()).0);
            }
            work.device.end(work.recovery.is_released());
            let _ = end.send(());
        })?;
        Ok(Keeper { events, status, ended: Mutex::new(ended) })
    }

    pub(super) fn status(&self) -> Status {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the port, and waits until that has been done; not for ever, for it may be in the hands of a driver that hangs.
    pub(super) fn end(&self) {
        self.events.end();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(PATIENCE).is_err() {
            log::warn!("the NIC is still being started after {PATIENCE:?}; it is left as it is");
        }
    }

    /// What its driver, or its bus, speaks to.
    pub(super) fn events(&self) -> &'static Events {
        self.events
    }
}

/// What the thread does, apart from waiting.
struct Work<D> {
    recovery: Recovery,
    device: D,
    /// When the link was last looked at.
    looked: Option<Nanos>,
    status: Arc<Mutex<Status>>,
}

impl<D: Device> Work<D> {
    /// Takes what was said and does what is due; when to do it again, if nothing is said before.
    fn step(&mut self, now: &impl Fn() -> Nanos, said: impl Iterator<Item = Event>) -> Nanos {
        said.for_each(|event| self.recovery.on_event(now(), event));
        let mut looks = self.looked.is_none_or(|at| at + TICK <= now());
        if looks {
            self.looked = Some(now());
            self.device.tick();
            if self.recovery.runs() && !self.device.is_there() {
                self.recovery.on_event(now(), Event::Removed);
            }
        }
        while let Some(action) = self.recovery.poll(now()) {
            let outcome = self.perform(action);
            self.recovery.on_done(now(), action, outcome);
            looks |= action == Action::Resume;
            // What is being done is seen while it lasts.
            self.publish();
        }
        if looks && self.recovery.runs() {
            let up = self.device.link_is_up();
            self.recovery.on_link(up);
        }
        self.publish();
        let look = self.looked.map_or(now(), |at| at + TICK);
        self.recovery.due().map_or(look, |due| due.min(look))
    }

    fn perform(&mut self, action: Action) -> Outcome {
        match action {
            Action::Park if !self.device.park() => Outcome::NotYet,
            Action::Park => Outcome::Done,
            Action::Restart => self.device.restart(),
            Action::Release => {
                self.device.release();
                Outcome::Done
            }
            Action::Open => self.device.open(),
            Action::Resume => {
                self.device.resume();
                Outcome::Done
            }
        }
    }

    fn publish(&self) {
        let status = Status { state: self.recovery.state(), counts: self.recovery.counts() };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// Between two looks at the link. Drivers' interrupts for it are not asked for: some have none, and vmxnet3's, once asked for one, tells
/// of no change by either way.
const TICK: Nanos = Nanos::millis(100);
/// For the port to be closed when the process ends.
const PATIENCE: Duration = Duration::from_millis(800);

#[cfg(test)]
mod tests;

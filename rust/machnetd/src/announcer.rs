//! Has the host announce itself again when its port is back: the network may have forgotten by then where its address is, and an announcement
//! made while there was no link was heard by nobody. Looked at once a second by the control thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machnet_nic::{Port, PortState};

/// Watches over one port.
pub struct Announcer {
    port: Arc<dyn Port>,
    was_up: bool,
    next: Instant,
}

impl Announcer {
    /// From now on. Engines announce the host themselves when they start.
    pub fn new(port: Arc<dyn Port>, now: Instant) -> Announcer {
        let was_up = port.state() == PortState::Up;
        Announcer { port, was_up, next: now + EVERY }
    }

    /// When to look next.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// Whether the port has come back since the last look, if it is time for one.
    pub fn is_back(&mut self, now: Instant) -> bool {
        if self.next > now {
            return false;
        }
        self.next = now + EVERY;
        let is_up = self.port.state() == PortState::Up;
        let was_up = std::mem::replace(&mut self.was_up, is_up);
        is_up && !was_up
    }
}

const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use machnet_nic::PortCounters;

    use super::*;

    struct Switched(Mutex<PortState>);

    impl Port for Switched {
        fn driver(&self) -> &str {
            "switched"
        }
        fn counters(&self) -> PortCounters {
            PortCounters::default()
        }
        fn state(&self) -> PortState {
            *self.0.lock().expect("one thread")
        }
    }

    #[test]
    fn a_port_that_comes_up_is_told_once_and_no_sooner_than_it_is_looked_at() {
        let port = Arc::new(Switched(Mutex::new(PortState::LinkDown)));
        let mut now = Instant::now();
        let mut announcer = Announcer::new(Arc::clone(&port) as Arc<dyn Port>, now);
        let mut told = |state, times: u32| {
            *port.0.lock().expect("one thread") = state;
            let looks = (0..times).map(|_| {
                now += EVERY / 2;
                announcer.is_back(now)
            });
            looks.filter(|back| *back).count()
        };
        assert_eq!(told(PortState::LinkDown, 4), 0);
        assert_eq!(told(PortState::Up, 6), 1);
        assert_eq!(told(PortState::Resetting, 4), 0);
        assert_eq!(told(PortState::Gone, 4), 0);
        assert_eq!(told(PortState::Up, 6), 1);
    }
}

//! Who is one application: all channels of one user that say the same group, or one channel that says none. An application counts for as
//! long as it has a channel, offered ones and those included that drain.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// An application. Each of its channels keeps it.
#[derive(Debug)]
pub(crate) struct Application {
    /// No other has this number while the host runs; the first has 1.
    pub number: u64,
    /// Whether it may have several channels.
    pub is_group: bool,
    count: Arc<AtomicUsize>,
}

impl Application {
    /// How many channels it has.
    pub fn channels(self: &Arc<Self>) -> usize {
        // Whoever asks holds one more.
        Arc::strong_count(self) - 1
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All applications of a host.
#[derive(Debug, Default)]
pub(crate) struct Applications {
    /// By user and group.
    groups: HashMap<(u32, u32), Weak<Application>>,
    count: Arc<AtomicUsize>,
    last: u64,
}

impl Applications {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The one that a channel of this user and group would be of, if there is one.
    pub fn find(&self, user: u32, group: u32) -> Option<Arc<Application>> {
        self.groups.get(&(user, group))?.upgrade()
    }

    /// One that there is not yet. Group 0: a channel that is alone.
    pub fn add(&mut self, user: u32, group: u32) -> Arc<Application> {
        self.last += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        let (is_group, count) = (group != 0, Arc::clone(&self.count));
        let application = Arc::new(Application { number: self.last, is_group, count });
        if is_group {
            self.groups.retain(|_, known| known.strong_count() > 0);
            self.groups.insert((user, group), Arc::downgrade(&application));
        }
        application
    }
}

//! How many descriptors there are, and how many applications may be attaching at once: so many that an honest burst never meets the bound,
//! and so few of one process or one user that they cannot keep others out.

use std::collections::HashMap;
use std::fmt;

use machnet_host::Descriptors;

use crate::socket::Credentials;

/// Bounds on applications that are connected, not yet attached, and waited for; of a process, also on those that wait for us. Beyond `all` they
/// wait in the socket's backlog; beyond the others' bounds they are turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Together.
    pub all: usize,
    /// Of one user.
    pub user: usize,
    /// Of one process.
    pub process: usize,
}

impl Limits {
    /// What `descriptors` leave beside those of `channels` channels, one for each application that there may be.
    pub fn new(descriptors: u64, channels: usize) -> Limits {
        let left = descriptors.saturating_sub(needed(channels)) as usize;
        let all = left.clamp(FEWEST, MOST);
        Limits { all, user: all / 2, process: all / 4 }
    }

    /// How many channels so many `descriptors` last for, when as many as may be are attaching; `None`: nobody said how many there are.
    pub fn channels(&self, descriptors: u64) -> Option<Descriptors> {
        let left = descriptors.saturating_sub(OWN + self.all as u64);
        (descriptors > 0).then_some(Descriptors { limit: descriptors, channels: (left / EACH) as usize })
    }
}

/// Applications that are not attached yet, counted.
#[derive(Debug, Default)]
pub struct Unattached {
    all: usize,
    users: HashMap<u32, usize>,
    processes: HashMap<(u32, i32), usize>,
}

impl Unattached {
    /// Whether nobody else is to be let in.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.all >= limits.all
    }

    /// Counts one more, if that is within the bounds.
    pub fn admit(&mut self, who: Credentials, limits: &Limits) -> Result<(), TooMany> {
        let user = self.users.get(&who.uid).copied().unwrap_or(0);
        let process = self.processes.get(&(who.uid, who.pid)).copied().unwrap_or(0);
        // Number 0 is everybody in other PID namespaces, so they count by user alone.
        if who.pid != 0 && process >= limits.process {
            return Err(TooMany { whose: "process", most: limits.process });
        }
        if user >= limits.user {
            return Err(TooMany { whose: "user", most: limits.user });
        }
        self.count(who);
        Ok(())
    }

    /// One that was counted has gone on, or away.
    pub fn leave(&mut self, who: Credentials) {
        self.asked(who);
        let process = self.processes.entry((who.uid, who.pid)).or_default();
        *process = process.saturating_sub(1);
    }

    /// One that was counted has asked for a channel, which is being made.
    pub fn asked(&mut self, who: Credentials) {
        self.all = self.all.saturating_sub(1);
        let user = self.users.entry(who.uid).or_default();
        *user = user.saturating_sub(1);
    }

    /// Counts one that is waited for.
    pub fn count(&mut self, who: Credentials) {
        self.all += 1;
        *self.users.entry(who.uid).or_default() += 1;
        self.count_asked(who);
    }

    /// Counts one that waits for its channel to be made: for its process alone. A crowd of processes is to be served in turn, but one
    /// that takes none of its channels must not be given all there are.
    pub fn count_asked(&mut self, who: Credentials) {
        *self.processes.entry((who.uid, who.pid)).or_default() += 1;
    }
}

/// Why somebody is turned away.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany {
    whose: &'static str,
    most: usize,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sockets of this {} are connected and not attached, the most; attach or close some",
            self.most, self.whose
        )
    }
}

/// Raises the limit on descriptors as far as it goes, and says what it is now; 0: nobody knows.
pub fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable. A refusal leaves what was.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        limit.rlim_cur = before;
    }
    limit.rlim_cur
}

/// Warns where so many `descriptors` are too few for `applications` with a channel each.
pub fn warn_if_few(descriptors: u64, applications: usize) {
    let needed = needed(applications) + FEWEST as u64;
    if descriptors < needed {
        log::warn!(
            "{applications} applications (control.max_channels) with a channel each need {needed} descriptors, and this process may have {descriptors}; raise the limit (LimitNOFILE= of the service, ulimit -Hn), or lower control.max_channels"
        );
    }
}

/// Descriptors of the process itself and of so many channels.
fn needed(channels: usize) -> u64 {
    OWN + EACH * channels as u64
}

/// DPDK's, the engines', the log's.
const OWN: u64 = 256;
/// A channel's: its socket, its process and three doorbells, and while it is made its memory and a copy of its socket.
const EACH: u64 = 7;
const FEWEST: usize = 512;
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32, pid: i32) -> Credentials {
        Credentials { pid, uid, gid: 0 }
    }

    #[test]
    fn a_process_and_a_user_leave_room_for_others() {
        let limits = Limits { all: 16, user: 8, process: 4 };
        let mut unattached = Unattached::default();
        for _ in 0..4 {
            unattached.admit(who(1, 10), &limits).unwrap();
        }
        let refused = unattached.admit(who(1, 10), &limits).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "4 sockets of this process are connected and not attached, the most; attach or close some"
        );
        for pid in 11..15 {
            unattached.admit(who(1, pid), &limits).expect("another process of this user");
        }
        let refused = unattached.admit(who(1, 15), &limits).unwrap_err();
        assert_eq!(refused, TooMany { whose: "user", most: 8 });
        assert!(!unattached.is_full(&limits));
        for _ in 0..8 {
            unattached.admit(who(2, 0), &limits).expect("another user, whose processes are not visible");
        }
        assert_eq!(unattached.admit(who(2, 0), &limits), Err(TooMany { whose: "user", most: 8 }));
        assert!(unattached.is_full(&limits));
        unattached.leave(who(1, 10));
        assert!(!unattached.is_full(&limits));
        unattached.admit(who(1, 10), &limits).expect("in place of the one that left");
    }

    #[test]
    fn those_who_wait_for_a_channel_count_for_their_process_alone() {
        let limits = Limits { all: 4, user: 4, process: 2 };
        let mut unattached = Unattached::default();
        for pid in 0..40 {
            unattached.admit(who(1, pid), &limits).expect("a crowd of processes");
            unattached.asked(who(1, pid));
        }
        unattached.admit(who(1, 7), &limits).expect("a second one");
        unattached.asked(who(1, 7));
        let many = unattached.admit(who(1, 7), &limits);
        assert_eq!(many, Err(TooMany { whose: "process", most: 2 }));
        // Counted anew it is the same.
        let mut unattached = Unattached::default();
        (0..2).for_each(|_| unattached.count_asked(who(1, 7)));
        assert_eq!(unattached.admit(who(1, 7), &limits), many);
        assert!(!unattached.is_full(&limits));
    }

    #[test]
    fn bounds_follow_from_the_descriptors() {
        assert_eq!(Limits::new(1_000_000, 1024), Limits { all: 1024, user: 512, process: 256 });
        assert_eq!(Limits::new(8192, 1024), Limits { all: 768, user: 384, process: 192 });
        assert_eq!(Limits::new(1024, 1024), Limits { all: 512, user: 256, process: 128 });
        for (limit, channels) in [(1_000_000, 142_674), (8192, 1024), (1024, 36), (300, 0)] {
            let lasts = Limits::new(limit, 1024).channels(limit);
            assert_eq!(lasts, Some(Descriptors { limit, channels }));
        }
        assert_eq!(Limits::new(0, 1024).channels(0), None);
    }
}

//! How far the end of an engine has come, and that of channels which it still drains.

use machnet_wire::Nanos;

/// How far the end of an engine, and of channels that it still drains, has come.
#[derive(Debug)]
pub(crate) struct Ending {
    /// The sidecar ends: nothing new begins.
    pub shutdown: bool,
    /// When the first channel that only delivers what it was given is cut off.
    pub linger_until: Nanos,
    /// When what was sent last in a shutdown has left the NIC.
    gone_at: Nanos,
}

impl Ending {
    pub fn new() -> Self {
        Self { shutdown: false, linger_until: Nanos::MAX, gone_at: Nanos::ZERO }
    }

    /// What was sent `now` in a shutdown is given time to leave the NIC.
    #[cold]
    pub fn sent(&mut self, now: Nanos) {
        self.gone_at = now + LEAVES_NIC;
    }

    /// Whether a shutdown has nothing to wait for `now`.
    pub fn is_quiet(&self, now: Nanos) -> bool {
        self.shutdown && now >= self.gone_at
    }

    /// When something of this is due after `now`; never: [`Nanos::MAX`].
    pub fn due(&self, now: Nanos) -> Nanos {
        if self.gone_at > now { self.linger_until.min(self.gone_at) } else { self.linger_until }
    }
}

/// What was sent last before the end may still lie in a ring when the NIC is closed: of memif until the other end looks, which naps
/// for 10 ms at most (`idle.rs`).
const LEAVES_NIC: Nanos = Nanos::millis(50);

//! A limit on a warning that an application or a peer can provoke at will: it goes to the log at most once a second, or more rarely, with a
//! count of those that were suppressed.

use core::fmt;

use crate::Nanos;

/// When a warning may go to the log again, and how often it was suppressed since the last one.
#[derive(Debug)]
pub struct WarningLimit {
    every: Nanos,
    next: Nanos,
    suppressed: u64,
}

/// How often a warning was suppressed before this one; prints nothing for 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suppressed(pub u64);

impl Default for WarningLimit {
    /// Once a second.
    fn default() -> Self {
        Self::every(Nanos::secs(1))
    }
}

impl WarningLimit {
    /// Once in so long.
    pub const fn every(every: Nanos) -> Self {
        Self { every, next: Nanos::ZERO, suppressed: 0 }
    }

    /// `None`: it is suppressed. Else the warning goes to the log, with this at its end.
    pub fn allow(&mut self, now: Nanos) -> Option<Suppressed> {
        if now < self.next {
            self.suppressed += 1;
            return None;
        }
        self.next = now + self.every;
        Some(Suppressed(core::mem::take(&mut self.suppressed)))
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " (and {n} more like it since the last such line)"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn a_warning_is_said_once_a_second_and_none_is_forgotten() {
        let mut warnings = WarningLimit::default();
        let said: Vec<_> = (0..2500).filter_map(|ms| warnings.allow(Nanos::millis(ms))).collect();
        assert_eq!(said, [Suppressed(0), Suppressed(999), Suppressed(999)]);
        assert_eq!(
            warnings.allow(Nanos::secs(9)).map(|suppressed| suppressed.to_string()).as_deref(),
            Some(" (and 499 more like it since the last such line)")
        );
        assert_eq!(Suppressed(0).to_string(), "");
        let mut rare = WarningLimit::every(Nanos::secs(60));
        let said = (0..150).filter_map(|s| rare.allow(Nanos::secs(s))).collect::<Vec<_>>();
        assert_eq!(said, [Suppressed(0), Suppressed(59), Suppressed(59)]);
    }
}

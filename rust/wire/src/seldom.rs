//! A warning that an application or a peer can provoke at will: said at most once a second, with a count of those left out.

use core::fmt;

use crate::Nanos;

/// When a warning was said last, and how often it was not.
#[derive(Debug, Default)]
pub struct Seldom {
    next: Nanos,
    left_out: u64,
}

/// How often a warning was left out before this one; prints nothing for 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut(pub u64);

impl Seldom {
    /// `None`: not now. Else the warning is to be said, with this at its end.
    pub fn say(&mut self, now: Nanos) -> Option<LeftOut> {
        if now < self.next {
            self.left_out += 1;
            return None;
        }
        self.next = now + EVERY;
        Some(LeftOut(core::mem::take(&mut self.left_out)))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " (and {n} more like it since the last such line)"),
        }
    }
}

const EVERY: Nanos = Nanos::secs(1);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn a_warning_is_said_once_a_second_and_none_is_forgotten() {
        let mut seldom = Seldom::default();
        let said: Vec<_> = (0..2500).filter_map(|ms| seldom.say(Nanos::millis(ms))).collect();
        assert_eq!(said, [LeftOut(0), LeftOut(999), LeftOut(999)]);
        assert_eq!(
            seldom.say(Nanos::secs(9)).map(|left_out| left_out.to_string()).as_deref(),
            Some(" (and 499 more like it since the last such line)")
        );
        assert_eq!(LeftOut(0).to_string(), "");
    }
}

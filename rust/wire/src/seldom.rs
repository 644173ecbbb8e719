//! A warning about what may happen a thousand times a second.

use crate::Nanos;

/// Lets one of a kind through per second and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    due: Nanos,
    left_out: u64,
}

impl Seldom {
    /// Whether to speak now: `Some` with how many were left out since it was last spoken, 0 at first.
    pub fn admit(&mut self, now: Nanos) -> Option<u64> {
        if now < self.due {
            self.left_out += 1;
            return None;
        }
        self.due = now + PAUSE;
        Some(core::mem::take(&mut self.left_out))
    }
}

/// Between two of a kind.
const PAUSE: Nanos = Nanos::secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_let_through_with_the_count_of_the_others() {
        let mut seldom = Seldom::default();
        let mut said = (0..2_500)
            .step_by(100)
            .filter_map(|ms| seldom.admit(Nanos::millis(ms)).map(|left_out| (ms, left_out)));
        assert_eq!([said.next(), said.next(), said.next()], [Some((0, 0)), Some((1000, 9)), Some((2000, 9))]);
        assert_eq!(said.next(), None);
    }
}

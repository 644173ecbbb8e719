//! Whether units make whole messages. Both ends ask the same questions: of an application's units before they are
//! sent, of a peer's before they are delivered. Neither is trusted.

use machnet_wire::Fragment;

use crate::MESSAGE_MAX;

/// How much of a message is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Assembly {
    /// Bytes missing of the open message; an open message always misses some.
    left: u32,
}

impl Assembly {
    /// Whether a message has begun and not ended.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.left != 0
    }

    /// The state after a unit with `len` bytes of payload, or what is wrong with it.
    #[inline]
    pub fn after(self, unit: Fragment, len: u32) -> Result<Assembly, &'static str> {
        let before = match (unit.begin, self.is_open()) {
            (true, true) => return Err("a message begins within another"),
            (true, false) if unit.message_len > MESSAGE_MAX => return Err("a message is longer than 8 MiB"),
            (true, false) => unit.message_len,
            (false, true) => self.left,
            (false, false) => return Err("a unit continues no message"),
        };
        let Some(left) = before.checked_sub(len) else {
            return Err("a message is longer than announced");
        };
        if unit.end != (left == 0) {
            return Err("a message ends at another length than announced");
        }
        // Otherwise units could come for ever without the message getting on.
        if len == 0 && !unit.end {
            return Err("a unit is empty and does not end its message");
        }
        Ok(Assembly { left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(begin: bool, end: bool, message_len: u32) -> Fragment {
        Fragment { begin, end, message_len }
    }

    #[test]
    fn units_make_messages_or_are_refused() {
        let none = Assembly::default();
        assert_eq!(none.after(unit(true, true, 0), 0), Ok(none));
        assert_eq!(none.after(unit(true, true, 9), 9), Ok(none));
        let open = none.after(unit(true, false, 10), 6).unwrap();
        assert!(open.is_open());
        assert_eq!(open.after(unit(false, true, 0), 4), Ok(none));
        for (state, unit, len) in [
            (none, unit(false, true, 0), 4),
            (none, unit(true, true, 9), 8),
            (none, unit(true, false, 9), 9),
            (none, unit(true, false, 9), 0),
            (none, unit(true, false, MESSAGE_MAX + 1), 9),
            (open, unit(true, false, 9), 4),
            (open, unit(false, true, 0), 5),
            (open, unit(false, true, 0), 3),
            (open, unit(false, false, 0), 4),
            (open, unit(false, false, 0), 0),
        ] {
            assert!(state.after(unit, len).is_err(), "{state:?} {unit:?} {len}");
        }
    }
}

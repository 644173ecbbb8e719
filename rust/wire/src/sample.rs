//! What is counted, declared once: a counter's name, its meaning, its unit and its place stand in one line, and everything that shows
//! counters (log, control socket, `/metrics`, docs/metrics.md) reads that line. So nothing can be counted and not shown.

/// One counter as read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The counter's name, snake case; it never changes its meaning, because dashboards are built on it.
    pub name: &'static str,
    /// What it counts, one line.
    pub help: &'static str,
    /// What one of it is.
    pub unit: Unit,
    /// How it moves.
    pub kind: Kind,
    /// Its value; `None` where this driver or this machine cannot count it, which is not the same as none counted.
    pub value: Option<u64>,
}

/// What one of a counter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whatever the help names: frames, connections, times.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
}

/// How a counter moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A counter without its value: what [`samples!`](crate::samples) knows of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// As in [`Sample`].
    pub name: &'static str,
    /// As in [`Sample`].
    pub help: &'static str,
    /// As in [`Sample`].
    pub unit: Unit,
    /// As in [`Sample`].
    pub kind: Kind,
}

impl Definition {
    /// With a value.
    pub const fn sample(&self, value: Option<u64>) -> Sample {
        let Definition { name, help, unit, kind } = *self;
        Sample { name, help, unit, kind, value }
    }
}

/// What may hold a counter: `u64` where it is always counted, `Option<u64>` where a driver may be unable to, and whatever else can be
/// read (the engine's counters are atomic).
pub trait Cell {
    /// The value now; `None`: not counted here.
    fn value(&self) -> Option<u64>;
}

impl Cell for u64 {
    #[inline]
    fn value(&self) -> Option<u64> {
        Some(*self)
    }
}

impl Cell for Option<u64> {
    #[inline]
    fn value(&self) -> Option<u64> {
        *self
    }
}

/// Declares a struct of counters together with its table. After the struct's name stands the type of its fields; a field that differs
/// names its own. Each field has a doc comment of one line, which is its help, then its kind and its unit:
///
/// ```
/// machnet_wire::samples! {
///     /// Counters of a door.
///     #[derive(Debug, Default)]
///     pub struct Door: u64 {
///         /// times it was opened
///         opened: Counter, Count;
///         /// people in the room
///         inside: Gauge, Count;
///         /// visitors that the sensor missed
///         missed: Counter, Count, Option<u64>;
///     }
/// }
/// let door = Door { opened: 3, inside: 1, missed: None };
/// let shown: Vec<_> = door.samples().map(|s| (s.name, s.value)).to_vec();
/// assert_eq!(shown, [("opened", Some(3)), ("inside", Some(1)), ("missed", None)]);
/// assert_eq!(Door::TABLE[0].help, "times it was opened");
/// ```
#[macro_export]
macro_rules! samples {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident: $cell:ty {
            $(
                #[doc = $help:literal]
                $field:ident: $kind:ident, $unit:ident $(, $own:ty)?;
            )+
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $(
                #[doc = $help]
                pub $field: $crate::samples!(@cell $cell $(, $own)?),
            )+
        }

        impl $name {
            /// Every counter without its value, in the order of declaration.
            pub const TABLE: [$crate::sample::Definition; [$(stringify!($field)),+].len()] = [$(
                $crate::sample::Definition {
                    name: stringify!($field),
                    help: $help.trim_ascii(),
                    unit: $crate::sample::Unit::$unit,
                    kind: $crate::sample::Kind::$kind,
                }
            ),+];

            /// The values, in the order of [`Self::TABLE`].
            pub fn values(&self) -> [Option<u64>; Self::TABLE.len()] {
                [$($crate::sample::Cell::value(&self.$field)),+]
            }

            /// Every counter as it is now, in the order of declaration.
            pub fn samples(&self) -> [$crate::sample::Sample; Self::TABLE.len()] {
                let values = self.values();
                core::array::from_fn(|i| Self::TABLE[i].sample(values[i]))
            }
        }
    };
    (@cell $cell:ty) => { $cell };
    (@cell $cell:ty, $own:ty) => { $own };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::samples! {
        /// One of each.
        #[derive(Default)]
        struct Each: u64 {
            /// frames taken
            frames: Counter, Count;
            /// bytes waiting
            waiting: Gauge, Bytes;
            /// time spent
            spent: Counter, Nanoseconds, Option<u64>;
        }
    }

    #[test]
    fn what_is_declared_is_shown_in_the_order_of_declaration() {
        let each = Each { frames: 7, waiting: 9, spent: None };
        let shown = each.samples().map(|s| (s.name, s.help, s.unit, s.kind, s.value));
        assert_eq!(shown[0], ("frames", "frames taken", Unit::Count, Kind::Counter, Some(7)));
        assert_eq!(shown[1], ("waiting", "bytes waiting", Unit::Bytes, Kind::Gauge, Some(9)));
        assert_eq!(shown[2], ("spent", "time spent", Unit::Nanoseconds, Kind::Counter, None));
        assert_eq!(Each { spent: Some(0), ..each }.values()[2], Some(0), "none counted is not the same");
    }
}

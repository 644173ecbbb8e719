//! Who wants to be woken for what.

/// What a sleeper wants to be woken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wants(pub(crate) u32);

impl Wants {
    /// The application: deliveries and replies. The engine: submissions and requests.
    pub const EVENTS: Self = Self(1);
    /// The application: completions. The engine: returns.
    pub const TOKENS: Self = Self(2);
    /// Everything.
    pub const ALL: Self = Self(3);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

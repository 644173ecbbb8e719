//! How many units of a direction each connection may hold: some of its own that nobody else can take, and a part of the
//! rest that shrinks as others hold more. docs/channel.md, "Shares", has the formula, its source and its proof.

use crate::layout::Geometry;

/// The account of one direction's units. How many each connection holds is kept by the caller, which passes it with every call; a call
/// takes the same few steps, whatever the number of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    units: u32,
    /// Units that each connection has for its own.
    own: u32,
    /// Most that a connection may hold in all.
    most: u32,
    /// Units set aside for what connections have for their own.
    reserve: u32,
    /// Units held by all connections.
    held: u32,
    /// Of these, those that their connections hold beyond their own.
    beyond: u32,
}

impl Share {
    /// Nobody holds anything.
    pub const fn new(g: Geometry) -> Share {
        Share { units: g.units, own: g.own(), most: g.quota(), reserve: g.reserve(), held: 0, beyond: 0 }
    }

    /// Units held by all connections.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Free units that no connection has for its own.
    #[inline]
    pub fn shared(&self) -> u32 {
        self.shared_with(0)
    }

    /// The same, if `more` units were taken by connections as their own. Where there are more connections than the reserve has
    /// units, those that come too late for it take theirs from here.
    #[inline]
    fn shared_with(&self, more: u32) -> u32 {
        self.units.saturating_sub(self.beyond + (self.held - self.beyond + more).max(self.reserve))
    }

    /// How many more units a connection may take, that holds `held`.
    #[inline]
    pub fn room(&self, held: u32) -> u32 {
        let own = self.own.saturating_sub(held).min(self.units.saturating_sub(self.held));
        let beyond = held.saturating_sub(self.own);
        // The n-th unit taken beyond its own needs `beyond + n <= shared - (n - 1)`.
        let shared = (self.shared_with(own) + 1).saturating_sub(beyond) / 2;
        (own + shared).min(self.most.saturating_sub(held))
    }

    /// Whether a connection that holds `held` may take another unit.
    #[inline]
    pub fn has_room(&self, held: u32) -> bool {
        if held < self.own {
            return self.held < self.units;
        }
        held < self.most && held - self.own < self.shared()
    }

    /// How many units a connection that holds `held` could hold, if those came back and all others kept theirs.
    pub fn reach(&self, held: u32) -> u32 {
        let mut without = *self;
        without.give(held, held);
        without.room(0)
    }

    /// A connection that holds `held` takes `n` more, at most its room.
    #[inline]
    pub fn take(&mut self, held: u32, n: u32) {
        self.held += n;
        if held + n > self.own {
            self.beyond += n.min(held + n - self.own);
        }
    }

    /// A connection that holds `held` gives `n` of them back.
    #[inline]
    pub fn give(&mut self, held: u32, n: u32) {
        self.held -= n;
        if held > self.own {
            self.beyond -= n.min(held - self.own);
        }
    }
}

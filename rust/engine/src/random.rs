//! Tags and ports that nobody can guess, from the sidecar's secret; and a bucket of permissions.

use std::hash::{DefaultHasher, Hasher};

use machnet_rss::Draw;
use machnet_wire::Nanos;

use crate::ids::EngineIndex;

/// A keyed generator (SipHash of a counter), so that a run with the same secret draws the same numbers.
#[derive(Debug, Clone)]
pub struct Random {
    secret: [u64; 2],
    stream: u64,
    drawn: u64,
}

impl Random {
    /// Draws under `secret`; generators of different `stream` share no sequence.
    pub fn new(secret: [u64; 2], stream: u64) -> Self {
        Self { secret, stream, drawn: 0 }
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        for word in [self.secret[0], self.secret[1], self.stream, self.drawn] {
            hasher.write_u64(word);
        }
        hasher.finish()
    }

    /// A tag that names engine `engine` of `engines`: a packet that lands elsewhere is handed to its owner without a
    /// shared table. Never 0, which means "no tag yet" on the wire.
    pub fn tag(&mut self, engine: EngineIndex, engines: u16) -> u32 {
        let engines = u32::from(engines.max(1));
        loop {
            let tag =
                ((self.draw() >> 32) as u32 / engines).wrapping_mul(engines).checked_add(u32::from(engine.0));
            if let Some(tag) = tag.filter(|t| *t != 0) {
                return tag;
            }
        }
    }
}

impl Draw for Random {
    fn draw(&mut self) -> u64 {
        Random::draw(self)
    }
}

/// The engine that drew this tag.
#[inline]
pub fn tag_owner(tag: u32, engines: u16) -> EngineIndex {
    EngineIndex((tag % u32::from(engines.max(1))) as u16)
}

/// At most `rate` a second, a tenth of a second's worth at once.
#[derive(Debug)]
pub struct RateLimit {
    rate: u32,
    tokens: u64,
    filled: Nanos,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(rate: u32, now: Nanos) -> Self {
        Self { rate, tokens: Self::most(rate), filled: now }
    }

    /// Whether one more is allowed now.
    pub fn allow(&mut self, now: Nanos) -> bool {
        let earned = (now - self.filled).0.min(1_000_000_000) * u64::from(self.rate);
        self.filled = now;
        self.tokens = (self.tokens + earned).min(Self::most(self.rate));
        let allowed = self.tokens >= ONE;
        if allowed {
            self.tokens -= ONE;
        }
        allowed
    }

    fn most(rate: u32) -> u64 {
        if rate == 0 { 0 } else { (u64::from(rate) * BURST).max(ONE) }
    }
}

/// A permission, in units of rate times nanoseconds.
const ONE: u64 = 1_000_000_000;
const BURST: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_its_engine() {
        for engines in 1..=7 {
            for engine in 0..engines {
                let mut random = Random::new([1, 2], u64::from(engine));
                let engine = EngineIndex(engine);
                for _ in 0..200 {
                    let tag = random.tag(engine, engines);
                    assert!(tag != 0 && tag_owner(tag, engines) == engine, "{tag} {engine}/{engines}");
                }
            }
        }
    }

    #[test]
    fn a_limit_allows_its_rate_and_no_more() {
        let mut limit = RateLimit::new(1000, Nanos::ZERO);
        let mut allowed = 0;
        for us in 0..1_000_000u64 {
            allowed += u32::from(limit.allow(Nanos::micros(us)));
        }
        assert!((1099..=1100).contains(&allowed), "{allowed}");
    }
}

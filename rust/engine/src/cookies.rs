//! Cookies: what a listener with too many callers that have proved nothing gives to more of them, instead of remembering them. Whoever
//! brings one back has read our SYN-ACK, so he is where he says he is, and has with him all that his SYN said (docs/wire.md, Cookies;
//! compare RFC 4987 section 3.6).
//!
//! A cookie begins nothing. The one that comes back stands for a SYN whose sender is proven: it finds its listener as a SYN does, on whatever
//! engine, and the handshake goes on from there. So a copy of one, however late, does no more than a copy of a SYN.

use std::hash::{DefaultHasher, Hasher};

use machnet_flow::{Body, Io as _, Transmit};
use machnet_wire::header::delay_steps;
use machnet_wire::{Flags, Header, Hello, Kind, Nanos, Packet, Seq};

use crate::ids::{ConnIndex, ConnKey};
use crate::path::InPath;
use crate::state::Core;

/// What a cookie vouches for.
#[derive(Debug, Clone, Copy)]
struct Claim<'a> {
    key: ConnKey,
    /// The caller's hello, whatever cookie is in it.
    hello: &'a Hello,
    /// Its first unit.
    unit: Seq,
    /// The tag that went with the cookie.
    tag: u32,
}

impl Claim<'_> {
    /// The cookie of this for the time slot `slot`, under a secret of the sidecar's start: the slot's low byte, and 55 bits of a keyed hash,
    /// which is another function in each slot. Never 0.
    fn cookie(&self, secret: [u64; 2], slot: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        secret.into_iter().for_each(|word| hasher.write_u64(word));
        hasher.write_u64(COOKIES);
        hasher.write_u64(slot);
        std::hash::Hash::hash(&self.key, &mut hasher);
        hasher.write(&Hello { cookie: 0, ..*self.hello }.emit());
        hasher.write_u32(self.unit.0);
        hasher.write_u32(self.tag);
        slot << 56 | hasher.finish() >> 8 | 1
    }

    /// Whether `cookie` is one that was given for this, not long before `now`.
    fn is_proven_by(&self, cookie: u64, secret: [u64; 2], now: Nanos) -> bool {
        let slot = slot(now);
        // The slot is told apart by its byte, so that one hash is made for whatever comes.
        let age = (slot as u8).wrapping_sub((cookie >> 56) as u8);
        u64::from(age) <= SLOTS.min(slot) && cookie == self.cookie(secret, slot - u64::from(age))
    }
}

/// Whether a packet brings a cookie back.
pub(crate) fn brings_cookie(packet: &Packet<'_>) -> bool {
    packet.header.kind == Kind::Ack && packet.header.flags.has(Flags::HELLO)
}

impl Core {
    /// Answers a SYN without remembering it.
    pub fn give_cookie(&mut self, key: ConnKey, from: InPath, syn: &Packet<'_>, hello: &Hello) {
        let now = self.clock.now;
        let tag = self.random.tag(self.own.index(), self.shared().engines());
        let claim = Claim { key, hello, unit: syn.header.unit, tag };
        let cookie = claim.cookie(self.shared().config.secret, slot(now));
        let header = Header {
            src: syn.header.dst,
            dst: syn.header.src,
            tag: hello.tag,
            unit: Seq(self.random.draw() as u32),
            ack: syn.header.unit,
            ts: now.0 as u32,
            flags: Flags::ECHO,
            ack_tx: syn.header.tx,
            ts_echo: syn.header.ts,
            gap: delay_steps(self.clock.gap),
            ..Header::new(Kind::SynAck)
        };
        let body = Body::Hello(Hello { cookie, ..self.router.hello(tag, Some(from)) });
        self.counters().cookies_sent.add(1);
        self.router.answer(from, &Transmit { header, hit: None, part: None, sack: &[], body });
    }

    /// Whether a packet brings back a cookie that was given to its sender.
    pub fn is_proven(&self, key: ConnKey, packet: &Packet<'_>) -> bool {
        let header = &packet.header;
        Hello::parse(packet.payload).is_ok_and(|hello| {
            let claim = Claim { key, hello: &hello, unit: header.unit, tag: header.tag };
            claim.is_proven_by(hello.cookie, self.shared().config.secret, self.clock.now)
        })
    }

    /// A good cookie came to a connection that is there: it is what the SYN would be that it stands for. False: the connection gives way
    /// to the one that the caller wants.
    pub fn on_proven_syn(&mut self, index: ConnIndex, from: InPath, packet: &Packet<'_>) -> bool {
        let taken = self.with(index, |flow, io| flow.on_proven_syn(io.now(), io.gap(), packet));
        let taken = taken.is_none_or(|taken| taken.is_ok());
        if taken {
            self.on_syn_copy(index, from);
        }
        taken
    }
}

/// The number of the time slot of `now`.
fn slot(now: Nanos) -> u64 {
    now.0 / SLOT.0
}

/// What makes hashes of cookies differ from all others under the same secret.
const COOKIES: u64 = 0x636f_6f6b_6965_7301;
/// How long cookies of one kind are given.
const SLOT: Nanos = Nanos::secs(4);
/// How many slots later they are still taken: 8 to 12 s. Whoever is refused for an older one calls again.
const SLOTS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECRET: [u64; 2] = [7, 9];

    #[test]
    fn a_cookie_is_good_for_what_it_was_given_for_and_for_some_seconds() {
        let hello = Hello::new(5, 6, 1500);
        let key = ConnKey::new(Ipv4Addr::new(10, 0, 0, 2), 40_000, 80);
        let claim = Claim { key, hello: &hello, unit: Seq(77), tag: 99 };
        for given in [Nanos::ZERO, Nanos::secs(3), Nanos::secs(4 * 255), Nanos::secs(4 * 256 + 1)] {
            let cookie = claim.cookie(SECRET, slot(given));
            assert_ne!(cookie, 0);
            let good = |claim: &Claim<'_>, after| claim.is_proven_by(cookie, SECRET, given + after);
            for after in [0, 1, 4, 8] {
                assert!(good(&claim, Nanos::secs(after)), "{given:?} after {after} s");
            }
            for after in [12, 13, 100, 1024, 2048] {
                assert!(!good(&claim, Nanos::secs(after)), "{given:?} after {after} s");
            }
            let brought = Hello { cookie, ..hello };
            assert!(
                good(&Claim { hello: &brought, ..claim }, Nanos::ZERO),
                "what the hello carries is not its part"
            );
            let (mtu, tag) = (Hello { mtu: 1400, ..hello }, Hello { tag: 4, ..hello });
            let elsewhere = ConnKey::new(Ipv4Addr::new(10, 0, 0, 3), 40_000, 80);
            for other in [
                Claim { key: elsewhere, ..claim },
                Claim { hello: &mtu, ..claim },
                Claim { hello: &tag, ..claim },
                Claim { unit: Seq(78), ..claim },
                Claim { tag: 98, ..claim },
            ] {
                assert!(!good(&other, Nanos::ZERO), "{other:?}");
            }
            assert!(!claim.is_proven_by(cookie ^ 2, SECRET, given));
            assert!(!claim.is_proven_by(cookie, [7, 8], given), "of another start");
        }
        assert!(!claim.is_proven_by(0, SECRET, Nanos::ZERO));
    }
}

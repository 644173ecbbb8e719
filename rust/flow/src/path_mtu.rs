//! How long packets may be on this path (RFC 8899). Both ends have said what they take; what lies between may take less, and a bridge or a
//! tunnel that drops what is too long says nothing.
//!
//! Nothing is probed while all goes well: a path is in doubt when three packets of more than the least length were lost in a row and none as long
//! arrived, or when a router says that one was too long. Then PINGs are padded to lengths, and what is echoed has arrived:
//!
//! | phase | probes | then |
//! |---|---|---|
//! | check | the least length that there may be, and the one in doubt | if that is answered nothing was wrong; if only the least is, twice, the path has become narrower |
//! | find | all usual lengths between | what is longer than the longest answered goes in parts from now on, and what is queued is cut anew |
//! | refine | seven lengths between that one and the next longer | the longest answered |
//! | raise | all usual lengths beyond, ten minutes later | the longest answered |
//!
//! Lengths here are those of payloads: what is left of a packet without its headers.

use alloc::boxed::Box;
use alloc::vec::Vec;

use machnet_wire::{MTU_MIN, Nanos, OVERHEAD, Seq};

/// What is known of the path of what we send.
#[derive(Debug, Clone, Hash)]
pub(crate) struct PathMtu {
    /// Most payload of one packet.
    size: u16,
    /// The payload of the shortest packet that is counted in `lost`.
    lost_len: u16,
    /// Packets beyond the least length that were lost, while none as long as the shortest of them arrived.
    lost: u8,
    rare: Option<Box<Rare>>,
}

/// What the paths of few connections ever have.
#[derive(Debug, Clone, Hash)]
struct Rare {
    search: Option<Search>,
    /// When a round ends, or a search is to begin; `Nanos::MAX`: nothing is awaited.
    due: Nanos,
    /// A unit that goes in parts, some of which have gone, and where the next one begins.
    cut: Option<(Seq, u16)>,
}

#[derive(Debug, Clone, Hash)]
struct Search {
    phase: Phase,
    /// Probes of this round, shortest first: of several that arrive together the last one is echoed.
    sizes: Vec<u16>,
    /// Of those, sent.
    sent: usize,
    /// Rounds of this phase that are over.
    rounds: u8,
    /// All probes, by their transmissions.
    probes: Vec<(Seq, u16)>,
    /// The longest that was answered; 0: none.
    best: u16,
    /// What a router said goes through; 0: none did.
    hint: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Check,
    Find,
    Refine,
    Raise,
}

/// What follows from a round of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet: another round is to be sent.
    Probing,
    /// The path takes no more than this now, which is less than before.
    Narrower(u32),
    /// It takes this, which is more than before.
    Wider(u32),
    /// Nothing: the search is over, if there was one.
    Nothing,
}

impl PathMtu {
    pub fn new(size: u32) -> Self {
        PathMtu { size: size as u16, lost_len: 0, lost: 0, rare: None }
    }

    /// Most payload of one packet, bytes.
    #[inline]
    pub fn size(&self) -> u32 {
        self.size.into()
    }

    /// The path takes this.
    pub fn set_size(&mut self, size: u32) {
        self.size = size as u16;
        self.lost = 0;
    }

    /// When [`PathMtu::take_due`] has something to say; `Nanos::MAX`: never.
    #[inline]
    pub fn due_at(&self) -> Nanos {
        self.rare.as_ref().map_or(Nanos::MAX, |rare| rare.due)
    }

    /// Whether it is time to ask [`PathMtu::step`]; it is told once.
    #[inline]
    pub fn take_due(&mut self, now: Nanos) -> bool {
        let Some(rare) = self.rare.as_mut().filter(|rare| rare.due <= now) else { return false };
        rare.due = Nanos::MAX;
        true
    }

    /// Then it will be.
    pub fn set_due(&mut self, at: Nanos) {
        self.rare().due = at;
    }

    /// A unit that goes in parts, some of which have gone, and where the next one begins.
    #[inline]
    pub fn cut(&self) -> Option<(Seq, u16)> {
        self.rare.as_ref().and_then(|rare| rare.cut)
    }

    /// The next part of a unit begins there; `None`: there is none, or it is not to be sent any more.
    pub fn set_cut(&mut self, cut: Option<(Seq, u16)>) {
        if cut.is_some() || self.rare.is_some() {
            self.rare().cut = cut;
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(Rare { search: None, due: Nanos::MAX, cut: None }))
    }

    fn search(&self) -> Option<&Search> {
        self.rare.as_ref().and_then(|rare| rare.search.as_ref())
    }

    fn search_mut(&mut self) -> Option<&mut Search> {
        self.rare.as_mut().and_then(|rare| rare.search.as_mut())
    }

    fn end_search(&mut self) -> Option<Search> {
        self.rare.as_mut().and_then(|rare| rare.search.take())
    }

    /// A packet with so much payload was lost, or seems to be.
    #[inline]
    pub fn on_lost(&mut self, len: u16) {
        let len = self.one_packet(len);
        if u32::from(len) > LEAST {
            self.lost_len = if self.lost == 0 { len } else { self.lost_len.min(len) };
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// A unit of so many bytes arrived.
    #[inline]
    pub fn on_arrived(&mut self, len: u16) {
        if self.lost > 0 && self.one_packet(len) >= self.lost_len {
            self.lost = 0;
        }
    }

    /// The most payload that a packet of a unit of so many bytes has.
    #[inline]
    fn one_packet(&self, len: u16) -> u16 {
        len.min(self.size)
    }

    /// Whether to ask [`PathMtu::step`], though no round is under way.
    #[inline]
    pub fn is_in_doubt(&self) -> bool {
        self.lost >= LOST && self.size() > LEAST && !self.is_searching_less()
    }

    fn is_searching_less(&self) -> bool {
        self.search().is_some_and(|search| search.phase != Phase::Raise)
    }

    /// A router says that a packet was too long, and that payloads of `size` are not (0: it does not say). False: it says nothing new.
    pub fn on_too_long(&mut self, size: u32) -> bool {
        if size >= self.size()
            || size != 0 && size < LEAST
            || self.size() <= LEAST
            || self.is_searching_less()
        {
            return false;
        }
        self.begin_check(size as u16);
        true
    }

    /// Begins to look whether longer packets arrive by now; `most`: what both ends take.
    fn begin_raise(&mut self, most: u32) {
        let sizes = usual(self.size(), most);
        self.rare().search = Some(Search::new(Phase::Raise, sizes));
    }

    fn begin_check(&mut self, hint: u16) {
        let mut sizes = Vec::from([LEAST as u16]);
        if u32::from(hint) > LEAST {
            sizes.push(hint);
        }
        sizes.push(self.size);
        self.rare().search = Some(Search { hint, ..Search::new(Phase::Check, sizes) });
    }

    /// Whether a probe is to be sent now.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.search().is_some_and(|search| search.sent < search.sizes.len())
    }

    /// The payload of the next probe, which goes out as transmission `tx`.
    pub fn take_probe(&mut self, tx: Seq) -> u32 {
        let Some(search) = self.search_mut() else { return 0 };
        let size = search.sizes[search.sent];
        search.sent += 1;
        search.probes.push((tx, size));
        size.into()
    }

    /// How long to wait for answers of this round, where the peer's take `timeout`; `None`: it is not all sent, or there is none.
    pub fn wait(&self, timeout: Nanos) -> Option<Nanos> {
        let search = self.search().filter(|search| search.sent == search.sizes.len())?;
        Some(timeout * (1 << search.rounds.min(ROUNDS)))
    }

    /// Whether there are answers to look for.
    #[inline]
    pub fn is_searching(&self) -> bool {
        self.search().is_some()
    }

    /// Transmission `tx` has arrived. True: it was the longest probe of a round, and there is nothing to wait for.
    #[cold]
    pub fn on_echo(&mut self, tx: Seq) -> bool {
        let Some(search) = self.search_mut() else { return false };
        let Some(&(_, size)) = search.probes.iter().find(|(probe, _)| *probe == tx) else { return false };
        search.best = search.best.max(size);
        search.sent == search.sizes.len() && search.sizes.last() == Some(&size)
    }

    /// A round is over, or one should begin. `most`: what both ends take.
    pub fn step(&mut self, most: u32) -> Found {
        if self.is_in_doubt() {
            self.begin_check(0);
            return Found::Probing;
        }
        let full = self.size;
        let Some(search) = self.search_mut() else {
            if u32::from(full) >= most {
                return Found::Nothing;
            }
            self.begin_raise(most);
            return Found::Probing;
        };
        search.rounds += 1;
        let narrower = search.best > 0 && search.best < full && search.phase != Phase::Refine;
        match search.phase {
            Phase::Raise | Phase::Refine if search.best > full => {
                let size = search.best.into();
                self.end_search();
                Found::Wider(size)
            }
            Phase::Raise if search.rounds < TRIES => search.again(),
            Phase::Check if narrower && search.rounds >= TRIES_LESS => {
                // What a router said and a probe confirms needs no search.
                if search.best == search.hint {
                    return self.narrow(None);
                }
                let sizes = usual(search.best.into(), full.into());
                search.enter(Phase::Find, sizes)
            }
            Phase::Find if narrower && search.rounds >= TRIES_LESS => {
                let above = search.sizes.iter().copied().find(|size| *size > search.best);
                self.narrow(above)
            }
            Phase::Check | Phase::Find if search.best < full && search.rounds < ROUNDS => search.again(),
            Phase::Check | Phase::Find | Phase::Refine | Phase::Raise => {
                // The longest was answered after all, or nothing is: that is not for its length.
                self.end_search();
                self.lost = 0;
                Found::Nothing
            }
        }
    }

    /// The path takes the longest that was answered, and not the next longer one, which was tried, too, if there was any.
    fn narrow(&mut self, above: Option<u16>) -> Found {
        let Some(mut search) = self.end_search() else { return Found::Nothing };
        let (best, gap) = (search.best, above.map_or(0, |above| above - search.best));
        if gap / REFINED >= REFINED_LEAST {
            let sizes =
                (1..REFINED).map(|i| best + (u32::from(gap) * u32::from(i) / u32::from(REFINED)) as u16);
            search.enter(Phase::Refine, sizes.collect());
            self.rare().search = Some(search);
        }
        self.set_size(best.into());
        Found::Narrower(best.into())
    }
}

impl Search {
    fn new(phase: Phase, sizes: Vec<u16>) -> Self {
        Search { phase, sizes, sent: 0, rounds: 0, probes: Vec::new(), best: 0, hint: 0 }
    }

    fn enter(&mut self, phase: Phase, sizes: Vec<u16>) -> Found {
        (self.phase, self.sizes, self.sent, self.rounds) = (phase, sizes, 0, 0);
        Found::Probing
    }

    fn again(&mut self) -> Found {
        self.sent = 0;
        Found::Probing
    }
}

/// Usual lengths longer than `less` and shorter than `most`, and `most`.
fn usual(less: u32, most: u32) -> Vec<u16> {
    let sizes = USUAL.iter().map(|mtu| mtu - OVERHEAD as u16);
    let mut sizes: Vec<u16> = sizes.filter(|size| (less + 1..most).contains(&u32::from(*size))).collect();
    sizes.push(most as u16);
    sizes
}

/// The payload of a packet of the least MTU: what every path takes that is one.
const LEAST: u32 = MTU_MIN as u32 - OVERHEAD as u32;
/// MTUs that there are (RFC 1191 section 7.1, and what tunnels and clouds leave): PPPoE 1492, IP in IP 1480, GRE 1476, GCP 1460 and 8896, VXLAN 1450
/// and 8950, WireGuard 1420, IPv6's least 1280; and some between.
const USUAL: [u16; 24] = [
    768, 1006, 1200, 1280, 1340, 1360, 1380, 1400, 1420, 1440, 1450, 1460, 1476, 1480, 1492, 1500, 2002,
    3000, 4352, 6000, 8166, 8500, 8896, 8950,
];
/// Packets lost in a row that put a path in doubt.
const LOST: u8 = 3;
/// Rounds in which a length must go unanswered, while a shorter one is, before it counts as too long (RFC 8899 has MAX_PROBES 3; the three losses
/// before come on top).
const TRIES_LESS: u8 = 2;
/// Rounds in which longer ones are tried, later.
const TRIES: u8 = 3;
/// Rounds without any answer, or with too few, before a search is given up.
const ROUNDS: u8 = 6;
/// Steps into which a gap between two lengths is cut, and the least step that is worth a probe.
const REFINED: u16 = 8;
const REFINED_LEAST: u16 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u32 = 1424;

    /// A round, in which packets of `path` payload bytes at most are answered, but for those of `but`.
    fn round(mtu: &mut PathMtu, tx: &mut Seq, path: u32, but: Option<u32>) -> Found {
        while mtu.is_due() {
            let size = mtu.take_probe(*tx);
            if size <= path && but != Some(size) {
                mtu.on_echo(*tx);
            }
            *tx = *tx + 1;
        }
        mtu.step(FULL)
    }

    fn in_doubt() -> (PathMtu, Seq) {
        let mut mtu = PathMtu::new(FULL);
        for _ in 0..LOST {
            assert!(!mtu.is_in_doubt());
            mtu.on_lost(1424);
        }
        assert!(mtu.is_in_doubt());
        assert_eq!(mtu.step(FULL), Found::Probing);
        (mtu, Seq(u32::MAX - 3))
    }

    #[test]
    fn a_length_is_too_long_when_two_rounds_say_so_and_a_search_tells_what_is_not() {
        let (mut mtu, mut tx) = in_doubt();
        // One answer that was lost says nothing.
        assert_eq!(round(&mut mtu, &mut tx, FULL, Some(FULL)), Found::Probing);
        assert_eq!(round(&mut mtu, &mut tx, FULL, None), Found::Nothing);
        assert_eq!((mtu.size(), mtu.is_in_doubt()), (FULL, false));
        let (mut mtu, mut tx) = in_doubt();
        let path = 1330 - OVERHEAD as u32;
        for _ in 0..3 {
            assert_eq!(round(&mut mtu, &mut tx, path, None), Found::Probing);
        }
        assert_eq!(round(&mut mtu, &mut tx, path, None), Found::Narrower(1280 - OVERHEAD as u32));
        // Between that and the next usual length, 1340, seven are tried.
        assert_eq!(round(&mut mtu, &mut tx, path, None), Found::Wider(1325 - OVERHEAD as u32));
        assert!(!mtu.is_searching());
    }

    #[test]
    fn where_nothing_is_answered_the_length_is_not_to_blame() {
        let (mut mtu, mut tx) = in_doubt();
        for _ in 1..ROUNDS {
            assert_eq!(round(&mut mtu, &mut tx, 0, None), Found::Probing);
        }
        assert_eq!(round(&mut mtu, &mut tx, 0, None), Found::Nothing);
        assert_eq!(mtu.size(), FULL);
    }

    #[test]
    fn short_packets_and_what_arrives_meanwhile_put_no_path_in_doubt() {
        let mut mtu = PathMtu::new(FULL);
        for _ in 0..100 {
            mtu.on_lost(LEAST as u16);
            mtu.on_lost(1424);
            mtu.on_lost(1300);
            mtu.on_arrived(1299);
            assert!(!mtu.is_in_doubt());
            mtu.on_arrived(1300);
        }
        mtu.on_lost(1424);
        mtu.on_arrived(1000);
        mtu.on_lost(1424);
        mtu.on_lost(1424);
        assert!(mtu.is_in_doubt());
    }

    #[test]
    fn each_round_waits_twice_as_long_for_its_answers() {
        let (mut mtu, mut tx) = in_doubt();
        for n in 0..4 {
            assert_eq!(mtu.wait(Nanos::millis(1)), None, "it is not all sent");
            while mtu.is_due() {
                mtu.take_probe(tx);
                tx = tx + 1;
            }
            assert_eq!(mtu.wait(Nanos::millis(1)), Some(Nanos::millis(1 << n)));
            assert_eq!(mtu.step(FULL), Found::Probing);
        }
    }
}

//! How often a first contact finds a pair for both directions in its first batch, with whole engines whose NICs have secret keys, and
//! what it costs; and that nothing is searched any more once the pool knows.
//!
//! Every client meets every server once, in as many rounds as there are servers, so each contact is a first one for both. All NICs have
//! new keys in each round. What crosses the wire is counted there, not by the engines.

mod field;

use field::{Field, Kinds};
use machnet_rss::spray;
use machnet_sim::pattern;
use machnet_wire::{Kind, Nanos};

// By the client's queues, so that they run beside each other.

#[test]
fn first_contacts_from_one_queue_succeed_as_often_as_the_formula_says() {
    first_contacts(7000, 1, [1, 2, 4, 8]);
}

#[test]
fn first_contacts_from_two_queues_succeed_as_often_as_the_formula_says() {
    first_contacts(7010, 2, [1, 2, 4, 8]);
}

#[test]
fn first_contacts_from_four_queues_succeed_as_often_as_the_formula_says() {
    first_contacts(7020, 4, [1, 2, 4, 8]);
}

#[test]
fn first_contacts_from_eight_queues_succeed_as_often_as_the_formula_says() {
    first_contacts(7030, 8, [1, 2, 4, 8]);
}

#[test]
fn first_contacts_between_three_and_five_queues_succeed_as_often_as_the_formula_says() {
    first_contacts(7040, 3, [5]);
}

fn first_contacts<const N: usize>(seed: u64, m: u16, each: [u16; N]) {
    println!("m x n  contacts first batch  formula   SYN  SYN-ACK   PING  formula  PATHS");
    for (seed, n) in (seed..).zip(each) {
        let side = hosts_of_a_side();
        let mut field = Field::new(seed, side, m, n);
        let mut outcome = Outcome::default();
        for round in 0..side {
            meet(&mut field, round, &mut outcome);
        }
        outcome.check(m, n, seed);
    }
}

/// What became of all first contacts of one shape.
#[derive(Default)]
struct Outcome {
    contacts: u32,
    /// Neither end needed a timer.
    in_first_batch: u32,
    kinds: Kinds,
}

/// Each client's contact of one round, from the request until both ends are sure of a pair.
fn meet(field: &mut Field, round: usize, outcome: &mut Outcome) {
    field.rekey();
    field.tap(round);
    let retried = field.counts("searches_retried");
    let conns = field.connect_all(round, 8000);
    // As long as a search that finds nothing at once may take, and until nothing moves any more.
    field.w.pass(Nanos::millis(200));
    let again = field.counts("searches_retried");
    let side = field.side;
    for i in 0..side {
        let (client, server) = (i, side + field.server_of(i, round));
        let (a, b) = (again[client] - retried[client], again[server] - retried[server]);
        outcome.in_first_batch += u32::from(a + b == 0);
    }
    outcome.contacts += side as u32;
    outcome.kinds.add(&field.heard());
    // From now on each packet comes in on its engine's queue.
    let (misdirected, handed) = (field.sum("misdirected"), field.sum("handover_in"));
    for (i, &(near, far)) in conns.iter().enumerate() {
        let (client, server) = (field.clients[i], field.servers[field.server_of(i, round)]);
        field.w.apps[client].send(near, pattern(3000, 1));
        field.w.apps[server].send(far, pattern(3000, 2));
    }
    field.run("data both ways", |app, flow| !app.peek(flow).received.is_empty());
    assert_eq!(
        (field.sum("misdirected"), field.sum("handover_in")),
        (misdirected, handed),
        "seed {}, round {round}: data on a wrong queue after set-up",
        field.w.seed
    );
    field.end_all();
}

impl Outcome {
    fn check(&self, m: u16, n: u16, seed: u64) {
        let Outcome { contacts, in_first_batch, kinds } = self;
        let count = f64::from(*contacts);
        let each = |kind: Kind| kinds.of(kind) as f64 / count;
        // A client sprays as many SYNs as its own queues ask for, since each buys the SYN-ACK that searches for them. Where the server has
        // more queues, the rest of the client's batch goes as PINGs, as soon as all SYNs are reported to have missed.
        let sprayed = spray::batch(m);
        let near = Search { probes: sprayed, batch: sprayed.max(spray::batch(n)), queues: n };
        let far = Search { probes: sprayed, batch: sprayed, queues: m };
        let chance = spray::success(near.batch.into(), n, far.batch.into(), m);
        let share = f64::from(*in_first_batch) / count;
        let (mean, spread) = pings(near, far);
        println!(
            "{m} x {n}  {contacts:>8} {share:>11.4} {chance:>8.4} {:>5.1} {:>8.1} {:>6.2} {mean:>8.2} {:>6.2}",
            each(Kind::Syn),
            each(Kind::SynAck),
            each(Kind::Ping),
            each(Kind::Paths),
        );
        let shape = format!("seed {seed}, {m} x {n}, {contacts} contacts");
        // Five standard deviations: were the seeds not fixed, one run in a million would fail by chance. In full they are the promise itself.
        let full = *contacts >= 10_000;
        let sigma = (chance * (1.0 - chance) / count).sqrt();
        let (off, least) = if full { (0.01, 0.94) } else { (5.0 * sigma, 0.93) };
        assert!((share - chance).abs() <= off, "{shape}: {share}, the formula says {chance} +- {off}");
        assert!(share >= least, "{shape}: {share}");
        let copies = u64::from(*contacts) * u64::from(sprayed);
        assert_eq!((kinds.of(Kind::Syn), kinds.of(Kind::SynAck)), (copies, copies), "{shape}");
        let off = 5.0 * (spread / count).sqrt();
        assert!(
            (each(Kind::Ping) - mean).abs() <= off,
            "{shape}: {} PINGs, {mean} +- {off}",
            each(Kind::Ping)
        );
    }
}

/// One direction's search: the probes that are out with the handshake, those of the whole first batch, and the queues of the peer.
#[derive(Clone, Copy)]
struct Search {
    probes: u16,
    batch: u16,
    queues: u16,
}

/// PINGs of a set-up: their mean, and their variance.
fn pings(near: Search, far: Search) -> (f64, f64) {
    let one = |search: Search| {
        // What a search has sent when it ends, by the batch in which it hits.
        let (mut mean, mut square) = (0.0, 0.0);
        let (mut tried, mut sent, mut missed) = (0u32, 0u32, 1.0);
        let size = u32::from(search.batch);
        let rest = size - u32::from(search.probes);
        for more in [u32::from(search.probes), rest, 2 * size, 4 * size, 8 * size] {
            let more = more.min(spray::BATCH_MAX.into());
            sent += if tried == 0 { 0 } else { more };
            tried += more;
            let still = 1.0 - spray::success(tried, search.queues, 1, 1);
            let ends = missed - still;
            mean += ends * f64::from(sent);
            square += ends * f64::from(sent).powi(2);
            missed = still;
        }
        (mean, square - mean * mean)
    };
    let ((a, b), (c, d)) = (one(near), one(far));
    (a + c, b + d)
}

/// Hosts on each side, so that there are as many contacts as its square: about 2000, or 10 000 as `MACHNET_CONTACTS` asks.
fn hosts_of_a_side() -> usize {
    let contacts = std::env::var("MACHNET_CONTACTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000u32);
    (f64::from(contacts).sqrt().ceil() as usize).clamp(2, 120)
}

//! Random sequences of operations on a pair of flows, against an oracle that only knows what was sent.

mod common;

use common::{Choices, ops};

#[test]
fn random_operations_deliver_what_was_sent_and_give_everything_back() {
    // One seed: MACHNET_SEED=n. More of them: MACHNET_SEEDS=n.
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let run = |seed| ops::run(seed, Choices::seeded(seed), Choices::seeded(seed));
    if let Some(seed) = number("MACHNET_SEED") {
        run(seed);
        return;
    }
    for seed in 0..number("MACHNET_SEEDS").unwrap_or(10_000) {
        run(seed);
    }
}

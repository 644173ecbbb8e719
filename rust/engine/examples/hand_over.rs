//! What a hand-over between two cores costs beyond its instructions: packets of 112 bytes pass from one thread to another as engines pass them,
//! in a ring and with a ring of empty buffers back, and then the same by one thread alone. Each thread needs a core of its own. Prints the best of
//! many short rounds, because whatever else runs here only adds to it.
//!
//! Argument: rounds (100).

use std::sync::Barrier;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;

/// What engines have for each other: packets, and their buffers when they are done with.
struct Inbox {
    packets: ArrayQueue<Vec<u8>>,
    spare: ArrayQueue<Vec<u8>>,
}

impl Inbox {
    /// Hands over up to a burst; gives how many found room.
    fn hand_over(&self, most: usize) -> usize {
        let give = |_: &usize| {
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(&[7; PACKET]);
            self.packets.push(copy).is_ok()
        };
        (0..most.min(BURST)).take_while(give).count()
    }

    /// Takes up to a burst and reads it; gives how many there were.
    fn take(&self, sum: &mut u64) -> usize {
        let mut taken = 0;
        while taken < BURST
            && !self.packets.is_empty()
            && let Some(packet) = self.packets.pop()
        {
            taken += 1;
            *sum += packet.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            let _ = self.spare.push(packet);
        }
        taken
    }
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let inbox = Inbox { packets: ArrayQueue::new(1024), spare: ArrayQueue::new(1024) };
    let both = Barrier::new(2);
    let mut sum = 0;
    let (mut apart, mut alone) = (u128::MAX, u128::MAX);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sum = 0;
            for _ in 0..rounds {
                both.wait();
                let mut taken = 0;
                while taken < PACKETS {
                    taken += inbox.take(&mut sum);
                }
                both.wait();
            }
            std::hint::black_box(sum);
        });
        for _ in 0..rounds {
            both.wait();
            let (begun, mut given) = (Instant::now(), 0);
            while given < PACKETS {
                given += inbox.hand_over(PACKETS - given);
            }
            both.wait();
            apart = apart.min(begun.elapsed().as_nanos());
            // The other thread waits, and needs no core.
            let (begun, mut given) = (Instant::now(), 0);
            while given < PACKETS {
                given += inbox.hand_over(PACKETS - given);
                inbox.take(&mut sum);
            }
            alone = alone.min(begun.elapsed().as_nanos());
        }
    });
    std::hint::black_box(sum);
    let each = |time: u128| time as f64 / PACKETS as f64;
    println!(
        "two cores: {:.0} ns a packet, both at work at once; one core: {:.0} ns",
        each(apart),
        each(alone)
    );
}

const PACKET: usize = 112;
const BURST: usize = 16;
const PACKETS: usize = 10_000;

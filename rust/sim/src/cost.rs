//! What a round of an engine costs in virtual time.

use machnet_engine::Counters;
use machnet_wire::Nanos;

/// What the rounds of all engines of a world cost.
#[derive(Clone, Copy, Debug)]
pub enum Cost {
    /// Time of a round, and of each thing done in it. The round is done at once and its time spent after it.
    Round { round: Nanos, item: Nanos },
    /// Time of each part of a round. What came is worked through first, and what is sent leaves when that time is over.
    Parts(Parts),
}

impl Cost {
    /// As a busy cloud core is: docs/performance.md has 93 to 190 ns a pass.
    pub const REAL: Cost = Cost::Round { round: Nanos(200), item: Nanos(150) };

    /// A round in which nothing is done.
    pub fn round(&self) -> Nanos {
        match self {
            Cost::Round { round, .. } => *round,
            Cost::Parts(parts) => parts.round,
        }
    }
}

/// The parts of a round: a core's time for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Both halves of a round in which there is nothing to do.
    pub round: Nanos,
    /// A frame taken from the NIC and worked through by its connection.
    pub frame_in: Nanos,
    /// A frame built and given to the NIC.
    pub frame_out: Nanos,
    /// A unit given to an application.
    pub unit_in: Nanos,
    /// A unit taken from an application.
    pub unit_out: Nanos,
    /// A frame taken from the NIC and handed to another engine, instead of `frame_in`.
    pub hand_out: Nanos,
    /// A packet that another engine handed over, worked through.
    pub hand_in: Nanos,
}

impl Parts {
    /// As `make bench-parts` counted them, at the pace of one machine; docs/performance.md, "Figures in virtual time", has the whole.
    pub const MEASURED: Parts = Parts {
        round: instructions(431),
        frame_in: instructions(451),
        frame_out: instructions(802),
        unit_in: instructions(580),
        unit_out: instructions(641),
        hand_out: Nanos(instructions(448).0 + CACHE_LINES.0),
        hand_in: Nanos(instructions(732).0 + CACHE_LINES.0),
    };

    /// With af_packet on a veth pair, where what is sent is carried to the other end's ring by the sender's own core.
    pub const VETH: Parts = Parts {
        round: Nanos(1000),
        frame_in: Nanos(500),
        frame_out: Nanos(3500),
        unit_in: Nanos(200),
        unit_out: Nanos(200),
        ..Parts::MEASURED
    };

    /// What this much work costs, the round itself not included.
    pub fn of(&self, work: Work) -> Nanos {
        // A frame that is handed over is not worked through here.
        let own = work.frames_in.saturating_sub(work.handed_out);
        self.frame_in * own
            + self.frame_out * work.frames_out
            + self.unit_in * work.units_in
            + self.unit_out * work.units_out
            + self.hand_out * work.handed_out
            + self.hand_in * work.handed_in
    }
}

const fn instructions(count: u64) -> Nanos {
    Nanos(count / PACE)
}

/// Instructions in a nanosecond: `echo_instr` takes 5227 for an echo with 32 in flight, and 400 ns.
const PACE: u64 = 13;
/// What either core waits for when a packet goes from one to the other (`rust/engine/examples/hand_over.rs`: 130 ns a packet at the slower of
/// two cores, 31 ns where one does the work of both).
const CACHE_LINES: Nanos = Nanos(115);

/// What an engine has done so far, as its counters say.
#[derive(Clone, Copy, Default, Debug)]
pub struct Work {
    pub frames_in: u64,
    pub frames_out: u64,
    pub units_in: u64,
    pub units_out: u64,
    pub handed_out: u64,
    pub handed_in: u64,
}

impl Work {
    pub fn so_far(counters: &Counters) -> Work {
        Work {
            frames_in: counters.rx_frames.get(),
            frames_out: counters.tx_frames.get(),
            units_in: counters.rx_units.get(),
            units_out: counters.tx_units.get(),
            handed_out: counters.handover_out.get(),
            handed_in: counters.handover_in.get(),
        }
    }

    /// What was done since then.
    pub fn since(&self, before: Work) -> Work {
        Work {
            frames_in: self.frames_in - before.frames_in,
            frames_out: self.frames_out - before.frames_out,
            units_in: self.units_in - before.units_in,
            units_out: self.units_out - before.units_out,
            handed_out: self.handed_out - before.handed_out,
            handed_in: self.handed_in - before.handed_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_worked_through_by_the_engine_that_it_is_for() {
        let parts = Parts::MEASURED;
        let came = Work { frames_in: 3, units_in: 2, ..Work::default() };
        assert_eq!(parts.of(came), parts.frame_in * 3 + parts.unit_in * 2);
        let front = Work { handed_out: 3, units_in: 0, ..came };
        assert_eq!(parts.of(front), parts.hand_out * 3);
        let back = Work { frames_in: 0, handed_in: 3, ..came };
        assert_eq!(parts.of(back), parts.hand_in * 3 + parts.unit_in * 2);
        assert!(parts.of(front) + parts.of(back) > parts.of(came), "to hand over is dearer than not to");
        assert_eq!(parts.of(front.since(front)), Nanos::ZERO);
    }
}

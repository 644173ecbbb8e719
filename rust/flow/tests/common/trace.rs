//! What is printed of a run that fails.

use machnet_wire::{Header, Nanos};

/// What is remembered of a packet, to be printed when the run fails.
#[derive(Clone, Copy)]
pub struct Line {
    pub at: Nanos,
    pub from: usize,
    pub header: Header,
    pub sack_words: usize,
    pub payload: usize,
    pub lost: bool,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let h = &self.header;
        write!(
            f,
            "{:>10} {} {:?} {:?} unit {} tx {} ack {}+{} credit {} len {}{}",
            self.at.0,
            ["A>", "B>"][self.from],
            h.kind,
            h.flags,
            h.unit.0,
            h.tx.0,
            h.ack.0,
            self.sack_words,
            h.credit,
            self.payload,
            if self.lost { " LOST" } else { "" }
        )
    }
}

//! What must always hold, by name.

/// A rule that every reachable state keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// At most one Established; exactly one Closed, and nothing after it.
    ToldOnce,
    /// What is delivered was sent by the very connection that the receiver believes in, in order and once.
    OwnData,
    /// Clean is told only if both directions ended and everything arrived.
    CleanIsTrue,
    /// Tokens and reserved units are all back when the end is told, and add up before.
    Books,
    /// Whoever was told that he is connected has a place in the backlog, or was taken from it.
    Served,
    /// Whoever was accepted has been told that he is connected.
    NoGhost,
    /// A place in a backlog is that of a connection: one that is not established yet, or one that waits to be taken.
    Places,
    /// To a peer that has not shown that it knows our tag go answers to its SYNs, and nothing else.
    Unproven,
    /// One PATHS at most for what asks for it, and none for PATHS.
    OnePaths,
    /// A connection that is not established has nothing reserved.
    HalfOpenIsFree,
    /// At most one SYN-ACK for each SYN, and no more bytes than came.
    OneSynAck,
    /// No RST is the answer to an RST.
    NoRstForRst,
    /// A packet that does not prove what its sender knows leaves a connection as it was.
    Blind,
    /// Who is believed to be the peer has at some time known this connection.
    KnownPeer,
    /// A connection ends by its peer's word only if the peer's end of it is over, and by ours only if we ended it.
    ClosedForCause,
    /// Who hears that the peer's application is gone has had all that it had sent.
    Behind,
    /// Two ends that keep the protocol never find that the other breaks it.
    Honest,
    /// Nothing panics, debug assertions and overflow checks included.
    NoPanic,
    /// Without further faults both ends come to the same verdict: established, and then closed clean, or both closed.
    Terminates,
}

impl Rule {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Rule::ToldOnce => "told once",
            Rule::OwnData => "own data, once, in order",
            Rule::CleanIsTrue => "clean is true",
            Rule::Books => "books balance",
            Rule::Served => "who is connected is served",
            Rule::NoGhost => "who is accepted was connected",
            Rule::Places => "a place is a connection's",
            Rule::Unproven => "the unproven get SYN-ACKs only",
            Rule::OnePaths => "one PATHS for a question",
            Rule::HalfOpenIsFree => "half-open reserves nothing",
            Rule::OneSynAck => "one SYN-ACK for a SYN",
            Rule::NoRstForRst => "no RST for an RST",
            Rule::Blind => "blind packets change nothing",
            Rule::KnownPeer => "the peer knows us",
            Rule::ClosedForCause => "closed for cause",
            Rule::Behind => "the reset comes behind",
            Rule::Honest => "honest ends agree",
            Rule::NoPanic => "no panic",
            Rule::Terminates => "comes to an end",
        }
    }
}

/// A rule that was broken, and how.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    pub rule: Rule,
    pub what: String,
}

impl Fault {
    pub fn new(rule: Rule, what: impl Into<String>) -> Fault {
        Fault { rule, what: what.into() }
    }
}

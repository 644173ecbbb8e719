//! What a scenario must reach somewhere. A rule that holds because nothing ever happens proves nothing.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Both ends are established with each other.
    Established,
    /// They are, in a later connection than their first.
    Again,
    /// They are, and the listener's application has the connection, though a SYN of the caller's had found the backlog full.
    Waited,
    /// They are, by a listener that took over when another one of its port closed, which had answered the caller's SYN.
    TookOver,
    /// They are, by a cookie.
    Proven,
    /// A cookie came back to a sidecar that had started anew, and its caller calls again.
    Forgotten,
    /// Both are established, and each was told where a packet of its own led.
    Reported,
    /// Every message was delivered that was sent, and some was.
    Delivered,
    /// Both ends were told Clean.
    Clean,
    /// A call was refused.
    Refused,
    /// An application's reset reached the peer.
    Reset,
    /// An application left, and its peer had all that it had sent, and then heard of it.
    Left,
    /// An end was reset for sending to one that reads no more, or for not finishing.
    Cut,
    /// A call, or a connection, was given up for silence.
    TimedOut,
}

impl Goal {
    pub fn name(self) -> &'static str {
        match self {
            Goal::Established => "established",
            Goal::Again => "established again",
            Goal::Waited => "served after a full backlog",
            Goal::TookOver => "served by another listener",
            Goal::Proven => "established by a cookie",
            Goal::Forgotten => "a cookie forgotten",
            Goal::Reported => "told where a pair leads",
            Goal::Delivered => "everything delivered",
            Goal::Clean => "closed clean",
            Goal::Refused => "refused",
            Goal::Reset => "reset by the peer",
            Goal::Left => "told behind the data",
            Goal::Cut => "cut off",
            Goal::TimedOut => "timed out",
        }
    }
}

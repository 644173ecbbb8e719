//! What a scenario must reach somewhere. A rule that holds because nothing ever happens proves nothing.

use machnet_flow::Closed;
use machnet_wire::Reason;

use crate::channel::Record;
use crate::world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Both ends are established with each other.
    Established,
    /// They are, in a later connection than their first.
    Again,
    /// They are, and the listener's application has the connection, though a SYN of the caller's had found the backlog full.
    Waited,
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
            Goal::Delivered => "everything delivered",
            Goal::Clean => "closed clean",
            Goal::Refused => "refused",
            Goal::Reset => "reset by the peer",
            Goal::Left => "told behind the data",
            Goal::Cut => "cut off",
            Goal::TimedOut => "timed out",
        }
    }

    /// Whether this is a state as wished for.
    pub fn is_met(self, world: &World) -> bool {
        let records = || [0, 1].map(|i| &world.end(i).channel.record);
        let any = |f: fn(&Record) -> bool| records().into_iter().any(f);
        match self {
            Goal::Established => established(world),
            Goal::Again => established(world) && world.ends.iter().any(|end| end.end.records().count() > 1),
            Goal::Waited => {
                let [a, b] = [0, 1].map(|i| world.end(i));
                let served = b.channel.record.taken && b.turned_away.contains(&a.channel.record.tag);
                established(world) && served
            }
            Goal::Delivered => {
                let [a, b] = records();
                let of = |x: &Record, y: &Record| x.peer() == y.tag && x.delivered == y.sent;
                of(a, b) && of(b, a) && a.sent + b.sent > 0
            }
            Goal::Clean => records().into_iter().all(|record| record.closed == Some(Closed::Clean)),
            Goal::Refused => any(|record| record.closed == Some(Closed::ByPeer(Reason::Refused))),
            Goal::Reset => any(|record| record.closed == Some(Closed::ByPeer(Reason::Aborted))),
            Goal::Left => {
                any(|record| record.delivered > 0 && record.closed == Some(Closed::ByPeer(Reason::AppGone)))
            }
            Goal::Cut => any(|record| record.closed == Some(Closed::ByUs(Reason::Closed))),
            Goal::TimedOut => any(|record| record.dialled && record.closed == Some(Closed::Timeout)),
        }
    }
}

fn established(world: &World) -> bool {
    let [a, b] = [0, 1].map(|i| world.end(i));
    a.is_established() && b.is_established() && a.channel.record.peer() == b.channel.record.tag
}

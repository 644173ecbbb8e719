//! Which states a goal wishes for.

use machnet_flow::Closed;
use machnet_wire::Reason;

use crate::channel::Record;
use crate::end::End;
use crate::goal::Goal;
use crate::world::World;

/// Whether this state is as the goal wishes.
pub fn is_met(goal: Goal, world: &World) -> bool {
    let records = || [0, 1].map(|i| &world.end(i).channel.record);
    let any = |f: fn(&Record) -> bool| records().into_iter().any(f);
    match goal {
        Goal::Established => established(world),
        Goal::Again => established(world) && world.ends.iter().any(|end| end.end.records().count() > 1),
        Goal::Waited => {
            let [a, b] = [0, 1].map(|i| world.end(i));
            let served = b.channel.record.taken && b.turned_away.contains(&a.channel.record.tag);
            established(world) && served
        }
        Goal::TookOver => {
            let [a, b] = [0, 1].map(|i| world.end(i));
            established(world) && b.left_to_others.contains(&a.channel.record.tag)
        }
        Goal::Proven => {
            let [a, b] = [0, 1].map(|i| world.end(i));
            let proven = |x: &End, y: &End| x.proven.contains(&y.channel.record.tag);
            established(world) && (proven(a, b) || proven(b, a))
        }
        Goal::Forgotten => {
            let [a, b] = [0, 1].map(|i| world.end(i));
            b.forgotten.contains(&a.channel.record.tag)
                && !established(world)
                && a.lives(a.channel.record.tag)
        }
        Goal::Reported => established(world) && records().into_iter().all(|record| record.reported),
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

fn established(world: &World) -> bool {
    let [a, b] = [0, 1].map(|i| world.end(i));
    a.is_established() && b.is_established() && a.channel.record.peer() == b.channel.record.tag
}

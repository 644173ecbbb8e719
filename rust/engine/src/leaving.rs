//! How applications leave, and how the sidecar ends: what was submitted is delivered first, within the linger.

use machnet_wire::{self as wire, Nanos};

use crate::channel::End;
use crate::ids::{ChannelIndex, ConnIndex};
use crate::state::Core;
use crate::view::Outgoing;

impl Core {
    /// The application is gone, or is to be. What it submitted before is still read, and delivered within the linger.
    pub fn detach(&mut self, at: ChannelIndex, why: End) {
        let Some(channel) = self.channels.get(at) else { return };
        if channel.draining {
            return;
        }
        self.drain(at, why);
    }

    /// Serves a channel no more. Its flows deliver what was submitted, and the channel stays until they are over or the linger
    /// has passed.
    fn drain(&mut self, at: ChannelIndex, why: End) {
        let Some(channel) = self.channels.get(at) else { return };
        // Whoever still maps the memory can write on: what an honest ring holds is enough.
        let most = channel.end.geometry().ring_slots() as usize;
        if let Err(fault) = self.take_submissions(at, most) {
            return self.cut(at, End::Fault(fault));
        }
        match why {
            End::Left => self.counters().channels_gone.add(1),
            End::Drained => self.counters().channels_drained.add(1),
            End::Shutdown | End::Fault(_) => {}
        }
        let until = self.clock.now.saturating_add(self.shared().config.linger);
        let Some(flows) = self.retire(at, until, why) else { return };
        for index in flows {
            self.forsake(index);
        }
        self.ending.linger_until = self.ending.linger_until.min(until);
        self.drop_if_idle(at);
        self.end_lingers();
    }

    /// Ends a channel at once: its connections are reset, whatever is under way.
    #[cold]
    pub fn cut(&mut self, at: ChannelIndex, why: End) {
        if let End::Fault(fault) = why {
            self.counters().channels_faulty.add(1);
            log::warn!(
                "channel {}: {fault}; detached",
                self.channels.get(at).map_or(0, |channel| channel.number.0)
            );
        }
        let Some(flows) = self.retire(at, self.clock.now, why) else { return };
        for index in flows {
            self.with(index, |flow, io| flow.reset(wire::Reason::AppGone, io));
        }
        self.drop_if_idle(at);
    }

    /// Nobody is served on a channel any more, nor waits there for anything. Gives its flows.
    fn retire(&mut self, at: ChannelIndex, until: Nanos, why: End) -> Option<Vec<ConnIndex>> {
        let channel = self.channels.get_mut(at)?;
        channel.draining = true;
        channel.why = why;
        channel.linger_until = until;
        channel.listeners.clear();
        let (number, mut conns) = (channel.number, channel.conns().collect::<Vec<_>>());
        self.shared().ports.forget(number);
        conns.retain(|&index| !self.leave_to_others(index));
        for &index in &conns {
            if let Some(conn) = self.conns.get_mut(index) {
                self.admission.leave(&mut conn.claim);
            }
        }
        Some(conns)
    }

    /// Nobody holds a connection any more: what was submitted whole goes out, and behind it a FIN if the application had finished,
    /// else a reset. A sidecar that ends waits for no peer's FIN: it resets behind its own.
    fn forsake(&mut self, index: ConnIndex) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        conn.who.released = true;
        let ends = self.ending.shutdown;
        self.with(index, |flow, io| {
            if flow.message_open() {
                // Without room for the ABORT the reset says the same.
                let _ = flow.abort(Outgoing::End, io);
            }
            let finished = flow.is_finished();
            flow.stop_reading(io.now(), io);
            if ends || !finished {
                flow.reset_behind(io.now(), wire::Reason::AppGone, io);
            }
        });
    }

    /// Resets what is left of channels whose linger has passed.
    #[cold]
    pub fn end_lingers(&mut self) {
        let now = self.clock.now;
        if now < self.ending.linger_until {
            return;
        }
        self.ending.linger_until = Nanos::MAX;
        for at in self.channels.indices() {
            let Some(channel) = self.channels.get(at).filter(|channel| channel.draining) else { continue };
            if now < channel.linger_until {
                self.ending.linger_until = self.ending.linger_until.min(channel.linger_until);
                continue;
            }
            self.counters().linger_resets.add(channel.live().into());
            for index in channel.conns().collect::<Vec<_>>() {
                self.with(index, |flow, io| flow.reset(wire::Reason::AppGone, io));
            }
        }
    }

    /// Drops a channel that nobody is served on and whose last flow is over, and reports that.
    pub fn drop_if_idle(&mut self, at: ChannelIndex) {
        if let Some(channel) = self.channels.take_if_over(at) {
            let why = channel.why;
            self.own.report_over(channel, why);
        }
    }

    /// The sidecar ends: what its applications submitted is delivered within the linger, and everything ends.
    pub fn begin_shutdown(&mut self) {
        self.ending.shutdown = true;
        for at in self.channels.indices() {
            if self.channels.get(at).is_some_and(|channel| !channel.draining) {
                self.drain(at, End::Shutdown);
            }
        }
        // Those of channels that were draining already, too, and those that only linger.
        for index in self.conns.indices() {
            self.forsake(index);
        }
    }
}

//! How applications leave, and how the sidecar ends: what was submitted is delivered first, within the linger.

use machnet_wire::{self as wire, Nanos};

use crate::channels::NONE;
use crate::conn::Token;
use crate::shared::End;
use crate::state::Core;

impl Core {
    /// The application is gone, or is to be. What it submitted before is still read, and delivered within the linger.
    pub fn detach(&mut self, at: usize, why: End) {
        let Some(Some(channel)) = self.channels.get(at) else { return };
        if channel.gone {
            return;
        }
        if why == End::Left {
            self.counters().channels_gone.add(1);
        }
        self.drain(at, why);
    }

    /// Serves a channel no more. Its flows deliver what was submitted, and the channel stays until they are over or the linger
    /// has passed.
    fn drain(&mut self, at: usize, why: End) {
        let Some(Some(channel)) = self.channels.get(at) else { return };
        // Whoever still maps the memory can write on: what an honest ring holds is enough.
        let most = channel.end.geometry().ring_slots() as usize;
        if let Err(fault) = self.take_submissions(at, most) {
            return self.cut(at, End::Fault(fault));
        }
        let until = self.now.saturating_add(self.shared.config.linger);
        let Some(flows) = self.retire(at, until, why) else { return };
        for index in flows {
            self.forsake(index);
        }
        self.linger_until = self.linger_until.min(until);
        self.drop_if_idle(at);
        self.end_lingers();
    }

    /// Ends a channel at once: its connections are reset, whatever is under way.
    #[cold]
    pub fn cut(&mut self, at: usize, why: End) {
        if let End::Fault(fault) = why {
            self.counters().channels_faulty.add(1);
            log::warn!("channel {}: {fault}; detached", self.channel_number(at));
        }
        let Some(flows) = self.retire(at, self.now, why) else { return };
        for index in flows {
            self.drive(index, |flow, _, view| flow.reset(wire::Reason::AppGone, view));
        }
        self.drop_if_idle(at);
    }

    /// Nobody is served on a channel any more, nor waits there for anything. Gives its flows.
    fn retire(&mut self, at: usize, until: Nanos, why: End) -> Option<Vec<u32>> {
        let channel = self.channels.get_mut(at)?.as_mut()?;
        channel.gone = true;
        channel.why = why;
        channel.until = until;
        channel.listeners.clear();
        channel.starved.clear();
        channel.hungry = 0;
        self.shared.ports.forget(channel.number);
        Some(channel.places.iter().copied().filter(|&index| index != NONE).collect())
    }

    /// Nobody holds a connection any more: what was submitted whole goes out, and behind it a FIN if the application had finished,
    /// else a reset. A sidecar that ends waits for no peer's FIN: it resets behind its own.
    fn forsake(&mut self, index: u32) {
        let Some(conn) = self.flows.get_mut(index) else { return };
        conn.closed = true;
        let ends = self.shutdown;
        self.drive(index, |flow, now, view| {
            if flow.message_open() {
                // Without room for the ABORT the reset says the same.
                let _ = flow.abort(Token::Own, view);
            }
            let finished = flow.is_finished();
            flow.stop_reading(now, view);
            if ends || !finished {
                flow.reset_behind(now, wire::Reason::AppGone, view);
            }
        });
    }

    /// Resets what is left of channels whose linger has passed.
    #[cold]
    pub fn end_lingers(&mut self) {
        if self.now < self.linger_until {
            return;
        }
        self.linger_until = Nanos::MAX;
        for at in 0..self.channels.len() {
            let Some(Some(channel)) = self.channels.get(at) else { continue };
            if !channel.gone {
                continue;
            }
            if self.now < channel.until {
                self.linger_until = self.linger_until.min(channel.until);
                continue;
            }
            let flows = channel.places.clone();
            self.counters().linger_resets.add(channel.live.into());
            for index in flows {
                self.drive(index, |flow, _, view| flow.reset(wire::Reason::AppGone, view));
            }
        }
    }

    /// Drops a channel that nobody is served on and whose last flow is over, and reports that.
    pub fn drop_if_idle(&mut self, at: usize) {
        let Some(slot) = self.channels.get_mut(at) else { return };
        let Some(channel) = slot.take_if(|channel| channel.gone && channel.live == 0) else { return };
        self.numbers.remove(&channel.number);
        self.attention.forget(at as u32, &channel.ear);
        self.shared.inboxes[usize::from(self.index)].doorbells.remove(&channel.end);
        let why = channel.why;
        self.shared.report_over(self.index, channel, why);
    }

    /// The sidecar ends: what its applications submitted is delivered within the linger, and everything ends.
    pub fn begin_shutdown(&mut self) {
        self.shutdown = true;
        for at in 0..self.channels.len() {
            if self.channels[at].as_ref().is_some_and(|channel| !channel.gone) {
                self.drain(at, End::Shutdown);
            }
        }
        // Those of channels that were draining already, too, and those that only linger.
        for index in self.flows.indices() {
            self.forsake(index);
        }
    }

    fn channel_number(&self, at: usize) -> u64 {
        self.channels.get(at).and_then(Option::as_ref).map_or(0, |channel| channel.number)
    }
}

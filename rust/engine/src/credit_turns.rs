//! Connections whose peers may not send: when they begin to wait, and their turns when what they wait for has come free.
//! Who waits for what, and whose turn it is, is [`crate::admission`]'s.

use machnet_flow::CreditWait;

use crate::admission::{TURNS, Waiting};
use crate::ids::{ChannelIndex, ConnHandle, ConnIndex};
use crate::state::Core;

impl Core {
    /// When units of a channel have become free, connections whose peers wait for some have their turns, a few at a time.
    #[inline]
    pub fn serve_unit_waiters(&mut self, at: ChannelIndex) {
        if self.admission.awaits_units(at) {
            self.take_unit_turns(at);
        }
    }

    #[cold]
    fn take_unit_turns(&mut self, at: ChannelIndex) {
        let free = |core: &Self| core.channels.get(at).map(|channel| channel.end.free_units());
        if !free(self).is_some_and(|free| self.admission.begin_unit_turns(at, free)) {
            return;
        }
        for _ in 0..TURNS {
            let Some(handle) = self.admission.next_for_units(at) else { break };
            self.take_turn(handle);
        }
        if let Some(free) = free(self) {
            self.admission.end_unit_turns(at, free);
        }
    }

    /// When there is room in a receive ring again, connections whose peers wait for it have their turns.
    #[inline]
    pub fn serve_ring_waiters(&mut self) {
        if self.admission.rings_due() {
            self.take_ring_turns();
        }
    }

    #[cold]
    fn take_ring_turns(&mut self) {
        for _ in 0..TURNS {
            let Some(handle) = self.admission.next_for_ring() else { break };
            self.take_turn(handle);
        }
    }

    /// Lets a flow have what it waits for, as far as there is any.
    fn take_turn(&mut self, handle: ConnHandle) {
        if self.conns.resolve(handle).is_none() {
            return;
        }
        self.with(handle.index, |flow, io| {
            io.admission.begin_turn(io.claim);
            flow.credit_returned(io.now(), 0, io);
            io.admission.end_turn(io.claim);
        });
    }

    /// A connection's peer waits: the flow is called when that changes.
    #[cold]
    pub fn wait_for_credit(&mut self, index: ConnIndex, wait: CreditWait) {
        let Some((handle, conn)) = self.conns.entry(index) else { return };
        let Some((at, _)) = conn.bound.place() else { return };
        let Some(channel) = self.channels.get(at) else { return };
        let free = channel.end.free_units();
        if self.admission.wait(&mut conn.claim, handle, wait, free) == Some(Waiting::ReceiveRing) {
            self.counters().budget_waits.add(1);
        }
    }
}

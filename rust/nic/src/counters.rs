//! What NICs count. Each counter is declared once, with its meaning; a back end fills in the values, and `None` where it cannot
//! count something, which is not the same as having counted none.

machnet_wire::samples! {
    /// Counters of one queue since it was opened.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct QueueCounters: u64 {
        /// frames taken from the receive ring
        rx_frames: Counter, Count;
        /// bytes of the frames taken from the receive ring
        rx_bytes: Counter, Bytes;
        /// frames that the device took to send
        tx_frames: Counter, Count;
        /// bytes of the frames that the device took to send
        tx_bytes: Counter, Bytes;
        /// times no transmit descriptor or buffer was free; nothing is lost by it, the engine comes back
        tx_full: Counter, Count;
        /// received frames dropped because they came in pieces that do not fit one buffer
        in_pieces: Counter, Count;
        /// frames lost because this queue's receive ring was full
        rx_missed: Counter, Count, Option<u64>;
        /// frames dropped instead of sent because a memif had no peer, or the device was being started again or was gone
        link_down: Counter, Count, Option<u64>;
        /// frames dropped instead of sent because the queue of the peer that they were for was full
        peer_full: Counter, Count, Option<u64>;
    }
}

machnet_wire::samples! {
    /// Counters of a port, all queues together, as its driver or the kernel counts them.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct PortCounters: Option<u64> {
        /// frames received
        rx_frames: Counter, Count;
        /// frames sent
        tx_frames: Counter, Count;
        /// bytes received
        rx_bytes: Counter, Bytes;
        /// bytes sent
        tx_bytes: Counter, Bytes;
        /// frames lost because no receive descriptor was free
        rx_missed: Counter, Count;
        /// frames refused on arrival: damaged, too long, or for another address
        rx_errors: Counter, Count;
        /// frames that could not be sent
        tx_errors: Counter, Count;
        /// times no packet buffer was free for a frame that arrived
        rx_no_buffer: Counter, Count;
        /// times the link came up
        link_ups: Counter, Count;
        /// times the link was lost
        link_downs: Counter, Count;
        /// peers turned away, because they asked for another interface or because another peer had the link
        link_refused: Counter, Count;
        /// times the device was started again because it asked for that or had failed
        resets: Counter, Count;
        /// times the device was taken away
        removals: Counter, Count;
        /// times a device that was taken away was found again, and started
        returns: Counter, Count;
    }
}

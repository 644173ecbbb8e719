//! Where in its life a flow is, and the RST that ends it.

use machnet_wire::Reason;

/// State of the connection, as RFC 9293 means the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Our SYN is out.
    SynSent,
    /// Theirs came; they have not shown that they know our tag.
    SynReceived,
    Open,
    /// Closed both ways. There is no TIME-WAIT (RFC 9293 section 3.6): tags keep old packets out of a new connection
    /// with the same ports, which may begin at once. What lingers only spares a peer that lost our last
    /// acknowledgement from taking "no such connection" for an answer to its FIN.
    Linger,
    Dead,
}

/// The state, and what is still to be said when it ends.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Life {
    state: State,
    /// An RST to send, for this reason.
    reset_due: Option<Reason>,
    /// Why the flow ends once everything queued is acknowledged.
    reset_behind: Option<Reason>,
}

impl Life {
    pub fn new(state: State) -> Self {
        Life { state, reset_due: None, reset_behind: None }
    }

    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    #[inline]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub fn enter(&mut self, state: State) {
        self.state = state;
    }

    /// Dead, and the peer has been told as far as it is to be.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Dead && self.reset_due.is_none()
    }

    /// An RST is to be sent.
    pub fn owe_reset(&mut self, reason: Reason) {
        self.reset_due = Some(reason);
    }

    /// Why an RST is to be sent, if one is. It goes out now.
    pub fn take_reset(&mut self) -> Option<Reason> {
        self.reset_due.take()
    }

    /// The flow ends for this reason once everything queued is acknowledged.
    pub fn reset_behind(&mut self, reason: Reason) {
        self.reset_behind = Some(reason);
    }

    /// Why the flow ends once everything queued is acknowledged, if it does.
    pub fn ends_behind(&self) -> Option<Reason> {
        self.reset_behind
    }
}

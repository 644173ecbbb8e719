//! A memif link as its driver leaves it: seen to come and go by asking, and connected again by us, which the driver never does.
//!
//! Runs in the parked interrupt thread only, while no burst touches the port: see the [gate](super::gate).

use super::line::Line;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The link of a port whose driver works in the interrupt thread.
pub(super) struct WatchedLink {
    /// The port.
    pub port: u16,
    pub line: Arc<Line>,
    state: State,
    /// The driver leaves connecting again to us.
    reconnect: bool,
    /// The last attempt came to nothing, and the log says so.
    stuck: bool,
    name: String,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Up,
    /// Server: waiting for a peer. Client: next attempt at this time.
    Down(Instant),
    /// The client's attempt is under way since then.
    Trying(Instant),
}

impl WatchedLink {
    /// A link that is down; with `reconnect` the first attempt to connect is due at once.
    pub(super) fn new(port: u16, line: Arc<Line>, reconnect: bool, name: String) -> WatchedLink {
        WatchedLink { port, line, state: State::Down(Instant::now()), reconnect, stuck: false, name }
    }

    /// Takes over what the driver has done to the link. No burst and no driver callback runs now.
    pub(super) fn look(&mut self) {
        // SAFETY: the port is open; no burst and no driver callback runs now.
        let up = unsafe { dpdk_sys::mdpdk_port_link_up(self.port) } == 1;
        match (self.state, up) {
            (State::Up, false) => {
                self.line.link_down();
                log::warn!("{}: the peer left; link down", self.name);
                self.stop();
                self.state = State::Down(Instant::now());
            }
            (State::Down(_) | State::Trying(_), true) => {
                self.line.link_up();
                self.state = State::Up;
                self.stuck = false;
                log::info!("{}: link up", self.name);
            }
            _ => {}
        }
    }

    /// When [`WatchedLink::attempt`] has something to do; `None`: not before the link changes.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Down(at) if self.reconnect => Some(at),
            State::Trying(since) => Some(since + STUCK),
            _ => None,
        }
    }

    /// Connects, if it is time to and `dial` has reached the server. The interrupt thread is parked and the line is down: no burst touches
    /// the port.
    pub(super) fn attempt(&mut self, now: Instant, dial: impl FnOnce(u16) -> bool) {
        if self.due().is_none_or(|at| at > now) {
            return;
        }
        if matches!(self.state, State::Trying(_)) && !std::mem::replace(&mut self.stuck, true) {
            log::warn!(
                "{}: the other side is there and does not take us; check that both have the same memif_id and mtu, and each other's number of engines as memif_peer_queues, and that no other client has the link; the server's log says which",
                self.name
            );
        }
        self.stop(); // an attempt that got stuck; nothing otherwise
        // SAFETY: the port is configured and stopped; no burst and no driver callback runs now.
        let started = dial(self.port) && unsafe { dpdk_sys::mdpdk_port_start(self.port) } == 0;
        self.state = if started { State::Trying(now) } else { State::Down(now + RETRY) };
    }

    /// A memif client connects in `start` only, so it must be stopped first; a server listens all the time.
    fn stop(&self) {
        if self.reconnect {
            // SAFETY: the port is open; the line is down, so no burst runs, and the driver's callbacks run in this
            // thread only.
            unsafe { dpdk_sys::mdpdk_port_stop(self.port) };
        }
    }
}

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// An attempt without an end is given up after this.
const STUCK: Duration = Duration::from_millis(500);

//! One queue of a simulated NIC.

use super::Net;
use crate::{Full, Info, Offload, PortState, Queue, QueueCounters, RxChecksum};
use machnet_wire::ParseError;
use machnet_wire::frame::{self, Frame};

/// A receive and a transmit queue of a simulated host.
#[derive(Debug)]
pub struct SimQueue {
    net: Net,
    host: usize,
    info: Info,
    /// Built and not yet flushed.
    staged: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Room for the frames of one `receive`.
    taken: Vec<Vec<u8>>,
    counters: QueueCounters,
    /// Dropped because the NIC was out of operation.
    link_down: u64,
}

impl SimQueue {
    pub(crate) fn new(net: Net, host: usize, info: Info) -> SimQueue {
        SimQueue {
            net,
            host,
            info,
            staged: Vec::new(),
            spare: Vec::new(),
            taken: Vec::new(),
            counters: QueueCounters::default(),
            link_down: 0,
        }
    }

    /// The network it belongs to.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The number of its host.
    pub fn host(&self) -> usize {
        self.host
    }
}

impl Queue for SimQueue {
    fn info(&self) -> &Info {
        &self.info
    }

    fn receive(&mut self, budget: usize, each: &mut impl FnMut(&[u8], RxChecksum)) -> usize {
        self.net.lock().take(self.host, self.info.index, budget, &mut self.taken);
        let n = self.taken.len();
        // Without the lock: `each` may use the network.
        for frame in &self.taken {
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.len() as u64;
            each(frame, if self.info.rx_checksum { verify(frame) } else { RxChecksum::Unknown });
        }
        if n > 0 {
            self.net.lock().give_back(&mut self.taken);
        }
        n
    }

    fn transmit(&mut self, len: usize, offload: Offload, fill: impl FnOnce(&mut [u8])) -> Result<(), Full> {
        if self.staged.len() >= usize::from(self.info.descriptors) {
            self.counters.tx_full += 1;
            return Err(Full);
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        // What is left of earlier frames stays, as in a NIC's buffers: `fill` has to write every byte.
        frame.resize(len, 0xa5);
        fill(&mut frame);
        if offload == Offload::Udp4 {
            // Where the NIC has this offload it would happen on its way out: the wire shows the same.
            frame::write_udp_checksum(&mut frame);
        }
        self.staged.push(frame);
        Ok(())
    }

    fn flush(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut fabric = self.net.lock();
        let up = fabric.state(self.host) == PortState::Up;
        for frame in self.staged.drain(..) {
            if !up {
                self.link_down += 1;
            } else if fabric.send(self.host, &frame) {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += frame.len() as u64;
            }
            self.spare.push(frame);
        }
        fabric.deliver_due();
    }

    fn backlog(&mut self) -> u16 {
        self.net.lock().nic(self.host).backlog(self.info.index) as u16
    }

    fn counters(&self) -> QueueCounters {
        let missed = self.net.lock().nic(self.host).missed(self.info.index);
        // A full queue of a peer is that host's own loss.
        QueueCounters { rx_missed: Some(missed), link_down: Some(self.link_down), ..self.counters }
    }

    fn steer(&mut self, port: u16) -> bool {
        self.net.lock().nic(self.host).steer(port, self.info.index)
    }

    fn arm_interrupt(&mut self) -> Option<i32> {
        self.net.lock().nic(self.host).arm(self.info.index)
    }

    fn disarm_interrupt(&mut self) {
        self.net.lock().nic(self.host).disarm(self.info.index);
    }
}

/// What a NIC with receive offload says of a frame.
fn verify(frame: &[u8]) -> RxChecksum {
    match frame::parse(frame) {
        Ok(Frame::Udp { udp, .. }) if udp.checksum == 0 => RxChecksum::Unknown,
        Ok(Frame::Udp { ip, datagram, .. }) if frame::udp_checksum_fits(&ip, datagram) => RxChecksum::Good,
        Ok(Frame::Udp { .. }) | Err(ParseError::Checksum { what: "ipv4 header" }) => RxChecksum::Bad,
        _ => RxChecksum::Unknown,
    }
}

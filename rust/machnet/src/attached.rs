//! What there is once a channel is attached: the memory of its state, and both directions over it.
use crate::code::{MACHNET_ABI, MACHNET_MAX_MESSAGE};
use crate::conns::{Conns, Entry};
use crate::ends::{DeliverEnd, SubmitEnd, view};
use crate::inbox::{Node, Nodes};
use crate::kept::Kept;
use crate::memory::Memory;
use crate::rx::{Receiver, RxConn};
use crate::signals::Signals;
use crate::tx::{Sender, TxConn};
use crate::types::{machnet_info_t, machnet_wait_view_t};
use core::sync::atomic::AtomicU64;
use machnet_shm::{ABI_VERSION, AppEnd, Fd, Geometry, Request, RxToken, Welcome, layout_hash};

/// What is there once attached.
pub struct Attached {
    pub memory: Memory,
    pub socket: Fd,
    pub receiver: Receiver<DeliverEnd>,
    pub sender: Sender<SubmitEnd>,
    pub kept: Kept,
    pub scratch: &'static mut [u8],
    pub fixed: Fixed,
}

/// What does not change once attached.
pub struct Fixed {
    pub conns: Conns,
    pub info: machnet_info_t,
    pub view: machnet_wait_view_t,
    pub doorbell: i32,
}

// SAFETY: the view's pointers are addresses to tell, not to follow; the rest is shared by atomics.
unsafe impl Send for Fixed {}
// SAFETY: as above.
unsafe impl Sync for Fixed {}

impl Attached {
    /// The state of a channel, in memory of its own; `None` when there is none.
    pub fn build(end: AppEnd, welcome: &Welcome, socket: Fd, signals: &Signals) -> Option<Self> {
        let AppEnd { tx, rx } = end;
        let geometry = welcome.geometry;
        let (flows, units, unit) =
            (geometry.flows as usize, geometry.units as usize, geometry.unit_size as usize);
        let mut memory = Memory::new(need(&geometry))?;
        // SAFETY: the slices go into fields of the channel that are dropped before its memory.
        let (entries, closed, rx_conns, tx_conns, nodes, kept, scratch) = unsafe {
            (
                memory.carve(flows, |_| Entry::default())?,
                memory.carve(Conns::words(flows), |_| AtomicU64::new(0))?,
                memory.carve(flows, |_| RxConn::UNUSED)?,
                memory.carve(flows, |_| TxConn::default())?,
                memory.room::<Node<RxToken>>(units)?,
                memory.room::<Request>(Kept::most(geometry.flows))?,
                memory.carve(unit, |_| 0_u8)?,
            )
        };
        let doorbell = rx.doorbell();
        let (seen, complete) = (rx.view(), tx.view());
        let fixed = Fixed {
            conns: Conns::new(entries, closed),
            info: machnet_info_t {
                ip: welcome.ip.to_bits(),
                engine: welcome.engine,
                mtu: welcome.mtu,
                unit_size: geometry.unit_size,
                units: geometry.units,
                units_per_conn: geometry.quota(),
                conns: geometry.flows,
                max_message: MACHNET_MAX_MESSAGE,
                channel_version: ABI_VERSION,
                abi: MACHNET_ABI,
                layout_hash: layout_hash(),
            },
            view: machnet_wait_view_t {
                deliver: view(seen.deliver),
                complete: view(complete),
                replies: view(seen.replies),
                events: signals.events.as_ptr(),
                events_tx: signals.events_tx.as_ptr(),
                down: signals.down.as_ptr(),
            },
            doorbell,
        };
        Some(Attached {
            memory,
            socket,
            receiver: Receiver::new(DeliverEnd::new(rx), rx_conns, Nodes::new(nodes)),
            sender: Sender::new(SubmitEnd::new(tx), tx_conns, geometry.quota()),
            kept: Kept::new(kept),
            scratch,
            fixed,
        })
    }
}

/// Bytes that all of it takes.
fn need(geometry: &Geometry) -> usize {
    let (flows, units, unit) =
        (geometry.flows as usize, geometry.units as usize, geometry.unit_size as usize);
    Memory::need::<Request>(Kept::most(geometry.flows))
        .saturating_add(Memory::need::<Entry>(flows))
        .saturating_add(Memory::need::<AtomicU64>(Conns::words(flows)))
        .saturating_add(Memory::need::<RxConn>(flows))
        .saturating_add(Memory::need::<TxConn>(flows))
        .saturating_add(Memory::need::<Node<RxToken>>(units))
        .saturating_add(Memory::need::<u8>(unit))
}

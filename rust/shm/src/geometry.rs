//! How large a channel is, and where everything lies in it. Offsets: docs/channel.md.

use crate::desc::INLINE;

/// The three numbers that a channel's layout follows from. The sidecar chooses them and tells the application at attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Tokens (and buffers) of each direction: a power of two, 4..=32768.
    pub units: u32,
    /// Payload bytes of one unit, i.e. of one packet: 96..=65535.
    pub unit_size: u32,
    /// Connections at the same time: 1..=65536.
    pub flows: u32,
}

/// Where the parts of a region lie, bytes from its beginning. The rings' sizes are slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub submit: usize,
    pub deliver: usize,
    pub complete: usize,
    pub giveback: usize,
    pub requests: usize,
    pub replies: usize,
    pub tx_buffers: usize,
    pub rx_buffers: usize,
    /// Bytes in all, whole pages.
    pub len: usize,
    /// Slots of the submit and of the deliver ring.
    pub data_slots: u32,
    /// Slots of the complete and of the return ring.
    pub token_slots: u32,
    /// Slots of the request ring.
    pub request_slots: u32,
    /// Slots of the reply ring, and the most requests without an answer.
    pub reply_slots: u32,
    /// Bytes from buffer to buffer.
    pub stride: usize,
}

impl Geometry {
    /// 1024 units per direction, 256 connections.
    pub const fn for_unit_size(unit_size: u32) -> Self {
        Self { units: 1024, unit_size, flows: 256 }
    }

    /// Tokens of one direction that one connection may hold: a quarter, at least one.
    pub const fn quota(&self) -> u32 {
        let quarter = self.units / 4;
        if quarter == 0 {
            1
        } else {
            quarter
        }
    }

    /// Whether the numbers are within their ranges.
    pub const fn is_valid(&self) -> bool {
        self.units.is_power_of_two()
            && self.units >= 4
            && self.units <= 32_768
            && self.unit_size >= INLINE as u32
            && self.unit_size <= 65_535
            && self.flows >= 1
            && self.flows <= 65_536
    }

    /// Bytes of shared memory; `None` when the numbers are out of range.
    pub fn region_len(&self) -> Option<usize> {
        self.layout().map(|layout| layout.len)
    }

    /// `None` when the numbers are out of range; the ranges rule out overflow (the largest region is 4.4 GB).
    pub(crate) fn layout(&self) -> Option<Layout> {
        if !self.is_valid() || size_of::<usize>() < 8 {
            return None;
        }
        let data_slots = (self.units + EVENTS * self.flows).next_power_of_two();
        let token_slots = self.units;
        let reply_slots = self.flows.next_power_of_two().max(16);
        let request_slots = 4 * reply_slots;
        let stride = (self.unit_size as usize).next_multiple_of(64);
        let mut end = HEADER;
        let mut part = |bytes: usize| {
            let at = end;
            end += bytes.next_multiple_of(PAGE);
            at
        };
        let slots = |count: u32| count as usize * SLOT;
        Some(Layout {
            submit: part(slots(data_slots)),
            deliver: part(slots(data_slots)),
            complete: part(slots(token_slots)),
            giveback: part(slots(token_slots)),
            requests: part(slots(request_slots)),
            replies: part(slots(reply_slots)),
            tx_buffers: part(self.units as usize * stride),
            rx_buffers: part(self.units as usize * stride),
            len: end,
            data_slots,
            token_slots,
            request_slots,
            reply_slots,
            stride,
        })
    }
}

/// Version of the channel: of the layout, the descriptors and the attach messages.
pub const CHANNEL_VERSION: u32 = 1;

/// Bytes of a ring slot: a pair of cache lines, which the hardware prefetches together.
pub(crate) const SLOT: usize = 128;
/// Bytes before the first ring; the sleep words are here.
pub(crate) const HEADER: usize = 4096;
/// The engine's sleep word.
pub(crate) const ENGINE_SLEEP: usize = 0;
/// The application's sleep word, a cache line pair away.
pub(crate) const APP_SLEEP: usize = 128;
/// Events that a flow may have in a ring beside its tokens.
pub(crate) const EVENTS: u32 = 4;
const PAGE: usize = 4096;

/// Stands for every number that both ends must agree on; FNV-1a over them. The version is for people, this is for the build
/// that somebody forgot to give a new version.
pub const LAYOUT_HASH: u64 = {
    let agreed = [
        CHANNEL_VERSION as u64,
        SLOT as u64,
        HEADER as u64,
        ENGINE_SLEEP as u64,
        APP_SLEEP as u64,
        EVENTS as u64,
        PAGE as u64,
        INLINE as u64,
        crate::codec::BATCH as u64,
        crate::codec::KINDS,
        crate::codec::WORDS,
        crate::desc::MAX_MESSAGE as u64,
        u16::from_ne_bytes([1, 0]) as u64,
    ];
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < agreed.len() {
        let bytes = agreed[i].to_le_bytes();
        let mut j = 0;
        while j < bytes.len() {
            hash = (hash ^ bytes[j] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            j += 1;
        }
        i += 1;
    }
    hash
};

//! What each driver of DPDK counts. DPDK shows a 0 for what a driver does not count, which reads as "no losses", and asking does not
//! tell the two apart. So a 0 stands only where the driver's source says that it counts; elsewhere the counter has no value
//! until it moves.

use crate::PortCounters;
use Count::{Bytes, NoBuffer, RxErrors, RxMissed, TxErrors};
use dpdk_sys::mdpdk_stats;

/// What a driver may leave uncounted. Every driver that answers counts frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Count {
    Bytes,
    RxMissed,
    RxErrors,
    TxErrors,
    NoBuffer,
}

/// What one driver counts.
pub(super) struct Counted(&'static [Count]);

impl Counted {
    /// What the driver of this name counts; nothing is taken for granted of one that is not listed.
    pub(super) fn by(driver: &str) -> Counted {
        Counted(DRIVERS.iter().find(|(name, _)| *name == driver).map_or(&[], |(_, counts)| counts))
    }

    /// The counters that DPDK's numbers stand for.
    pub(super) fn of(&self, raw: &mdpdk_stats) -> PortCounters {
        let counted = |count: Count, n: u64| (n > 0 || self.0.contains(&count)).then_some(n);
        PortCounters {
            rx_frames: Some(raw.rx_frames),
            tx_frames: Some(raw.tx_frames),
            rx_bytes: counted(Bytes, raw.rx_bytes),
            tx_bytes: counted(Bytes, raw.tx_bytes),
            rx_missed: counted(RxMissed, raw.rx_missed),
            rx_errors: counted(RxErrors, raw.rx_errors),
            tx_errors: counted(TxErrors, raw.tx_errors),
            rx_no_buffer: counted(NoBuffer, raw.rx_no_buffer),
            ..PortCounters::default()
        }
    }
}

/// By driver, from the sources of 22.11, the oldest DPDK that Machnet builds with. Later ones count more, such as the
/// missed frames of ENA and gve since 24.03.
const DRIVERS: [(&str, &[Count]); 20] = [
    ("net_memif", &[Bytes]),
    ("net_af_packet", &[Bytes, TxErrors]),
    ("net_tap", &[Bytes, RxErrors, TxErrors, NoBuffer]),
    ("net_vhost", &[Bytes]),
    ("net_virtio", &[Bytes, RxErrors, NoBuffer]),
    ("net_virtio_user", &[Bytes, RxErrors, NoBuffer]),
    ("net_ena", &[Bytes, RxErrors, NoBuffer]),
    ("net_mana", &[Bytes, RxErrors, TxErrors, NoBuffer]),
    ("net_netvsc", &[Bytes, RxMissed, RxErrors, TxErrors, NoBuffer]),
    ("net_mlx4", &[Bytes, RxErrors, TxErrors, NoBuffer]),
    ("mlx5_pci", &[Bytes, RxMissed, RxErrors, TxErrors, NoBuffer]),
    ("net_vmxnet3", &[Bytes, RxMissed, RxErrors, TxErrors]),
    ("net_iavf", &[Bytes, RxMissed, TxErrors, NoBuffer]),
    ("net_i40e", &[Bytes, RxMissed, RxErrors, TxErrors, NoBuffer]),
    ("net_ice", &[Bytes, RxMissed, RxErrors, TxErrors, NoBuffer]),
    ("net_ixgbe", &[Bytes, RxMissed, RxErrors, NoBuffer]),
    ("net_ixgbe_vf", &[Bytes, NoBuffer]),
    ("net_e1000_em", &[Bytes, RxMissed, RxErrors, TxErrors, NoBuffer]),
    ("net_e1000_igb", &[Bytes, RxMissed, RxErrors, TxErrors, NoBuffer]),
    ("net_e1000_igb_vf", &[Bytes, NoBuffer]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(driver: &str, raw: &mdpdk_stats) -> [Option<u64>; 4] {
        let c = Counted::by(driver).of(raw);
        [c.rx_missed, c.rx_errors, c.tx_errors, c.rx_no_buffer]
    }

    #[test]
    fn a_zero_stands_only_where_the_driver_counts() {
        let nothing = mdpdk_stats::default();
        assert_eq!(lost("net_memif", &nothing), [None; 4]);
        assert_eq!(lost("net_nobody_knows", &nothing), [None; 4]);
        assert_eq!(lost("net_virtio", &nothing), [None, Some(0), None, Some(0)]);
        assert_eq!(lost("mlx5_pci", &nothing), [Some(0); 4]);
        let counters = Counted::by("net_nobody_knows").of(&nothing);
        assert_eq!((counters.rx_frames, counters.rx_bytes, counters.link_ups), (Some(0), None, None));
    }

    #[test]
    fn what_moves_is_counted_whatever_the_list_says() {
        let moved =
            mdpdk_stats { rx_missed: 1, rx_errors: 2, tx_errors: 3, rx_no_buffer: 4, ..Default::default() };
        assert_eq!(lost("net_memif", &moved), [Some(1), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn no_driver_is_listed_twice() {
        let mut names: Vec<&str> = DRIVERS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DRIVERS.len());
    }
}

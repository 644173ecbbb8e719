//! What DPDK refuses comes back as one typed error with one sentence, and nothing of it goes to stderr.
//!
//! EAL starts once per process, so the program starts itself again and the test reads what that process says.

use machnet_nic::dpdk::{DpdkError, Eal};
use machnet_nic::{Device, EalConfig, Mac, Memif, MemifRole, Memory, Offload, PortConfig, Queue};
use std::process::{Command, Output};

#[test]
fn refusals_are_typed_and_stderr_stays_clean() {
    let output = again("refusals");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn missing_huge_pages_are_named_with_what_to_do() {
    let output = again("huge");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_ring_device_carries_frames_from_one_queue_to_the_same() {
    let output = again("ring");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_ring_that_virtio_really_has_is_told() {
    let output = again("virtio");
    assert!(output.status.success(), "{output:?}");
}

/// Not a test: the other process's way in. Ends at once when the program runs as a test.
#[test]
fn role() {
    match std::env::var("DPDK_ROLE").as_deref() {
        Ok("refusals") => refusals(),
        Ok("huge") => huge(),
        Ok("ring") => ring(),
        Ok("virtio") => virtio(),
        _ => {}
    }
}

fn again(role: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "role", "--nocapture"]).env("DPDK_ROLE", role).output().unwrap()
}

fn refusals() {
    let before = cpus();
    let prefix = format!("refusals-{}", std::process::id());
    let eal = Eal::start(&EalConfig::unprivileged(&prefix), &[]).unwrap();
    assert_eq!(cpus(), before, "the calling thread stays where it was");
    assert_eq!(Eal::start(&EalConfig::unprivileged(&prefix), &[]).err(), Some(DpdkError::AlreadyStarted));

    let refuse = |device: Device| eal.open(&device, &PortConfig::default()).err().expect("refused");
    let vdev = |text: &str| refuse(Device::Vdev(text.to_owned()));
    let error = vdev("net_nonesuch0");
    assert!(matches!(&error, DpdkError::UnknownVdev { vdev, .. } if vdev == "net_nonesuch0"), "{error}");
    // A typo is found before the driver forgets every other word for it.
    let error = vdev("net_memif0,role=server,sokcet=/x");
    assert!(
        matches!(&error, DpdkError::Config(text) if text.contains(": sokcet: the driver net_memif has")),
        "{error}"
    );
    // The driver returns -1, which is EPERM's number, and says something else.
    let error = vdev("net_memif8,role=client,zero-copy=yes,socket=/tmp/nonesuch");
    assert!(matches!(&error, DpdkError::UnknownVdev { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("ero-copy") && !said.contains("mp action") && !said.contains("attach"), "{said}");
    let error = vdev("net_af_packet0,iface=nonesuch9");
    assert!(matches!(&error, DpdkError::NoSuchDevice(text) if text.starts_with("nonesuch9")), "{error}");
    assert!(matches!(refuse(Device::Pci("ffff:1f:1f.7".to_owned())), DpdkError::NoSuchDevice(_)));
    assert!(matches!(refuse(Device::Pci("eth0".to_owned())), DpdkError::Config(_)));
    assert!(matches!(refuse(Device::Mac(Mac([2, 9, 9, 9, 9, 9]))), DpdkError::NoSuchDevice(_)));
    let error = refuse(Device::Memif(Memif::new("/nonesuch/link.sock", MemifRole::Server)));
    assert!(error.to_string().contains("/nonesuch does not exist"), "{error}");

    // Too much for the 64 MiB that EAL has.
    let large = PortConfig { mtu: 9001, descriptors: 4096, ..PortConfig::default() };
    let error = eal.open(&Device::Vdev("net_null7".to_owned()), &large).err().expect("refused");
    assert!(
        matches!(&error, DpdkError::TooLittleMemory { step, mib: 94 } if step.contains("about 78 MiB for each engine")),
        "{error:?}"
    );

    let ring = Device::Vdev("net_ring0".to_owned());
    let many = PortConfig { queues: 64, ..PortConfig::default() };
    let error = eal.open(&ring, &many).err().expect("refused");
    assert!(matches!(error, DpdkError::TooManyQueues { asked: 64, .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("with 64 queues") && said.contains("set engines.count (--engines) to at most 16"),
        "{said}"
    );
    for bad in [
        PortConfig { queues: 0, ..many.clone() },
        PortConfig { descriptors: 100, ..many.clone() },
        PortConfig { mtu: 100, ..many.clone() },
        PortConfig { burst: 33, ..many.clone() },
        PortConfig { mac: Some(Mac([1, 0, 0, 0, 0, 0])), ..many.clone() },
    ] {
        assert!(matches!(eal.open(&ring, &bad).err(), Some(DpdkError::Config(_))), "{bad:?}");
    }
}

fn huge() {
    let config = EalConfig { memory: Memory::Huge { mib: 1 << 20 }, ..EalConfig::unprivileged("huge") };
    let error = Eal::start(&config, &[]).err().expect("a terabyte of huge pages");
    assert!(matches!(error, DpdkError::NoHugePages { .. } | DpdkError::NoPermission(_)), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

fn ring() {
    let eal = Eal::start(&EalConfig::unprivileged("ring"), &[]).unwrap();
    let mut nic = eal.open(&Device::Vdev("net_ring0".to_owned()), &PortConfig::default()).unwrap();
    let mut queue = nic.queues.remove(0);
    assert_eq!(nic.port.driver(), "net_ring");
    assert_eq!((queue.info().index, queue.info().mtu, queue.info().interrupts), (0, 1500, false));
    for round in 0..1000u32 {
        let len = 60 + round as usize % 1400;
        queue.transmit(len, Offload::None, |frame| frame.fill(round as u8)).unwrap();
        queue.flush();
        let mut seen = 0;
        let got = queue.receive(16, &mut |frame, _| {
            assert_eq!(frame, vec![round as u8; len]);
            seen += 1;
        });
        assert_eq!((got, seen), (1, 1), "round {round}");
    }
    let counted = queue.counters();
    assert_eq!((counted.rx_frames, counted.tx_frames, counted.rx_bytes), (1000, 1000, counted.tx_bytes));
    // A ring has no peer, and its driver counts frames and nothing else.
    assert_eq!((counted.rx_missed, counted.link_down, counted.peer_full), (None, Some(0), None));
    let counted = nic.port.counters();
    assert_eq!((counted.rx_frames, counted.tx_frames), (Some(1000), Some(1000)));
    assert_eq!((counted.rx_bytes, counted.rx_missed, counted.link_downs), (None, None, Some(0)));
    // A ring that nobody empties says so.
    let mut sent = 0;
    while queue.transmit(60, Offload::None, |frame| frame.fill(0)).is_ok() {
        queue.flush();
        sent += 1;
        assert!(sent < 100_000, "the ring takes everything");
    }
    assert!(queue.counters().tx_full > 0);
    assert!(queue.port().xstats().iter().any(|(name, _)| name.contains("rx")), "{:?}", queue.port().xstats());
    tables(&eal);
}

/// Both ends in this process: the host's, and the guest's with rings of 256 descriptors.
fn virtio() {
    let socket = std::env::temp_dir().join(format!("machnet-vhost-{}", std::process::id()));
    let eal = Eal::start(&EalConfig::unprivileged("virtio"), &[]).unwrap();
    let vdev = |text: String| Device::Vdev(text);
    let path = socket.display();
    let _host = eal.open(&vdev(format!("net_vhost0,iface={path}")), &PortConfig::default()).unwrap();
    let guest = vdev(format!("net_virtio_user0,path={path},queue_size=256"));
    let config = PortConfig { descriptors: 1024, ..PortConfig::default() };
    let nic = eal.open(&guest, &config).unwrap();
    assert_eq!((nic.port.driver(), nic.queues[0].info().descriptors), ("net_virtio_user", 256));
}

/// One driver shows no indirection table, one has 128 entries: neither is assumed.
fn tables(eal: &Eal) {
    for (device, queues) in [("net_ring1", 2), ("net_null1", 3)] {
        let config = PortConfig { queues, ..PortConfig::default() };
        let mut nic = eal.open(&Device::Vdev(device.to_owned()), &config).unwrap();
        assert_eq!(nic.queues.len(), usize::from(queues), "{device}");
        for (index, queue) in nic.queues.iter_mut().enumerate() {
            assert_eq!((queue.info().queues, usize::from(queue.info().index)), (queues, index), "{device}");
            assert!(!queue.steer(31580), "{device} steers");
            queue.transmit(60, Offload::None, |frame| frame.fill(1)).unwrap();
            queue.flush();
            assert!(queue.receive(16, &mut |_, _| {}) > 0, "{device}: queue {index} gets nothing");
        }
    }
}

fn cpus() -> Vec<u8> {
    // SAFETY: all bits zero is an empty set, written by the kernel; read back as plain bytes.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        std::slice::from_raw_parts((&raw const set).cast::<u8>(), size_of_val(&set)).to_vec()
    }
}

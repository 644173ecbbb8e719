//! What memory a channel takes: little before it is used, and no more than was in use at once afterwards. One test in a process of its own, whose
//! private memory nobody else changes.
use machnet::abi::*;
use machnet::*;
use machnet_shm::Geometry;
use rig::{Rig, pattern};

#[allow(dead_code, reason = "not everything that the tests of a channel use")]
#[path = "channel/rig.rs"]
mod rig;

#[test]
fn an_attachment_is_small_until_it_is_used_and_grows_to_what_is_in_use_at_once() {
    let geometry = Geometry::DEFAULT;
    // The heap's own pages are there, and the code's.
    drop(Rig::of(geometry));
    let before = private_bytes();
    let mut rig = Rig::of(geometry);
    let (private, fresh) = (private_bytes() - before, shared_bytes(&rig));
    assert_eq!(fresh, RINGS, "head page, rings and ends, and no buffer");
    assert!(private + fresh <= 1280 << 10, "{private} bytes of both sides' own, {fresh} shared");

    // One message at a time each way, of two units and a bit: the buffers used last are used next.
    let (flow, conn) = rig.connection();
    let message = pattern(3000);
    let echo = |rig: &mut Rig| {
        assert_eq!(rig.send(conn, &message, 0), 3000);
        assert_eq!(rig.submitted(true).0, message);
        rig.deliver(flow, &message);
        assert_eq!(rig.recv(conn, 4000, MACHNET_RECV_MESSAGE), Ok(message.clone()));
        rig.engine().returns(|_| ()).expect("an honest application");
    };
    echo(&mut rig);
    assert!(shared_bytes(&rig) - fresh <= 4 * PAGE, "{} bytes for one echo", shared_bytes(&rig) - fresh);
    (0..100).for_each(|_| echo(&mut rig));
    let some = shared_bytes(&rig);
    (0..5000).for_each(|_| echo(&mut rig));
    assert_eq!(shared_bytes(&rig), some, "more than 100 echoes used");
    // Eight units may wait to go back together, twice as many were never out.
    assert!(some - fresh <= 16 * PAGE, "{} bytes for echoes one at a time", some - fresh);

    // Everything at once: each buffer of both directions.
    let conns: Vec<_> = (0..8).map(|_| rig.connection()).collect();
    let unit = pattern(geometry.unit_size as usize);
    for &(flow, conn) in conns.iter().cycle().take(8 * 256) {
        let _ = rig.send(conn, &unit, 0);
        if rig.engine().grant(flow, 1) == 1 {
            assert!(rig.engine().hold(&unit).is_some(), "a buffer for each unit that is reserved");
        }
    }
    let all = shared_bytes(&rig);
    assert!(all > geometry.len() / 2 && all <= geometry.len(), "{all} of {}", geometry.len());
}

/// Bytes of a channel's memory of default sizes before its buffers.
const RINGS: usize = 1_089_536;
const PAGE: usize = 4096;

/// Bytes of the channel's shared memory that have pages, whoever touched them.
fn shared_bytes(rig: &Rig) -> usize {
    let mut view = std::mem::MaybeUninit::<machnet_wait_view_t>::uninit();
    // SAFETY: a live channel and a writable view.
    let slots = unsafe {
        assert_eq!(machnet_wait_view(rig.ch, view.as_mut_ptr()), 0);
        view.assume_init().deliver.slots.addr()
    };
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the process's mappings");
    let (begin, end) = maps
        .lines()
        .filter_map(|line| line.split_once(' ')?.0.split_once('-'))
        .map(|(begin, end)| (usize::from_str_radix(begin, 16), usize::from_str_radix(end, 16)))
        .find_map(|ends| match ends {
            (Ok(begin), Ok(end)) if (begin..end).contains(&slots) => Some((begin, end)),
            _ => None,
        })
        .expect("the channel's mapping");
    let mut pages = vec![0_u8; (end - begin) / PAGE];
    // SAFETY: a mapping of this process, and a byte for each of its pages.
    assert_eq!(unsafe { libc::mincore(begin as *mut _, end - begin, pages.as_mut_ptr()) }, 0);
    pages.iter().filter(|page| **page & 1 != 0).count() * PAGE
}

/// Bytes of this process's own memory that have pages.
fn private_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line RssAnon");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of KiB") << 10
}

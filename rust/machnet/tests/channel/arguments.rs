//! Arguments that make no sense are refused, and change nothing.
use crate::rig::{Rig, text};
use machnet::abi::*;
use machnet::*;
use std::ptr::null_mut;

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    let (_, conn) = rig.connection();
    let ch = rig.ch;
    // SAFETY: null channels and null buffers are what is tested; lengths that lie are refused before use.
    unsafe {
        assert_eq!(machnet_send_some(null_mut(), conn, b"x".as_ptr().cast(), 1, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_send_some(ch, conn, std::ptr::null(), 1, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_send_some(ch, conn, b"x".as_ptr().cast(), usize::MAX, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_send_some(ch, conn, b"x".as_ptr().cast(), 1, 77), MACHNET_EINVAL.into());
        assert_eq!(
            machnet_send_some(ch, conn, b"x".as_ptr().cast(), 1, MACHNET_SEND_CONTINUE),
            MACHNET_EINVAL.into()
        );
        assert_eq!(machnet_recv_some(ch, conn, null_mut(), 1, 0, null_mut()), MACHNET_EINVAL.into());
        assert_eq!(machnet_recv_some(ch, conn, null_mut(), 0, 77, null_mut()), MACHNET_EINVAL.into());
        assert_eq!(machnet_poll(ch, null_mut(), 1), MACHNET_EINVAL);
        assert_eq!(machnet_poll(ch, null_mut(), -1), 0);
        assert_eq!(machnet_sendv(ch, conn, std::ptr::null(), 1, 0, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_sendv(ch, conn, std::ptr::null(), 0, 1, 0), MACHNET_EINVAL.into());
        assert_eq!(machnet_attach_begin(c"x".as_ptr(), std::ptr::null(), null_mut()), MACHNET_EINVAL);
        machnet_detach(null_mut());
        machnet_info(null_mut(), null_mut());
    }
    for handle in [0, 1, conn + 1, conn + (1 << 32), u64::MAX] {
        assert_eq!(rig.send(handle, b"x", 0), MACHNET_ECLOSED.into());
        assert_eq!(rig.recv(handle, 1, 0), Err(MACHNET_ECLOSED.into()));
    }
    for (handle, code, said) in [(conn + 1, MACHNET_ECLOSED, "accepted: closed"), (conn, 0, "")] {
        // SAFETY: a live channel.
        assert_eq!((unsafe { machnet_accepted(ch, handle) }, text(ch).as_str()), (code, said));
    }
    let long = vec![0; MACHNET_MAX_MESSAGE as usize + 1];
    assert_eq!(rig.send(conn, &long, 0), MACHNET_ETOOBIG.into());
    assert_eq!(rig.submitted(true), (vec![], vec![]));
}

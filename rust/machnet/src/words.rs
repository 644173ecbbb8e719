//! Codes in words.
use crate::code::*;
use core::ffi::CStr;

/// A few words for a code.
pub const fn of(code: i32) -> &'static CStr {
    match code {
        0 => c"no error",
        MACHNET_EAGAIN => c"nothing to do now; wait and call again",
        MACHNET_ECLOSED => c"closed",
        MACHNET_EREFUSED => c"connection refused: nobody listens at the remote port",
        MACHNET_ETIMEDOUT => c"timed out: no answer from the remote host",
        MACHNET_ERESET => c"connection reset by the peer",
        MACHNET_EINUSE => c"port in use",
        MACHNET_ENETDOWN => c"the sidecar is gone or dropped this channel; attach anew",
        MACHNET_ETOOBIG => c"message longer than 8 MiB, or than what can be sent without waiting",
        MACHNET_EVERSION => c"application and sidecar speak different versions of the channel",
        MACHNET_ENOSIDECAR => c"no sidecar listens at the socket; start machnetd or set MACHNET_SOCKET",
        MACHNET_EACCES => c"not permitted",
        MACHNET_EINVAL => c"invalid argument",
        MACHNET_EBUSY => c"another thread is inside this channel in the same direction",
        MACHNET_ENOBUFS => c"out of memory, connections, listeners or channels",
        MACHNET_EABORTED => c"the sender gave up the message in its middle",
        MACHNET_EEOF => c"the peer has finished",
        MACHNET_EMSGSIZE => c"the message does not fit the buffer; it is kept",
        MACHNET_EUNREACHABLE => c"no route to the remote host",
        MACHNET_ECANCELED => c"cancelled",
        MACHNET_EADDR => c"the local address is not one of the sidecar's",
        MACHNET_EPROTO => c"the other end broke the protocol",
        MACHNET_EPIPE => c"this direction of the connection is finished",
        MACHNET_ENOTATTACHED => c"the channel is not attached",
        MACHNET_ESYSTEM => c"the operating system refused a call",
        MACHNET_EINTR => c"interrupted by a signal; call again",
        MACHNET_EFORK => c"the channel is that of the parent process; attach anew in this one",
        _ => c"unknown code",
    }
}

/// The same as text.
pub fn said(code: i32) -> &'static str {
    of(code).to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_words_of_its_own() {
        let all: HashSet<_> = (MACHNET_EFORK..=0).map(of).collect();
        assert_eq!(all.len(), 27);
        assert!(!all.contains(of(MACHNET_EFORK - 1)) && of(1) == of(MACHNET_EFORK - 1));
    }
}

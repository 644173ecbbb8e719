//! Codes in words.
use crate::code::*;
use crate::types::machnet_event;
use core::ffi::CStr;
use core::fmt::{self, Display};

/// A few words for a code.
pub const fn of(code: i32) -> &'static CStr {
    match code {
        0 => c"no error",
        MACHNET_EAGAIN => c"nothing to do now; wait and call again",
        MACHNET_ECLOSED => c"closed",
        MACHNET_EREFUSED => c"connection refused: nobody listens at the remote port",
        MACHNET_ETIMEDOUT => c"timed out: the remote host does not answer, or nothing gets through to it",
        MACHNET_ERESET => c"connection reset by the peer",
        MACHNET_EINUSE => c"port in use",
        MACHNET_ENETDOWN => c"the sidecar is gone or dropped this channel; attach anew",
        MACHNET_ETOOBIG => c"message longer than 8 MiB, or than what can be sent without waiting",
        MACHNET_EVERSION => c"application and sidecar speak different versions of the channel",
        MACHNET_ENOSIDECAR => c"no sidecar listens at the socket; start machnetd or set MACHNET_SOCKET",
        MACHNET_EACCES => c"not permitted",
        MACHNET_EINVAL => c"invalid argument",
        MACHNET_EBUSY => c"another thread is inside this channel in the same direction",
        MACHNET_ENOBUFS => c"out of memory, channels, or room for one connection",
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
        MACHNET_EFULL_CONNS => c"this process has as many connections as it may have",
        MACHNET_EFULL_ENGINE => c"the engine has as many connections as it can have",
        MACHNET_EFULL_LISTENERS => c"this process has as many listeners as it may have",
        MACHNET_EFULL_PORTS => c"no port is free to choose",
        MACHNET_EPEER_FULL_CONNS => c"the process at the other end has as many connections as it may have",
        MACHNET_EPEER_FULL_ENGINE => c"the engine at the other end has as many connections as it can have",
        MACHNET_EENDING => c"the sidecar is ending",
        MACHNET_EPEER_ENDING => c"the other end's sidecar is ending",
        _ => c"unknown code",
    }
}

/// The same as text.
pub fn said(code: i32) -> &'static str {
    of(code).to_str().unwrap_or_default()
}

/// A failure of a listen or a dial in a sentence: what is full, whose, how many there may be, and what to do.
pub struct Failure {
    code: i32,
    limit: u32,
    /// Of a listen, and not of a dial.
    listens: bool,
}

impl Failure {
    /// What an event tells.
    pub fn of(event: &machnet_event) -> Self {
        Self { code: event.code, limit: event.limit, listens: event.kind == MACHNET_EVENT_LISTEN_FAILED }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.limit;
        match self.code {
            MACHNET_EFULL_CONNS => write!(
                f,
                "this process has {n} connections, as many as one may have; close some, or raise flows (--flows) of this host's machnetd"
            ),
            MACHNET_EFULL_ENGINE => write!(
                f,
                "the engine that serves this process has {n} connections, as many as it can have; run more engines (--engines) in this \
                 host's machnetd"
            ),
            MACHNET_EFULL_LISTENERS => write!(
                f,
                "this process has {n} listeners, as many as an attachment may have; close some, or attach once more for others"
            ),
            MACHNET_EFULL_PORTS => write!(
                f,
                "all {n} ports to choose from where none is named are in use; close some, or name a port that is free"
            ),
            MACHNET_EPEER_FULL_CONNS => write!(
                f,
                "the process that listens there has {n} connections, as many as its channels hold; it should close some, or its \
                 host's machnetd allow more channels (--channels-per-application) or larger ones (--flows)"
            ),
            MACHNET_EPEER_FULL_ENGINE => write!(
                f,
                "the engine there has {n} connections, as many as it can have; run more engines (--engines) in that host's machnetd"
            ),
            MACHNET_EINUSE if self.listens => f.write_str(
                "port in use; choose another, or have all its listeners ask to share it (MACHNET_REUSEPORT), as one user",
            ),
            MACHNET_EENDING => {
                f.write_str("this host's machnetd is ending and takes no more; attach anew once it is back")
            }
            MACHNET_EPEER_ENDING => {
                f.write_str("that host's machnetd is ending and takes no more; dial again once it is back")
            }
            code => f.write_str(said(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_words_of_its_own() {
        // Numbers that no code has share the words for that.
        let named: std::vec::Vec<_> = (LAST..=0).map(of).filter(|words| *words != of(1)).collect();
        let all: HashSet<_> = named.iter().collect();
        assert_eq!((all.len(), of(LAST - 1)), (named.len(), of(1)));
        assert!(named.len() >= 33, "{named:?}");
    }

    /// The lowest code.
    const LAST: i32 = MACHNET_EPEER_ENDING;

    #[test]
    fn a_limit_is_told_with_its_value_and_the_next_step_and_fits_an_error_text() {
        for (code, step) in [
            (MACHNET_EFULL_CONNS, "--flows"),
            (MACHNET_EFULL_ENGINE, "--engines"),
            (MACHNET_EFULL_LISTENERS, "attach once more"),
            (MACHNET_EFULL_PORTS, "name a port"),
            (MACHNET_EPEER_FULL_CONNS, "--flows"),
            (MACHNET_EPEER_FULL_ENGINE, "--engines"),
        ] {
            let event = machnet_event { code, limit: 16_777_215, ..machnet_event::default() };
            let text = std::format!("connect 255.255.255.255:65535: {}", Failure::of(&event));
            assert!(text.contains("16777215") && text.contains(step), "{text}");
            assert!(text.len() < MACHNET_ERROR_TEXT_MAX as usize, "{text}");
        }
    }
}

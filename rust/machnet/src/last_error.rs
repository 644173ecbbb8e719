//! The sentence about the last call of a channel that failed, for machnet_error_text.
use crate::code::{MACHNET_EAGAIN, MACHNET_ENETDOWN, MACHNET_ERROR_TEXT_MAX};
use crate::gate::Gate;
use crate::words;
use core::fmt::Arguments;
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// A sentence as machnet_error_text gives it, but for the final zero.
pub type Text = machnet_shm::Text<{ MACHNET_ERROR_TEXT_MAX as usize - 1 }>;

/// The sentence, and which code it explains.
pub struct LastError {
    /// The code that the sentence explains; `NONE`: there is none; `UNDER_WAY`: the call that it explains has not ended yet.
    explains: AtomicI32,
    text: Gate<Text>,
}

impl LastError {
    /// No sentence yet.
    pub const fn new() -> Self {
        Self { explains: AtomicI32::new(NONE), text: Gate::new(Text::EMPTY) }
    }

    /// Keeps a sentence about the error that the call under way is going to return.
    pub fn explain(&self, sentence: Arguments<'_>) {
        self.keep(Text::new(sentence), UNDER_WAY);
    }

    /// The call under way is going to return `code` for the same reason as an earlier one: if the sentence explains that one, it stays.
    pub fn explain_as_before(&self, code: i32) {
        if self.explains.load(Relaxed) == code {
            self.explains.store(UNDER_WAY, Relaxed);
        }
    }

    /// A call ends. The sentence kept is that of the last call that failed, and none after one that did not. MACHNET_EAGAIN is no failure:
    /// a call that would have to wait has nothing to explain.
    #[inline]
    pub fn call_ended(&self, what: &str, code: i32) {
        let failed = code < 0 && code != MACHNET_EAGAIN;
        if failed || self.explains.load(Relaxed) != NONE {
            self.replace(what, failed, code);
        }
    }

    #[cold]
    #[inline(never)]
    fn replace(&self, what: &str, failed: bool, code: i32) {
        match self.explains.load(Relaxed) {
            _ if !failed => self.keep(Text::EMPTY, NONE),
            UNDER_WAY => self.explains.store(code, Relaxed),
            // Why the channel went down is worth more than that it is down.
            MACHNET_ENETDOWN if code == MACHNET_ENETDOWN => {}
            _ => self.keep(Text::new(format_args!("{what}: {}", words::said(code))), code),
        }
    }

    fn keep(&self, sentence: Text, explains: i32) {
        if let Some(mut text) = self.text.enter() {
            *text = sentence;
            self.explains.store(explains, Relaxed);
        }
    }

    /// The sentence.
    pub fn text(&self) -> Text {
        self.text.enter().map_or(Text::EMPTY, |text| *text)
    }
}

/// No code is 0 or positive.
const NONE: i32 = 0;
const UNDER_WAY: i32 = 1;

//! What a test logs, kept for it to read.

use std::cell::RefCell;

thread_local! {
    /// Warnings logged on this thread. Each test has a thread of its own.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The warnings that this test has logged since the last call.
pub fn warnings() -> Vec<String> {
    SAID.take()
}

/// Keeps what is logged from now on.
pub fn keep_warnings() {
    // Another test may have set the logger already.
    let _ = ::log::set_logger(&Keep);
    ::log::set_max_level(::log::LevelFilter::Warn);
}

struct Keep;

impl ::log::Log for Keep {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        metadata.level() <= ::log::Level::Warn
    }

    fn log(&self, record: &::log::Record<'_>) {
        if self.enabled(record.metadata()) {
            SAID.with_borrow_mut(|said| said.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

//! What machnetd prints beside its log. A full disk or a closed pipe is an error of the write and never a panic.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Prints what was asked for to standard output, whole; the exit code of a program that does nothing else.
pub fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // `machnetd --help | head -1`: whoever read has enough, and needs no words.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(REFUSED),
        Err(error) => {
            complain(&format!("write to standard output: {error}"));
            ExitCode::from(REFUSED)
        }
    }
}

/// Says a sentence on standard error, whatever the log's level. Where even that is refused nobody is left to be told;
/// the exit code still speaks.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(format!("machnetd: {text}\n").as_bytes());
}

/// Exit code: standard output was refused.
const REFUSED: u8 = 1;

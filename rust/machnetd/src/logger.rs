//! The log: one line per record on standard error, `2026-01-31T12:34:56.123456Z WARN  target: text`; a record of several lines is several
//! such lines. What repeats is summed up (`repeats.rs`).

use std::io::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};

use crate::repeats::{Entry, Repeats};

struct Stderr;

/// What times of `REPEATS` are since.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
static REPEATS: LazyLock<Mutex<Repeats>> = LazyLock::new(Mutex::default);

/// Begins to log at this level. Once per process.
pub fn start(level: LevelFilter) {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

/// When to call `catch_up`.
pub fn due() -> Option<Instant> {
    repeats().due().map(|due| *BEGUN + due)
}

/// Writes what is due of the records that were held back.
pub fn catch_up() {
    let due = repeats().catch_up(BEGUN.elapsed());
    due.iter().for_each(write);
}

fn repeats() -> MutexGuard<'static, Repeats> {
    REPEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Crates are named machnet_x, modules machnet_x::y: the first is what a reader looks for.
        let target = record.target().split("::").next().unwrap_or_default().trim_start_matches("machnet_");
        let entry =
            Entry { level: record.level(), target: target.to_owned(), text: record.args().to_string() };
        let admitted = repeats().admit(BEGUN.elapsed(), entry);
        if let Some(entry) = admitted {
            write(&entry);
        }
    }

    fn flush(&self) {}
}

fn write(entry: &Entry) {
    let stamp = stamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let lines = entry.text.split('\n');
    let lines: String =
        lines.map(|line| format!("{stamp} {:<5} {}: {line}\n", entry.level, entry.target)).collect();
    // One call, so that lines of several threads do not mix. Nobody is left to be told that standard error is closed.
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}

/// UTC, microseconds. The days are counted from March, so that leap days come last (Hinnant, "chrono-compatible
/// low-level date algorithms", civil_from_days).
fn stamp(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(stamp(Duration::from_secs(seconds)), text);
        }
        assert!(stamp(Duration::from_micros(1_000_007)).ends_with("01.000007Z"));
    }
}

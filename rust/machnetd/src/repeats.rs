//! What an application or the network can make us say again and again is said a few times as it comes, and from then on once a second with a
//! count. Two records are alike where they differ in numbers alone.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use log::Level;

/// What was said not long ago, by what it was without its numbers.
#[derive(Default)]
pub struct Repeats(HashMap<u64, Said>);

struct Said {
    /// How often it may be said at once, and as of when.
    left: u32,
    filled: Duration,
    held: Option<Held>,
}

/// Records that were not written.
struct Held {
    since: Duration,
    count: u64,
    last: Entry,
}

/// A record as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How bad it is.
    pub level: Level,
    /// Who says it.
    pub target: String,
    /// What.
    pub text: String,
}

impl Repeats {
    /// Gives the record back if it is to be written now. Times are since any moment, and never go back.
    pub fn admit(&mut self, now: Duration, entry: Entry) -> Option<Entry> {
        let Some(burst) = burst(entry.level) else { return Some(entry) };
        if self.0.len() >= KINDS {
            self.0.retain(|_, said| said.held.is_some() || now < said.filled + EVERY);
        }
        // Whoever invents that many kinds shares what is left.
        let kind = if self.0.len() < KINDS { kind(&entry) } else { 0 };
        let said = self.0.entry(kind).or_insert(Said { left: burst, filled: now, held: None });
        if let Some(held) = &mut said.held {
            held.count += 1;
            held.last = entry;
            return None;
        }
        let earned = now.saturating_sub(said.filled).as_secs();
        if earned > 0 {
            said.left = burst.min(said.left.saturating_add(earned.try_into().unwrap_or(burst)));
            said.filled = now;
        }
        if said.left > 0 {
            said.left -= 1;
            return Some(entry);
        }
        said.held = Some(Held { since: now, count: 1, last: entry });
        None
    }

    /// When to call `catch_up`; `None`: nothing is held back.
    pub fn due(&self) -> Option<Duration> {
        self.0.values().filter_map(|said| Some(said.held.as_ref()?.since + EVERY)).min()
    }

    /// What is to be said now of what was held back.
    pub fn catch_up(&mut self, now: Duration) -> Vec<Entry> {
        let mut lines = Vec::new();
        for said in self.0.values_mut() {
            if let Some(held) = said.held.take_if(|held| held.since + EVERY <= now) {
                said.filled = now;
                let Held { count, mut last, .. } = held;
                if count > 1 {
                    last.text += &format!(" (and {} more like it within a second)", count - 1);
                }
                lines.push(last);
            }
        }
        lines
    }
}

/// How many alike may be said at once. `None`: as many as there are, for who asks for them wants them.
fn burst(level: Level) -> Option<u32> {
    match level {
        Level::Error | Level::Warn => Some(8),
        Level::Info => Some(64),
        Level::Debug | Level::Trace => None,
    }
}

/// The words of a record without its numbers. Whoever chooses a number must not choose a kind, so what could be one in hexadecimal is one.
fn kind(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(entry.target.as_bytes());
    let words = entry.text.split(|c: char| !c.is_ascii_alphanumeric());
    let number = |word: &str| {
        word.bytes().any(|b| b.is_ascii_digit())
            || word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit())
    };
    for word in words.filter(|word| !number(word)) {
        hasher.write(word.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

/// Between two times that what is held back is summed up.
const EVERY: Duration = Duration::from_secs(1);
/// Kinds remembered.
const KINDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(text: &str) -> Entry {
        Entry { level: Level::Warn, target: "machnetd".to_owned(), text: text.to_owned() }
    }

    fn texts(entries: Vec<Entry>) -> Vec<String> {
        entries.into_iter().map(|entry| entry.text).collect()
    }

    #[test]
    fn a_flood_is_told_once_a_second_with_its_count_and_others_are_heard_beside_it() {
        let mut repeats = Repeats::default();
        let mut written = 0;
        let mut summed = Vec::new();
        for ms in 0..10_000_u64 {
            let now = Duration::from_millis(ms);
            written += usize::from(repeats.admit(now, warning(&format!("process {ms}: no"))).is_some());
            if repeats.due().is_some_and(|at| at <= now) {
                summed.extend(texts(repeats.catch_up(now)));
            }
        }
        assert_eq!(written, 8, "as they came");
        assert_eq!(summed.len(), 9, "{summed:?}");
        assert_eq!(summed[0], "process 1008: no (and 1000 more like it within a second)");
        assert!(repeats.admit(Duration::from_secs(10), warning("process 1: another matter")).is_some());
    }

    #[test]
    fn the_last_of_a_burst_is_not_lost() {
        let mut repeats = Repeats::default();
        let at = Duration::from_secs(5);
        (0..9).for_each(|i| drop(repeats.admit(at, warning(&format!("no {i}")))));
        assert_eq!(repeats.due(), Some(Duration::from_secs(6)));
        assert!(repeats.catch_up(Duration::from_millis(5999)).is_empty());
        assert_eq!(texts(repeats.catch_up(Duration::from_secs(6))), ["no 8"]);
        assert_eq!(repeats.due(), None);
        assert!(repeats.admit(Duration::from_secs(7), warning("no 9")).is_some(), "one a second is no flood");
    }

    #[test]
    fn who_chooses_numbers_does_not_choose_kinds() {
        let mut repeats = Repeats::default();
        let mut written = 0;
        for i in 0..100_000_u64 {
            let letters: String =
                format!("{i:016x}").bytes().map(|b| char::from(b'a' + (b & 0xf) % 6)).collect();
            let text =
                format!("layout {letters}, {:#x} is not of this protocol", i.wrapping_mul(0x9e37_79b9));
            written += usize::from(repeats.admit(Duration::ZERO, warning(&text)).is_some());
        }
        assert_eq!(written, 8);
    }

    #[test]
    fn whoever_invents_kinds_is_bounded_too() {
        let mut repeats = Repeats::default();
        let word = |i: u32| -> String { format!("{i}").bytes().map(|b| char::from(b + 60)).collect() };
        let admitted = (0..100_000).filter(|&i| repeats.admit(Duration::ZERO, warning(&word(i))).is_some());
        assert!(admitted.count() <= KINDS + 8);
    }
}

//! The file: TOML to [`Settings`], and errors that name the line, the key, the value and what is allowed.

use std::ops::Range;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::Mistake;
use super::settings::{Given, KEYS, Key, Kind, SetBy, Settings};

/// The file's text and the name to call it by. Empty when there is none.
#[derive(Debug, Clone, Default)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// Reads the file.
    ///
    /// # Errors
    /// One sentence with the path.
    pub fn read(path: &Path) -> Result<Source, String> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Source { name, text }),
            Err(error) => Err(format!("{name}: cannot read the configuration: {error}")),
        }
    }

    /// A file that a test made up.
    #[cfg(test)]
    pub fn of(name: &str, text: &str) -> Source {
        Source { name: name.to_owned(), text: text.to_owned() }
    }

    /// What the file sets, as far as it can be understood, and every mistake on the way: bad TOML, unknown sections,
    /// unknown keys.
    pub fn parse(&self) -> (Settings, Vec<Mistake>) {
        let mut settings = Settings::default();
        let (root, errors) = DeTable::parse_recoverable(&self.text);
        let mut mistakes: Vec<Mistake> = errors.iter().map(|error| self.syntax(error)).collect();
        let broken: Vec<usize> = mistakes.iter().map(|mistake| self.line(mistake.at)).collect();
        let mut add = |span: Range<usize>, text: String| {
            // What is left of a line that is no TOML says nothing.
            if !broken.contains(&self.line(span.start)) {
                mistakes.push(Mistake::new(span.start, format!("{}: {text}", self.place(&span))));
            }
        };
        for (name, value) in root.get_ref() {
            let section = name.get_ref().as_ref();
            let keys: Vec<&Key> = KEYS.iter().filter(|key| key.section == section).collect();
            let known = keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
            let written = self.quote(&value.span());
            match value.get_ref() {
                _ if keys.is_empty() => {
                    let written = match value.get_ref() {
                        DeValue::Table(_) => format!("[{section}]: unknown section"),
                        _ => format!("{section} = {written}: unknown key"),
                    };
                    let mut sections: Vec<String> =
                        KEYS.iter().map(|key| format!("[{}]", key.section)).collect();
                    sections.dedup();
                    add(name.span(), format!("{written}; the sections are {}", sections.join(", ")));
                }
                DeValue::Table(table) => {
                    for (name, value) in table {
                        let word = name.get_ref().as_ref();
                        let written = self.quote(&value.span());
                        match keys.iter().find(|key| key.name == word) {
                            Some(key) => settings.write(key, value.span(), plain(value.get_ref())),
                            None => add(
                                name.span(),
                                format!("{section}.{word} = {written}: unknown key; [{section}] has {known}"),
                            ),
                        }
                    }
                }
                _ => add(
                    value.span(),
                    format!("{section} = {written}: must be a section: a line [{section}], then {known}"),
                ),
            }
        }
        (settings, mistakes)
    }

    /// `machnetd.toml:7: engines.idle = "fast": reason`, or `--idle fast: reason`.
    pub fn refusal(&self, key: &str, given: &Option<Given>, reason: &str) -> Mistake {
        match given.as_ref().map(|given| &given.set_by) {
            Some(SetBy::File(span)) => Mistake::new(
                span.start,
                format!("{}: {key} = {}: {reason}", self.place(span), self.quote(span)),
            ),
            Some(SetBy::Flag(flag, text)) => Mistake::somewhere(format!("{flag} {text}: {reason}")),
            None => Mistake::somewhere(format!("{key}: {reason}")),
        }
    }

    /// Whether both bytes are on one line of the file.
    pub fn same_line(&self, a: usize, b: usize) -> bool {
        a.max(b) <= self.text.len() && self.line(a) == self.line(b)
    }

    /// `name:line`.
    fn place(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.name, 1 + self.line(span.start))
    }

    /// The value as it is written, in one line and not too long.
    fn quote(&self, span: &Range<usize>) -> String {
        let text = self.text.get(span.clone()).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        if line.chars().count() <= QUOTE {
            line
        } else {
            line.chars().take(QUOTE).chain("...".chars()).collect()
        }
    }

    /// The words of the TOML parser are kept for TOML's own rules only.
    fn syntax(&self, error: &toml::de::Error) -> Mistake {
        let span = error.span().unwrap_or(0..0);
        let place = self.place(&span);
        let text = match self.leading_zero(&span) {
            Some(text) => format!("{place}: {text}"),
            None => {
                let message = error.message().lines().collect::<Vec<_>>().join(" ");
                format!("{place}: not valid TOML: {message}")
            }
        };
        Mistake { syntax: true, ..Mistake::new(span.start, text) }
    }

    /// What to write instead of `mode = 0660`, which people know from elsewhere and TOML refuses.
    fn leading_zero(&self, span: &Range<usize>) -> Option<String> {
        let line = self.text.lines().nth(self.line(span.start))?;
        let (name, value) = line.split('#').next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let digits = value.strip_prefix('0').filter(|rest| !rest.is_empty())?;
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let word = name.rsplit('.').next()?.trim();
        let number = KEYS.iter().any(|key| key.name == word && key.kind == Kind::Number);
        let instead = if number { digits.trim_start_matches('0').to_owned() } else { format!("{value:?}") };
        Some(format!("{name} = {value}: in TOML no number begins with 0; write {name} = {instead}"))
    }

    /// The line of a byte, from 0.
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or(&self.text).matches('\n').count()
    }
}

/// A value without its place.
fn plain(value: &DeValue) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        // What no whole number of ours holds is out of every range that a setting has.
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or_else(|_| Value::Float(n.as_str().parse().unwrap_or(f64::NAN)), Value::Integer),
        DeValue::Float(n) => Value::Float(n.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(*d),
        DeValue::Array(all) => Value::Array(all.iter().map(|value| plain(value.get_ref())).collect()),
        DeValue::Table(all) => Value::Table(
            all.iter().map(|(name, value)| (name.get_ref().to_string(), plain(value.get_ref()))).collect(),
        ),
    }
}

/// The longest value that is shown whole, characters.
const QUOTE: usize = 60;

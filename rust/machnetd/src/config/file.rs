//! The file: TOML to [`Settings`], and errors that name the line, the key, the value and what is allowed.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::settings::{KEYS, Settings};

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

    /// What the file sets.
    ///
    /// # Errors
    /// The first mistake: bad TOML, an unknown section, an unknown key.
    pub fn parse(&self) -> Result<Settings, String> {
        toml::from_str(&self.text).map_err(|error| self.explain(&error))
    }

    /// `name:line`.
    pub fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        format!("{}:{}", self.name, 1 + before.matches('\n').count())
    }

    /// The value as it is written, in one line and not too long.
    pub fn quote(&self, span: &Range<usize>) -> String {
        let text = self.text.get(span.clone()).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        if line.chars().count() <= QUOTE {
            line
        } else {
            line.chars().take(QUOTE).chain("...".chars()).collect()
        }
    }

    fn explain(&self, error: &toml::de::Error) -> String {
        let span = error.span().unwrap_or(0..0);
        let place = self.place(&span);
        // The words of the TOML parser are kept for TOML's own rules only.
        let Ok(root) = DeTable::parse(&self.text) else {
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            return format!("{place}: not valid TOML: {message}");
        };
        for (name, value) in root.get_ref() {
            let section: Vec<&str> = KEYS
                .iter()
                .filter(|key| key.section == name.get_ref().as_ref())
                .map(|key| key.name)
                .collect();
            if section.is_empty() && name.span() == span {
                let written = match value.get_ref() {
                    DeValue::Table(_) => format!("[{}]: unknown section", name.get_ref()),
                    _ => format!("{} = {}: unknown key", name.get_ref(), self.quote(&value.span())),
                };
                let mut sections: Vec<String> = KEYS.iter().map(|key| format!("[{}]", key.section)).collect();
                sections.dedup();
                return format!("{place}: {written}; the sections are {}", sections.join(", "));
            }
            match value.get_ref() {
                DeValue::Table(table) => {
                    for (key, value) in table {
                        if key.span() == span {
                            let (name, key) = (name.get_ref(), key.get_ref());
                            let written = self.quote(&value.span());
                            let known = section.join(", ");
                            return format!(
                                "{place}: {name}.{key} = {written}: unknown key; [{name}] has {known}"
                            );
                        }
                    }
                }
                _ if value.span() == span => {
                    let (name, written) = (name.get_ref(), self.quote(&span));
                    return format!(
                        "{place}: {name} = {written}: must be a section: a line [{name}], then {}",
                        section.join(", ")
                    );
                }
                _ => {}
            }
        }
        format!("{place}: {}", error.message())
    }
}

/// The longest value that is shown whole, characters.
const QUOTE: usize = 60;

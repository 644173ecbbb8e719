//! The sentence of a channel's last error. Fixed size, so that reporting an error cannot itself run out of memory.
use core::fmt;

/// Bytes of a sentence; what does not fit is cut at a character.
pub const CAPACITY: usize = crate::code::MACHNET_ERROR_TEXT_MAX as usize - 1;

/// A sentence.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Text {
    /// No sentence.
    pub const EMPTY: Self = Self { bytes: [0; CAPACITY], len: 0 };

    /// What `write!` would print.
    pub fn of(sentence: fmt::Arguments<'_>) -> Self {
        let mut text = Self::EMPTY;
        // An overlong sentence is cut; there is nobody to report that to.
        let _ = fmt::Write::write_fmt(&mut text, sentence);
        text
    }

    /// The sentence.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let mut utf8 = [0; 4];
            let utf8 = c.encode_utf8(&mut utf8).as_bytes();
            let Some(room) = self.bytes.get_mut(self.len..self.len + utf8.len()) else {
                return Err(fmt::Error);
            };
            room.copy_from_slice(utf8);
            self.len += utf8.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_is_too_long_is_cut_at_a_character() {
        let mut long = [b'x'; CAPACITY + 10];
        long[CAPACITY - 1] = 0xc3; // a two-byte character across the end
        long[CAPACITY] = 0xa9;
        let long = core::str::from_utf8(&long).expect("utf-8");
        let text = Text::of(format_args!("{long}"));
        assert_eq!(text.as_bytes(), &long.as_bytes()[..CAPACITY - 1]);
    }
}

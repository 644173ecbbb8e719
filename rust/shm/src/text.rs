//! A sentence for people in memory of fixed size, so that an error can be told where there is no allocator, and telling it cannot itself
//! run out of memory.

use core::fmt;

/// Bytes of a refusal's sentence: few enough that an error which carries one may be passed by value.
pub(crate) const TEXT: usize = 112;

/// A sentence of at most `N` bytes; what does not fit is cut at a character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize = TEXT> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// No sentence.
    pub const EMPTY: Text<N> = Text { bytes: [0; N], len: 0 };

    /// From anything that can be formatted.
    pub fn new(what: impl fmt::Display) -> Text<N> {
        let mut text = Text::EMPTY;
        // An overlong sentence is cut; there is nobody to report that to.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{what}"));
        text
    }

    /// From bytes of the other side: up to the first zero.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Text<N> {
        let mut text = Text::EMPTY;
        for (to, from) in text.bytes.iter_mut().zip(bytes.iter().take_while(|byte| **byte != 0)) {
            *to = *from;
            text.len += 1;
        }
        text
    }

    /// The sentence; what comes from the other side need not be UTF-8.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("(unreadable)")
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Its bytes, with zeros behind them.
    #[cfg(feature = "engine")]
    pub(crate) fn padded(&self) -> &[u8; N] {
        &self.bytes
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let Some(room) = self.bytes.get_mut(self.len..self.len + c.len_utf8()) else {
                return Err(fmt::Error);
            };
            c.encode_utf8(room);
            self.len += c.len_utf8();
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 255;

    #[test]
    fn a_sentence_that_is_too_long_is_cut_at_a_character() {
        let mut long = [b'x'; CAPACITY + 10];
        long[CAPACITY - 1] = 0xc3; // a two-byte character across the end
        long[CAPACITY] = 0xa9;
        let long = core::str::from_utf8(&long).expect("utf-8");
        let text = Text::<CAPACITY>::new(format_args!("{long}"));
        assert_eq!(text.as_bytes(), &long.as_bytes()[..CAPACITY - 1]);
    }

    #[test]
    fn nothing_comes_behind_the_cut() {
        let parts = ["abc", "\u{e9}", "d"];
        let text = Text::<4>::new(format_args!("{}{}{}", parts[0], parts[1], parts[2]));
        assert_eq!(text.as_str(), "abc");
    }

    #[test]
    fn bytes_of_the_other_side_end_at_a_zero_or_where_there_is_no_more_room() {
        for (bytes, want) in
            [(&b"ab\0cd"[..], "ab"), (b"abcdef", "abcd"), (b"", ""), (b"a\xff", "(unreadable)")]
        {
            assert_eq!(Text::<4>::from_bytes(bytes).as_str(), want);
        }
    }
}

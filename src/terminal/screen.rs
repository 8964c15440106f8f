//! The screen that a terminal shows.

use std::num::NonZeroU16;

/// Longest scrollback that is kept, in lines.
const SCROLLBACK: usize = 1000;

/// What a terminal of this size shows after all that was written to it.
pub struct Screen(vt100::Parser);

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Screen").field(&self.0.screen().size()).finish()
    }
}

impl Screen {
    /// An empty screen.
    #[must_use]
    pub fn new(columns: u16, rows: u16) -> Self {
        Self(vt100::Parser::new(at_least_one(rows), at_least_one(columns), SCROLLBACK))
    }

    /// Takes in what the program wrote.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.process(bytes);
    }

    /// Changes the size.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.0.screen_mut().set_size(at_least_one(rows), at_least_one(columns));
    }

    /// What makes an empty terminal of this size show the same, with the same modes.
    #[must_use]
    pub fn redraw(&self) -> String {
        self.0.screen().state_formatted()
    }

    /// The text on it.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.screen().contents()
    }
}

fn at_least_one(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrawn_screen_is_the_same() {
        let mut screen = Screen::new(20, 4);
        screen.push(b"\x1b[31mred\x1b[m\r\nsecond\x1b[1;1H");
        screen.resize(30, 5);
        let mut again = Screen::new(30, 5);
        again.push(screen.redraw().as_bytes());
        assert_eq!(again.text(), screen.text());
        assert_eq!(again.redraw(), screen.redraw());
        assert_eq!(screen.text(), "red\nsecond");
    }
}

//! Recordings in asciicast v2: a line of JSON for the header, then one for each event
//! (<https://docs.asciinema.org/manual/asciicast/v2/>).

use std::time::Duration;

use serde_json::json;

/// Something that happened in a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The program wrote.
    Output(&'a [u8]),
    /// Somebody typed.
    Input(&'a [u8]),
    /// It has another size now.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
}

/// Writes a recording line by line. A character whose bytes come in two events is written with the second.
#[derive(Debug, Default)]
pub struct Cast {
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Cast {
    /// The header: the size at the beginning, and when that was.
    #[must_use]
    pub fn header(columns: u16, rows: u16, began: jiff::Timestamp) -> String {
        let header = json!({"version": 2, "width": columns, "height": rows, "timestamp": began.as_second()});
        format!("{header}\n")
    }

    /// The line of an event, so long after the beginning; empty when a character is not complete yet.
    #[must_use]
    pub fn line(&mut self, after: Duration, event: Event<'_>) -> String {
        let (code, data) = match event {
            Event::Output(bytes) => ("o", text(&mut self.output, bytes)),
            Event::Input(bytes) => ("i", text(&mut self.input, bytes)),
            Event::Resize { columns, rows } => ("r", format!("{columns}x{rows}")),
        };
        if data.is_empty() {
            return String::new();
        }
        format!("[{}.{:06}, \"{code}\", {}]\n", after.as_secs(), after.subsec_micros(), json!(data))
    }
}

/// Most bytes of a character in UTF-8.
const CHARACTER: usize = 4;

/// The text of what was left and what came; what may be the beginning of a character is left.
fn text(left: &mut Vec<u8>, bytes: &[u8]) -> String {
    left.extend_from_slice(bytes);
    let mut complete = left.len();
    for back in 1..CHARACTER.min(left.len() + 1) {
        let byte = left[left.len() - back];
        if byte >= 0xC0 {
            let needed = match byte {
                0xF0.. => 4,
                0xE0.. => 3,
                _ => 2,
            };
            if needed > back {
                complete = left.len() - back;
            }
            break;
        }
        if byte < 0x80 {
            break;
        }
    }
    let rest = left.split_off(complete);
    let text = String::from_utf8_lossy(left).into_owned();
    *left = rest;
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_of_json() {
        let mut cast = Cast::default();
        let after = Duration::from_millis(1500);
        assert_eq!(cast.line(after, Event::Output(b"a\"\x1b[m")), "[1.500000, \"o\", \"a\\\"\\u001b[m\"]\n");
        assert_eq!(cast.line(after, Event::Input(b"q")), "[1.500000, \"i\", \"q\"]\n");
        assert_eq!(
            cast.line(after, Event::Resize { columns: 80, rows: 24 }),
            "[1.500000, \"r\", \"80x24\"]\n"
        );
        let header: serde_json::Value =
            serde_json::from_str(&Cast::header(80, 24, jiff::Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(header["version"], 2);
        assert_eq!(header["width"], 80);
    }

    #[test]
    fn a_character_in_two_events_stays_one() {
        for word in ["é", "€", "😀"] {
            for cut in 1..word.len() {
                let mut cast = Cast::default();
                let (first, second) = word.as_bytes().split_at(cut);
                assert_eq!(cast.line(Duration::ZERO, Event::Output(first)), "", "{word} {cut}");
                assert!(cast.line(Duration::ZERO, Event::Output(second)).contains(word), "{word} {cut}");
            }
        }
        let mut cast = Cast::default();
        assert!(cast.line(Duration::ZERO, Event::Output(b"\xff\x80x")).contains('x'), "garbage goes through");
    }
}

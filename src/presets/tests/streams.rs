//! What is read from the output of each agent.

use serde::Deserialize;
use serde_json::json;

use super::super::*;
use crate::{kinds::harness_run::Usage, report::Verdict};

/// One stream that the presets are known to meet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    preset: Preset,
    output: String,
    exit: i32,
    verdict: String,
    usage: Option<Usage>,
}

impl Case {
    /// Reads the stream in pieces of `piece` bytes.
    fn read(&self, piece: usize) -> Reading {
        let mut reader = RecordReader::new(self.preset);
        self.output.as_bytes().chunks(piece).for_each(|bytes| reader.push(bytes));
        reader.finish(self.exit)
    }
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("streams.yaml")).unwrap();
    assert!(cases.len() > 25, "{}", cases.len());
    cases
}

fn word(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => "none".into(),
        Some(Verdict::Succeeded) => "succeeded".into(),
        Some(Verdict::Missing) => "missing".into(),
        Some(Verdict::Failed { reason, .. }) => reason.to_string(),
    }
}

#[test]
fn verdicts() {
    for case in cases() {
        for piece in [1, 7, 1 << 20] {
            let reading = case.read(piece);
            assert_eq!(word(reading.record.verdict.as_ref()), case.verdict, "{}", case.what);
            assert_eq!(reading.skipped_lines, 0, "{}", case.what);
        }
    }
}

#[test]
fn a_good_end_tells_words_usage_and_session() {
    for case in cases().into_iter().filter(|case| case.verdict == "succeeded") {
        let record = case.read(64).record;
        assert_eq!(record.summary, "I am done.", "{}", case.what);
        assert_eq!(record.session.as_deref(), Some("s1"), "{}", case.what);
        assert!(case.usage.is_some(), "{}", case.what);
        assert_eq!(record.usage, case.usage, "{}", case.what);
    }
}

#[test]
fn noise_is_counted_and_length_is_bounded() {
    let mut reader = RecordReader::new(Preset::Pi);
    reader.push(b"not json\n\n[1]\n\xff\xfe\n");
    let message = json!({"type": "message_end", "message": {
        "role": "assistant", "content": [{"type": "text", "text": "é".repeat(20_000)}], "stopReason": "stop",
    }});
    reader.push(format!("{message}\n").as_bytes());
    reader.push(br#"{"type":"agent_end","messages":[""#);
    for _ in 0..17 {
        reader.push(&vec![b'x'; 1 << 20]);
    }
    reader.push(b"\"]}\n");
    let reading = reader.finish(0);
    assert_eq!(reading.skipped_lines, 4, "three lines of noise and one too long");
    assert_eq!(word(reading.record.verdict.as_ref()), "succeeded", "the head of the long line is enough");
    assert_eq!(reading.record.summary.len(), 16 * 1024);
}

use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    status: Value,
    /// The time of deletion, in seconds; the case's `now` is 1000.
    deleted: Option<i64>,
    /// What was said about it last, if that is a complaint: reason and message.
    said: Option<(String, String)>,
    /// Reason, a part of the message, and the phase in which the run ends.
    trouble: Option<(String, String, Option<Phase>)>,
    /// What else is true of it.
    #[serde(default)]
    is: Vec<String>,
}

#[test]
fn every_case_of_the_table() {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("cases.yaml")).unwrap();
    assert!(cases.len() > 25);
    for case in cases {
        let status: PodStatus = serde_json::from_value(case.status).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let look = Look { status: &status, deleted: case.deleted.map(at), now: at(1000) };
        let name = case.name;
        let said = case.said.map(|(reason, message)| Complaint { reason, message });
        let found = look.trouble().or_else(|| look.stalled(said.as_ref()?));
        match (found, case.trouble) {
            (None, None) => {}
            (Some(found), Some((reason, part, ends))) => {
                assert_eq!((found.reason.as_str(), found.ends), (reason.as_str(), ends), "{name}: {found:?}");
                assert!(found.message.contains(&part), "{name}: {found:?}");
            }
            (found, wanted) => panic!("{name}: {found:?}, not {wanted:?}"),
        }
        let all = [
            ("begun", look.begun()),
            ("attended", look.attended()),
            ("vanished", look.vanished()),
            ("released", look.released()),
        ];
        let is: Vec<&str> = all.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
        assert_eq!(is, case.is, "{name}");
    }
}

#[test]
fn a_long_text_is_cut() {
    let message = "é".repeat(1000);
    let condition = serde_json::json!({"type": "PodScheduled", "status": "False", "message": message});
    let status: PodStatus = serde_json::from_value(serde_json::json!({"conditions": [condition]})).unwrap();
    let look = Look { status: &status, deleted: None, now: Timestamp::UNIX_EPOCH };
    assert!(look.trouble().unwrap().message.len() <= MAX_MESSAGE);
}

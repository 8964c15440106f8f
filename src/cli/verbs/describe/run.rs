//! What a run's status says.

use super::{row, section};
use crate::{
    cli::columns::align,
    kinds::{
        HarnessRun, Reason,
        harness_run::{EgressSeen, HarnessRunStatus},
    },
};

pub(super) fn tell(text: &mut String, run: &HarnessRun) {
    let Some(status) = &run.status else { return };
    section(text, "State", &align(state(status).iter()));
    let history = status.phase_history.iter().map(|at| {
        let reason = at.reason.map(Reason::as_str).unwrap_or_default();
        row([&at.time.0.to_string(), at.phase.as_str(), reason])
    });
    section(text, "Phases", &align(history.collect::<Vec<_>>().iter()));
    if let Some(egress) = &status.egress {
        section(text, "Denied", &denied(egress));
    }
}

fn state(status: &HarnessRunStatus) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut add = |title: &str, value: Option<String>| {
        rows.extend(value.filter(|value| !value.is_empty()).map(|value| row([title, &value])));
    };
    add(
        "Phase:",
        status.phase.map(|phase| {
            let reason = status.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = status.message.as_ref().map(|message| format!(": {}", super::one_line(message)));
            format!("{phase}{reason}{}", message.unwrap_or_default())
        }),
    );
    add("Exit code:", status.exit_code.map(|code| code.to_string()));
    add("Started:", status.start_time.as_ref().map(|time| time.0.to_string()));
    add("Finished:", status.completion_time.as_ref().map(|time| time.0.to_string()));
    add(
        "Claim:",
        status.claim.as_ref().map(|claim| {
            let parts = [("commit", &claim.commit), ("holder", &claim.holder)];
            let parts = parts.iter().filter_map(|(word, value)| Some(format!("{word} {}", value.as_ref()?)));
            parts.collect::<Vec<_>>().join(", ")
        }),
    );
    add("Place:", status.place.as_ref().map(|place| place.name.clone()));
    add(
        "Result:",
        status.result.as_ref().map(|result| {
            let at = match (&result.commit, &result.path) {
                (Some(commit), Some(path)) => format!("{commit}:{path}"),
                _ => "not recorded in Git".to_owned(),
            };
            format!("{at} ({})", result.outcome)
        }),
    );
    if let Some(changes) = &status.changes {
        add(
            "Branch:",
            changes.branch.as_ref().map(|branch| {
                let head = changes.head.as_ref().map(|head| format!(" at {head}"));
                format!("{branch}{}", head.unwrap_or_default())
            }),
        );
        let (files, additions, deletions) = (changes.files, changes.additions, changes.deletions);
        add("Changes:", Some(format!("{files} files, +{additions} -{deletions}")));
    }
    add(
        "Usage:",
        status.usage.as_ref().map(|usage| {
            let input = usage.input_tokens.map(|tokens| format!("{tokens} tokens in"));
            let output = usage.output_tokens.map(|tokens| format!("{tokens} out"));
            let usd = usage.usd.as_ref().map(|usd| format!("{usd} USD"));
            [input, output, usd].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }),
    );
    add("Agent session:", status.agent_session.as_ref().map(|session| session.id.clone()));
    add(
        "Egress:",
        status.egress.as_ref().map(|egress| format!("{} allowed, {} denied", egress.allowed, egress.denied)),
    );
    rows
}

fn denied(egress: &EgressSeen) -> String {
    let lines = egress.denials.iter().map(|denial| {
        format!("{}x {}:{}: {}\n", denial.count, denial.host, denial.port, super::one_line(&denial.reason))
    });
    lines.collect()
}

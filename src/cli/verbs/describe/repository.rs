//! What a repository's status says.

use super::{row, section};
use crate::{cli::columns::align, kinds::ConfigRepository};

pub(super) fn tell(text: &mut String, repository: &ConfigRepository) {
    let Some(status) = &repository.status else { return };
    let applied = status.last_applied.as_ref();
    let applied = applied.map(|applied| format!("{}, {} objects", applied.commit, applied.objects));
    let rows = [
        ("Fetched:", status.last_fetched.clone()),
        ("Applied:", applied),
        ("Ledger:", status.ledger_tip.clone()),
        ("Last asked:", status.last_handled_reconcile_at.clone()),
    ];
    let rows: Vec<_> = rows.iter().filter_map(|(title, value)| Some(row([title, value.as_ref()?]))).collect();
    section(text, "State", &align(rows.iter()));
    let diagnostics = status.diagnostics.iter().map(|told| {
        let message = super::one_line(&told.message);
        format!("{}:{}:{}: {}: {message}\n", told.path, told.line, told.column, told.code)
    });
    section(
        text,
        "Diagnostics",
        &(diagnostics.collect::<String>() + &rest(status.diagnostics.len(), status.diagnostics_total)),
    );
    let held = status.held.iter().map(|held| format!("{}: {}\n", held.object, super::one_line(&held.reason)));
    section(text, "Held", &(held.collect::<String>() + &rest(status.held.len(), status.held_total)));
    let history = status.history.iter().map(|at| row([&at.time.0.to_string(), &at.commit]));
    section(text, "History", &align(history.collect::<Vec<_>>().iter()));
}

/// How many are not listed.
fn rest(listed: usize, total: Option<i64>) -> String {
    let total = total.and_then(|total| usize::try_from(total).ok()).unwrap_or(listed);
    if total > listed { format!("and {} more\n", total - listed) } else { String::new() }
}

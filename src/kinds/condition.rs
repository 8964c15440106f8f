//! Conditions by the rules of kstatus: `Ready`, `Reconciling`, `Stalled` and, for runs, `Succeeded`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Reason;

/// The condition types that ostler writes.
pub mod types {
    /// Everything asked for is done.
    pub const READY: &str = "Ready";
    /// Work is going on.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will happen until somebody acts.
    pub const STALLED: &str = "Stalled";
    /// A run's outcome.
    pub const SUCCEEDED: &str = "Succeeded";
    /// The ledger has the run's claim.
    pub const CLAIMED: &str = "Claimed";
    /// The way out was probed.
    pub const EGRESS_PROVEN: &str = "EgressProven";
    /// The limits hold.
    pub const LIMITS_ENFORCED: &str = "LimitsEnforced";
    /// The ledger has the run's result.
    pub const RESULT_RECORDED: &str = "ResultRecorded";
    /// The code branch was pushed.
    pub const PUSHED: &str = "Pushed";
    /// Commits are verified.
    pub const VERIFIED: &str = "Verified";
    /// The ledger can be read and written.
    pub const LEDGER_READY: &str = "LedgerReady";
    /// The run's spec differs from what was claimed.
    pub const SPEC_CHANGED: &str = "SpecChanged";
}

/// `True`, `False` or `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}

impl State {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Longest message of a condition; the API server's own limit is 32,768.
pub const MAX_MESSAGE: usize = 1024;

/// Sets one condition. `lastTransitionTime` moves only when the state changes, so that setting what already stands
/// changes nothing.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    state: State,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: jiff::Timestamp,
) {
    let message = cut(message);
    let new = Condition {
        type_: type_.to_owned(),
        status: state.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => {
            let since = if old.status == new.status { old.last_transition_time.clone() } else { Time(now) };
            *old = Condition { last_transition_time: since, ..new };
        }
        None => conditions.push(new),
    }
}

/// Takes a condition away; conditions of negative polarity exist only while true.
pub fn clear(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// The condition of that type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// True when the condition is there and `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

fn cut(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let mut end = MAX_MESSAGE - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_same_again_changes_nothing() {
        let mut conditions = Vec::new();
        let early = jiff::Timestamp::from_second(100).unwrap();
        let late = jiff::Timestamp::from_second(200).unwrap();
        set(&mut conditions, types::READY, State::True, Reason::Ready, "ok", Some(1), early);
        let before = conditions.clone();
        set(&mut conditions, types::READY, State::True, Reason::Ready, "ok", Some(1), late);
        assert_eq!(before, conditions);
        set(&mut conditions, types::READY, State::False, Reason::Progressing, "no", Some(1), late);
        assert_eq!(conditions[0].last_transition_time.0, late);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let cut = super::cut(&"ü".repeat(2000));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with('…'));
    }
}

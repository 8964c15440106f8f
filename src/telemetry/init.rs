//! Where log lines go, and in which form.

use std::{fmt, io::IsTerminal, panic::PanicHookInfo, sync::Arc};

use tracing_subscriber::{EnvFilter, filter::ParseError, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged when nobody says otherwise: our own progress, and the warnings of libraries.
pub const DEFAULT_FILTER: &str = "warn,ostler=info";

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("the log filter {filter:?} is not a list of target=level")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Somebody in this process set logging up before.
    #[error("logging is set up already")]
    AlreadySet,
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync + 'static;

/// While it lives, a panic is a log line like any other, also as JSON. Dropping it puts the former hook back.
#[must_use = "panics are logged only while the guard lives"]
pub struct Guard {
    former: Arc<Hook>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A panicking thread may not change the hook.
        if !std::thread::panicking() {
            let former = Arc::clone(&self.former);
            std::panic::set_hook(Box::new(move |info| former(info)));
        }
    }
}

/// Sets logging up for the whole process: lines go to standard error, never to standard output, which belongs to the
/// answer of a command.
///
/// `filter` is a list of `target=level` as in `RUST_LOG`; [`DEFAULT_FILTER`] is a good one.
///
/// # Errors
/// [`Error::Filter`] for a filter that is none, [`Error::AlreadySet`] for a second call.
pub fn init(format: Format, filter: &str) -> Result<Guard, Error> {
    let registry = tracing_subscriber::registry().with(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let set = match format {
        Format::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    set.map_err(|_| Error::AlreadySet)?;
    let former: Arc<Hook> = std::panic::take_hook().into();
    std::panic::set_hook(Box::new(log_panic));
    Ok(Guard { former })
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "(not a text)",
    };
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic = message, at = place, "a task panicked; this is a bug in ostler");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_with_its_text() {
        let error = parse("ostler=loud").unwrap_err();
        assert!(error.to_string().contains("ostler=loud"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(parse(DEFAULT_FILTER).is_ok());
    }
}

//! An error with all its causes, on one line.

use std::{error::Error, fmt};

/// The most causes that are shown; longer chains end with `…`.
const MAX_DEPTH: usize = 16;

/// Shows an error and all its sources as `what: why: why`.
///
/// Our own errors never repeat their source, but those of some libraries do; a cause whose text already ends the line is
/// left out. Line breaks become spaces, so that one error is one line.
///
/// ```
/// # use ostler::telemetry::Chain;
/// let error = std::io::Error::other("disk full");
/// assert_eq!(Chain(&error).to_string(), "disk full");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = one_line(self.0);
        let mut causes = std::iter::successors(self.0.source(), |cause: &&dyn Error| (*cause).source());
        for cause in causes.by_ref().take(MAX_DEPTH) {
            let text = one_line(cause);
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
        }
        if causes.next().is_some() {
            line.push_str(": …");
        }
        f.write_str(&line)
    }
}

fn one_line(error: &dyn Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("{0}")]
        Leaf(String),
        #[error("{what}")]
        Node {
            what: String,
            #[source]
            source: Box<Self>,
        },
    }

    fn node(what: &str, source: Sample) -> Sample {
        Sample::Node { what: what.to_owned(), source: Box::new(source) }
    }

    #[test]
    fn every_cause_is_shown_once_in_order() {
        let error = node("cannot fetch", node("cannot connect", Sample::Leaf("refused".to_owned())));
        assert_eq!(Chain(&error).to_string(), "cannot fetch: cannot connect: refused");
    }

    #[test]
    fn a_library_that_repeats_its_source_is_not_repeated() {
        let error = node("cannot connect: refused", Sample::Leaf("refused".to_owned()));
        assert_eq!(Chain(&error).to_string(), "cannot connect: refused");
    }

    #[test]
    fn line_breaks_do_not_break_the_line() {
        let error = node("a\nb", Sample::Leaf("c\r\n  d".to_owned()));
        assert_eq!(Chain(&error).to_string(), "a b: c d");
    }

    #[test]
    fn a_very_long_chain_is_cut_and_says_so() {
        let long = (0..40).fold(Sample::Leaf("end".to_owned()), |inner, i| node(&format!("step{i}."), inner));
        let text = Chain(&long).to_string();
        assert!(text.ends_with(": …"), "{text}");
        assert_eq!(text.matches("step").count(), MAX_DEPTH + 1);
    }
}

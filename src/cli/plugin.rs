//! The program as a plugin of kubectl: under the name `kubectl-ostler` it is `kubectl ostler`, and under the name
//! `kubectl_complete-ostler` it completes that command line for kubectl.
//!
//! kubectl finds both in `PATH` and passes on the words behind `ostler`. Nothing else reaches a plugin, so it reads
//! `--kubeconfig`, `--context` and `--namespace` by itself, and goes by the current context where they are not given.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Command, parser::ValueSource};
use kube::config::Kubeconfig;

use crate::kinds::Kind;

/// What cobra, which reads the completions, calls "no file names besides".
const NO_FILES: &str = ":4";

/// By which name the program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// `ostler`, and any other name.
    Ostler,
    /// `kubectl-ostler`.
    Plugin,
    /// `kubectl_complete-ostler`.
    Completer,
}

impl Name {
    /// The name in the first word of a command line.
    pub(super) fn of(program: Option<&OsString>) -> Self {
        match program.and_then(|path| Path::new(path).file_stem()).and_then(OsStr::to_str) {
            Some("kubectl-ostler") => Self::Plugin,
            Some("kubectl_complete-ostler") => Self::Completer,
            _ => Self::Ostler,
        }
    }
}

/// Parses a command line that kubectl passed on; a wrong one ends the process, as with clap everywhere.
/// A kubeconfig that cannot be read names no namespace; who connects by it says what is wrong with it.
pub(super) fn matches(command: Command, words: &[OsString]) -> ArgMatches {
    let command = as_plugin(command);
    let matches = command.clone().get_matches_from(words);
    let Some((verb, of_verb)) = matches.subcommand().filter(|(_, of_verb)| wants_namespace(of_verb)) else {
        return matches;
    };
    let kubeconfig = of_verb.get_one::<PathBuf>("kubeconfig");
    let kubeconfig = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let context = of_verb.get_one::<String>("context");
    let Some(namespace) = kubeconfig.ok().and_then(|kubeconfig| namespace_of(&kubeconfig, context)) else {
        return matches;
    };
    let in_it = |arg: Arg| arg.default_value(namespace);
    command.mut_subcommand(verb, |verb| verb.mut_arg("namespace", in_it)).get_matches_from(words)
}

/// True for a verb of a cluster whose namespace nobody gave.
fn wants_namespace(matches: &ArgMatches) -> bool {
    let has = |id| matches.try_contains_id(id).is_ok();
    has("cluster") && has("namespace") && matches.value_source("namespace") == Some(ValueSource::DefaultValue)
}

/// The namespace of a context; of the current one by default.
fn namespace_of(kubeconfig: &Kubeconfig, context: Option<&String>) -> Option<String> {
    let name = context.or(kubeconfig.current_context.as_ref())?;
    let named = kubeconfig.contexts.iter().find(|named| named.name == *name)?;
    named.context.as_ref()?.namespace.clone().filter(|namespace| !namespace.is_empty())
}

/// The command line as kubectl's users see it: called `kubectl ostler`, and speaking to a cluster.
fn as_plugin(command: Command) -> Command {
    command.bin_name("kubectl ostler").mut_subcommands(|verb| {
        let examples =
            verb.get_after_help().map(|text| text.to_string().replace("  ostler ", "  kubectl ostler "));
        let verb = match examples {
            Some(examples) => verb.after_help(examples),
            None => verb,
        };
        if !has(&verb, "cluster") {
            return verb;
        }
        verb.mut_arg("cluster", |arg| arg.default_value("true").hide(true))
            .mut_arg("state", |arg| arg.hide(true))
    })
}

fn has(command: &Command, id: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == id)
}

/// What may stand in place of the last word, in the form that kubectl reads: a candidate and its description a line.
pub(super) fn complete(command: Command, words: &[OsString]) -> String {
    let mut command = as_plugin(command);
    command.build();
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (last, before) =
        words.split_last().map_or(("", &words[..]), |(last, before)| (last.as_str(), before));
    let mut at = &command;
    for word in before {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    let mut lines = String::new();
    for (word, about) in candidates(at, before.last().map_or("", String::as_str), last) {
        if word.starts_with(last) {
            let _ = writeln!(lines, "{word}\t{about}");
        }
    }
    lines + NO_FILES + "\n"
}

fn candidates(at: &Command, previous: &str, last: &str) -> Vec<(String, String)> {
    let about = |text: Option<&clap::builder::StyledStr>| {
        text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
    };
    let shown = |arg: &&Arg| !arg.is_hide_set();
    let flag = |arg: &Arg| arg.get_long().map(|long| format!("--{long}"));
    let open = at.get_arguments().find(|arg| flag(arg).as_deref() == Some(previous));
    if let Some(open) = open.filter(|arg| arg.get_action().takes_values()) {
        let values = open.get_possible_values();
        return values.iter().map(|value| (value.get_name().to_owned(), about(value.get_help()))).collect();
    }
    if last.starts_with('-') {
        let flags = at.get_arguments().filter(shown);
        return flags.filter_map(|arg| Some((flag(arg)?, about(arg.get_help())))).collect();
    }
    let verbs = at.get_subcommands().filter(|verb| !verb.is_hide_set());
    let mut found: Vec<_> = verbs.map(|verb| (verb.get_name().to_owned(), about(verb.get_about()))).collect();
    if has(at, "object") || has(at, "kind") {
        found.extend(Kind::OURS.map(|kind| (kind.typed_names()[1].to_owned(), kind.to_string())));
    }
    found
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_name_says_what_it_is() {
        for (path, name) in [
            ("/usr/bin/ostler", Name::Ostler),
            ("kubectl-ostler", Name::Plugin),
            ("/a b/kubectl-ostler.exe", Name::Plugin),
            ("/usr/bin/kubectl_complete-ostler", Name::Completer),
            ("kubectl", Name::Ostler),
        ] {
            assert_eq!(Name::of(Some(&path.into())), name, "{path}");
        }
        assert_eq!(Name::of(None), Name::Ostler);
    }

    #[test]
    fn help_is_that_of_kubectl_ostler() {
        let parsed = as_plugin(Cli::command()).try_get_matches_from(words("kubectl-ostler stop --help"));
        let help = parsed.unwrap_err().to_string();
        assert!(help.contains("Usage: kubectl ostler stop "), "{help}");
        assert!(
            help.contains("\n  kubectl ostler stop fix-login") && !help.contains("\n  ostler "),
            "{help}"
        );
        assert!(help.contains("--kubeconfig") && !help.contains("--state"), "{help}");
    }

    #[test]
    fn the_namespace_is_that_of_the_context() {
        let kubeconfig = Kubeconfig::from_yaml(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n\
             - {name: a, context: {cluster: x, user: y, namespace: team}}\n\
             - {name: b, context: {cluster: x, user: y}}\n",
        );
        let kubeconfig = kubeconfig.unwrap();
        let of = |context: Option<&str>| namespace_of(&kubeconfig, context.map(str::to_owned).as_ref());
        assert_eq!(of(None).as_deref(), Some("team"));
        assert_eq!(of(Some("b")), None);
        assert_eq!(of(Some("c")), None);
    }

    #[test]
    fn words_are_completed() {
        let complete = |line: &str| {
            let text = complete(Cli::command(), &words(line));
            let text = text.trim_end();
            let (candidates, directive) = text.rsplit_once('\n').unwrap_or(("", text));
            assert_eq!(directive, NO_FILES);
            candidates.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(complete("sus"), ["suspend"]);
        assert_eq!(complete("harn"), Vec::<String>::new(), "what is hidden is not offered");
        assert_eq!(complete("suspend se"), ["session"]);
        assert_eq!(complete("suspend --kub"), ["--kubeconfig"]);
        assert!(complete("get --output ").contains(&"yaml".to_owned()));
        assert!(complete("").contains(&"get".to_owned()));
    }
}

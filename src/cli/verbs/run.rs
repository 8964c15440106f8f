//! `ostler run`.

use std::{io::Read, path::PathBuf, process::ExitCode};

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::{Error, Out, checkout::Checkout, get, stop::committed};
use crate::{
    kinds::{API_VERSION, Kind, ObjectId},
    manifest::{self, Authored, MAX_PROMPT_BYTES, Scope},
    names::{Namespace, ObjectName, RepoPath},
};

/// Arguments of `ostler run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler run --session payments --prompt 'Fix the login test'
  ostler run fix-login --session payments --prompt-file prompt.md --agent claude
  ostler run --session payments --prompt 'Fix it' --print > runs/fix.yaml
The manifest becomes a file in runs/ beside the session's, and a commit of its own; `git push` it where
`ostler up` follows another repository. A name is used once: a run that was recorded never runs again.")]
pub struct RunArgs {
    /// The run's name; default: the date and the prompt's first words
    name: Option<ObjectName>,
    /// The session
    #[arg(long)]
    session: ObjectName,
    /// What the agent is to do
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "prompt_file",
        required_unless_present = "prompt_file"
    )]
    prompt: Option<String>,
    /// A file with that; - is standard input
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// The agent; default: the session's
    #[arg(long)]
    agent: Option<ObjectName>,
    /// The session's namespace
    #[arg(short, long, default_value = "default")]
    namespace: Namespace,
    /// Write the file and commit it (the default)
    #[arg(long, conflicts_with = "print")]
    commit: bool,
    /// Print the manifest, and change nothing
    #[arg(long)]
    print: bool,
    /// The checkout of the config repository
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    checkout: PathBuf,
}

impl RunArgs {
    pub(super) fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let prompt = self.prompt_text()?;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        if self.print {
            let name = self.name.clone().map_or_else(|| new_name(&prompt, today, |_| false), Ok)?;
            let namespace = (self.namespace.as_str() != "default").then_some(&self.namespace);
            out.write_all(self.manifest(&name, namespace, &prompt)?.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        let checkout = Checkout::find(&self.checkout)?;
        let objects = self.objects(&checkout)?;
        let (beside, explicit) = self.session(&objects, &checkout)?;
        let id = |name: ObjectName| ObjectId::new(Kind::HarnessRun, self.namespace.clone(), name);
        let used = |name: &ObjectName| objects.iter().any(|(_, object)| object.id == id(name.clone()));
        let name = match &self.name {
            Some(name) if used(name) => {
                return Err(Error::Refused(format!("{} is in the checkout already", id(name.clone()))));
            }
            Some(name) => name.clone(),
            None => new_name(&prompt, today, used)?,
        };
        let text = self.manifest(&name, explicit.then_some(&self.namespace), &prompt)?;
        let path = file(&beside, &name, today);
        let commit = checkout.add(&path, &text, &format!("run {name}"))?;
        writeln!(out, "{name}")?;
        committed(&checkout, &commit, &path, out)?;
        Ok(ExitCode::SUCCESS)
    }

    fn prompt_text(&self) -> Result<String, Error> {
        let Some(path) = &self.prompt_file else { return Ok(self.prompt.clone().unwrap_or_default()) };
        let limit = MAX_PROMPT_BYTES as u64 + 1;
        let mut text = String::new();
        let read = if path.as_os_str() == "-" {
            std::io::stdin().lock().take(limit).read_to_string(&mut text)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
        };
        read.map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(text)
    }

    /// The objects of the checkout's files.
    fn objects(&self, checkout: &Checkout) -> Result<Vec<(RepoPath, std::sync::Arc<Authored>)>, Error> {
        let scope = scope(&self.namespace);
        let mut objects = Vec::new();
        for path in checkout.manifests()? {
            let Ok(path) = path.parse::<RepoPath>() else { continue };
            // a file that cannot be read holds no session; `ostler validate` tells more
            let Ok(text) = checkout.read(path.as_str()) else { continue };
            let outcome = manifest::parse(&path, text.as_bytes(), &scope);
            objects.extend(outcome.objects.into_iter().map(|object| (path.clone(), object)));
        }
        Ok(objects)
    }

    /// The folder of the session's file, and whether it names its namespace.
    fn session(
        &self,
        objects: &[(RepoPath, std::sync::Arc<Authored>)],
        checkout: &Checkout,
    ) -> Result<(String, bool), Error> {
        let id = ObjectId::new(Kind::Session, self.namespace.clone(), self.session.clone());
        let found = objects.iter().find(|(_, object)| object.id == id);
        let (path, _) = found.ok_or_else(|| {
            let folder = self.checkout.display();
            Error::Refused(format!(
                "{id} is in no committed file of {folder}; name its checkout with -C, or use --print"
            ))
        })?;
        let folder = path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        // read where another namespace is the default, it has its own only if it names it
        let elsewhere = scope(&"elsewhere-than-named".parse()?);
        let again = manifest::parse(path, checkout.read(path.as_str())?.as_bytes(), &elsewhere);
        Ok((folder.to_owned(), again.objects.iter().any(|object| object.id == id)))
    }

    fn manifest(
        &self,
        name: &ObjectName,
        namespace: Option<&Namespace>,
        prompt: &str,
    ) -> Result<String, Error> {
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let mut spec = json!({"sessionRef": {"name": self.session}});
        if let Some(agent) = &self.agent {
            spec["agentRef"] = json!({"name": agent});
        }
        spec["task"] = json!({"prompt": prompt});
        let value: Value =
            json!({"apiVersion": API_VERSION, "kind": "HarnessRun", "metadata": metadata, "spec": spec});
        let text = get::yaml(&value);
        let path = "run.yaml".parse().expect("a path");
        let outcome = manifest::parse(&path, text.as_bytes(), &scope(&self.namespace));
        if let Some(error) = outcome.diagnostics.iter().find(|told| told.is_error()) {
            return Err(Error::Refused(format!("that is no run: {}", error.message)));
        }
        Ok(text)
    }
}

/// Any namespace is allowed; `default` is meant where none is named.
fn scope(default: &Namespace) -> Scope {
    Scope::new(default.clone(), &["*".to_owned()]).expect("a pattern")
}

/// The file of a run: `runs/<date>-<name>.yaml`, the date once.
fn file(beside: &str, name: &ObjectName, today: Date) -> String {
    let folder = if beside.is_empty() { "runs".to_owned() } else { format!("{beside}/runs") };
    let date = today.to_string();
    let dated = name.as_str().starts_with(&date);
    if dated { format!("{folder}/{name}.yaml") } else { format!("{folder}/{date}-{name}.yaml") }
}

/// Most characters of the prompt's words in a name.
const MAX_SLUG: usize = 40;
/// Most names that are tried.
const MAX_TRIES: u32 = 1000;

/// The date and the prompt's first words; a number follows when that is used.
fn new_name(prompt: &str, today: Date, used: impl Fn(&ObjectName) -> bool) -> Result<ObjectName, Error> {
    let slug = slug(prompt);
    for n in 1..MAX_TRIES {
        let suffix = if n == 1 { String::new() } else { format!("-{n}") };
        let name: ObjectName = format!("{today}-{slug}{suffix}").parse()?;
        if !used(&name) {
            return Ok(name);
        }
    }
    Err(Error::Usage("every name of today is used; name the run yourself".to_owned()))
}

/// The first words as lower-case letters, digits and single hyphens; `run` when there are none.
fn slug(prompt: &str) -> String {
    let mut slug = String::new();
    for word in prompt.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let hyphen = usize::from(!slug.is_empty());
        if slug.len() + hyphen + word.len() > MAX_SLUG {
            if slug.is_empty() {
                slug.push_str(&word[..MAX_SLUG]);
            }
            break;
        }
        if hyphen == 1 {
            slug.push('-');
        }
        slug.push_str(word);
    }
    if slug.is_empty() { "run".to_owned() } else { slug.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(prompt: &str) -> RunArgs {
        RunArgs {
            name: None,
            session: "payments".parse().unwrap(),
            prompt: Some(prompt.to_owned()),
            prompt_file: None,
            agent: Some("claude".parse().unwrap()),
            namespace: "default".parse().unwrap(),
            commit: false,
            print: true,
            checkout: ".".into(),
        }
    }

    #[test]
    fn names_come_from_the_day_and_the_words() {
        let today = jiff::civil::date(2026, 11, 21);
        let long = "x".repeat(100);
        for (prompt, expected) in [
            ("Fix the login test!", "2026-11-21-fix-the-login-test"),
            ("  --Ünïcode & 2 words\nmore", "2026-11-21-n-code-2-words-more"),
            ("…", "2026-11-21-run"),
            (&long, &format!("2026-11-21-{}", &long[..MAX_SLUG])),
        ] {
            let name = new_name(prompt, today, |_| false).unwrap();
            assert_eq!(name.as_str(), expected);
        }
        let taken = ["2026-11-21-fix", "2026-11-21-fix-2"];
        let name = new_name("fix", today, |name| taken.contains(&name.as_str())).unwrap();
        assert_eq!(name.as_str(), "2026-11-21-fix-3");
    }

    #[test]
    fn files_carry_the_date_once() {
        let today = jiff::civil::date(2026, 11, 21);
        let file = |beside: &str, name: &str| file(beside, &name.parse().unwrap(), today);
        assert_eq!(file("teams/pay", "2026-11-21-fix"), "teams/pay/runs/2026-11-21-fix.yaml");
        assert_eq!(file("", "fix"), "runs/2026-11-21-fix.yaml");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let prompt = "Fix: the \"login\" test\n\n  - it # fails\n\tyes\n";
        let args = args(prompt);
        let namespace = "team".parse().unwrap();
        let text = args.manifest(&"fix".parse().unwrap(), Some(&namespace), prompt).unwrap();
        let outcome = manifest::parse(&"a.yaml".parse().unwrap(), text.as_bytes(), &scope(&args.namespace));
        assert_eq!(outcome.diagnostics, vec![], "{text}");
        let value = &outcome.objects[0].value;
        assert_eq!(value["spec"]["task"]["prompt"], prompt);
        assert_eq!(value["spec"]["agentRef"]["name"], "claude");
        assert_eq!(outcome.objects[0].id.namespace, namespace);
        for bad in [String::new(), "x".repeat(MAX_PROMPT_BYTES + 1)] {
            assert!(args.manifest(&"fix".parse().unwrap(), None, &bad).is_err());
        }
    }
}

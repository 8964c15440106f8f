//! When each commit of the ledger could be seen: somebody who looks at the branch all the time.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::stage::{LEDGER, Stage, git};

/// How often the branch is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Looks at the branch until it is dropped.
pub(crate) struct Onlooker {
    seen: Arc<Mutex<Vec<(String, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Onlooker {
    /// Begins to look.
    pub(crate) fn start(stage: &Stage) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (to, stopped, branch) = (seen.clone(), stop.clone(), stage.config().join(LEDGER));
        let thread = thread::spawn(move || {
            let mut last = String::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(tip) = fs::read_to_string(&branch)
                    && tip != last
                {
                    let moment = Instant::now();
                    to.lock().unwrap_or_else(PoisonError::into_inner).push((tip.trim().to_owned(), moment));
                    last = tip;
                }
                thread::sleep(LOOK);
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// When the result of each run could be seen first, by the run's name.
    pub(crate) fn results(&self, stage: &Stage) -> Result<BTreeMap<String, Instant>> {
        let log = ["log", "--reverse", "--format=commit %H", "--name-only", "--diff-filter=A", LEDGER];
        let log = git(&stage.config(), &log)?;
        let commits: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("commit ")).collect();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tips: Vec<(usize, Instant)> = seen
            .iter()
            .filter_map(|(tip, moment)| Some((commits.iter().position(|commit| commit == tip)?, *moment)))
            .collect();
        let mut results = BTreeMap::new();
        let mut number = None;
        for line in log.lines() {
            if line.starts_with("commit ") {
                number = Some(number.map_or(0, |number| number + 1));
            } else if let Some(run) = line.strip_suffix("/result.yaml") {
                let run = run.rsplit('/').next().unwrap_or_default().to_owned();
                let first = tips.iter().find(|(tip, _)| Some(*tip) >= number);
                let (_, moment) = first.context("a commit of the ledger that nobody saw")?;
                results.insert(run, *moment);
            }
        }
        Ok(results)
    }

    /// When the result of one run could be seen first.
    pub(crate) fn result(&self, stage: &Stage, run: &str) -> Result<Instant> {
        self.results(stage)?.remove(run).ok_or_else(|| anyhow!("the ledger has no result of {run}"))
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // it has nothing to say
            let _ = thread.join();
        }
    }
}

/// Commits of the ledger that begin with a word: how many results or claims share one is the recorder's choice.
pub(crate) fn commits(stage: &Stage, file: &str) -> Result<usize> {
    let glob = format!(":(glob)runs/**/{file}");
    let log = git(&stage.config(), &["log", "--format=%H", "--diff-filter=A", LEDGER, "--", &glob])?;
    Ok(log.lines().count())
}

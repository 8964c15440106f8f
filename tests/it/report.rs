//! What a scenario leaves for the report of `make test`: a line when it ends, in the folder that `OSTLER_TEST_REPORT`
//! names. Without that nothing is written. `scripts/test-report.rs` reads it.

use std::{fs::File, io::Write, path::PathBuf, time::Instant};

/// A scenario that runs: from its making, on the test's own thread, to its end.
#[derive(Debug)]
pub(crate) struct Scenario {
    name: String,
    engine: &'static str,
    server_version: String,
    begun: Instant,
}

impl Scenario {
    /// The test of this thread begins a scenario on an engine.
    ///
    /// # Panics
    /// On a thread without a name. One that a test starts takes the test's.
    pub(crate) fn begin(engine: &'static str, server_version: String) -> Self {
        let thread = std::thread::current();
        let name = thread.name().expect("a thread with a scenario has its test's name").to_owned();
        Self { name, engine, server_version, begun: Instant::now() }
    }

    fn line(&self, passed: bool) -> String {
        let line = serde_json::json!({
            "scenario": self.name, "engine": self.engine, "serverVersion": self.server_version,
            "seconds": self.begun.elapsed().as_secs_f64(), "passed": passed,
        });
        format!("{line}\n")
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let Some(folder) = std::env::var_os("OSTLER_TEST_REPORT").map(PathBuf::from) else { return };
        // one file for each process, and one write for each line: tests of a process end at the same time
        let path = folder.join(format!("{}-{}.jsonl", self.engine, std::process::id()));
        let line = self.line(!std::thread::panicking());
        let written = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            // not a panic, as one may be on its way; the report misses the scenario, and says so
            eprintln!("{}: {error}", path.display());
        }
    }
}

#[test]
fn a_scenario_is_called_what_its_test_is() {
    let scenario = Scenario::begin("embedded", "v".to_owned());
    let line: serde_json::Value = serde_json::from_str(&scenario.line(true)).unwrap();
    assert_eq!(line["scenario"], "report::a_scenario_is_called_what_its_test_is");
    std::mem::forget(scenario);
}

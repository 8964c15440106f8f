//! `ostler up` as a process: what it says, and its end.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) use super::world::PATIENCE;

/// `ostler` in a folder, with a home there, and without the machine's or the user's configuration.
pub(crate) fn ostler(folder: &Path) -> Command {
    let home = folder.join("home");
    std::fs::create_dir_all(&home).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ostler"));
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// A running `ostler up`; dropped, it is asked to end.
pub(crate) struct Up {
    child: Child,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None`: a signal.
    pub(crate) code: Option<i32>,
    /// All that it wrote, both streams.
    pub(crate) text: String,
}

#[derive(Default)]
struct Said {
    heard: Mutex<Heard>,
    more: Condvar,
}

#[derive(Default)]
struct Heard {
    /// Both streams, line by line.
    lines: Vec<String>,
    /// How many streams are at their end.
    ended: usize,
}

impl Up {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Said::default());
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        let readers = [out, err].into_iter().map(|stream| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || said.listen(stream))
        });
        Self { readers: readers.collect(), said, child }
    }

    /// Waits for a line of progress, among those so far too.
    pub(crate) fn line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        let mut heard = self.said.heard.lock().unwrap();
        loop {
            let lines = heard.lines.iter().filter_map(|line| serde_json::from_str(line).ok());
            if let Some(line) = lines.into_iter().find(|line| is_it(line)) {
                return line;
            }
            let left = end.saturating_duration_since(Instant::now());
            let over = left.is_zero() || heard.ended == 2;
            assert!(!over, "never: {what}; it said:\n{}", heard.lines.join("\n"));
            heard = self.said.more.wait_timeout(heard, left).unwrap().0;
        }
    }

    /// All that it wrote so far.
    pub(crate) fn text(&self) -> String {
        self.said.heard.lock().unwrap().lines.join("\n")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub(crate) fn stop(self) -> Ended {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.end()
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> Ended {
        let text = self.said.whole();
        let text = text.unwrap_or_else(|text| panic!("it does not end; it said:\n{text}"));
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended { code: self.child.wait().unwrap().code(), text }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended in between.
            let _ = kill_process(self.pid(), Signal::TERM);
            if self.said.whole().is_err() {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("ostler up said:\n{}", self.text());
        }
    }
}

impl Said {
    fn listen(&self, stream: impl Read) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).unwrap() > 0 {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.heard.lock().unwrap().lines.push(text);
            self.more.notify_all();
            line.clear();
        }
        self.heard.lock().unwrap().ended += 1;
        self.more.notify_all();
    }

    /// Both streams to their ends; what came so far if they do not end.
    fn whole(&self) -> Result<String, String> {
        let heard = self.heard.lock().unwrap();
        let (heard, waited) = self.more.wait_timeout_while(heard, PATIENCE, |heard| heard.ended < 2).unwrap();
        let text = heard.lines.join("\n");
        if waited.timed_out() { Err(text) } else { Ok(text) }
    }
}

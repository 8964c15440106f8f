//! The time, the bytes and the caller's patience that one operation may use.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::causes;
use super::remote::Remote;
use super::{Error, LimitKind, Limits, Location};

/// How long a blocked read waits before it looks at the interrupt flag again.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Shared by all parts of one operation. The first failure is kept here in our own words, because on its way
/// through gix it becomes an `io::Error` inside a chain of messages.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    location: &'a Location,
    deadline: Instant,
    timeout: Duration,
    interrupt: &'a AtomicBool,
    limit: u64,
    received: Cell<u64>,
    failure: RefCell<Option<Error>>,
    failed: Cell<bool>,
}

impl<'a> Budget<'a> {
    /// The clock starts now.
    pub(super) fn new(remote: &'a Remote, limits: &Limits, interrupt: &'a AtomicBool) -> Self {
        Self {
            location: remote.location(),
            deadline: Instant::now() + remote.timeout(),
            timeout: remote.timeout(),
            interrupt,
            limit: limits.received_bytes,
            received: Cell::new(0),
            failure: RefCell::new(None),
            failed: Cell::new(false),
        }
    }

    pub(super) fn location(&self) -> &'a Location {
        self.location
    }

    pub(super) fn interrupt(&self) -> &'a AtomicBool {
        self.interrupt
    }

    /// Bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// How long to wait before asking again; an error when there is nothing left to wait for.
    pub(super) fn wait(&self) -> io::Result<Duration> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(self.fail(Error::Interrupted));
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let location = self.location.clone();
            return Err(self.fail(Error::Timeout { location, after: self.timeout }));
        }
        Ok(left.min(PATIENCE))
    }

    /// Counts bytes that came in.
    pub(super) fn receive(&self, bytes: usize) -> io::Result<()> {
        let received = self.received.get().saturating_add(bytes as u64);
        self.received.set(received);
        if received > self.limit {
            return Err(self.exceeded(LimitKind::ReceivedBytes, self.limit));
        }
        Ok(())
    }

    pub(super) fn exceeded(&self, what: LimitKind, limit: u64) -> io::Error {
        self.fail(Error::LimitExceeded { what, limit, place: self.location.to_string() })
    }

    /// Keeps the first failure, and gives the error that stops gix.
    pub(super) fn fail(&self, error: Error) -> io::Error {
        let stop = io::Error::other(error.to_string());
        self.failed.set(true);
        self.failure.borrow_mut().get_or_insert(error);
        stop
    }

    /// Whether anything failed so far, explained or not.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Our own failure if there is one, else what gix made of the server's answer.
    pub(super) fn explain(&self, error: gix::Error) -> Error {
        if let Some(failure) = self.failure.borrow_mut().take() {
            return failure;
        }
        let location = self.location.clone();
        // What upload-pack says about an object that it does not have, or does not want to give.
        let refused = causes(&error)
            .map(ToString::to_string)
            .find_map(|said| said.split_once("not our ref ").map(|(_, id)| id.trim().to_owned()));
        if let Some(id) = refused {
            Error::NotFound { what: format!("object {id}"), place: location.to_string() }
        } else if error.is_cancelled() {
            Error::Interrupted
        } else if error.is_unsupported() {
            Error::Refused {
                location,
                answer: "something that is not the Git protocol".to_owned(),
                retry: false,
            }
        } else {
            Error::Unreachable { location, source: Box::new(error) }
        }
    }
}

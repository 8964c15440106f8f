//! Reads what the agent writes.

use std::{fs, io, io::Read, os::fd::OwnedFd, sync::Arc, thread, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};

use crate::{harness::sidecar::Sidecar, presets::RecordReader, report::FinalRecord};

/// Bytes read at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait to be written down; then the agent has to wait.
const PIECES: usize = 16;
/// All writers are dead when the agent has ended, so what is left is in the kernel's buffers.
const REST_TIME: Duration = Duration::from_secs(10);

/// What came, and whether it came by standard output.
type Piece = io::Result<(Vec<u8>, bool)>;

/// The reading of an agent's output, in the background.
pub(super) struct Reading(JoinHandle<(RecordReader, io::Result<()>)>);

impl Reading {
    /// Starts to read standard output and standard error, or a terminal.
    pub(super) fn start(sidecar: &Arc<Sidecar>, ends: Vec<OwnedFd>) -> io::Result<Self> {
        let (to, pieces) = mpsc::channel(PIECES);
        for (number, end) in ends.into_iter().enumerate() {
            let to = to.clone();
            // A thread each: a terminal cannot be polled without unsafe code.
            let reader = move || read_all(end.into(), number == 0, &to);
            thread::Builder::new().name("output".to_owned()).spawn(reader)?;
        }
        let sidecar = Arc::clone(sidecar);
        Ok(Self(tokio::spawn(write_down(sidecar, pieces))))
    }

    /// Waits for the end of the output. The final record, and what could not be read.
    pub(super) async fn finish(self, code: i32) -> (FinalRecord, Option<String>) {
        let abort = self.0.abort_handle();
        if let Ok(Ok((record, read))) = tokio::time::timeout(REST_TIME, self.0).await {
            return (
                record.finish(code).record,
                read.err().map(|error| format!("the agent's output: {error}")),
            );
        }
        abort.abort();
        (FinalRecord::default(), Some("the agent's output did not end".to_owned()))
    }
}

/// Reads to the end. A terminal says EIO when its last user is gone (`ioctl_tty(2)`).
fn read_all(mut end: fs::File, is_out: bool, to: &mpsc::Sender<Piece>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let piece = match end.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok((buffer[..count].to_vec(), is_out)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return,
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if to.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

async fn write_down(
    sidecar: Arc<Sidecar>,
    mut pieces: mpsc::Receiver<Piece>,
) -> (RecordReader, io::Result<()>) {
    let mut record = RecordReader::new(sidecar.place.spec.preset);
    let (began, mut first, mut written) = (std::time::Instant::now(), true, Ok(()));
    while let Some(piece) = pieces.recv().await {
        let (bytes, is_out) = match piece {
            Ok(piece) => piece,
            Err(error) => {
                written = written.and(Err(error));
                continue;
            }
        };
        if is_out {
            record.push(&bytes);
        }
        if std::mem::take(&mut first) {
            sidecar
                .update(|state| state.startup.first_output_ms = Some(super::milliseconds(began.elapsed())));
        }
        // A full disk must not block the agent in its writing: what comes is read on.
        written = written.and_then(|()| sidecar.output().push(&bytes));
    }
    (record, written)
}

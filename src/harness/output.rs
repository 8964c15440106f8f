//! What the agent writes: to a file, to whoever follows, and for a terminal also as a recording.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

use super::place::Folder;
use crate::{
    report::OUTPUT_BYTES,
    shim::wire::Size,
    terminal::{Cast, Event, Piece, Ring, Screen},
};

/// Bytes of the output that go to the file as they come; of more only the last [`Ring::CAPACITY`] are kept.
const FILE_BYTES: u64 = 64 << 20;
// What is kept, with the line between its two parts, is taken by the recorder.
const _: () = assert!(FILE_BYTES + Ring::CAPACITY as u64 + 1024 <= OUTPUT_BYTES);
/// Bytes of a recording.
const RECORDING_BYTES: u64 = 64 << 20;
/// Bytes handed to a reader at once.
const PIECE_BYTES: usize = 64 << 10;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Length of the output.
    pub(super) length: u64,
    /// True: nothing will follow.
    pub(super) ended: bool,
}

/// The output of one agent.
#[derive(Debug)]
pub(super) struct Output {
    kept: Mutex<Kept>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Kept {
    file: fs::File,
    in_file: u64,
    ring: Ring,
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    file: fs::File,
    written: u64,
    cast: Cast,
    screen: Screen,
    began: Instant,
}

impl Output {
    /// Nothing yet.
    pub(super) fn create(folder: &Folder, terminal: Option<Size>) -> io::Result<Self> {
        let file =
            fs::File::options().create(true).truncate(true).read(true).write(true).open(folder.output())?;
        let recording = terminal.map(|size| Recording::create(&folder.outbox(), size)).transpose()?;
        let kept = Kept { file, in_file: 0, ring: Ring::new(Ring::CAPACITY), recording };
        Ok(Self { kept: Mutex::new(kept), progress: watch::Sender::default() })
    }

    /// What an earlier sidecar left; nothing is added to it.
    pub(super) fn open(folder: &Folder) -> io::Result<Self> {
        let file =
            fs::File::options().create(true).truncate(false).read(true).append(true).open(folder.output())?;
        let length = file.metadata()?.len();
        let kept = Kept { file, in_file: length, ring: Ring::new(0), recording: None };
        Ok(Self { kept: Mutex::new(kept), progress: watch::Sender::new(Progress { length, ended: true }) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the agent wrote.
    pub(super) fn push(&self, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept();
        kept.ring.push(bytes);
        let room = usize::try_from(FILE_BYTES - kept.in_file).unwrap_or(usize::MAX).min(bytes.len());
        kept.file.write_all(&bytes[..room])?;
        kept.in_file += room as u64;
        if let Some(recording) = &mut kept.recording {
            recording.output(bytes)?;
        }
        let length = kept.ring.end();
        drop(kept);
        self.progress.send_modify(|progress| progress.length = length);
        Ok(())
    }

    /// Nothing will follow. Puts the end of a long output behind its beginning.
    pub(super) fn end(&self) -> io::Result<()> {
        let mut kept = self.kept();
        let tail = kept.ring.since(kept.in_file, usize::MAX);
        if !tail.bytes.is_empty() {
            let missing = tail.from - kept.in_file;
            if missing > 0 {
                writeln!(kept.file, "\n[ostler: {missing} bytes left out]")?;
            }
            kept.file.write_all(&tail.bytes)?;
        }
        kept.file.sync_data()?;
        drop(kept);
        self.progress.send_modify(|progress| progress.ended = true);
        Ok(())
    }

    /// Wakes when there is more.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Some bytes from number `since` on, or from the oldest kept after it.
    pub(super) fn since(&self, since: u64) -> io::Result<Piece> {
        let mut kept = self.kept();
        if since >= kept.in_file {
            return Ok(kept.ring.since(since, PIECE_BYTES));
        }
        let wanted = (kept.in_file - since).min(PIECE_BYTES as u64);
        let in_file = kept.in_file;
        kept.file.seek(SeekFrom::Start(since))?;
        let mut bytes = Vec::new();
        let read = (&kept.file).take(wanted).read_to_end(&mut bytes);
        // The next write goes to the end again, whatever became of the read.
        kept.file.seek(SeekFrom::Start(in_file))?;
        read?;
        Ok(Piece { from: since, bytes })
    }
}

impl Recording {
    fn create(outbox: &Path, size: Size) -> io::Result<Self> {
        let mut file = fs::File::create(outbox.join(crate::report::RECORDING))?;
        let header = Cast::header(size.columns, size.rows, jiff::Timestamp::now());
        file.write_all(header.as_bytes())?;
        let screen = Screen::new(size.columns, size.rows);
        Ok(Self { file, written: header.len() as u64, cast: Cast::default(), screen, began: Instant::now() })
    }

    fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.screen.push(bytes);
        let line = self.cast.line(self.began.elapsed(), Event::Output(bytes));
        if self.written + line.len() as u64 <= RECORDING_BYTES {
            self.written += line.len() as u64;
            self.file.write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_start_anywhere() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("outbox")).unwrap();
        let output = Output::create(&Folder::new(root.path().to_owned()), None).unwrap();
        output.push(b"hello ").unwrap();
        assert_eq!(output.since(2).unwrap(), Piece { from: 2, bytes: b"llo ".to_vec() });
        output.push(b"world").unwrap();
        assert_eq!(output.since(0).unwrap().bytes, b"hello world");
        assert_eq!(output.since(99).unwrap(), Piece { from: 11, bytes: vec![] });
        output.end().unwrap();
        assert_eq!(*output.progress().borrow(), Progress { length: 11, ended: true });
        assert_eq!(fs::read(root.path().join("outbox/output.log")).unwrap(), b"hello world");
    }
}

//! The way of the API into a pod: it executes this in the sidecar's container, and speaks the control protocol with it.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::PodArgs;

/// How long the sidecar may take to listen.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How long nothing may come once standard input has ended: whoever asked may be gone without a trace.
const SILENCE: Duration = Duration::from_mins(10);
/// Bytes on their way, in each direction.
const BUFFER: usize = 32 << 10;

/// Connects standard input and output with the sidecar's socket, until the sidecar ends the conversation.
pub(in crate::harness) fn attach(args: &PodArgs) -> anyhow::Result<()> {
    let socket = args.folder().control();
    let began = Instant::now();
    let stream = loop {
        match crate::harness::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) if began.elapsed() > CONNECT_TIME => {
                return Err(error).context("the sidecar's socket");
            }
            Err(_) => thread::sleep(PAUSE),
        }
    };
    // As plain files: the buffers of the standard library would keep what is to arrive at once.
    let input = fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    bridge(&stream, input, output).context("the connection to the sidecar")
}

/// Ends when the sidecar does; what still waits for input goes with the process.
fn bridge(stream: &UnixStream, input: fs::File, output: fs::File) -> io::Result<()> {
    let to = stream.try_clone()?;
    let carry = move || {
        // Either side may break off: then there is no more to carry.
        let _ = copy(input, &to);
        let _ = to.set_read_timeout(Some(SILENCE));
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::Builder::new().name("input".to_owned()).spawn(carry)?;
    copy(stream, output)
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

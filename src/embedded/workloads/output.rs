//! The output of an agent whose sidecar has ended.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, DuplexStream};

use crate::{
    harness::{control::Request, place::Folder},
    ports::workloads::sidecar::LogsRequest,
};

/// Bytes on their way to a reader.
pub(super) const BUFFER: usize = 64 << 10;

/// Answers in place of a sidecar that has ended.
pub(super) async fn answer(folder: &Folder, stream: DuplexStream) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut line = Vec::new();
    let mut bounded = tokio::io::BufReader::new(reader).take(BUFFER as u64);
    bounded.read_until(b'\n', &mut line).await?;
    if let Ok(Request::Logs(LogsRequest { since, .. })) = serde_json::from_slice(&line) {
        let mut file = tokio::fs::File::open(folder.output()).await?;
        file.seek(io::SeekFrom::Start(since)).await?;
        tokio::io::copy(&mut file, &mut writer).await?;
    }
    writer.shutdown().await
}

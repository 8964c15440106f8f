//! Counting what goes to and comes from targets, and noticing when nothing does.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who counts bytes.
pub(super) trait Count: Send + Sync {
    /// So many went to a target and came from it.
    fn moved(&self, up: u64, down: u64);
}

/// The bytes moved for one client connection, over all targets that it talked to.
#[derive(Debug, Default)]
pub(super) struct Activity(AtomicU64);

impl Activity {
    /// Ends when nothing has moved for between one and two times `idle`.
    pub(super) async fn ceases(&self, idle: Duration) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(idle).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

/// A connection to a target that counts its bytes.
pub(super) struct Metered<T> {
    target: T,
    activity: Arc<Activity>,
    count: Arc<dyn Count>,
}

impl<T> Metered<T> {
    pub(super) fn new(target: T, activity: Arc<Activity>, count: Arc<dyn Count>) -> Self {
        Self { target, activity, count }
    }

    fn moved(&self, up: usize, down: usize) {
        let (up, down) = (up as u64, down as u64);
        self.activity.0.fetch_add(up + down, Ordering::Relaxed);
        self.count.moved(up, down);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.target).poll_read(cx, buf))?;
        self.moved(0, buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.target).poll_write(cx, buf))?;
        self.moved(written, 0);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.target).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.target).poll_shutdown(cx)
    }
}

//! One run of `git-upload-pack` at an ssh server, for a client of somebody else's that speaks smart HTTP.

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio_util::task::AbortOnDropHandle;

use super::{CHUNK, SshError, WORDS, explain, login, quoted};
use crate::git::{
    Error,
    remote::{Credential, Remote},
};

/// Bytes of what a server advertises; with version 2 it is less than one KiB, else a line for each ref.
const ADVERTISED: usize = 32 << 20;

/// The end of a list of packets.
const FLUSH: &[u8] = b"0000";

/// The program at work.
pub(in crate::git) struct Session {
    /// What it said first, up to and with the flush.
    pub(in crate::git) advertised: Bytes,
    link: Link,
}

struct Link {
    connection: login::Connection,
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    /// Came after the advertisement, and was not asked for yet.
    early: VecDeque<Bytes>,
}

impl Session {
    /// Logs in, starts the program and takes what it advertises. The caller bounds the time.
    pub(in crate::git) async fn start(remote: &Remote, version_2: bool) -> Result<Self, Error> {
        let (Some(place), Credential::Ssh(identity)) = (remote.location().ssh(), remote.credential()) else {
            return Err(Error::unauthenticated(remote.location().clone()));
        };
        let command = format!("git-upload-pack {}", quoted(&place.path));
        let opened = async {
            let connection = login::log_in(place.clone(), identity.clone()).await?;
            let version = version_2.then_some("version=2");
            let (read, write) = login::run(&connection, command, version).await?.split();
            Ok(Link { connection, read, write, early: VecDeque::new() })
        };
        let mut link = opened.await.map_err(|fault| explain(remote, fault))?;
        let advertised = link.advertisement(remote).await?;
        Ok(Self { advertised, link })
    }

    /// Ends it: nobody asks for anything.
    pub(in crate::git) async fn leave(self) {
        // The answer is complete, whatever the server says to our leaving.
        let _ = self.link.write.data_bytes(Bytes::from_static(FLUSH)).await;
        let _ = self.link.write.eof().await;
        let _ = self.link.connection.disconnect(russh::Disconnect::ByApplication, "", "").await;
    }

    /// Sends a request and gives the answer as it comes. Dropped, it ends the connection.
    pub(in crate::git) fn ask(
        self,
        request: BoxStream<'static, io::Result<Bytes>>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let Link { connection, read, write, early } = self.link;
        let sending = AbortOnDropHandle::new(tokio::spawn(send(write, request)));
        let held = (read, early, connection, sending);
        stream::unfold(held, |(mut read, mut early, connection, sending)| async move {
            let next = match early.pop_front() {
                Some(bytes) => Some(bytes),
                None => data(&mut read).await,
            };
            next.map(|bytes| (Ok(bytes), (read, early, connection, sending)))
        })
    }
}

/// The next bytes of the program; `None` at its end.
async fn data(read: &mut ChannelReadHalf) -> Option<Bytes> {
    loop {
        match read.wait().await? {
            ChannelMsg::Data { data } => return Some(data),
            ChannelMsg::Eof | ChannelMsg::Close => return None,
            _ => {}
        }
    }
}

async fn send(write: ChannelWriteHalf<Msg>, mut request: BoxStream<'static, io::Result<Bytes>>) {
    while let Some(Ok(mut bytes)) = request.next().await {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            // A server that has given up says why, or ends the answer.
            if write.data_bytes(chunk).await.is_err() {
                return;
            }
        }
    }
    // The program answers one request and then sees that there is no other.
    let _ = write.eof().await;
    // The half that is dropped would close the channel before the answer has come.
    std::future::pending::<()>().await;
}

impl Link {
    async fn advertisement(&mut self, remote: &Remote) -> Result<Bytes, Error> {
        let location = || remote.location().clone();
        let (mut heard, mut words, mut refused) = (BytesMut::new(), Vec::new(), false);
        let mut at = 0;
        loop {
            match ends_at(&heard, &mut at) {
                Ok(Some(end)) => {
                    let rest = heard.split_off(end);
                    self.early.extend((!rest.is_empty()).then(|| rest.freeze()));
                    return Ok(heard.freeze());
                }
                Ok(None) if heard.len() <= ADVERTISED => {}
                _ => {
                    let answer = "something that is not the Git protocol".to_owned();
                    return Err(Error::Refused { location: location(), answer, retry: false });
                }
            }
            match self.read.wait().await {
                Some(ChannelMsg::Data { data }) => heard.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    words.extend_from_slice(&data[..data.len().min(WORDS - words.len())]);
                }
                Some(ChannelMsg::Failure) => refused = true,
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
            if refused {
                let source = Box::new(SshError::CommandRefused { service: "git-upload-pack" });
                return Err(Error::Ssh { location: location(), source });
            }
        }
        let said = String::from_utf8_lossy(&words);
        let absent = ["does not appear to be a git repository", "not found", "does not exist"];
        if absent.iter().any(|text| said.contains(text)) {
            return Err(Error::NotFound {
                what: "a Git repository".to_owned(),
                place: location().to_string(),
            });
        }
        let answer = format!("{:?}", said.lines().next().unwrap_or("nothing"));
        Err(Error::Refused { location: location(), answer, retry: false })
    }
}

/// Where the first list of packets ends, if it does; `at` is where to go on looking.
fn ends_at(heard: &[u8], at: &mut usize) -> Result<Option<usize>, ()> {
    while let Some(head) = heard.get(*at..*at + 4) {
        let length = std::str::from_utf8(head).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        match length.ok_or(())? {
            0 => return Ok(Some(*at + 4)),
            1..=3 => return Err(()),
            length if heard.len() < *at + length => return Ok(None),
            length => *at += length,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_with_a_flush_and_not_inside_a_packet() {
        let whole = b"000eversion 2\n00080000" as &[u8];
        let ends = |bytes: &[u8]| ends_at(bytes, &mut 0);
        assert_eq!(ends(whole), Ok(None));
        assert_eq!(ends(b"000eversion 2\n0000rest"), Ok(Some(18)));
        assert_eq!(ends(b"000ever"), Ok(None));
        assert_eq!(ends(b"000"), Ok(None));
        assert_eq!(ends(b"0003"), Err(()));
        assert_eq!(ends(b"Welcome!"), Err(()));
    }
}

//! Git's smart HTTP, read only, passed on to a repository with a credential that its client never sees.
//!
//! An upstream over https gets the same requests; one over ssh runs `git-upload-pack` for each. Asynchronous, unlike the rest of this module: nothing of
//! what passes is read here.

use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};

use super::{Error, error::causes, http::settings, remote::Remote, ssh};

/// The media type of what a server advertises.
pub const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
/// The media type of a request.
pub const REQUEST: &str = "application/x-git-upload-pack-request";
/// The media type of its answer.
pub const RESULT: &str = "application/x-git-upload-pack-result";

/// What comes before an advertisement that is not version 2 (gitprotocol-http, "Smart Server Response").
const SERVICE: &[u8] = b"001e# service=git-upload-pack\n0000";

/// Bytes as they come.
pub type Answer = BoxStream<'static, io::Result<Bytes>>;

/// One repository, to read from.
pub struct Relay {
    remote: Remote,
    client: reqwest::Client,
}

impl Relay {
    /// # Errors
    /// For a repository on this machine's disk, and for settings that cannot be used.
    pub fn new(remote: Remote) -> Result<Self, Error> {
        if remote.location().is_local() {
            let location = remote.location().clone();
            return Err(Error::Settings { what: "local path", location, source: None });
        }
        let client = settings::client(&remote)?;
        Ok(Self { remote, client })
    }

    /// What the repository has. `version_2`: the client asks for version 2 of the protocol. The caller bounds time and bytes.
    ///
    /// # Errors
    /// When the server is not reached, not believed, or does not answer with an advertisement.
    pub async fn advertise(&self, version_2: bool) -> Result<Answer, Error> {
        if !self.remote.location().is_ssh() {
            let request = self.request(Method::GET, "/info/refs?service=git-upload-pack", version_2)?;
            return self.answer(request, ADVERTISEMENT).await;
        }
        let session = ssh::upload::Session::start(&self.remote, version_2).await?;
        let advertised = session.advertised.clone();
        session.leave().await;
        let service = (!advertised.starts_with(b"000eversion 2\n")).then(|| Bytes::from_static(SERVICE));
        Ok(stream::iter(service.into_iter().chain([advertised]).map(Ok)).boxed())
    }

    /// Sends a request for objects or refs. `encoding`: the Content-Encoding of its bytes.
    ///
    /// # Errors
    /// As for [`Relay::advertise`]; over ssh also for any encoding.
    pub async fn upload_pack(
        &self,
        version_2: bool,
        encoding: Option<HeaderValue>,
        body: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<Answer, Error> {
        if self.remote.location().is_ssh() {
            if encoding.is_some() {
                return Err(self.refused("nothing: compressed requests are not passed on over ssh", false));
            }
            return Ok(ssh::upload::Session::start(&self.remote, version_2).await?.ask(body).boxed());
        }
        let mut request = self.request(Method::POST, "/git-upload-pack", version_2)?;
        request = request.header(CONTENT_TYPE, REQUEST).header(ACCEPT, RESULT);
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        self.answer(request.body(reqwest::Body::wrap_stream(body)), RESULT).await
    }

    fn request(&self, method: Method, tail: &str, version_2: bool) -> Result<reqwest::RequestBuilder, Error> {
        let url = format!("{}{tail}", self.remote.location().to_string().trim_end_matches('/'));
        let mut request = self.client.request(method, url);
        if let Some(value) = settings::authorization(&self.remote)? {
            request = request.header(AUTHORIZATION, value);
        }
        if version_2 {
            request = request.header("git-protocol", "version=2");
        }
        Ok(request)
    }

    async fn answer(&self, request: reqwest::RequestBuilder, wanted: &str) -> Result<Answer, Error> {
        let location = || self.remote.location().clone();
        let response = request.send().await.map_err(|error| {
            let source: Box<dyn std::error::Error + Send + Sync> = Box::new(error.without_url());
            if causes(&*source).any(<dyn std::error::Error>::is::<rustls::Error>) {
                Error::Tls { location: location(), source }
            } else {
                Error::Unreachable { location: location(), source }
            }
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                let sent = settings::authorization(&self.remote)?.is_some();
                return Err(Error::Unauthenticated {
                    location: location(),
                    sent,
                    redirected: false,
                    source: None,
                });
            }
            StatusCode::FORBIDDEN => return Err(Error::Forbidden { location: location() }),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let place = location().to_string();
                return Err(Error::NotFound { what: "a Git repository".to_owned(), place });
            }
            status if status.is_redirection() => {
                return Err(self
                    .refused("a redirect, which is not followed: name where the repository is now", false));
            }
            status => return Err(self.refused(&format!("HTTP {status}"), status.is_server_error())),
        }
        // What is not Git's is not passed on: a URL of a run must not read other things that only we can reach.
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind != Some(wanted) {
            return Err(self.refused("something that is not the Git protocol", false));
        }
        Ok(response.bytes_stream().map_err(|error| io::Error::other(error.without_url())).boxed())
    }

    fn refused(&self, answer: &str, retry: bool) -> Error {
        Error::Refused { location: self.remote.location().clone(), answer: answer.to_owned(), retry }
    }
}

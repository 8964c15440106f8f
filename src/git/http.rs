//! The Git protocol over HTTP, one operation long.
//!
//! gix brings an HTTP client of its own, but that one prompts for credentials, cannot be stopped while it waits, has
//! no deadline over several requests and loses the reason of a failure. This one sends our credential to our
//! location only, counts what it receives and stops when the budget is gone.

mod redirect;
pub(super) mod settings;

use std::cell::RefCell;
use std::io::{self, BufRead, Cursor, Read, Seek, Write};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use gix::protocol::transport::client::blocking_io::http::{
    self as git_http, GetResponse, PostBodyDataKind, PostResponse,
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, StatusCode, Url};
use tempfile::SpooledTempFile;

use self::redirect::{Elsewhere, Refusal};
use super::Error;
use super::budget::Budget;
use super::error::causes;
use super::remote::Remote;

/// Hops of the first request. Real servers need one (`/repo` to `/repo.git`).
const REDIRECTS: usize = 5;

/// Most characters of another repository's URL in an error.
const MOVED_CHARS: usize = 200;

/// A request body up to this size stays in memory; a longer one (a pushed pack) goes to an unlinked file.
const BODY_IN_MEMORY: usize = 1 << 20;

/// gix's idea of an HTTP client.
pub(super) struct Http<'a>(Rc<Exchange<'a>>);

/// What all requests of one operation share.
struct Exchange<'a> {
    runtime: Option<tokio::runtime::Runtime>,
    client: Client,
    authorization: Option<HeaderValue>,
    /// No redirect leads to another repository.
    stays: bool,
    /// Where the server sent us instead. The credential does not go to another repository.
    redirected: RefCell<Option<Elsewhere>>,
    budget: &'a Budget<'a>,
}

impl<'a> Http<'a> {
    pub(super) fn new(remote: &Remote, budget: &'a Budget<'a>) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("start a runtime for", remote.location().to_string()))?;
        let client = settings::client(remote)?;
        let authorization = settings::authorization(remote)?;
        let (redirected, stays) = (RefCell::new(None), remote.stays());
        let runtime = Some(runtime);
        Ok(Self(Rc::new(Exchange { runtime, client, authorization, stays, redirected, budget })))
    }

    fn request(
        &self,
        method: Method,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> PostResponse<Headers<'a>, Body<'a>, Upload<'a>> {
        let call = Rc::new(RefCell::new(Call {
            exchange: Rc::clone(&self.0),
            method,
            url: url.to_owned(),
            tail: url.strip_prefix(base_url).unwrap_or_default().to_owned(),
            headers: header_map(headers),
            upload: SpooledTempFile::new(BODY_IN_MEMORY),
            response: None,
        }));
        PostResponse {
            post_body: Upload(Rc::clone(&call)),
            headers: Headers { call: Rc::clone(&call), lines: None },
            body: Body { call, chunk: Bytes::new() },
        }
    }
}

impl<'a> git_http::Http for Http<'a> {
    type Headers = Headers<'a>;
    type ResponseBody = Body<'a>;
    type PostBody = Upload<'a>;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        Ok(self.request(Method::GET, url, base_url, headers).into())
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        Ok(self.request(Method::POST, url, base_url, headers))
    }

    fn configure(&mut self, _: &dyn std::any::Any) -> gix::Result<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.0.redirected.borrow().as_ref().map(|elsewhere| elsewhere.base.clone())
    }
}

/// One request. It is sent when the first byte of the answer is asked for: by then gix has written the body.
struct Call<'a> {
    exchange: Rc<Exchange<'a>>,
    method: Method,
    url: String,
    /// The part of the URL after the repository.
    tail: String,
    headers: HeaderMap,
    upload: SpooledTempFile,
    response: Option<reqwest::Response>,
}

impl Call<'_> {
    /// Sends the request, follows redirects of a GET, and gives the headers of a good answer.
    fn send(&mut self) -> io::Result<Vec<u8>> {
        let mut url = Url::parse(&self.url).map_err(io::Error::other)?;
        for _ in 0..=REDIRECTS {
            let response = self.attempt(url.clone())?;
            let status = response.status();
            if status.is_redirection() && self.method == Method::GET {
                url = self.redirect(&url, response.headers())?;
                continue;
            }
            if !status.is_success() {
                return Err(self.refused(&response));
            }
            let headers = header_lines(response.headers());
            self.response = Some(response);
            return Ok(headers);
        }
        Err(self.refuse("too many redirects".to_owned(), false))
    }

    fn attempt(&mut self, url: Url) -> io::Result<reqwest::Response> {
        let exchange = Rc::clone(&self.exchange);
        let mut request = exchange.client.request(self.method.clone(), url).headers(self.headers.clone());
        if let Some(value) = exchange.authorization.as_ref().filter(|_| !exchange.is_elsewhere()) {
            request = request.header(AUTHORIZATION, value.clone());
        }
        if self.method == Method::POST {
            request = request.body(self.take_upload()?);
        }
        exchange.wait(request.send())
    }

    /// In memory or streamed from the file; both know their length.
    fn take_upload(&mut self) -> io::Result<reqwest::Body> {
        let mut upload = std::mem::replace(&mut self.upload, SpooledTempFile::new(0));
        upload.rewind()?;
        if upload.is_rolled() {
            let file = upload.into_file()?;
            return Ok(tokio::fs::File::from_std(file).into());
        }
        let mut bytes = Vec::new();
        upload.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Where to ask instead.
    fn redirect(&self, from: &Url, headers: &HeaderMap) -> io::Result<Url> {
        let exchange = &self.exchange;
        let location = exchange.budget.location();
        match redirect::follow(location, exchange.stays, (from, &self.tail), headers) {
            Ok((to, elsewhere)) => {
                *exchange.redirected.borrow_mut() = Some(elsewhere);
                Ok(to)
            }
            Err(Refusal::Moved(to)) => Err(self.moved(&to)),
            Err(Refusal::Useless(why)) => Err(self.refuse(why.to_owned(), false)),
        }
    }

    fn refused(&self, response: &reqwest::Response) -> io::Error {
        let status = response.status();
        let location = self.exchange.budget.location().clone();
        match status {
            StatusCode::UNAUTHORIZED => {
                let redirected = self.exchange.is_elsewhere();
                let sent = self.exchange.authorization.is_some() && !redirected;
                self.exchange.budget.fail(Error::Unauthenticated {
                    location,
                    sent,
                    redirected,
                    source: None,
                });
                let www_authenticate = response
                    .headers()
                    .get_all(WWW_AUTHENTICATE)
                    .iter()
                    .map(|value| value.as_bytes().into())
                    .collect();
                let wanted = gix::protocol::transport::client::AuthenticationRequired { www_authenticate };
                io::Error::new(io::ErrorKind::PermissionDenied, wanted)
            }
            StatusCode::FORBIDDEN => self.exchange.budget.fail(Error::Forbidden { location }),
            StatusCode::NOT_FOUND | StatusCode::GONE => self
                .exchange
                .budget
                .fail(Error::NotFound { what: "a Git repository".to_owned(), place: location.to_string() }),
            _ => {
                let retry = (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                self.refuse(format!("HTTP {status}"), retry)
            }
        }
    }

    fn moved(&self, to: &str) -> io::Error {
        let to = to.chars().take(MOVED_CHARS).collect();
        self.exchange.budget.fail(Error::Moved { location: self.exchange.budget.location().clone(), to })
    }

    fn refuse(&self, answer: String, retry: bool) -> io::Error {
        let location = self.exchange.budget.location().clone();
        self.exchange.budget.fail(Error::Refused { location, answer, retry })
    }

    /// The next bytes of the answer; empty at its end.
    fn receive(&mut self) -> io::Result<Bytes> {
        while let Some(response) = self.response.as_mut() {
            match self.exchange.wait(response.chunk())? {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => {
                    self.exchange.budget.receive(chunk.len())?;
                    return Ok(chunk);
                }
                None => self.response = None,
            }
        }
        Ok(Bytes::new())
    }
}

impl Exchange<'_> {
    /// True when the server sent us to another repository, or to another server.
    fn is_elsewhere(&self) -> bool {
        self.redirected.borrow().as_ref().is_some_and(|elsewhere| !elsewhere.is_same)
    }

    /// Runs `work` until it is done, the time is up or the caller interrupts.
    fn wait<T>(&self, work: impl Future<Output = reqwest::Result<T>>) -> io::Result<T> {
        let runtime = self.runtime.as_ref().expect("the runtime is taken only on drop");
        runtime.block_on(async {
            tokio::pin!(work);
            loop {
                match tokio::time::timeout(self.budget.wait()?, &mut work).await {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(error)) => return Err(self.broken(error)),
                    Err(_elapsed) => {}
                }
            }
        })
    }

    fn broken(&self, error: reqwest::Error) -> io::Error {
        let location = self.budget.location().clone();
        // The URL is the location (or where it redirects to); the error's own text must not bring in another.
        let source: Box<dyn std::error::Error + Send + Sync> = Box::new(error.without_url());
        let tls = causes(&*source).any(<dyn std::error::Error>::is::<rustls::Error>);
        self.budget.fail(if tls {
            Error::Tls { location, source }
        } else {
            Error::Unreachable { location, source }
        })
    }
}

impl Drop for Exchange<'_> {
    /// A name look-up cannot be cancelled; do not wait for one beyond our time.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn header_map(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    lines
        .into_iter()
        .filter_map(|line| {
            let (name, value) = line.as_ref().split_once(':')?;
            Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?))
        })
        .collect()
}

fn header_lines(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// Takes the request's body.
pub(super) struct Upload<'a>(Rc<RefCell<Call<'a>>>);

impl Write for Upload<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().upload.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the answer's headers, line by line.
pub(super) struct Headers<'a> {
    call: Rc<RefCell<Call<'a>>>,
    lines: Option<Cursor<Vec<u8>>>,
}

impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.lines.is_none() {
            self.lines = Some(Cursor::new(self.call.borrow_mut().send()?));
        }
        self.lines.as_mut().map_or(Ok(&[]), BufRead::fill_buf)
    }

    fn consume(&mut self, count: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(count);
        }
    }
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Gives the answer's body.
pub(super) struct Body<'a> {
    call: Rc<RefCell<Call<'a>>>,
    chunk: Bytes,
}

impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() {
            self.chunk = self.call.borrow_mut().receive()?;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

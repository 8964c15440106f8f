//! `git http-backend` behind a real web server, with TLS, authentication and faults.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How the server differs from an open one.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// TLS with a certificate of a private authority for `127.0.0.1` and `localhost`.
    pub(crate) tls: bool,
    /// Who may come in; nobody is asked by default.
    pub(crate) auth: Option<Auth>,
    /// Whether pushes are accepted.
    pub(crate) push: bool,
    /// Speaks protocol 0 only, as servers before 2018 did.
    pub(crate) old: bool,
}

/// The one credential that is accepted.
#[derive(Clone)]
pub(crate) enum Auth {
    /// User and password.
    Basic(&'static str, &'static str),
    /// A token.
    Bearer(&'static str),
}

/// What goes wrong, for every request until it is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Answers this status.
    Status(u16),
    /// Waits before it answers.
    Delay(Duration),
    /// Breaks the connection after so many bytes of the body of each POST's answer.
    CutAfter(usize),
    /// Stops sending after so many bytes of the body of each POST's answer, and keeps the connection.
    StallAfter(usize),
    /// Sends each GET to the same path below another base URL.
    RedirectTo(String),
    /// Sends each GET for `/a` to `/a.git`, as forges do.
    DotGit,
}

/// Where the body of an answer ends before its time, and how.
struct End {
    after: Option<usize>,
    stall: bool,
}

/// One request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// GET or POST.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// The Authorization header.
    pub(crate) authorization: Option<String>,
    /// The request's body.
    pub(crate) body: Bytes,
}

/// A running server; ends when it is dropped.
pub(crate) struct GitHttp {
    address: SocketAddr,
    ca: Option<String>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    root: PathBuf,
    options: Options,
    fault: Mutex<Fault>,
    seen: Mutex<Vec<Seen>>,
}

impl GitHttp {
    /// Serves all repositories below `root` on a free port of the loopback interface.
    pub(crate) fn start(root: &Path, options: Options) -> Self {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), root, options)
    }

    /// The same on another address of this machine, which a certificate is for, too.
    pub(crate) fn start_at(at: IpAddr, root: &Path, options: Options) -> Self {
        let (ca, acceptor) = if options.tls { tls(at).map_both() } else { (None, None) };
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            options,
            fault: Mutex::default(),
            seen: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((at, 0)).await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(listener, acceptor, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: address.recv().unwrap(), ca, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The URL of a repository by its folder's name.
    pub(crate) fn url(&self, repository: &str) -> String {
        format!("{}/{repository}", self.base())
    }

    /// The URL of everything.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}", if self.ca.is_some() { "https" } else { "http" }, self.address)
    }

    /// The address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The private authority's certificate.
    pub(crate) fn ca(&self) -> &str {
        self.ca.as_deref().expect("the server speaks TLS")
    }

    /// Breaks or mends the server.
    pub(crate) fn fault(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Takes the requests that came in since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }
}

impl Drop for GitHttp {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the server did not panic");
        }
    }
}

struct Tls {
    ca: String,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl Tls {
    fn map_both(self) -> (Option<String>, Option<tokio_rustls::TlsAcceptor>) {
        (Some(self.ca), Some(self.acceptor))
    }
}

/// An authority of its own for each server, and a certificate of it.
fn tls(at: IpAddr) -> Tls {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let names = vec!["localhost".to_owned(), at.to_string()];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    Tls { ca, acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(config)) }
}

async fn accept(listener: TcpListener, acceptor: Option<tokio_rustls::TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(connection(stream, acceptor, shared));
    }
}

/// A failing handshake or a broken connection is the client's business.
async fn connection(stream: TcpStream, acceptor: Option<tokio_rustls::TlsAcceptor>, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let http = hyper::server::conn::http1::Builder::new();
    match acceptor {
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            }
        }
        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(plain(StatusCode::BAD_REQUEST)) };
    let body = body.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    shared.seen.lock().unwrap().push(Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        authorization: header("authorization"),
        body: body.clone(),
    });
    let fault = shared.fault.lock().unwrap().clone();
    match &fault {
        Fault::Status(status) => return Ok(plain(StatusCode::from_u16(*status).unwrap())),
        Fault::Delay(time) => tokio::time::sleep(*time).await,
        Fault::DotGit if head.method == http::Method::GET && !head.uri.path().contains(".git/") => {
            let mut response = plain(StatusCode::MOVED_PERMANENTLY);
            let to = head.uri.to_string().replacen("/info/refs", ".git/info/refs", 1);
            response.headers_mut().insert(header::LOCATION, to.parse().unwrap());
            return Ok(response);
        }
        Fault::RedirectTo(base) if head.method == http::Method::GET => {
            let mut response = plain(StatusCode::MOVED_PERMANENTLY);
            let to = format!("{base}{}", head.uri).parse().unwrap();
            response.headers_mut().insert(header::LOCATION, to);
            return Ok(response);
        }
        _ => {}
    }
    if !admitted(shared.options.auth.as_ref(), header("authorization").as_deref()) {
        let mut response = plain(StatusCode::UNAUTHORIZED);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, "Basic realm=\"git\"".parse().unwrap());
        return Ok(response);
    }
    let end = match fault {
        Fault::CutAfter(bytes) if head.method == http::Method::POST => {
            End { after: Some(bytes), stall: false }
        }
        Fault::StallAfter(bytes) if head.method == http::Method::POST => {
            End { after: Some(bytes), stall: true }
        }
        _ => End { after: None, stall: false },
    };
    Ok(backend(&head, body, &shared, end).await.unwrap_or_else(|_| plain(StatusCode::BAD_GATEWAY)))
}

fn admitted(auth: Option<&Auth>, given: Option<&str>) -> bool {
    let wanted = match auth {
        None => return true,
        Some(Auth::Basic(user, password)) => {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {pair}")
        }
        Some(Auth::Bearer(token)) => format!("Bearer {token}"),
    };
    given == Some(wanted.as_str())
}

fn plain(status: StatusCode) -> Response<Body> {
    let body = Full::new(Bytes::from_static(b"no Git here\n")).map_err(|never| match never {});
    Response::builder().status(status).body(body.boxed_unsync()).unwrap()
}

/// RFC 3875, as far as git-http-backend(1) asks for it.
async fn backend(
    head: &http::request::Parts,
    body: Bytes,
    shared: &Shared,
    end: End,
) -> std::io::Result<Response<Body>> {
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", if shared.options.old { "" } else { header("git-protocol") })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if shared.options.push {
        command.env("REMOTE_USER", "tester").env("REMOTE_ADDR", "127.0.0.1");
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let feed = tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (status, headers) = cgi_headers(&mut output).await?;
    // The child lives as long as its output is read.
    let rest = stream::unfold((output, child, feed, end), |(mut output, child, feed, mut end)| async move {
        let mut chunk = vec![0; end.after.unwrap_or(64 << 10).min(64 << 10)];
        if chunk.is_empty() && end.stall {
            std::future::pending::<()>().await;
        }
        if chunk.is_empty() {
            return Some((Err(std::io::ErrorKind::ConnectionReset.into()), (output, child, feed, end)));
        }
        match output.read(&mut chunk).await {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                end.after = end.after.map(|left| left - count);
                Some((Ok(Frame::data(Bytes::from(chunk))), (output, child, feed, end)))
            }
            Err(error) => Some((Err(error), (output, child, feed, end))),
        }
    });
    let mut response = Response::builder().status(status);
    response.headers_mut().unwrap().extend(headers);
    Ok(response.body(StreamBody::new(rest.boxed()).boxed_unsync()).unwrap())
}

async fn cgi_headers(
    output: &mut BufReader<tokio::process::ChildStdout>,
) -> std::io::Result<(StatusCode, HeaderMap)> {
    let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match line.split_once(": ") {
            None => return Ok((status, headers)),
            Some(("Status", value)) => status = value[..3].parse().map_err(std::io::Error::other)?,
            Some((name, value)) => {
                let name: header::HeaderName = name.parse().map_err(std::io::Error::other)?;
                headers.insert(name, value.parse().map_err(std::io::Error::other)?);
            }
        }
    }
}

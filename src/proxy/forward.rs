//! Plain HTTP in absolute form: one request, one connection to its target.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::{
    answer::{self, Body},
    connection::{Connection, target},
    dial,
};
use crate::egress;

/// Headers that concern one hop only (RFC 9110, 7.6.1, and the older names that clients still send), and
/// `Expect`, which this hop answers itself.
const HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Forwards a request and answers what its target answers.
pub(super) async fn answer(connection: &Connection, request: Request<Incoming>) -> Response<Body> {
    let wanted = match check(&request) {
        Ok(wanted) => wanted,
        Err(why) => return answer::refused(StatusCode::BAD_REQUEST, &why),
    };
    let target = match dial::open(&connection.shared, wanted).await {
        Ok(target) => target,
        Err(failure) => return answer::failure(&failure),
    };
    let io = TokioIo::new(connection.metered(target));
    let handshake =
        http1::Builder::new().max_buf_size(connection.shared.limits.header_bytes).handshake(io).await;
    let (mut sender, driver) = match handshake {
        Ok(both) => both,
        Err(error) => return answer::broken(&error),
    };
    // Lives as long as the answer's body, which the closure below owns it through.
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    match sender.send_request(for_target(request)).await {
        Ok(response) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            let (mut parts, body) = response.into_parts();
            strip_hop(&mut parts.headers);
            let body = body.map_frame(move |frame| {
                let _ = &driver;
                frame
            });
            Response::from_parts(parts, body.boxed())
        }
        Ok(_) => {
            answer::refused(StatusCode::BAD_GATEWAY, "The target changed the protocol without being asked.")
        }
        Err(error) => answer::broken(&error),
    }
}

/// Reads the target, and refuses what two readers could understand in two ways. (Framing is hyper's: it refuses
/// what is malformed, drops a Content-Length beside chunks and ends the connection after such a request; here
/// every request is framed anew and has a connection of its own.)
fn check(request: &Request<Incoming>) -> Result<egress::Request, String> {
    let (uri, headers) = (request.uri(), request.headers());
    if uri.scheme() != Some(&Scheme::HTTP) {
        return Err("Only http:// is forwarded; ask for a tunnel with CONNECT.".to_owned());
    }
    let wanted = target(uri, Some(80))?;
    let mut hosts = headers.get_all(header::HOST).iter();
    if let Some(host) = hosts.next() {
        let same = host.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
        if same.is_none_or(|host| target(&host, Some(80)).as_ref() != Ok(&wanted)) || hosts.next().is_some() {
            return Err("The Host header must be the target's.".to_owned());
        }
    }
    let (host, port) = wanted;
    Ok(egress::Request::plain(host, port, request.method().as_str(), uri.path()))
}

/// The request as its target wants it: origin form, its own Host, nothing of the hop to us.
fn for_target(request: Request<Incoming>) -> Request<Incoming> {
    let (mut parts, body) = request.into_parts();
    strip_hop(&mut parts.headers);
    let authority = parts.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority {
        parts.headers.insert(header::HOST, host);
    }
    let path = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts.version = Version::HTTP_11;
    Request::from_parts(parts, body)
}

/// Takes away the headers of one hop: the fixed ones and those that `Connection` names.
fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_too() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-one, keep-alive"),
            ("connection", "X-Two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("proxy-authorization", "Basic abc"),
            ("te", "trailers"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
        }
        strip_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-three"]);
    }
}

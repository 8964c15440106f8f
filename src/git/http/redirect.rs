//! Where a server may send us instead, and what we take along.

use reqwest::{
    Url,
    header::{HeaderMap, LOCATION},
};

use super::super::location::Location;
use crate::repositories::Address;

/// Where the server sent us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// The repository there.
    pub(super) base: String,
    /// True: it is the one that was asked for, at the same server, by a longer name.
    pub(super) is_same: bool,
}

/// Why a redirect is not followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It leads to nothing that we ask, in words for the user.
    Useless(&'static str),
    /// It leads to another repository, and nobody said that this one may be used.
    Moved(String),
}

/// A redirect may move the repository to another place, but not away from encryption, and not away from one that
/// `stays`. `tail` is the part of the URL after the repository.
pub(super) fn follow(
    location: &Location,
    stays: bool,
    (from, tail): (&Url, &str),
    headers: &HeaderMap,
) -> Result<(Url, Elsewhere), Refusal> {
    let target =
        headers.get(LOCATION).and_then(|value| value.to_str().ok()).and_then(|to| from.join(to).ok());
    let secure = |to: &Url| to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
    let plain = |to: &Url| to.username().is_empty() && to.password().is_none();
    let to =
        target.filter(secure).filter(plain).ok_or(Refusal::Useless("a redirect that is not followed"))?;
    let base = to.as_str().strip_suffix(tail);
    let base = base.ok_or(Refusal::Useless("a redirect to something that is no repository"))?.to_owned();
    let is_same = is_same(location, &base);
    if stays && !is_same {
        return Err(Refusal::Moved(base));
    }
    Ok((to, Elsewhere { base, is_same }))
}

/// True when both name one repository to whoever wrote a rule about it, by the same transport, host and port: a server may
/// still add `.git`.
fn is_same(location: &Location, to: &str) -> bool {
    let read = |text: &str| text.parse::<Address>().ok();
    read(&location.to_string()).is_some_and(|address| read(to) == Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_add_a_suffix_and_nothing_else_keeps_what_we_hold() {
        let tail = "/info/refs?service=git-upload-pack";
        let useless = "a redirect that is not followed";
        let nothing = "a redirect to something that is no repository";
        let ask = |url: &str, to: &str, stays: bool| {
            let location: Location = url.parse().unwrap();
            let from = Url::parse(&format!("{url}{tail}")).unwrap();
            let headers = HeaderMap::from_iter([(LOCATION, to.parse().unwrap())]);
            follow(&location, stays, (&from, tail), &headers)
        };
        let https = "https://git.example.com/shop/a";
        for (to, same) in [
            ("https://git.example.com/shop/a.git", true),
            ("https://git.example.com/shop/b.git", false),
            ("https://git.example.com:8443/shop/a.git", false),
            ("https://evil.example/shop/a.git", false),
        ] {
            let found = ask(https, &format!("{to}{tail}"), false).unwrap().1;
            assert_eq!(found, Elsewhere { base: to.to_owned(), is_same: same });
            let staying = ask(https, &format!("{to}{tail}"), true).map(|(_, found)| found);
            assert_eq!(staying, if same { Ok(found) } else { Err(Refusal::Moved(to.to_owned())) });
        }
        for (to, why) in [
            (format!("http://git.example.com/shop/a.git{tail}"), useless),
            (format!("https://ada@git.example.com/shop/a.git{tail}"), useless),
            (format!("ssh://git.example.com/shop/a.git{tail}"), useless),
            ("https://git.example.com/login".to_owned(), nothing),
        ] {
            assert_eq!(ask(https, &to, false).unwrap_err(), Refusal::Useless(why), "{to}");
        }
        // encryption is another transport, and who sent the credential in the clear meant this one
        let upgraded = ask("http://git.example.com/shop/a", &format!("{https}{tail}"), false).unwrap().1;
        assert!(!upgraded.is_same);
    }
}

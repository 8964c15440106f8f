//! `ssh://user@host:port/path` and `user@host:path`, as git reads them.

use std::fmt;

use super::LocationError;

/// The user when the text names none: that of every Git host.
const DEFAULT_USER: &str = "git";

/// The port of ssh (RFC 4253, 4.1).
pub(in crate::git) const DEFAULT_PORT: u16 = 22;

/// A repository behind an ssh server. Equal when the texts mean the same.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::git) struct SshPlace {
    /// Who logs in; the user is no secret.
    pub(in crate::git) user: String,
    /// Lower case; an IPv6 address in brackets.
    pub(super) host: String,
    /// Where the server listens.
    pub(in crate::git) port: u16,
    /// What the server's Git gets as its argument: absolute, or below the user's home.
    pub(in crate::git) path: String,
}

impl SshPlace {
    /// The host as a name server and `known_hosts` call it: an IPv6 address has no brackets.
    pub(in crate::git) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The host, and the port unless it is ssh's own.
    pub(super) fn authority(&self) -> String {
        if self.port == DEFAULT_PORT { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Reads either form. Neither may hold a password.
pub(super) fn parse(text: &str) -> Result<SshPlace, LocationError> {
    let url = gix::url::parse(text).map_err(|_| LocationError::Malformed)?;
    let (Some(host), gix::url::Scheme::Ssh) = (url.host.as_deref(), &url.scheme) else {
        return Err(LocationError::Malformed);
    };
    let host = host.to_ascii_lowercase();
    if url.password.is_some() {
        return Err(LocationError::EmbeddedCredential { host });
    }
    let user = url.user.clone().unwrap_or_else(|| DEFAULT_USER.to_owned());
    let path = String::from_utf8(url.path.clone().into()).map_err(|_| LocationError::Malformed)?;
    // To git they belong to the path; nobody who writes one means that.
    if path.contains(['?', '#']) {
        return Err(LocationError::Query);
    }
    let sound_path = !path.is_empty() && !path.starts_with('-') && !path.chars().any(char::is_control);
    if !is_host(&host) || !is_user(&user) || !sound_path {
        return Err(LocationError::Malformed);
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(SshPlace { user, host, port: url.port.unwrap_or(DEFAULT_PORT), path })
}

/// A name, or an address: nothing that could be taken for an option, a pattern or a list.
fn is_host(host: &str) -> bool {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    host.parse::<std::net::IpAddr>().is_ok()
        || (!host.is_empty() && !host.starts_with('-') && host.chars().all(of_name))
}

fn is_user(user: &str) -> bool {
    let sound = |c: char| !c.is_control() && !c.is_whitespace() && !"@:/".contains(c);
    !user.is_empty() && !user.starts_with('-') && user.chars().all(sound)
}

impl fmt::Display for SshPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port, path } = self;
        if path.starts_with('/') || path.starts_with('~') || *port != DEFAULT_PORT {
            write!(f, "ssh://{user}@{}", self.authority())?;
            f.write_str(if path.starts_with('/') { "" } else { "/" })?;
            path.split(['%', ' ']).zip(path.matches(['%', ' ']).map(Some).chain([None])).try_for_each(
                |(plain, special)| {
                    f.write_str(plain)?;
                    f.write_str(match special {
                        Some("%") => "%25",
                        Some(_) => "%20",
                        None => "",
                    })
                },
            )
        } else {
            write!(f, "{user}@{host}:{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Location;
    use super::*;

    #[test]
    fn both_forms_name_user_host_port_and_path() {
        for (text, user, host, port, path, shown) in [
            (
                "ssh://git@Example.com/a.git",
                "git",
                "example.com",
                22,
                "/a.git",
                "ssh://git@example.com/a.git",
            ),
            ("ssh://example.com:22/a", "git", "example.com", 22, "/a", "ssh://git@example.com/a"),
            (
                "ssh://ada@example.com:2222/a%20b",
                "ada",
                "example.com",
                2222,
                "/a b",
                "ssh://ada@example.com:2222/a%20b",
            ),
            ("ssh://[::1]:2222/srv/a", "git", "::1", 2222, "/srv/a", "ssh://git@[::1]:2222/srv/a"),
            ("ssh://example.com/~ada/a", "git", "example.com", 22, "~ada/a", "ssh://git@example.com/~ada/a"),
            (
                "git@example.com:team/a.git",
                "git",
                "example.com",
                22,
                "team/a.git",
                "git@example.com:team/a.git",
            ),
            (
                "example.com:/srv/a.git",
                "git",
                "example.com",
                22,
                "/srv/a.git",
                "ssh://git@example.com/srv/a.git",
            ),
            ("ada@example.com:50%/a", "ada", "example.com", 22, "50%/a", "ada@example.com:50%/a"),
        ] {
            let place = parse(text).unwrap();
            assert_eq!((place.user.as_str(), place.bare_host()), (user, host), "{text}");
            assert_eq!((place.port, place.path.as_str(), place.to_string().as_str()), (port, path, shown));
            assert_eq!(parse(shown).unwrap(), place, "what is shown means the same");
        }
    }

    #[test]
    fn a_location_knows_its_authority() {
        let of = |text: &str| text.parse::<Location>().unwrap();
        assert_eq!(of("git@Example.com:a").authority().as_deref(), Some("example.com"));
        assert_eq!(of("ssh://example.com:2222/a").authority().as_deref(), Some("example.com:2222"));
        assert_eq!(of("ssh://[::1]:2222/a").authority().as_deref(), Some("[::1]:2222"));
        assert!(of("ssh://[::1]/a").is_loopback() && !of("git@example.com:a").is_loopback());
        assert!(!of("git@example.com:a").is_local() && !of("git@example.com:a").is_https());
        assert_eq!(
            (of("git@example.com:a").port(), of("example.com:a").host()),
            (Some(22), Some("example.com"))
        );
    }

    #[test]
    fn what_is_no_place_is_refused_and_no_password_is_shown() {
        let error = parse("ssh://git:hunter2@example.com/a").unwrap_err();
        assert_eq!(error, LocationError::EmbeddedCredential { host: "example.com".into() });
        for text in [
            "ssh://example.com",
            "ssh:///a",
            "ssh://-oProxyCommand=x/a",
            "-oProxyCommand=x:a",
            "ssh://-l@example.com/a",
            "example.com:-a",
            "example.com:",
            "ssh://exa*mple.com/a",
            "ssh://example.com/a%0Ab",
            "git@[example.com:2222]:a",
        ] {
            assert_eq!(parse(text), Err(LocationError::Malformed), "{text}");
        }
        assert_eq!(parse("ssh://example.com/a?b"), Err(LocationError::Query));
    }

    impl fmt::Debug for SshPlace {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(self, f)
        }
    }
}

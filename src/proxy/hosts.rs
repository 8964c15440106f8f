//! Names to addresses: a hosts file first, then the system.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
};

use crate::egress::HostName;

/// Addresses taken of one answer; more would only be tried in vain.
const ADDRESSES: usize = 16;
/// Lines of a hosts file that are read.
const LINES: usize = 65_536;

/// A faulty line of a hosts file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// The first word is not an address.
    #[error("line {line}: {word:?} is not an address")]
    Address {
        /// Counted from 1.
        line: usize,
        /// The word in its place.
        word: String,
    },
    /// An address without names.
    #[error("line {line}: no name after the address")]
    NoName {
        /// Counted from 1.
        line: usize,
    },
    /// A word that is not a host name.
    #[error("line {line}: {word:?} is not a host name")]
    Name {
        /// Counted from 1.
        line: usize,
        /// The word in its place.
        word: String,
        /// Why not.
        #[source]
        source: crate::egress::HostError,
    },
    /// More than 65536 lines.
    #[error("a hosts file has at most {LINES} lines")]
    Lines,
}

/// A hosts(5) table: `ADDRESS NAME…` a line, `#` begins a comment. A name may stand in several lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostsFile {
    addresses: BTreeMap<HostName, Vec<IpAddr>>,
}

impl HostsFile {
    /// Reads the text of a hosts file; the first faulty line is the error.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        let mut addresses: BTreeMap<HostName, Vec<IpAddr>> = BTreeMap::new();
        for (line, content) in (1..).zip(text.lines()) {
            if line > LINES {
                return Err(HostsError::Lines);
            }
            let mut words = content.split('#').next().unwrap_or_default().split_whitespace();
            let Some(first) = words.next() else { continue };
            let address = first.parse().map_err(|_| HostsError::Address { line, word: first.to_owned() })?;
            let mut words = words.peekable();
            if words.peek().is_none() {
                return Err(HostsError::NoName { line });
            }
            for word in words {
                let name = word.parse().map_err(|source| HostsError::Name {
                    line,
                    word: word.to_owned(),
                    source,
                })?;
                addresses.entry(name).or_default().push(address);
            }
        }
        Ok(Self { addresses })
    }

    /// The addresses of a name, in the order of the file.
    #[must_use]
    pub fn get(&self, name: &HostName) -> Option<&[IpAddr]> {
        self.addresses.get(name).map(Vec::as_slice)
    }
}

/// Resolves names for the proxy. A name in the hosts file has those addresses and no others.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    hosts: HostsFile,
}

impl Resolver {
    /// A resolver with this table in front of the system's.
    #[must_use]
    pub fn new(hosts: HostsFile) -> Self {
        Self { hosts }
    }

    /// At most 16 addresses of a name.
    pub(super) async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        if let Some(addresses) = self.hosts.get(name) {
            return Ok(addresses.iter().copied().take(ADDRESSES).collect());
        }
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        Ok(found.map(|address: SocketAddr| address.ip()).take(ADDRESSES).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_in_the_form_of_hosts5() {
        let text = "# comment\n127.0.0.1 localhost Model.TEST # the model\n\n\t::1\tlocalhost\n";
        let hosts = HostsFile::parse(text).unwrap();
        let get = |name: &str| hosts.get(&name.parse().unwrap()).map(<[_]>::to_vec);
        assert_eq!(get("localhost"), Some(vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]));
        assert_eq!(get("model.test."), Some(vec!["127.0.0.1".parse().unwrap()]));
        assert_eq!(get("other.test"), None);
    }

    #[test]
    fn faults_name_their_line() {
        let said = |text: &str| HostsFile::parse(text).unwrap_err().to_string();
        assert_eq!(said("# a\n127.1 a.test"), "line 2: \"127.1\" is not an address");
        assert_eq!(said("10.0.0.1 # a.test"), "line 1: no name after the address");
        assert_eq!(said("10.0.0.1 ok.test a*b"), "line 1: \"a*b\" is not a host name");
    }
}

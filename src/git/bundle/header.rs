//! The text before the pack: signature, prerequisites, references, an empty line.

use std::io::{BufRead, Read};

use gix::ObjectId;

use super::{Error, file};

const SIGNATURE: &[u8] = b"# v2 git bundle\n";

/// Longest line, bytes: a reference name or a prerequisite's subject.
const MAX_LINE: u64 = 4096;

/// Prerequisites and references together.
const MAX_LINES: usize = 64;

/// What a bundle says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) prerequisites: Vec<ObjectId>,
    pub(super) heads: Vec<(String, ObjectId)>,
}

pub(super) fn write(base: Option<ObjectId>, heads: &[(String, ObjectId)]) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    if let Some(base) = base {
        out.extend_from_slice(format!("-{base}\n").as_bytes());
    }
    for (name, id) in heads {
        out.extend_from_slice(format!("{id} {name}\n").as_bytes());
    }
    out.push(b'\n');
    out
}

/// Reads up to the first byte of the pack.
pub(super) fn read(source: &mut dyn BufRead) -> Result<Header, Error> {
    if line(source)? != SIGNATURE {
        return Err(Error::Header("not a version 2 bundle"));
    }
    let mut header = Header { prerequisites: Vec::new(), heads: Vec::new() };
    for _ in 0..=MAX_LINES {
        let line = line(source)?;
        match line.strip_suffix(b"\n") {
            Some(b"") if header.heads.is_empty() => return Err(Error::Header("no references")),
            Some(b"") => return Ok(header),
            Some(line) => header.line(line)?,
            None => return Err(Error::Header("a line is cut off or too long")),
        }
    }
    Err(Error::Header("too many lines"))
}

impl Header {
    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        if let Some(rest) = line.strip_prefix(b"-") {
            if !self.heads.is_empty() {
                return Err(Error::Header("a prerequisite after a reference"));
            }
            // The rest of the line is a subject for people.
            let (id, _) = rest.split_at_checked(40).ok_or(Error::Header("a malformed prerequisite"))?;
            self.prerequisites.push(object(id)?);
            return Ok(());
        }
        let malformed = Error::Header("a malformed reference");
        let Some((id, name)) = line.split_at_checked(40) else { return Err(malformed) };
        let name = name.strip_prefix(b" ").and_then(|name| std::str::from_utf8(name).ok());
        let Some(name) =
            name.filter(|name| *name == "HEAD" || gix::validate::reference::name((*name).into()).is_ok())
        else {
            return Err(malformed);
        };
        self.heads.push((name.to_owned(), object(id)?));
        Ok(())
    }
}

fn object(hex: &[u8]) -> Result<ObjectId, Error> {
    ObjectId::from_hex(hex).map_err(|_| Error::Header("a malformed object id"))
}

fn line(source: &mut dyn BufRead) -> Result<Vec<u8>, Error> {
    let mut line = Vec::new();
    source.take(MAX_LINE).read_until(b'\n', &mut line).map_err(file("reading the header"))?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let base = ObjectId::from_hex(&[b'a'; 40]).unwrap();
        let head = ObjectId::from_hex(&[b'b'; 40]).unwrap();
        let heads = vec![("refs/heads/main".to_owned(), head)];
        let bytes = [write(Some(base), &heads).as_slice(), b"PACK"].concat();
        let mut source = bytes.as_slice();
        assert_eq!(read(&mut source).unwrap(), Header { prerequisites: vec![base], heads });
        assert_eq!(source, b"PACK");
    }

    #[test]
    fn bad_headers_are_refused() {
        let id = "a".repeat(40);
        for text in [
            String::new(),
            "# v3 git bundle\n@object-format=sha1\n\n".into(),
            "# v2 git bundle\n\n".into(),
            format!("# v2 git bundle\n{id} refs/heads/../x\n\n"),
            format!("# v2 git bundle\n{id}\n\n"),
            format!("# v2 git bundle\n{id} refs/heads/x"),
            format!("# v2 git bundle\n{id} refs/heads/x\n-{id}\n\n"),
            format!("# v2 git bundle\n-é{id}\n{id} refs/heads/x\n\n"),
            format!("# v2 git bundle\n{}\n", format!("-{id}\n").repeat(100)),
            format!("# v2 git bundle\n-{id} {}\n\n", "x".repeat(5000)),
        ] {
            assert!(matches!(read(&mut text.as_bytes()), Err(Error::Header(_))), "{text}");
        }
    }
}

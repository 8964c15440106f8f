//! What Git does to a file's bytes on the way in: line ends and encodings by `.gitattributes`. Programs
//! (`filter=…`) are never run, because none are configured.

use std::{ffi::OsStr, io::Read, os::unix::ffi::OsStrExt, path::Path};

use gix::{
    attrs::{Search, search::MetadataCollection},
    bstr::BStr,
    filter::plumbing::{
        Pipeline,
        pipeline::{self, convert::ToGitOutcome},
    },
    glob::pattern::Case,
};

/// In the order that the pipeline expects.
const ATTRIBUTES: [&str; 6] = ["crlf", "ident", "filter", "eol", "text", "working-tree-encoding"];

/// The macro that Git has built in (gitattributes(5)).
const BINARY: &[u8] = b"[attr]binary -diff -merge -text\n";

/// The attributes in force in a folder, and the conversions they ask for.
pub(super) struct Clean {
    search: Search,
    names: MetadataCollection,
    pipeline: Pipeline,
}

impl Clean {
    #[allow(clippy::default_trait_access, reason = "gix does not export the type of a driver's environment")]
    pub(super) fn new() -> Self {
        let options = pipeline::Options {
            crlf_roundtrip_check: pipeline::CrlfRoundTripCheck::Skip,
            ..Default::default()
        };
        let pipeline = Pipeline::new(Default::default(), gix::hash::Kind::Sha1, options);
        let mut clean = Self { search: Search::default(), names: MetadataCollection::default(), pipeline };
        clean.add(BINARY, Path::new("[builtin]"), true);
        clean
    }

    /// Adds the `.gitattributes` of `folder`, a path relative to the work tree.
    pub(super) fn enter(&mut self, content: &[u8], folder: &Path) {
        let top = folder.as_os_str().is_empty();
        self.add(content, &Path::new("/").join(folder).join(".gitattributes"), top);
    }

    /// Forgets what was added last.
    pub(super) fn leave(&mut self) {
        self.search.pop_pattern_list();
    }

    fn add(&mut self, content: &[u8], source: &Path, macros: bool) {
        let root = source.is_absolute().then_some(Path::new("/"));
        self.search
            .add_patterns_buffer(content, source.to_owned(), root, &mut self.names, macros)
            .expect("only the paths given here are used, and the source is below the root");
    }

    /// The bytes as Git would store them. `stored` is the content in the last commit, which decides about line ends
    /// in `text=auto` files.
    pub(super) fn clean(
        &mut self,
        path: &BStr,
        content: Vec<u8>,
        stored: Option<Vec<u8>>,
    ) -> gix::Result<Vec<u8>> {
        let (search, names) = (&self.search, &self.names);
        let outcome = self.pipeline.convert_to_git(
            content.as_slice(),
            Path::new(OsStr::from_bytes(path)),
            &mut |path, out| {
                out.initialize_with_selection(names, ATTRIBUTES);
                search.pattern_matching_relative_path(path, Case::Sensitive, Some(false), out);
            },
            &mut |buffer| {
                Ok(stored.as_ref().map(|stored| {
                    buffer.clear();
                    buffer.extend_from_slice(stored);
                }))
            },
        )?;
        Ok(match outcome {
            ToGitOutcome::Unchanged(_) => content,
            ToGitOutcome::Buffer(converted) => converted.to_owned(),
            // Cannot be, without drivers; the bytes as they are lose nothing.
            ToGitOutcome::Process(mut stream) => {
                let mut converted = Vec::new();
                stream.read_to_end(&mut converted).map_err(gix::Error::from_error)?;
                converted
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(attributes: &str, path: &str, content: &str) -> String {
        let mut clean = Clean::new();
        clean.enter(attributes.as_bytes(), Path::new(""));
        String::from_utf8(clean.clean(path.into(), content.as_bytes().to_vec(), None).unwrap()).unwrap()
    }

    #[test]
    fn line_ends_follow_the_attributes() {
        assert_eq!(cleaned("*.bat text eol=crlf\n", "a.bat", "x\r\ny\r\n"), "x\ny\n");
        assert_eq!(cleaned("*.bat text eol=crlf\n", "a.txt", "x\r\ny\r\n"), "x\r\ny\r\n");
        assert_eq!(cleaned("* text\n*.bin binary\n", "a.bin", "x\r\n"), "x\r\n");
        assert_eq!(cleaned("* text\n", "a/b", "x\r\n"), "x\n");
    }

    #[test]
    fn programs_are_not_run() {
        assert_eq!(cleaned("* filter=evil\n", "a", "x"), "x");
    }
}

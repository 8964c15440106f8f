//! Names of objects by what they are, so that a tree is never taken for a commit.

use std::fmt;
use std::str::FromStr;

use super::Error;

macro_rules! object_id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The SHA-1 name of ", $what, ".")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(gix::ObjectId);

        impl $name {
            pub(super) fn new(id: impl Into<gix::ObjectId>) -> Self {
                Self(id.into())
            }

            pub(super) fn get(self) -> gix::ObjectId {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// All 40 hexadecimal digits.
            fn from_str(text: &str) -> Result<Self, Error> {
                gix::ObjectId::from_hex(text.as_bytes()).map(Self).map_err(|_| Error::Malformed {
                    text: text.chars().take(64).collect(),
                    wanted: concat!("the full name of ", $what),
                })
            }
        }
    };
}

object_id!(CommitId, "a commit");
object_id!(TreeId, "a directory");
object_id!(BlobId, "a file's content");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_names_parse() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(text.parse::<CommitId>().unwrap().to_string(), text);
        for bad in ["", "0123456", "main", &text.replace('0', "g")] {
            assert!(bad.parse::<CommitId>().is_err(), "{bad}");
        }
    }
}

//! The class of an error decides what is done about it.

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The input is wrong: wait until it changes.
    Invalid,
    /// The world is in the way: try again with backoff.
    Transient,
    /// Somebody else was faster: look again soon.
    Conflict,
    /// We are wrong: say so, try again slowly.
    Bug,
}

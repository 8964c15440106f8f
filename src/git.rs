//! Git on gix: fetch, read, write, sign and push. No git program, no work tree of a config repository.

pub mod commit;
pub mod sign;
pub mod signers;

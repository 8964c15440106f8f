//! The ledger: claims and results as files on a branch. Pure: paths, entries, digests, composition.

//! The one writer of a ledger: claims, results and code branches.

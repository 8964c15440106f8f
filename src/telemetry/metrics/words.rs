//! Words of labels: closed enums, so that no label grows.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// The word in the label.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, to: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                self.as_str().encode(to)
            }
        }
    };
}

words!(
    /// How a sync ended.
    SyncResult {
        /// Everything was applied.
        Applied = "applied",
        /// There was nothing to do.
        Unchanged = "unchanged",
        /// Some files or objects failed or are held; the rest was applied.
        Partial = "partial",
        /// Nothing could be fetched or applied.
        Failed = "failed",
    }
);
words!(
    /// What was done to an object.
    Action {
        /// It came into being.
        Create = "create",
        /// It was changed.
        Update = "update",
        /// It was deleted.
        Delete = "delete",
        /// The store refused it.
        Refuse = "refuse",
    }
);
words!(
    /// A call to the store of objects.
    Call {
        /// A watch was begun.
        Watch = "watch",
        /// One object was read.
        Get = "get",
        /// Objects of a kind were read.
        List = "list",
        /// An object was created.
        Create = "create",
        /// An object was applied.
        Apply = "apply",
        /// Metadata or spec was patched.
        Merge = "merge",
        /// A status was patched.
        Status = "status",
        /// An object was deleted.
        Delete = "delete",
        /// An event was told.
        Tell = "tell",
    }
);
words!(
    /// An entry of the ledger.
    Entry {
        /// A claim.
        Claim = "claim",
        /// A result.
        Result = "result",
    }
);
words!(
    /// What became of an entry.
    RecordResult {
        /// It was pushed.
        Pushed = "pushed",
        /// Its push failed and is tried again.
        Retried = "retried",
        /// It was refused for good.
        Refused = "refused",
        /// It was given up.
        Abandoned = "abandoned",
    }
);
words!(
    /// A controller.
    Reconciler {
        /// That of sessions.
        Session = "session",
        /// That of runs.
        Run = "run",
    }
);
words!(
    /// A queue of work.
    Queue {
        /// Repositories to sync.
        Sync = "sync",
        /// Sessions to reconcile.
        Session = "session",
        /// Runs to reconcile.
        Run = "run",
        /// Claims and results to record.
        Record = "record",
    }
);

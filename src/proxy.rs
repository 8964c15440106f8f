//! The egress proxy of a run.

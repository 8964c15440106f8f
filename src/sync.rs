//! The GitOps loop: fetch, read, plan, apply, status.

//! All integration tests, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy allows them in test functions only, not in their fixtures"
)]

mod alongside;
mod anywhere;
mod api;
mod architecture;
mod cache;
mod charts;
mod cluster;
mod contract;
mod docs;
mod egress;
mod examples;
mod faults;
mod gateway;
mod git_source;
mod git_ssh;
mod git_write;
mod golden;
mod harness;
mod kubectl;
mod kubernetes;
mod manifest;
mod node;
mod objects;
mod offline;
mod plan;
mod recorder;
mod report;
mod repositories;
mod rerun;
mod roles;
mod scenarios;
mod servers;
mod verbs;

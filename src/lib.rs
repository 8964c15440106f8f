//! ostler makes a Git repository the control plane for coding agents.
//!
//! The layers, lowest first; a module uses only lower layers and its own children
//! (`tests/it/architecture.rs` enforces it):
//!
//! * L0 vocabulary: [`names`], [`kinds`], [`class`], [`clock`]
//! * L1 pure: [`manifest`], [`schema`], [`resolve`], [`plan`], [`ledger`], [`egress`], [`presets`], [`report`], [`terminal`], [`ports`]
//! * L2 adapters: [`cache`], [`git`], [`embedded`], [`proxy`], [`harness`], [`shim`], [`telemetry`]
//! * L3 drivers: [`sync`], [`controllers`], [`recorder`], [`api`]
//! * L4: [`cli`] and `main`

pub mod class;
pub mod clock;
pub mod kinds;
pub mod names;

pub mod egress;
pub mod ledger;
pub mod manifest;
pub mod plan;
pub mod ports;
pub mod presets;
pub mod report;
pub mod repositories;
pub mod resolve;
pub mod schema;
pub mod terminal;

pub mod cache;
pub mod embedded;
pub mod git;
pub mod harness;
pub mod kubernetes;
pub mod proxy;
pub mod shim;
pub mod telemetry;

pub mod api;
pub mod controllers;
pub mod recorder;
pub mod sync;

pub mod cli;

//! What ostler says of itself: logs, the audit trail and metrics.
//!
//! Only drivers (L3) and the command line speak here: an adapter returns its error, and the driver that decides what
//! becomes of it logs it, once, as a [`Chain`].

pub mod audit;
pub mod chain;
pub mod counted;
pub mod init;
pub mod metrics;

pub use audit::{Audit, AuditLog, Decision, Verb, Who};
pub use chain::Chain;
pub use counted::Counted;
pub use init::{Format, Guard, init};
pub use metrics::Metrics;

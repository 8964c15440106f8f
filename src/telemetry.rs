//! Logs, metrics and audit lines.

//! The small HTTP API: health, metrics, read-only status, result intake.

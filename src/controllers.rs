//! The controllers of sessions and runs: observe, validate, plan, apply, status.

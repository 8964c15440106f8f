//! The roles of a cluster as processes, on a real API server.

mod allowed;
mod api;
mod controllers;
mod quiet;
mod recorder;
mod stage;
mod thaw;
mod up;

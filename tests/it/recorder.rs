//! The recorder over real repositories and the embedded store.

mod claims;
mod faults;
mod results;
mod stage;
mod verify;

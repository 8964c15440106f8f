//! The recorder over real repositories and the embedded store.

mod claims;
mod faults;
mod https;
mod many;
mod results;
mod stage;
mod verify;

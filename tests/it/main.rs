//! All integration tests, in one binary.

mod contract;
mod faults;
mod objects;

//! Streams as the agents write them, and the launches that make them write so.

mod launches;
mod streams;

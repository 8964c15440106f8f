//! Real servers and programs that tests talk to.

pub(crate) mod model;
pub(crate) mod pi;

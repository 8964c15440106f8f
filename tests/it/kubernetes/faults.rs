//! What goes wrong around an API server, and what is told of it: each time the rest goes on, and all is well once the
//! cause is gone.

mod admission;
mod answers;
mod crds;
mod outages;
mod rights;
mod runs;

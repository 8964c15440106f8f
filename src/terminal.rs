//! Ring, screen and recording of a terminal, free of any transport. Pure.

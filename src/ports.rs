//! The four ports through which the core reaches the world.

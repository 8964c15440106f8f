//! The Objects port on an API server.

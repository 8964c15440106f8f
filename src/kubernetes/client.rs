//! How an API server is reached.

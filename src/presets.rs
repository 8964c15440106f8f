//! How each known coding agent is started, configured and read. Pure.

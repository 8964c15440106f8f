//! The sidecar of one run: it prepares, watches, records and collects, outside the agent's reach.

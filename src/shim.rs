//! PID 1 of the agent's container.

//! The egress decision: may this run talk to that host? Pure.

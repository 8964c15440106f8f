//! The planner's rules, one case a file.

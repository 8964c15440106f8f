//! The planner: desired, live, ledger and policy to a plan and its report. Pure.

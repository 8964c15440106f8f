//! A run with its session, agent and policies, merged and defaulted: what will really run. Pure.

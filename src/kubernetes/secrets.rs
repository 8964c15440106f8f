//! The Secrets port: Secrets of the cluster.

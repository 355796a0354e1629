//! Transfers, the reactor and the thread pool.

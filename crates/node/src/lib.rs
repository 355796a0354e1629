//! The binding: it shapes arguments and results, and decides nothing.

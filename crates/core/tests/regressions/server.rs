//! The native server: connections, heads, budgets, draining.

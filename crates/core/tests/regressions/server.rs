//! The native server: connections, heads, budgets, draining.

mod budgets;
mod closing;
mod sockets;
mod support;

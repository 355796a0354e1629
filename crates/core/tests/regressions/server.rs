//! The native server: connections, heads, budgets, draining.

mod budgets;
mod closing;
mod requests;
mod sockets;

//! The native server as seen by a client on a raw socket: bytes sent, bytes received.

mod lifecycle;
mod limits;
mod requests;
mod responses;
#[path = "../server_support/mod.rs"]
mod server_support;

//! Addresses and listening sockets.

pub(crate) mod acceptor;
mod address;
pub(crate) mod listener;
mod socket;
mod unix_name;
mod unix_socket;

pub use address::Address;
pub(crate) use socket::to_std;
pub(crate) use unix_name::unix_name;

//! Addresses to listen on and to connect to.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::unix_name::unix_name;
use crate::error::Result;

/// The address of a stream socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket; with a leading NUL byte, an abstract name, see unix(7). A server replaces a socket file that no
    /// process listens on.
    Unix(PathBuf),
}

impl Address {
    /// Returns an error for a Unix socket name that is empty, too long or contains a NUL byte.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Unix(path) => unix_name(path).map(drop),
        }
    }
}

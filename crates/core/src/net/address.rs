//! Addresses of listening sockets and of servers to connect to.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::unix_name::unix_name;
use crate::error::Result;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket. A socket there that no process listens on is replaced. A path that begins with a NUL byte is
    /// an abstract name, see unix(7).
    Unix(PathBuf),
}

impl Address {
    /// Refuses the name of a Unix socket that is too long, empty, or contains a NUL byte.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Unix(path) => unix_name(path).map(drop),
        }
    }
}

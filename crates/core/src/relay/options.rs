//! What a relay is told.

use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::server::Address;

/// How bytes go from socket to socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayMethod {
    /// Through a pipe, by `splice(2)` in and out.
    Splice,
    /// Through a buffer in user space.
    ReadWrite,
}

/// Which target a connection goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
}

/// What a target is told of the client before all other bytes; see the PROXY protocol of HAProxy, `proxy-protocol.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What becomes of accepted connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// They get back what they send.
    Echo,
    /// They are joined with a connection to one of these.
    Targets(Vec<Address>, Balance),
}

/// What a relay is told. Durations of zero mean no bound.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Where it listens.
    pub address: Address,
    /// Where bytes go to.
    pub destination: Destination,
    /// Threads. Default: one for each core this process may use.
    pub workers: usize,
    /// Length of the queue of connections not yet accepted, listen(2). Default 4096.
    pub backlog: i32,
    /// How bytes go. Default: splice.
    pub method: RelayMethod,
    /// Bytes of a pipe. Default 64 KiB: larger ones cost less CPU time for each byte, and were slower.
    pub pipe_size: usize,
    /// Pipes at once; beyond it bytes go through user space. Default 4096.
    pub pipes: usize,
    /// Connections at once; beyond it new ones are closed. Default 65,536.
    pub connections: usize,
    /// For a connection to a target. Default 5 s.
    pub connect_timeout: Duration,
    /// Without a byte in either direction. Default 0.
    pub idle_timeout: Duration,
    /// Targets that are tried after the first one has failed. Default 2.
    pub retries: u32,
    /// How long a target that failed is left alone while there are others. Default 5 s.
    pub down_time: Duration,
    /// What targets are told of clients. Default: nothing.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl RelayOptions {
    /// Options for relaying from `address` to `destination`, all else by default.
    pub fn new(address: Address, destination: Destination) -> Self {
        Self {
            address,
            destination,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            backlog: 4096,
            method: RelayMethod::Splice,
            pipe_size: 64 * 1024,
            pipes: 4096,
            connections: 65_536,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::ZERO,
            retries: 2,
            down_time: Duration::from_secs(5),
            proxy_protocol: None,
        }
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidArgument, message));
        if self.workers == 0 || self.workers > 1024 {
            return invalid(format!("workers is {}, but must be from 1 to 1024", self.workers));
        }
        if self.pipe_size < 4096 || self.pipe_size > 1 << 30 {
            return invalid(format!("pipeSize is {}, but must be from 4096 to 1073741824", self.pipe_size));
        }
        match &self.destination {
            Destination::Targets(targets, _) if targets.is_empty() => {
                invalid("target is an empty list; give at least one address".to_owned())
            }
            _ => Ok(()),
        }
    }
}

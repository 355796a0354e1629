//! What a relay is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::dial::Addresses;
use super::endpoint::MAX_MIRRORS;
use super::mirror_file::{MirrorFile, MirrorFiles};
use super::template::Template;
use crate::error::{Code, Error, Result};
use crate::event_loop::slab::Token;
use crate::net::Address;

/// How bytes go from socket to socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayMethod {
    /// Small messages through a buffer, where they cost less; streams through a pipe, and all that has mirrors.
    Auto,
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
#[derive(Clone)]
pub enum Destination {
    /// They get back what they send.
    Echo,
    /// They are joined with a connection to one of these targets, at the first of its addresses that can be connected to.
    Targets(Vec<Vec<Address>>, Balance),
    /// Somebody is asked for each, and says by [`Relay::resolve_target`](super::Relay::resolve_target).
    Resolver(Arc<dyn Fn(TargetRequest) + Send + Sync>),
    /// None are accepted; see [`Relay::start_session`](super::Relay::start_session).
    External,
}

/// Which target a connection goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRequest {
    /// To be given back with the answer.
    pub id: TargetRequestId,
    /// The client, unless it came by a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that it has connected to.
    pub own: Option<SocketAddr>,
}

/// Names a [`TargetRequest`]: three numbers, for those who cannot keep a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRequestId {
    pub(super) worker: usize,
    pub(super) link: Token,
    pub(super) attempt: u32,
}

impl TargetRequestId {
    /// The numbers: which worker, which link, and how often it was asked for the same connection before.
    pub fn numbers(self) -> (usize, u64, u32) {
        (self.worker, self.link, self.attempt)
    }

    /// The name of these numbers. What was never asked is ignored.
    pub fn from_numbers((worker, link, attempt): (usize, u64, u32)) -> Self {
        Self { worker, link, attempt }
    }
}

/// Which direction of a link a mirror gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From clients to targets.
    Up,
    /// From targets to clients.
    Down,
}

/// What becomes of bytes that a mirror or sink does not take in time, beyond what its pipe holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All others wait. When it fails, the link does.
    Block,
    /// It misses them.
    Drop,
}

/// Where copies of a direction go.
#[derive(Clone)]
pub enum MirrorDestination {
    /// Appended to this file, or written to this FIFO; the streams of connections that are open at once mix in it.
    File(Arc<MirrorFile>),
    /// A file for each connection.
    Files(Arc<MirrorFiles>),
    /// To a server, at the first of its addresses that can be connected to. What it answers is read and forgotten.
    Connection(Arc<Addresses>),
}

impl MirrorDestination {
    /// The file `name`, or files for each connection when the name has variables: `{n}`, the number of the connection, from 1
    /// up, or from the first that no file has; `{time}`, when it was accepted; `{client}`, its address; `{id}`, which no
    /// other connection of this or another relay has. Files that are made get `mode`, less the umask.
    ///
    /// A single file is opened at once. May wait for a disk.
    pub fn file(name: &str, mode: u32) -> Result<Self> {
        let template = Template::parse(name)?;
        Ok(match template.plain() {
            Some(path) => Self::File(Arc::new(MirrorFile::open(path.as_ref(), mode)?)),
            None => Self::Files(Arc::new(MirrorFiles::new(template, mode))),
        })
    }

    /// A server with these addresses.
    pub fn server(addresses: &[Address]) -> Self {
        Self::Connection(Arc::new(Addresses::new(addresses)))
    }

    /// Opens files by their names again, after they were renamed. A file that cannot be opened keeps what it has. May wait for
    /// a disk.
    pub fn reopen(&self) -> Result<()> {
        match self {
            Self::File(file) => file.reopen(),
            Self::Files(files) => {
                files.reopen();
                Ok(())
            }
            Self::Connection(_) => Ok(()),
        }
    }
}

/// A mirror of all connections of a relay.
#[derive(Clone)]
pub struct MirrorOptions {
    /// Where the copies go.
    pub to: MirrorDestination,
    /// Of which direction.
    pub direction: Direction,
    /// What becomes of copies that are not taken in time.
    pub policy: Policy,
}

/// What a relay is told. Durations of zero mean no bound.
#[derive(Clone)]
pub struct RelayOptions {
    /// Where it listens, unless its connections are given.
    pub address: Option<Address>,
    /// Where bytes go to.
    pub destination: Destination,
    /// Threads. Default: one for each core this process may use.
    pub workers: usize,
    /// Length of the queue of connections not yet accepted, listen(2). Default 4096.
    pub backlog: i32,
    /// Permissions of the file of a Unix socket that is listened on. Default: what the umask leaves.
    pub socket_mode: Option<u32>,
    /// How bytes go. Default: auto.
    pub method: RelayMethod,
    /// Bytes of a pipe. Default 256 KiB: less CPU time for each byte than 64 KiB, at the same speed or better.
    pub pipe_size: usize,
    /// Pipes at once; beyond it bytes go through user space. Default 4096.
    pub pipes: usize,
    /// Connections at once; beyond it new ones are closed. Default 65,536.
    pub connections: usize,
    /// For a connection to a target. Default 5 s.
    pub connect_timeout: Duration,
    /// Without a byte in either direction. Default 0.
    pub idle_timeout: Duration,
    /// Without a segment from a TCP peer: it is probed, and its connection fails with `ETIMEDOUT` when it does not answer for
    /// the same time again. Zero: no probes. Default 60 s.
    pub keep_alive: Duration,
    /// Targets that are tried after the first one has failed. Default 2.
    pub retries: u32,
    /// How long a target that failed is left alone while there are others. Default 5 s.
    pub down_time: Duration,
    /// What targets are told of clients. Default: nothing.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Who else gets the bytes; at most [`MAX_MIRRORS`]. Default: nobody.
    pub mirrors: Vec<MirrorOptions>,
}

impl RelayOptions {
    /// Options for relaying from `address` to `destination`, all else by default.
    pub fn new(address: Address, destination: Destination) -> Self {
        Self { address: Some(address), ..Self::with_defaults(destination) }
    }

    /// Options for a relay that listens nowhere and joins what it is given, on one thread.
    pub fn for_sessions() -> Self {
        Self { workers: 1, ..Self::with_defaults(Destination::External) }
    }

    fn with_defaults(destination: Destination) -> Self {
        Self {
            address: None,
            destination,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            backlog: 4096,
            socket_mode: None,
            method: RelayMethod::Auto,
            pipe_size: 256 * 1024,
            pipes: 4096,
            connections: 65_536,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::ZERO,
            keep_alive: Duration::from_secs(60),
            retries: 2,
            down_time: Duration::from_secs(5),
            proxy_protocol: None,
            mirrors: Vec::new(),
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
        if self.mirrors.len() > MAX_MIRRORS {
            return invalid(format!("mirror has {} entries, but may have at most {MAX_MIRRORS}", self.mirrors.len()));
        }
        if let Destination::Targets(targets, _) = &self.destination {
            if targets.is_empty() || targets.iter().any(Vec::is_empty) {
                return invalid("target is an empty list; give at least one address".to_owned());
            }
            targets.iter().flatten().try_for_each(Address::check)?;
        }
        for mirror in &self.mirrors {
            if let MirrorDestination::Connection(addresses) = &mirror.to {
                let addresses = addresses.get();
                if addresses.is_empty() {
                    return invalid("mirror has no address; give at least one".to_owned());
                }
                addresses.iter().try_for_each(Address::check)?;
            }
        }
        self.address.as_ref().map_or(Ok(()), Address::check)
    }
}

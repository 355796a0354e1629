//! Options of a relay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::addresses::Addresses;
use super::endpoint::MAX_MIRRORS;
use super::link_file::MirrorFiles;
use super::mirror_file::MirrorFile;
use super::template::Template;
use crate::error::{Code, Error, Result};
use crate::event_loop::slab::Token;
use crate::net::Address;

/// How bytes are moved from socket to socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayMethod {
    /// Small messages through a buffer in user space, which costs less; streams, and whatever has mirrors, through a pipe.
    Auto,
    /// Through a pipe, with `splice(2)`.
    Splice,
    /// Through a buffer in user space.
    ReadWrite,
}

/// How the target of a connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// The target with the fewest connections.
    LeastConnections,
}

/// Version of the PROXY protocol of HAProxy (`proxy-protocol.txt`), whose header is sent to targets before all other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What accepted connections are connected to.
#[derive(Clone)]
pub enum Destination {
    /// Themselves: they receive what they send.
    Echo,
    /// One of these targets, at the first of its addresses that can be connected to.
    Targets(Vec<Vec<Address>>, Balance),
    /// The addresses that are passed to [`Relay::resolve_target`](super::Relay::resolve_target) after this function was called.
    Resolver(Arc<dyn Fn(TargetRequest) + Send + Sync>),
    /// No connections are accepted; see [`Relay::start_session`](super::Relay::start_session).
    External,
}

/// A request for the target of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRequest {
    /// For [`Relay::resolve_target`](super::Relay::resolve_target).
    pub id: TargetRequestId,
    /// The address of the client; `None` for clients of Unix sockets.
    pub client: Option<SocketAddr>,
    /// The address that the client has connected to.
    pub local: Option<SocketAddr>,
}

/// Id of a [`TargetRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetRequestId {
    pub(super) worker: usize,
    pub(super) link: Token,
    pub(super) attempt: u32,
}

impl TargetRequestId {
    /// As numbers: the worker, the link, and the number of earlier requests for the same connection.
    pub fn numbers(self) -> (usize, u64, u32) {
        (self.worker, self.link, self.attempt)
    }

    /// The id with these numbers. Ids of unknown requests are ignored when they are used.
    pub fn from_numbers((worker, link, attempt): (usize, u64, u32)) -> Self {
        Self { worker, link, attempt }
    }
}

/// A direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// What happens to bytes that a mirror does not accept in time, beyond what its pipe holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The link waits for the mirror, and fails when the mirror fails.
    Block,
    /// The mirror misses them.
    Drop,
}

/// What a mirror writes to.
#[derive(Clone)]
pub enum MirrorDestination {
    /// One file, FIFO or terminal, in which the bytes of simultaneous connections alternate.
    File(Arc<MirrorFile>),
    /// A file for each connection.
    Files(Arc<MirrorFiles>),
    /// A server, at the first of its addresses that can be connected to. Its responses are read and discarded.
    Server(Arc<Addresses>),
}

impl MirrorDestination {
    /// The file `name`, or a file for each connection if the name has variables: `{n}`, the number of the connection, counted
    /// from 1 or from the first number that no existing file has; `{time}`, when it was accepted; `{client}`, the address of the
    /// client; `{id}`, an id that is unique across relays. New files get the permissions `mode`, less the umask.
    ///
    /// Opens a name without variables at once. May wait for a disk.
    pub fn file(name: &str, mode: u32) -> Result<Self> {
        let template = Template::parse(name)?;
        Ok(match template.plain() {
            Some(path) => Self::File(Arc::new(MirrorFile::open(path.as_ref(), mode)?)),
            None => Self::Files(Arc::new(MirrorFiles::new(template, mode))),
        })
    }

    /// A server with these addresses.
    pub fn server(addresses: &[Address]) -> Self {
        Self::Server(Arc::new(Addresses::new(addresses)))
    }

    /// Opens files by their paths again, after they were renamed. If that fails, the open file stays in use. May wait for a
    /// disk.
    pub fn reopen(&self) -> Result<()> {
        match self {
            Self::File(file) => file.reopen(),
            Self::Files(files) => {
                files.reopen();
                Ok(())
            }
            Self::Server(_) => Ok(()),
        }
    }
}

/// A mirror of all connections of a relay.
#[derive(Clone)]
pub struct MirrorOptions {
    /// What the copies are written to.
    pub to: MirrorDestination,
    /// The direction that is copied.
    pub direction: Direction,
    /// What happens to bytes that are not accepted in time.
    pub policy: Policy,
}

/// Options of a relay. A duration of zero means no limit.
#[derive(Clone)]
pub struct RelayOptions {
    /// Where to listen; `None` with [`Destination::External`].
    pub address: Option<Address>,
    /// What accepted connections are connected to.
    pub destination: Destination,
    /// Threads. Default: the number of CPUs available to the process.
    pub workers: usize,
    /// Maximum length of the queue of connections that are not accepted yet, listen(2). Default 4096.
    pub backlog: i32,
    /// Permissions of a Unix socket that is listened on. Default: 0o777 less the umask.
    pub socket_mode: Option<u32>,
    /// How bytes are moved. Default [`RelayMethod::Auto`].
    pub method: RelayMethod,
    /// Bytes of a pipe. Default 256 KiB: less CPU time per byte than with 64 KiB, at the same or a higher throughput.
    pub pipe_size: usize,
    /// Maximum number of pipes in use; without one, bytes go through user space. Default 4096.
    pub pipes: usize,
    /// Maximum number of connections; further ones are closed at once. Default 65,536.
    pub connections: usize,
    /// Time to connect to a target. Default 5 s.
    pub connect_timeout: Duration,
    /// Time without a byte in either direction. Default: no limit.
    pub idle_timeout: Duration,
    /// Time without a segment from a TCP peer until it is probed. If it does not answer for the same time again, the connection
    /// fails with `ETIMEDOUT`. Zero: no probes. Default 60 s.
    pub keep_alive: Duration,
    /// Number of further targets to try after the first one has failed. Default 2.
    pub retries: u32,
    /// Time for which a target that failed is picked last. Default 5 s.
    pub down_time: Duration,
    /// Header that is sent to targets. Default: none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Mirrors; [`MAX_MIRRORS`] at most. Default: none.
    pub mirrors: Vec<MirrorOptions>,
}

impl RelayOptions {
    /// Default options for a relay from `address` to `destination`.
    pub fn new(address: Address, destination: Destination) -> Self {
        Self { address: Some(address), ..Self::with_defaults(destination) }
    }

    /// Default options for a relay with sessions only, on one thread.
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

    /// Checks the options.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidArgument, message));
        if self.workers == 0 || self.workers > 1024 {
            return invalid(format!("invalid workers {}: use 1 to 1024", self.workers));
        }
        if self.pipe_size < 4096 || self.pipe_size > 1 << 30 {
            return invalid(format!("invalid pipeSize {}: use 4096 to 1073741824", self.pipe_size));
        }
        if self.mirrors.len() > MAX_MIRRORS {
            return invalid(format!("too many mirrors: {}; use {MAX_MIRRORS} at most", self.mirrors.len()));
        }
        if let Destination::Targets(targets, _) = &self.destination {
            if targets.is_empty() || targets.iter().any(Vec::is_empty) {
                return invalid("target has no address: use one or more".to_owned());
            }
            targets.iter().flatten().try_for_each(Address::check)?;
        }
        for mirror in &self.mirrors {
            if let MirrorDestination::Server(addresses) = &mirror.to {
                let addresses = addresses.get();
                if addresses.is_empty() {
                    return invalid("mirror has no address: use one or more".to_owned());
                }
                addresses.iter().try_for_each(Address::check)?;
            }
        }
        self.address.as_ref().map_or(Ok(()), Address::check)
    }
}

//! What a server is told: where it listens, what it serves, and what it puts up with.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use super::handoff::HandoffQueue;
use super::mount::Mount;
use crate::error::{Code, Error, Result};
use crate::net::Address;
use zerosend_http::request::is_token;
use zerosend_http::route::RoutePattern;

/// Bounds. A duration of zero or a count of 0 means no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Beyond it a new one gets 503. Default 16,384.
    pub connections: usize,
    /// Connections at once from one IP address; 503 beyond it. Default 0.
    pub connections_per_address: usize,
    /// Bytes of a request's head: 431, or 414 when the request line alone is longer. Default 16 KiB, as Node's.
    pub head_bytes: usize,
    /// Fields of a head: 431. At most 256. Default 100.
    pub headers: usize,
    /// Requests on one connection, after which it is closed. Default 0.
    pub requests_per_connection: u32,
    /// Bytes of a request's body, which are read and thrown away: 413 and a closed connection beyond it. Default 64 KiB.
    pub body_bytes: u64,
    /// From the first byte of a head to its last, and for a body: 408. Default 15 s.
    pub head_timeout: Duration,
    /// Without a request: closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Without a byte that the client acknowledged while a response is sent: cut. Default 30 s.
    pub send_timeout: Duration,
    /// Bytes per second that the client must take on average after the first five seconds of a response: cut. Default
    /// 240, which is Kestrel's.
    pub min_rate: u64,
    /// For a thread that may wait for the disk, and then for the disk itself, to open a file and for each stretch that is read
    /// ahead: 503, or a reset once a part of the response has been sent. Default 30 s.
    pub disk_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_address: 0,
            head_bytes: 16 * 1024,
            headers: 100,
            requests_per_connection: 0,
            body_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            min_rate: 240,
            disk_timeout: Duration::from_secs(30),
        }
    }
}

/// What a server is told.
pub struct ServerOptions {
    /// Where it listens.
    pub address: Address,
    /// Length of the queue of connections not yet accepted, listen(2). Default 4096; the kernel's `somaxconn` bounds it.
    pub backlog: i32,
    /// Several processes may listen on the address at once, and the kernel spreads connections over them.
    pub reuse_port: bool,
    /// The mode of the file of a Unix socket, such as 0o660. Default: what the umask leaves.
    pub socket_mode: Option<u32>,
    /// Threads. Default: one for each core this process may use.
    pub workers: usize,
    /// What is served.
    pub mounts: Vec<Mount>,
    /// Fields that every response has, such as `access-control-allow-origin`.
    pub headers: Vec<(String, String)>,
    /// Answers preflight requests of CORS: OPTIONS with `Origin`.
    pub cors: bool,
    /// The path of the counters in Prometheus' text form.
    pub metrics_path: Option<String>,
    /// Bytes that one connection may send before others have their turn.
    pub chunk: u64,
    /// Bounds.
    pub limits: Limits,
    /// Who writes down each request.
    pub log: Option<Arc<AccessLog>>,
    /// Says `Connection: keep-alive` and, with `limits.idle_timeout`, `Keep-Alive: timeout=` as Node does.
    pub announce_keep_alive: bool,
    /// The queue for connections whose request the server does not answer. Default: none, the server answers all requests.
    pub handoff: Option<Arc<HandoffQueue>>,
    /// With `handoff`: requests whose path matches one of these are handed off.
    pub exclude_routes: Vec<RoutePattern>,
}

impl ServerOptions {
    /// Options for serving `mounts` at `address`, all else by default.
    pub fn new(address: Address, mounts: Vec<Mount>) -> Self {
        Self {
            address,
            backlog: 4096,
            reuse_port: false,
            socket_mode: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            mounts,
            headers: Vec::new(),
            cors: false,
            metrics_path: None,
            chunk: 1024 * 1024,
            limits: Limits::default(),
            log: None,
            announce_keep_alive: false,
            handoff: None,
            exclude_routes: Vec::new(),
        }
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidArgument, message));
        for Mount { prefix, .. } in &self.mounts {
            if !prefix.starts_with('/') || !prefix.ends_with('/') {
                return invalid(format!("prefix is '{prefix}', but must begin and end with a slash"));
            }
        }
        for (at, Mount { prefix, .. }) in self.mounts.iter().enumerate() {
            if self.mounts.iter().skip(at + 1).any(|other| other.prefix == *prefix) {
                return invalid(format!("prefix '{prefix}' is there twice; give one of them several roots"));
            }
        }
        for (name, value) in &self.headers {
            if !is_token(name) {
                return invalid(format!("headers has the name '{name}', but must have names of RFC 9110 section 5.1"));
            }
            if ["content-length", "transfer-encoding", "connection", "date"].contains(&&*name.to_ascii_lowercase()) {
                return invalid(format!("headers has '{name}', which the server says itself"));
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte) || byte >= 0x80) {
                return invalid(format!("headers['{name}'] has control characters, but must be one line of text"));
            }
        }
        if self.socket_mode.is_some_and(|mode| mode > 0o777) {
            let mode = self.socket_mode.unwrap_or_default();
            return invalid(format!("socketMode is 0o{mode:o}, but must be permissions from 0 to 0o777"));
        }
        if self.workers == 0 || self.workers > 1024 {
            return invalid(format!("workers is {}, but must be from 1 to 1024", self.workers));
        }
        if self.limits.headers > zerosend_http::request::MAX_HEADERS {
            return invalid(format!("limits.headers is {}, but must be at most 256", self.limits.headers));
        }
        if self.limits.head_bytes < 256 || self.limits.head_bytes > 1024 * 1024 {
            return invalid(format!("limits.headBytes is {}, but must be from 256 to 1048576", self.limits.head_bytes));
        }
        if self.metrics_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return invalid("metrics has a path without a slash at its beginning".to_owned());
        }
        Ok(())
    }
}

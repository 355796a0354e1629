//! Server options, their defaults and their validation.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use super::handoff::HandoffQueue;
use super::mount::Mount;
use crate::error::{Code, Error, Result};
use crate::net::Address;
use zerosend_http::request::{MAX_HEADERS, is_token};
use zerosend_http::route::RoutePattern;

/// Limits. Unless stated otherwise, a duration of zero and a count of 0 mean no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. Further ones get 503. Default 16,384.
    pub connections: usize,
    /// Open connections from one IP address. Further ones get 503. Default 0.
    pub connections_per_address: usize,
    /// Size of a request head in bytes, 256 to 1,048,576: 431, or 414 if the request line alone is longer. Default 16 KiB, as in
    /// Node.
    pub head_bytes: usize,
    /// Fields of a request head, up to [`MAX_HEADERS`]: 431. 0 allows none. Default 100.
    pub headers: usize,
    /// Requests on one connection; it is closed after the last one. Default 0.
    pub requests_per_connection: u32,
    /// Size of a request body in bytes, which is read and discarded: 413, and the connection is closed. Default 64 KiB.
    pub body_bytes: u64,
    /// Time from the first byte of a head to its last one, and for a body: 408. Default 15 s.
    pub head_timeout: Duration,
    /// Time between requests, after which the connection is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Time during a response in which the client acknowledges no byte, after which the connection is reset. Default 30 s.
    pub send_timeout: Duration,
    /// Average rate in bytes per second at which the client must acknowledge a response after its first five seconds; slower
    /// connections are reset. Default 240, as in Kestrel.
    pub min_rate: u64,
    /// Time to open a file, and to read ahead one range of it, waiting for a pool thread included: 503, or a reset if a part of the
    /// response has been sent. Default 30 s.
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

/// Options of a [`super::Server`].
pub struct ServerOptions {
    /// Address to listen on.
    pub address: Address,
    /// Maximum number of connections that are not accepted yet, see listen(2). The kernel applies `somaxconn` too. Default 4096.
    pub backlog: i32,
    /// `SO_REUSEPORT`: several processes may listen on the address. Default false.
    pub reuse_port: bool,
    /// Permissions of the file of a Unix socket, such as 0o660. Default: 0o777 less the umask.
    pub socket_mode: Option<u32>,
    /// Worker threads, 1 to 1024. Default: the number of cores available to the process.
    pub workers: usize,
    /// The sites to serve.
    pub mounts: Vec<Mount>,
    /// Fields added to every response.
    pub headers: Vec<(String, String)>,
    /// Answers CORS preflight requests: OPTIONS with `Origin`. Default false.
    pub cors: bool,
    /// The path that serves the counters in the text format of Prometheus. Default: none.
    pub metrics_path: Option<String>,
    /// Bytes that one connection may send per turn. Default 1 MiB.
    pub chunk: u64,
    /// Limits of connections and requests.
    pub limits: Limits,
    /// Log of all requests. Default: none.
    pub log: Option<Arc<AccessLog>>,
    /// Sends `Connection: keep-alive`, and `Keep-Alive: timeout=` if there is an idle timeout, as Node does. Default false.
    pub announce_keep_alive: bool,
    /// The queue for connections whose request the server does not answer. Default: none, the server answers all requests.
    pub handoff: Option<Arc<HandoffQueue>>,
    /// With `handoff`: requests whose path may match one of these routes are handed off.
    pub exclude_routes: Vec<RoutePattern>,
}

impl ServerOptions {
    /// Default options.
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

    pub(super) fn check(&self) -> Result<()> {
        self.find_error().map_or(Ok(()), |message| Err(Error::new(Code::InvalidArgument, message)))
    }

    fn find_error(&self) -> Option<String> {
        for (at, Mount { prefix, .. }) in self.mounts.iter().enumerate() {
            if !prefix.starts_with('/') || !prefix.ends_with('/') {
                return Some(format!("invalid prefix '{prefix}': it must start and end with '/'"));
            }
            if self.mounts[..at].iter().any(|other| other.prefix == *prefix) {
                return Some(format!("duplicate prefix '{prefix}'; use one mount with several roots"));
            }
        }
        for (name, value) in &self.headers {
            if !is_token(name) {
                return Some(format!("invalid header name '{name}'"));
            }
            if ["content-length", "transfer-encoding", "connection", "date"].contains(&&*name.to_ascii_lowercase()) {
                return Some(format!("header '{name}' is set by the server and cannot be overridden"));
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte) || byte >= 0x80) {
                return Some(format!("invalid value of header '{name}': it must not contain control characters"));
            }
        }
        if let Some(mode) = self.socket_mode.filter(|mode| *mode > 0o777) {
            return Some(format!("invalid socketMode 0o{mode:o}: use 0 to 0o777"));
        }
        if !(1..=1024).contains(&self.workers) {
            return Some(format!("invalid workers {}: use 1 to 1024", self.workers));
        }
        if self.limits.headers > MAX_HEADERS {
            return Some(format!("invalid limits.headers {}: use 0 to {MAX_HEADERS}", self.limits.headers));
        }
        if !(256..=1024 * 1024).contains(&self.limits.head_bytes) {
            return Some(format!("invalid limits.headBytes {}: use 256 to 1048576", self.limits.head_bytes));
        }
        self.metrics_path
            .as_ref()
            .filter(|path| !path.starts_with('/'))
            .map(|path| format!("invalid metrics path '{path}': it must start with '/'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut ServerOptions)) -> Option<String> {
        let mut options = ServerOptions::new(Address::Unix("unused".into()), Vec::new());
        change(&mut options);
        options.find_error()
    }

    #[test]
    fn an_error_names_the_option_and_the_value() {
        assert_eq!(error(|_| ()), None);
        let header = |name: &str, value: &str| error(|options| options.headers.push((name.into(), value.into())));
        assert_eq!(header("a b", "").as_deref(), Some("invalid header name 'a b'"));
        assert_eq!(header("Date", "").as_deref(), Some("header 'Date' is set by the server and cannot be overridden"));
        assert_eq!(
            header("x", "\n").as_deref(),
            Some("invalid value of header 'x': it must not contain control characters")
        );
        assert_eq!(error(|options| options.workers = 0).as_deref(), Some("invalid workers 0: use 1 to 1024"));
        assert_eq!(
            error(|options| options.socket_mode = Some(0o1777)).as_deref(),
            Some("invalid socketMode 0o1777: use 0 to 0o777")
        );
        assert_eq!(
            error(|options| options.metrics_path = Some("metrics".into())).as_deref(),
            Some("invalid metrics path 'metrics': it must start with '/'")
        );
    }
}

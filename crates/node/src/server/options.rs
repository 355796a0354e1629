//! The options of a server.

use std::sync::Arc;

use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::net::Address;
use zerosend_core::server::access_log::AccessLog;
use zerosend_core::server::{Limits, ListFormat, Mount, ServerOptions};

use crate::engine::Engine;
use crate::engine::convert::{from_milliseconds, parse_enum, tcp_address, to_milliseconds};
use crate::site::options::SiteSettings;

/// A site below a prefix.
#[napi(object)]
pub struct MountSettings {
    /// Starts and ends with a slash.
    pub prefix: String,
    pub site: SiteSettings,
    /// The format of directory listings. Absent: no listings.
    #[napi(ts_type = "'html' | 'json'")]
    pub list: Option<String>,
    /// Hand requests with credentials off to the Node server on the same socket.
    pub exclude_credentials: bool,
    /// Respond with 404 for a missing file instead of handing the request off to the Node server on the same socket.
    pub respond_not_found: bool,
}

/// Limits. 0: unlimited.
#[napi(object)]
pub struct LimitSettings {
    pub connections: f64,
    pub connections_per_address: f64,
    /// Bytes of a request head.
    pub head_bytes: f64,
    /// Header fields of a request.
    pub headers: f64,
    pub requests_per_connection: f64,
    /// Bytes of a request body.
    pub body_bytes: f64,
    /// Milliseconds to receive a request head.
    pub head_timeout: f64,
    /// Milliseconds between two requests of a connection.
    pub idle_timeout: f64,
    /// Milliseconds without progress of a response.
    pub send_timeout: f64,
    /// Bytes per second that a client must at least receive.
    pub min_rate: f64,
    /// Milliseconds to open or read a file.
    pub disk_timeout: f64,
}

/// The options of a server. The TypeScript side has filled in the defaults.
#[napi(object)]
pub struct ServerSettings {
    /// An IP address. Absent: `path` is given.
    pub host: Option<String>,
    pub port: u32,
    /// The path of a Unix socket.
    pub path: Option<String>,
    /// The mode of the Unix socket. Absent: as the umask allows.
    pub socket_mode: Option<u32>,
    pub backlog: i32,
    pub reuse_port: bool,
    pub workers: u32,
    pub mounts: Vec<MountSettings>,
    /// Headers of all responses: name, value, name, value, ...
    pub headers: Vec<String>,
    pub cors: bool,
    /// The URL path of the counters in the text format of Prometheus. Absent: none.
    pub metrics: Option<String>,
    /// Maximum number of bytes that one response sends in a turn.
    pub chunk: f64,
    pub limits: LimitSettings,
    /// The handle of an access log, which is used up.
    pub log: Option<f64>,
}

impl ServerSettings {
    /// The address to listen on.
    pub fn address(&self) -> Result<Address> {
        match &self.path {
            Some(path) => Ok(Address::Unix(path.into())),
            None => tcp_address(self.host.as_deref().unwrap_or_default(), self.port),
        }
    }

    pub fn into_options(self, engine: &mut Engine, address: Address) -> Result<ServerOptions> {
        let mounts = self.mounts.into_iter().map(|mount| mount.into_mount(engine)).collect::<Result<_>>()?;
        let log = self.log.map(|handle| engine.handles.objects.remove::<AccessLog>(handle)).transpose()?;
        Ok(ServerOptions {
            address,
            backlog: self.backlog,
            reuse_port: self.reuse_port,
            socket_mode: self.socket_mode,
            workers: self.workers as usize,
            mounts,
            headers: self.headers.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            cors: self.cors,
            metrics_path: self.metrics,
            chunk: self.chunk as u64,
            limits: self.limits.into(),
            log: log.map(Arc::new),
            announce_keep_alive: false,
            handoff: None,
            exclude_routes: Vec::new(),
        })
    }
}

impl MountSettings {
    fn into_mount(self, engine: &mut Engine) -> Result<Mount> {
        let site = self.site.open(engine)?;
        Ok(Mount {
            prefix: self.prefix,
            site: site.site,
            method: site.method,
            list: self.list.map(|name| parse_enum("list", &name, LISTS)).transpose()?,
            exclude_credentials: self.exclude_credentials,
            respond_not_found: self.respond_not_found,
        })
    }
}

impl From<LimitSettings> for Limits {
    fn from(limits: LimitSettings) -> Self {
        Self {
            connections: limits.connections as usize,
            connections_per_address: limits.connections_per_address as usize,
            head_bytes: limits.head_bytes as usize,
            headers: limits.headers as usize,
            requests_per_connection: limits.requests_per_connection as u32,
            body_bytes: limits.body_bytes as u64,
            head_timeout: from_milliseconds(limits.head_timeout),
            idle_timeout: from_milliseconds(limits.idle_timeout),
            send_timeout: from_milliseconds(limits.send_timeout),
            min_rate: limits.min_rate as u64,
            disk_timeout: from_milliseconds(limits.disk_timeout),
        }
    }
}

impl From<Limits> for LimitSettings {
    fn from(limits: Limits) -> Self {
        Self {
            connections: limits.connections as f64,
            connections_per_address: limits.connections_per_address as f64,
            head_bytes: limits.head_bytes as f64,
            headers: limits.headers as f64,
            requests_per_connection: f64::from(limits.requests_per_connection),
            body_bytes: limits.body_bytes as f64,
            head_timeout: to_milliseconds(limits.head_timeout),
            idle_timeout: to_milliseconds(limits.idle_timeout),
            send_timeout: to_milliseconds(limits.send_timeout),
            min_rate: limits.min_rate as f64,
            disk_timeout: to_milliseconds(limits.disk_timeout),
        }
    }
}

const LISTS: &[(&str, ListFormat)] = &[("html", ListFormat::Html), ("json", ListFormat::Json)];

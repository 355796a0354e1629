//! The native server of files.

pub mod handoff;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use napi::Env;
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::net::Address;
use zerosend_core::server::access_log::AccessLog;
use zerosend_core::server::{Limit, Limits, ListFormat, Mount, Server, ServerOptions, Snapshot};
use zerosend_core::transfer::Method;
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::site::{HeldSite, SiteSettings, one_of};
use crate::transfer::milliseconds;

/// A site and where it appears.
#[napi(object)]
pub struct MountSettings {
    /// Begins and ends with a slash.
    pub prefix: String,
    pub site: SiteSettings,
    /// How directories are listed; absent: not at all.
    #[napi(ts_type = "'html' | 'json'")]
    pub list: Option<String>,
    /// Behind a door: requests with credentials are the application's.
    pub private: bool,
    /// Behind a door: 404 for what is missing, instead of leaving it to the application.
    pub answers_missing: bool,
}

/// Bounds; 0 is none. Times in milliseconds.
#[napi(object)]
pub struct LimitSettings {
    pub connections: f64,
    pub connections_per_address: f64,
    pub head_bytes: f64,
    pub headers: f64,
    pub requests_per_connection: f64,
    pub body_bytes: f64,
    pub head_timeout: f64,
    pub idle_timeout: f64,
    pub send_timeout: f64,
    pub min_rate: f64,
    pub disk_timeout: f64,
}

/// What a server is told. Defaults are the caller's matter, save those of the limits.
#[napi(object)]
pub struct ServerSettings {
    /// An IP address; or `path`.
    pub host: Option<String>,
    pub port: u32,
    /// Of a Unix socket.
    pub path: Option<String>,
    /// The mode of its file; absent: what the umask leaves.
    pub socket_mode: Option<u32>,
    pub backlog: i32,
    pub reuse_port: bool,
    pub workers: u32,
    pub mounts: Vec<MountSettings>,
    /// Name, value, name, value, ...
    pub headers: Vec<String>,
    pub cors: bool,
    /// The path of the counters.
    pub metrics: Option<String>,
    pub chunk: f64,
    pub limits: LimitSettings,
    /// The token of a log, which is used up.
    pub log: Option<f64>,
}

/// A server that listens.
#[napi(object, object_from_js = false)]
pub struct OpenedServer {
    pub token: f64,
    /// The IP address, unless it is a Unix socket.
    pub host: Option<String>,
    pub port: u32,
}

/// What a server has counted so far.
#[napi(object, object_from_js = false)]
pub struct ServerCounters {
    pub connections: f64,
    pub accepted: f64,
    /// Connections handed off to JavaScript.
    pub handed_off: f64,
    pub requests: f64,
    /// Of bodies.
    pub bytes: f64,
    pub head_bytes: f64,
    pub aborted: f64,
    pub failures: f64,
    pub log_lost: f64,
    /// 1xx to 5xx.
    pub statuses: Vec<f64>,
    /// In the order of `methodNames()`.
    pub methods: Vec<f64>,
    /// In the order of `limitNames()`.
    pub limits: Vec<f64>,
    /// All of it in Prometheus' text form.
    pub text: String,
}

/// The bounds that a server has by default.
#[napi]
pub fn default_limits() -> LimitSettings {
    let limits = Limits::default();
    LimitSettings {
        connections: limits.connections as f64,
        connections_per_address: limits.connections_per_address as f64,
        head_bytes: limits.head_bytes as f64,
        headers: limits.headers as f64,
        requests_per_connection: f64::from(limits.requests_per_connection),
        body_bytes: limits.body_bytes as f64,
        head_timeout: limits.head_timeout.as_secs_f64() * 1000.0,
        idle_timeout: limits.idle_timeout.as_secs_f64() * 1000.0,
        send_timeout: limits.send_timeout.as_secs_f64() * 1000.0,
        min_rate: limits.min_rate as f64,
        disk_timeout: limits.disk_timeout.as_secs_f64() * 1000.0,
    }
}

/// The names of the limits, in the order in which they are counted.
#[napi]
pub fn limit_names() -> Vec<&'static str> {
    Limit::ALL.iter().map(|limit| limit.as_str()).collect()
}

/// Opens a server. `request` is answered when it has ended.
#[napi]
pub fn open_server(env: &Env, request: f64, settings: ServerSettings) -> napi::Result<OpenedServer> {
    with(env, |engine| {
        let server = Server::start(server_options(engine, address(&settings)?, settings)?)?;
        let (host, port) = match server.address() {
            Address::Tcp(address) => (Some(address.ip().to_string()), address.port()),
            Address::Unix(_) => (None, 0),
        };
        let ended = Request::new(&engine.events, request);
        server.on_exit(move || ended.answer(Ok(Answer::Ended)));
        let token = engine.hold(Held::Server(server))? as f64;
        Ok(OpenedServer { token, host, port: port.into() })
    })
}

/// What the server has counted so far.
#[napi]
pub fn server_counters(env: &Env, token: f64) -> napi::Result<ServerCounters> {
    with(env, |engine| Ok(engine.server(token)?.stats().into()))
}

/// Accepts no more, and cuts what is in flight after `drain` milliseconds.
#[napi]
pub fn close_server(env: &Env, token: f64, drain: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.server(token)?.close(milliseconds(drain));
        Ok(())
    })
}

impl Engine {
    fn log(&mut self, token: f64) -> Result<AccessLog> {
        match self.held.remove(token as Token) {
            Some(Held::Log(log)) => Ok(log),
            _ => Err(Error::new(Code::Closed, "the log is closed")),
        }
    }

    pub fn server(&mut self, token: f64) -> Result<&Server> {
        match self.held.get_mut(token as Token) {
            Some(Held::Server(server)) => Ok(server),
            Some(Held::Door(door)) => Ok(&door.server),
            _ => Err(Error::new(Code::Closed, "the server is closed")),
        }
    }
}

fn address(settings: &ServerSettings) -> Result<Address> {
    match &settings.path {
        Some(path) => Ok(Address::Unix(path.into())),
        None => tcp_address(settings.host.as_deref().unwrap_or_default(), settings.port),
    }
}

pub fn tcp_address(host: &str, port: u32) -> Result<Address> {
    let ip: IpAddr = host
        .parse()
        .map_err(|_| Error::new(Code::InvalidArgument, format!("host is '{host}', but must be an IP address")))?;
    Ok(Address::Tcp(SocketAddr::new(ip, port as u16)))
}

pub fn server_options(engine: &mut Engine, address: Address, settings: ServerSettings) -> Result<ServerOptions> {
    let mounts = settings.mounts.into_iter().map(|settings| mount(engine, settings)).collect::<Result<_>>()?;
    let limits = settings.limits;
    Ok(ServerOptions {
        address,
        backlog: settings.backlog,
        reuse_port: settings.reuse_port,
        socket_mode: settings.socket_mode,
        workers: settings.workers as usize,
        mounts,
        headers: settings.headers.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
        cors: settings.cors,
        metrics_path: settings.metrics,
        chunk: settings.chunk as u64,
        limits: Limits {
            connections: limits.connections as usize,
            connections_per_address: limits.connections_per_address as usize,
            head_bytes: limits.head_bytes as usize,
            headers: limits.headers as usize,
            requests_per_connection: limits.requests_per_connection as u32,
            body_bytes: limits.body_bytes as u64,
            head_timeout: milliseconds(limits.head_timeout),
            idle_timeout: milliseconds(limits.idle_timeout),
            send_timeout: milliseconds(limits.send_timeout),
            min_rate: limits.min_rate as u64,
            disk_timeout: milliseconds(limits.disk_timeout),
        },
        log: settings.log.map(|token| engine.log(token)).transpose()?.map(Arc::new),
        announce_keep_alive: false,
        handoff: None,
        exclude_routes: Vec::new(),
    })
}

fn mount(engine: &mut Engine, settings: MountSettings) -> Result<Mount> {
    let (site, method): (_, Method) = HeldSite::new(engine, settings.site)?.into_parts();
    let list = settings.list.map(|name| one_of("list", &name, LISTS)).transpose()?;
    let MountSettings { prefix, private, answers_missing, .. } = settings;
    Ok(Mount {
        prefix,
        site: Arc::new(site),
        method,
        list,
        exclude_credentials: private,
        respond_not_found: answers_missing,
    })
}

const LISTS: &[(&str, ListFormat)] = &[("html", ListFormat::Html), ("json", ListFormat::Json)];

impl From<Snapshot> for ServerCounters {
    fn from(sum: Snapshot) -> Self {
        let numbers = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect();
        Self {
            connections: sum.connections as f64,
            accepted: sum.accepted as f64,
            handed_off: sum.handed_off as f64,
            requests: sum.requests as f64,
            bytes: sum.bytes as f64,
            head_bytes: sum.head_bytes as f64,
            aborted: sum.aborted as f64,
            failures: sum.failures as f64,
            log_lost: sum.log_lost as f64,
            statuses: numbers(&sum.statuses),
            methods: numbers(&sum.methods),
            limits: numbers(&sum.limits),
            text: sum.prometheus(),
        }
    }
}

//! The native server of files.

use napi::Env;
use napi_derive::napi;
use zerosend_core::server::{Limit, Limits, Server, Snapshot};

use crate::engine::convert::{from_milliseconds, host_and_port};
use crate::engine::events::Payload;
use crate::engine::with;
use handle::ServerHandle;
use options::{LimitSettings, ServerSettings};

mod access_log;
mod handle;
mod handoff;
mod log_queue;
mod options;

/// A server that listens.
#[napi(object, object_from_js = false)]
pub struct OpenedServer {
    pub handle: f64,
    /// The IP address. Absent: a Unix socket.
    pub host: Option<String>,
    pub port: u32,
}

/// The counters of a server.
#[napi(object, object_from_js = false)]
pub struct ServerCounters {
    /// Connections now.
    pub connections: f64,
    /// Connections accepted so far.
    pub accepted: f64,
    /// Connections handed off to JavaScript.
    pub handed_off: f64,
    /// Responses sent or started.
    pub requests: f64,
    /// Bytes of bodies.
    pub bytes: f64,
    /// Bytes of heads.
    pub head_bytes: f64,
    /// Responses that were not sent completely.
    pub aborted: f64,
    /// Responses that failed because of an error of the server.
    pub failures: f64,
    /// Log entries discarded because the log could not be written fast enough.
    pub log_lost: f64,
    /// Responses by class of status, 1xx to 5xx.
    pub statuses: Vec<f64>,
    /// Responses by method, in the order of `methodNames()`.
    pub methods: Vec<f64>,
    /// Connections and requests refused because of a limit, in the order of `limitNames()`.
    pub limits: Vec<f64>,
    /// All of it in the text format of Prometheus.
    pub text: String,
}

/// The default limits of a server.
#[napi]
pub fn default_limits() -> LimitSettings {
    Limits::default().into()
}

/// The names of the limits, in the order of the counters.
#[napi]
pub fn limit_names() -> Vec<&'static str> {
    Limit::ALL.iter().map(|limit| limit.as_str()).collect()
}

/// Opens a server. `request` completes when the server has closed.
#[napi]
pub fn open_server(env: &Env, request: f64, settings: ServerSettings) -> napi::Result<OpenedServer> {
    with(env, |engine| {
        let address = settings.address()?;
        let server = Server::start(settings.into_options(engine, address)?)?;
        let (host, port) = host_and_port(Some(server.address()));
        let request = engine.request(request);
        server.on_exit(move || request.complete(Ok(Payload::empty())));
        let handle = engine.handles.objects.register(ServerHandle { server, handoff: None });
        Ok(OpenedServer { handle, host, port })
    })
}

/// The counters of the server.
#[napi]
pub fn server_counters(env: &Env, server: f64) -> napi::Result<ServerCounters> {
    with(env, |engine| Ok(engine.server(server)?.server.stats().into()))
}

/// Stops accepting connections, and resets those that are left after `drain` milliseconds.
#[napi]
pub fn close_server(env: &Env, server: f64, drain: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.server(server)?.server.close(from_milliseconds(drain));
        Ok(())
    })
}

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

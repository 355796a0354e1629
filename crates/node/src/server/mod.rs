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

macro_rules! define_counters {
    ($($name:ident $metric:literal $doc:literal;)*) => {
        /// The counters of a server.
        #[napi(object, object_from_js = false)]
        pub struct ServerCounters {
            /// Open connections.
            pub connections: f64,
            $(#[doc = $doc] pub $name: f64,)*
            /// Access log lines lost because they could not be written in time.
            pub log_lost: f64,
            /// Responses by status class, 1xx to 5xx.
            pub statuses: Vec<f64>,
            /// Responses with bytes of a file, in the order of `methodNames()`.
            pub methods: Vec<f64>,
            /// How often each limit was met, in the order of `limitNames()`.
            pub limits: Vec<f64>,
            /// All of it in the text format of Prometheus.
            pub text: String,
        }

        impl From<Snapshot> for ServerCounters {
            fn from(sum: Snapshot) -> Self {
                let numbers = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect();
                Self {
                    connections: sum.connections as f64,
                    $($name: sum.$name as f64,)*
                    log_lost: sum.log_lost as f64,
                    statuses: numbers(&sum.statuses),
                    methods: numbers(&sum.methods),
                    limits: numbers(&sum.limits),
                    text: sum.prometheus(),
                }
            }
        }
    };
}

zerosend_core::server_counters!(define_counters);

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

//! A native server on the socket of a Node server, and the connections that it hands off to that.

use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use zerosend_core::net::Address;
use zerosend_core::server::access_log::AccessLog;
use zerosend_core::server::handoff::Reason;
use zerosend_core::server::{HandoffQueue, Server};
use zerosend_core::{Code, Error, Result, thread};
use zerosend_http::route::{RoutePattern, is_route};

use super::handle::{Handoff, ServerHandle};
use super::log_queue::{AccessLogEntry, LogQueue};
use super::options::ServerSettings;
use crate::descriptor::duplicate;
use crate::engine::events::Payload;
use crate::engine::{Engine, with};

/// The options of a server that shares its socket, besides those of every server.
#[napi(object)]
pub struct HandoffSettings {
    /// Maximum number of connections that wait for JavaScript.
    pub queue: u32,
    /// Route patterns; requests that match one are handed off.
    pub exclude_routes: Vec<String>,
    /// Keep log entries for `takeLogEntries`.
    pub log: bool,
    /// `server.maxConnections`; infinite: no limit.
    pub max_connections: f64,
}

/// A connection that was handed off.
#[napi(object, object_from_js = false)]
pub struct HandoffConnection {
    /// The caller closes it.
    pub fd: i32,
    /// The bytes that were read from it. Absent: none.
    pub received: Option<Buffer>,
    #[napi(ts_type = "'request' | 'timed-out' | 'too-many'")]
    pub reason: &'static str,
}

/// Whether a router could match the percent-encoded `path` with one of these route patterns.
#[napi]
pub fn matches_route(patterns: Vec<String>, path: String) -> bool {
    let patterns: Vec<_> = patterns.iter().map(|pattern| RoutePattern::new(pattern)).collect();
    is_route(&patterns, &path)
}

/// Opens a server on a duplicate of the listening socket `fd`, and returns its handle. `request` makes progress when there
/// are connections or log entries to take, and completes when the server has closed.
#[napi]
pub fn open_handoff_server(
    env: &Env,
    request: f64,
    fd: i32,
    settings: ServerSettings,
    handoff: HandoffSettings,
) -> napi::Result<f64> {
    with(env, |engine| {
        let socket = duplicate(fd)?;
        // The socket has an address already; this one is not used.
        let mut options = settings.into_options(engine, Address::Unix(PathBuf::new()))?;
        let notify = {
            let events = engine.events.clone();
            move || events.progress(request, 0)
        };
        options.exclude_routes = handoff.exclude_routes.iter().map(|pattern| RoutePattern::new(pattern)).collect();
        let connections = Arc::new(HandoffQueue::new(handoff.queue as usize, notify.clone()));
        connections.set_max_connections(handoff.max_connections as usize);
        let log = handoff.log.then(|| Arc::new(LogQueue::default()));
        if let Some(log) = &log {
            let log = log.clone();
            let written = AccessLog::new(Box::new(move |entries| log.add(entries, &notify)))
                .map_err(|error| thread::failed("for the log", &error))?;
            options.log = Some(Arc::new(written));
        }
        options.announce_keep_alive = true;
        options.handoff = Some(connections.clone());
        let server = Server::adopt(options, socket)?;
        let request = engine.request(request);
        server.on_exit(move || request.complete(Ok(Payload::empty())));
        let handoff = Some(Handoff { connections, log });
        Ok(engine.handles.objects.register(ServerHandle { server, handoff }))
    })
}

/// Takes up to `max` connections. Call `returnConnections` when they have closed.
#[napi]
pub fn take_connections(env: &Env, server: f64, max: u32) -> napi::Result<Vec<HandoffConnection>> {
    with(env, |engine| {
        let connections = engine.handoff(server)?.connections.take(max as usize);
        Ok(connections
            .into_iter()
            .map(|connection| HandoffConnection {
                fd: connection.socket.into_raw_fd(),
                received: Some(connection.received).filter(|bytes| !bytes.is_empty()).map(Buffer::from),
                reason: match connection.reason {
                    Reason::Request => "request",
                    Reason::TimedOut => "timed-out",
                    Reason::TooMany => "too-many",
                },
            })
            .collect())
    })
}

/// Reports that `count` connections from `takeConnections` have closed.
#[napi]
pub fn return_connections(env: &Env, server: f64, count: u32) -> napi::Result<()> {
    with(env, |engine| {
        engine.handoff(server)?.connections.release(count as usize);
        Ok(())
    })
}

/// Limits the connections of the native server and the Node server together; infinite: no limit.
#[napi]
pub fn set_max_connections(env: &Env, server: f64, max: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.handoff(server)?.connections.set_max_connections(max as usize);
        Ok(())
    })
}

/// Closes connections of the native server: the idle ones, or all.
#[napi]
pub fn close_connections(
    env: &Env,
    server: f64,
    #[napi(ts_arg_type = "'idle' | 'all'")] which: String,
) -> napi::Result<()> {
    with(env, |engine| {
        let server = &engine.server(server)?.server;
        if which == "all" {
            server.close_all()
        } else {
            server.close_idle()
        }
        Ok(())
    })
}

/// Takes the log entries so far.
#[napi]
pub fn take_log_entries(env: &Env, server: f64) -> napi::Result<Vec<AccessLogEntry>> {
    with(env, |engine| Ok(engine.handoff(server)?.log.as_ref().map(|log| log.take()).unwrap_or_default()))
}

/// Releases a server that has closed, and returns the last log entries.
#[napi]
pub fn release_handoff_server(env: &Env, server: f64) -> napi::Result<Vec<AccessLogEntry>> {
    with(env, |engine| {
        let log = engine.handoff(server)?.log.clone();
        // Dropping the server ends the thread of the log, which writes all entries that it has.
        engine.handles.release(server);
        Ok(log.map(|log| log.take()).unwrap_or_default())
    })
}

impl Engine {
    fn handoff(&mut self, server: f64) -> Result<&Handoff> {
        let handoff = self.server(server)?.handoff.as_ref();
        handoff.ok_or_else(|| Error::new(Code::InvalidArgument, format!("not a server with a shared socket: {server}")))
    }
}

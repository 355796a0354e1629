//! The front door: a native server on the socket of a Node server, and the connections that Node gets from it.

use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use napi::Env;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::net::Address;
use zerosend_core::server::access_log::{AccessLog, Entry};
use zerosend_core::server::handoff::Reason;
use zerosend_core::server::{HandoffQueue, Server};
use zerosend_core::{Code, Error, Result};
use zerosend_http::route::{RoutePattern, is_route};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::server::{ServerSettings, server_options};

/// Entries of the log that may wait for JavaScript.
const MOST_ENTRIES: usize = 65_536;

/// What a door is told besides what every server is told.
#[napi(object)]
pub struct DoorSettings {
    /// Connections that may wait for JavaScript.
    pub queue: u32,
    /// Patterns of routes whose requests are the application's.
    pub except: Vec<String>,
    /// Keep entries of the log for `takeLog`.
    pub log: bool,
    /// `server.maxConnections`; infinite: no bound.
    pub max_connections: f64,
}

/// A connection for Node.
#[napi(object, object_from_js = false)]
pub struct DoorConnection {
    /// The receiver's to close.
    pub fd: i32,
    /// What was read from it; absent: nothing.
    pub received: Option<Buffer>,
    #[napi(ts_type = "'request' | 'timed-out' | 'too-many'")]
    pub reason: &'static str,
}

/// A request that was answered without JavaScript.
#[napi(object, object_from_js = false)]
pub struct DoorLogEntry {
    /// Milliseconds since 1970.
    pub time: f64,
    pub remote_address: Option<String>,
    pub remote_port: Option<u32>,
    pub method: String,
    pub url: String,
    pub host: Option<String>,
    pub status_code: u32,
    /// Of the body.
    pub bytes: f64,
    pub head_bytes: f64,
    /// Milliseconds.
    pub response_time: f64,
    /// The response was cut off.
    pub aborted: bool,
}

/// A server, what it hands over and what it writes down.
pub struct HeldDoor {
    log: Option<Arc<LogQueue>>,
    queue: Arc<HandoffQueue>,
    pub server: Server,
}

impl Drop for HeldDoor {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.close();
        }
    }
}

/// Whether a router could take the percent-encoded `path` for one of these patterns of routes.
#[napi]
pub fn matches_route(patterns: Vec<String>, path: String) -> bool {
    let patterns: Vec<_> = patterns.iter().map(|pattern| RoutePattern::new(pattern)).collect();
    is_route(&patterns, &path)
}

/// Listens on the socket `fd`, which is bound and stays the caller's too. `request` makes progress whenever there are
/// connections or entries of the log to be taken, and is answered when all has ended.
#[napi]
pub fn open_door(
    env: &Env,
    request: f64,
    fd: i32,
    settings: ServerSettings,
    door_settings: DoorSettings,
) -> napi::Result<f64> {
    with(env, |engine| {
        let socket = zerosend_sys::fd::duplicate(fd).map_err(|errno| Error::system("fcntl", errno))?;
        // Where it listens is the socket's matter.
        let mut options = server_options(engine, Address::Unix(PathBuf::new()), settings)?;
        let tell = {
            let events = engine.events.clone();
            move || events.push(request, Ok(Answer::Progress(0)))
        };
        options.exclude_routes = door_settings.except.iter().map(|pattern| RoutePattern::new(pattern)).collect();
        let queue = Arc::new(HandoffQueue::new(door_settings.queue as usize, tell.clone()));
        queue.set_max_connections(door_settings.max_connections as usize);
        let log = door_settings.log.then(|| Arc::new(LogQueue::default()));
        if let Some(log) = &log {
            let log = log.clone();
            let written = AccessLog::new(Box::new(move |entries| log.add(entries, &tell)))
                .map_err(|_| Error::new(Code::Limit, "no thread for the log could be started"))?;
            options.log = Some(Arc::new(written));
        }
        options.announce_keep_alive = true;
        options.handoff = Some(queue.clone());
        let server = Server::adopt(options, socket)?;
        let ended = Request::new(&engine.events, request);
        server.on_exit(move || ended.answer(Ok(Answer::Ended)));
        Ok(engine.hold(Held::Door(Box::new(HeldDoor { log, queue, server })))? as f64)
    })
}

/// Takes up to `most` connections. Each is to be given back by `returnConnections` when it has ended.
#[napi]
pub fn take_connections(env: &Env, token: f64, most: u32) -> napi::Result<Vec<DoorConnection>> {
    with(env, |engine| {
        let taken = engine.door(token)?.queue.take(most as usize);
        Ok(taken
            .into_iter()
            .map(|connection| DoorConnection {
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

/// Connections that were taken have ended.
#[napi]
pub fn return_connections(env: &Env, token: f64, count: u32) -> napi::Result<()> {
    with(env, |engine| {
        engine.door(token)?.queue.release(count as usize);
        Ok(())
    })
}

/// Bounds the connections of door and application together; infinite: no bound.
#[napi]
pub fn set_max_connections(env: &Env, token: f64, most: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.door(token)?.queue.set_max_connections(most as usize);
        Ok(())
    })
}

/// Closes the door's own connections: those that wait for a request, or all.
#[napi]
pub fn close_connections(
    env: &Env,
    token: f64,
    #[napi(ts_arg_type = "'idle' | 'all'")] which: String,
) -> napi::Result<()> {
    with(env, |engine| {
        let server = &engine.door(token)?.server;
        if which == "all" {
            server.close_all()
        } else {
            server.close_idle()
        }
        Ok(())
    })
}

/// Takes the entries of the log so far.
#[napi]
pub fn take_log(env: &Env, token: f64) -> napi::Result<Vec<DoorLogEntry>> {
    with(env, |engine| Ok(entries(engine.door(token)?.log.as_deref())))
}

/// Lets go of a door that has ended; gives the last entries of its log.
#[napi]
pub fn end_door(env: &Env, token: f64) -> napi::Result<Vec<DoorLogEntry>> {
    with(env, |engine| {
        engine.door(token)?;
        let Some(Held::Door(door)) = engine.held.remove(token as Token) else { return Ok(Vec::new()) };
        let log = door.log.clone();
        // With the server goes its log, which writes all it has before.
        drop(door);
        Ok(entries(log.as_deref()))
    })
}

impl Engine {
    fn door(&mut self, token: f64) -> Result<&HeldDoor> {
        match self.held.get_mut(token as Token) {
            Some(Held::Door(door)) => Ok(door),
            _ => Err(Error::new(Code::Closed, "the front door is closed")),
        }
    }
}

/// Entries that wait for JavaScript. While it is full, the log's own thread waits, whose queue is bounded too.
#[derive(Default)]
struct LogQueue {
    state: Mutex<LogState>,
    room: Condvar,
}

#[derive(Default)]
struct LogState {
    entries: Vec<Entry>,
    closed: bool,
}

impl LogQueue {
    fn add(&self, entries: &[Entry], tell: &dyn Fn()) {
        let mut state = self.lock();
        while state.entries.len() >= MOST_ENTRIES && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let first = state.entries.is_empty();
        state.entries.extend_from_slice(entries);
        drop(state);
        if first {
            tell();
        }
    }

    fn take(&self) -> Vec<Entry> {
        let taken = std::mem::take(&mut self.lock().entries);
        self.room.notify_one();
        taken
    }

    fn close(&self) {
        self.lock().closed = true;
        self.room.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entries(log: Option<&LogQueue>) -> Vec<DoorLogEntry> {
    let taken = log.map(LogQueue::take).unwrap_or_default();
    taken
        .into_iter()
        .map(|entry| DoorLogEntry {
            time: entry.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0,
            remote_address: entry.client.map(|client| client.ip().to_string()),
            remote_port: entry.client.map(|client| client.port().into()),
            method: entry.method,
            url: entry.target,
            host: entry.host,
            status_code: entry.status.into(),
            bytes: entry.bytes as f64,
            head_bytes: entry.head_bytes as f64,
            response_time: entry.duration.as_secs_f64() * 1000.0,
            aborted: entry.aborted,
        })
        .collect()
}

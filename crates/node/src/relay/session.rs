//! Relaying between sockets and pipes that JavaScript has: `relay` and `createSplitter`.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use nix::errno::Errno;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::NonBlocking;
use zerosend_core::output::FileWriter;
use zerosend_core::relay::{Endpoint, LinkReport, MirrorReport, Outcome, Relay, RelayOptions, Session, SessionMirror};
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::relay::{METHODS, POLICIES};
use crate::site::one_of;
use crate::transfer::milliseconds;

/// Options of a relay for sessions. Times in milliseconds.
#[napi(object)]
pub struct SessionRelaySettings {
    #[napi(ts_type = "'auto' | 'splice' | 'read-write'")]
    pub method: String,
    pub pipe_size: u32,
    pub idle_timeout: f64,
    pub keep_alive: f64,
}

/// A session. Its tokens are of `holdTarget`, `openSink` and `openOutput`, and invalid afterwards.
#[napi(object)]
pub struct SessionSettings {
    pub client: f64,
    /// Absent: the bytes go to the mirrors only.
    pub target: Option<f64>,
    /// Bytes already read from the client.
    pub initial_up: Option<Uint8Array>,
    /// Bytes already read from the target.
    pub initial_down: Option<Uint8Array>,
    /// Nothing is relayed back, and the end of the stream is not passed on.
    pub one_way: bool,
    pub mirrors: Vec<f64>,
    #[napi(ts_type = "'block' | 'drop'")]
    pub policy: String,
}

/// Opens a relay for sessions, with one thread. `request` is answered when it has closed.
#[napi]
pub fn open_session_relay(env: &Env, request: f64, settings: SessionRelaySettings) -> napi::Result<f64> {
    with(env, |engine| {
        let mut options = RelayOptions::for_sessions();
        options.method = one_of("method", &settings.method, METHODS)?;
        options.pipe_size = settings.pipe_size as usize;
        options.idle_timeout = milliseconds(settings.idle_timeout);
        options.keep_alive = milliseconds(settings.keep_alive);
        let relay = Relay::start(options)?;
        let closed = Request::new(&engine.events, request);
        relay.on_exit(move || closed.answer(Ok(Answer::Ended)));
        Ok(engine.hold(Held::SessionRelay(relay))? as f64)
    })
}

/// Starts a session. `request` is answered with the report. Returns the id for `cancelSession`.
#[napi]
pub fn start_session(env: &Env, token: f64, request: f64, settings: SessionSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let client = engine.take_descriptor(settings.client)?;
        let target = settings.target.map(|target| engine.take_descriptor(target)).transpose()?;
        let mirrors =
            settings.mirrors.into_iter().map(|mirror| engine.session_mirror(mirror)).collect::<Result<_>>()?;
        let bytes = |bytes: Option<Uint8Array>| bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
        let request = Request::new(&engine.events, request);
        let session = Session {
            client,
            target,
            initial_bytes: [bytes(settings.initial_up), bytes(settings.initial_down)],
            one_way: settings.one_way,
            mirrors,
            policy: one_of("policy", &settings.policy, POLICIES)?,
            on_finished: Box::new(move |report| request.answer(Ok(Answer::SessionFinished(report)))),
        };
        match engine.held.get_mut(token as Token) {
            Some(Held::SessionRelay(relay)) => Ok(relay.start_session(session)? as f64),
            _ => Err(closed()),
        }
    })
}

/// Closes a session; its sockets are reset.
#[napi]
pub fn cancel_session(env: &Env, token: f64, id: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Some(Held::SessionRelay(relay)) = engine.held.get_mut(token as Token) {
            relay.cancel_session(id as u64);
        }
        Ok(())
    })
}

/// Closes a relay for sessions, with its sessions.
#[napi]
pub fn close_session_relay(env: &Env, token: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.held.remove(token as Token);
        Ok(())
    })
}

impl Engine {
    fn take_descriptor(&mut self, token: f64) -> Result<NonBlocking> {
        match self.held.remove(token as Token) {
            Some(Held::Target(fd)) => NonBlocking::new(fd),
            _ => Err(closed()),
        }
    }

    fn session_mirror(&mut self, token: f64) -> Result<SessionMirror> {
        match self.held.remove(token as Token) {
            Some(Held::Target(fd)) => Ok(SessionMirror::Stream(NonBlocking::new(fd)?)),
            Some(Held::Sink(file)) => Ok(SessionMirror::File(Arc::new(FileWriter::from_position(file.into_file())?))),
            Some(Held::Output(output)) if output.is_stream() => {
                Ok(SessionMirror::Stream(NonBlocking::new(output.into_fd())?))
            }
            Some(Held::Output(output)) => Ok(SessionMirror::File(FileWriter::shared(output))),
            _ => Err(closed()),
        }
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the socket was closed before the relay started")
}

/// The report of a session.
#[napi(object, object_from_js = false)]
pub struct RelayReport {
    pub up: f64,
    pub down: f64,
    #[napi(ts_type = "'complete' | 'idle' | 'aborted' | 'failed'")]
    pub outcome: &'static str,
    /// The endpoint that has failed: the index of a mirror, -1 for the target, -2 for the client.
    pub endpoint: Option<i32>,
    pub failure: Option<ErrnoName>,
    pub mirrors: Vec<SessionMirrorReport>,
}

/// The report of a mirror.
#[napi(object, object_from_js = false)]
pub struct SessionMirrorReport {
    pub bytes: f64,
    pub dropped: f64,
    pub failure: Option<ErrnoName>,
}

/// An errno, negative as in Node's errors, its name, and what it means.
#[napi(object, object_from_js = false)]
pub struct ErrnoName {
    pub errno: i32,
    pub code: String,
    pub meaning: &'static str,
}

impl From<Errno> for ErrnoName {
    fn from(errno: Errno) -> Self {
        Self { errno: -(errno as i32), code: Code::System(errno).as_str().into_owned(), meaning: errno.desc() }
    }
}

impl From<LinkReport> for RelayReport {
    fn from(report: LinkReport) -> Self {
        let (outcome, failed) = match report.outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Idle => ("idle", None),
            Outcome::Aborted => ("aborted", None),
            Outcome::Failed(endpoint, errno) => ("failed", Some((endpoint, errno))),
        };
        let endpoint = |endpoint| match endpoint {
            Endpoint::Client => -2,
            Endpoint::Target => -1,
            Endpoint::Mirror(at) => at as i32,
        };
        let mirror = |mirror: &MirrorReport| SessionMirrorReport {
            bytes: mirror.bytes as f64,
            dropped: mirror.dropped as f64,
            failure: mirror.failure.map(ErrnoName::from),
        };
        Self {
            up: report.up as f64,
            down: report.down as f64,
            outcome,
            endpoint: failed.map(|(failed, _)| endpoint(failed)),
            failure: failed.map(|(_, errno)| errno.into()),
            mirrors: report.mirrors.iter().map(mirror).collect(),
        }
    }
}

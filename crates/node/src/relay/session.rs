//! Joining sockets and pipes that JavaScript has: relays of two, and splitters.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use nix::errno::Errno;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::NonBlocking;
use zerosend_core::output::FileWriter;
use zerosend_core::relay::{Endpoint, LinkReport, MirrorReport, Outcome, Relay, RelayOptions, Session, Sink};
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::relay::{METHODS, POLICIES};
use crate::site::one_of;
use crate::transfer::milliseconds;

/// How bytes go between what is joined. Times in milliseconds.
#[napi(object)]
pub struct SessionRelaySettings {
    #[napi(ts_type = "'auto' | 'splice' | 'read-write'")]
    pub method: String,
    pub pipe_size: u32,
    pub idle_timeout: f64,
    pub keep_alive: f64,
}

/// What is to be joined: tokens of `holdTarget`, `openSink` and `openOutput`, which are used up.
#[napi(object)]
pub struct SessionSettings {
    pub client: f64,
    /// Absent: the sinks get all.
    pub target: Option<f64>,
    /// What was read from the client before.
    pub first_up: Option<Uint8Array>,
    /// What was read from the target before.
    pub first_down: Option<Uint8Array>,
    /// Nothing goes back, and ends are not passed on.
    pub one_way: bool,
    pub sinks: Vec<f64>,
    #[napi(ts_type = "'block' | 'drop'")]
    pub policy: String,
}

/// Opens a thread for joins. `request` is answered when it has ended.
#[napi]
pub fn open_session_relay(env: &Env, request: f64, settings: SessionRelaySettings) -> napi::Result<f64> {
    with(env, |engine| {
        let mut options = RelayOptions::for_sessions();
        options.method = one_of("method", &settings.method, METHODS)?;
        options.pipe_size = settings.pipe_size as usize;
        options.idle_timeout = milliseconds(settings.idle_timeout);
        options.keep_alive = milliseconds(settings.keep_alive);
        let relay = Relay::start(options)?;
        let ended = Request::new(&engine.events, request);
        relay.on_exit(move || ended.answer(Ok(Answer::Ended)));
        Ok(engine.hold(Held::SessionRelay(relay))? as f64)
    })
}

/// Joins. `request` is answered when that is over. Returns a name for `cancelSession`.
#[napi]
pub fn start_session(env: &Env, token: f64, request: f64, settings: SessionSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let client = engine.taken(settings.client)?;
        let target = settings.target.map(|target| engine.taken(target)).transpose()?;
        let sinks = settings.sinks.into_iter().map(|sink| engine.sink(sink)).collect::<Result<_>>()?;
        let bytes = |bytes: Option<Uint8Array>| bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
        let request = Request::new(&engine.events, request);
        let session = Session {
            client,
            target,
            first: [bytes(settings.first_up), bytes(settings.first_down)],
            one_way: settings.one_way,
            sinks,
            policy: one_of("policy", &settings.policy, POLICIES)?,
            on_finished: Box::new(move |report| request.answer(Ok(Answer::SessionFinished(report)))),
        };
        match engine.held.get_mut(token as Token) {
            Some(Held::SessionRelay(relay)) => Ok(relay.start_session(session)? as f64),
            _ => Err(closed()),
        }
    })
}

/// Ends what was joined; its sockets are reset.
#[napi]
pub fn cancel_session(env: &Env, token: f64, id: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Some(Held::SessionRelay(relay)) = engine.held.get_mut(token as Token) {
            relay.cancel_session(id as u64);
        }
        Ok(())
    })
}

/// Ends a thread for joins, and what is joined.
#[napi]
pub fn close_session_relay(env: &Env, token: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.held.remove(token as Token);
        Ok(())
    })
}

impl Engine {
    fn taken(&mut self, token: f64) -> Result<NonBlocking> {
        match self.held.remove(token as Token) {
            Some(Held::Target(fd)) => NonBlocking::new(fd),
            _ => Err(closed()),
        }
    }

    fn sink(&mut self, token: f64) -> Result<Sink> {
        match self.held.remove(token as Token) {
            Some(Held::Target(fd)) => Ok(Sink::Stream(NonBlocking::new(fd)?)),
            Some(Held::Sink(file)) => Ok(Sink::File(Arc::new(FileWriter::from_position(file.into_file())?))),
            Some(Held::Output(output)) if output.is_stream() => Ok(Sink::Stream(NonBlocking::new(output.into_fd())?)),
            Some(Held::Output(output)) => Ok(Sink::File(FileWriter::shared(output))),
            _ => Err(closed()),
        }
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the socket was closed before the relay started")
}

/// What became of a join.
#[napi(object, object_from_js = false)]
pub struct RelayReport {
    pub up: f64,
    pub down: f64,
    #[napi(ts_type = "'complete' | 'idle' | 'aborted' | 'failed'")]
    pub outcome: &'static str,
    /// Who has failed: a sink's number, -1 the target, -2 the client.
    pub endpoint: Option<i32>,
    pub failure: Option<ErrnoName>,
    pub sinks: Vec<SinkReport>,
}

/// What became of a sink.
#[napi(object, object_from_js = false)]
pub struct SinkReport {
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
        let sink = |mirror: &MirrorReport| SinkReport {
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
            sinks: report.mirrors.iter().map(sink).collect(),
        }
    }
}

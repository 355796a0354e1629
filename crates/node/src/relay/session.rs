//! Relay sessions: sockets and pipes of JavaScript that are connected to each other, and splitters.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::io::NonBlocking;
use zerosend_core::output::{FileWriter, Output};
use zerosend_core::relay::{Endpoint, LinkReport, MirrorReport, Outcome, Relay, RelayOptions, Session, SessionMirror};
use zerosend_core::transfer::TargetFile;

use super::options::{METHODS, POLICIES};
use crate::descriptor::Descriptor;
use crate::engine::convert::{ErrnoName, from_milliseconds, parse_enum};
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::{Engine, with};

/// A relay that does not listen.
struct SessionRelay(Relay);

impl Kind for SessionRelay {
    const NAME: &'static str = "a relay for sessions";
    const RELEASED: &'static str = "the relay is closed";
}

/// How a relay for sessions moves bytes.
#[napi(object)]
pub struct SessionRelaySettings {
    #[napi(ts_type = "'auto' | 'splice' | 'read-write'")]
    pub method: String,
    /// Bytes.
    pub pipe_size: u32,
    /// Milliseconds without a byte in either direction.
    pub idle_timeout: f64,
    /// Milliseconds before the first keep-alive probe (`TCP_KEEPIDLE`).
    pub keep_alive: f64,
}

/// The ends of a session: handles from `duplicateDescriptor`, `openSink` and `openOutput`, which are used up.
#[napi(object)]
pub struct SessionSettings {
    pub client: f64,
    /// Absent: only the mirrors receive the bytes.
    pub target: Option<f64>,
    /// Bytes that were read from the client already.
    pub initial_up: Option<Uint8Array>,
    /// Bytes that were read from the target already.
    pub initial_down: Option<Uint8Array>,
    /// Bytes go to the target and the mirrors only, and the end of the stream is not passed on.
    pub one_way: bool,
    pub mirrors: Vec<f64>,
    #[napi(ts_type = "'block' | 'drop'")]
    pub policy: String,
}

/// The result of a session.
#[napi(object, object_from_js = false)]
pub struct RelayReport {
    /// Bytes from the client.
    pub up: f64,
    /// Bytes from the target.
    pub down: f64,
    #[napi(ts_type = "'complete' | 'idle' | 'aborted' | 'failed'")]
    pub outcome: &'static str,
    /// The end that failed: the index of a mirror, -1 for the target, -2 for the client.
    pub endpoint: Option<i32>,
    pub failure: Option<ErrnoName>,
    pub mirrors: Vec<SessionMirrorReport>,
}

/// What a mirror has received.
#[napi(object, object_from_js = false)]
pub struct SessionMirrorReport {
    pub bytes: f64,
    /// Bytes that it has missed because it was too slow.
    pub dropped: f64,
    pub failure: Option<ErrnoName>,
}

/// Opens a relay for sessions, which has one thread, and returns its handle. `request` completes when the thread has ended.
/// Releasing the handle ends the relay and its sessions.
#[napi]
pub fn open_session_relay(env: &Env, request: f64, settings: SessionRelaySettings) -> napi::Result<f64> {
    with(env, |engine| {
        let mut options = RelayOptions::for_sessions();
        options.method = parse_enum("method", &settings.method, METHODS)?;
        options.pipe_size = settings.pipe_size as usize;
        options.idle_timeout = from_milliseconds(settings.idle_timeout);
        options.keep_alive = from_milliseconds(settings.keep_alive);
        let relay = Relay::start(options)?;
        let request = engine.request(request);
        relay.on_exit(move || request.complete(Ok(Payload::empty())));
        Ok(engine.handles.objects.register(SessionRelay(relay)))
    })
}

/// Starts a session and returns its id, for `cancelSession`. The event of `request` has a `RelayReport` as its value.
#[napi]
pub fn start_session(env: &Env, relay: f64, request: f64, settings: SessionSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let client = nonblocking(engine, settings.client)?;
        let target = settings.target.map(|target| nonblocking(engine, target)).transpose()?;
        let mirrors = settings.mirrors.into_iter().map(|handle| mirror(engine, handle)).collect::<Result<_>>()?;
        let bytes = |bytes: Option<Uint8Array>| bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
        let request = engine.request(request);
        let session = Session {
            client,
            target,
            initial_bytes: [bytes(settings.initial_up), bytes(settings.initial_down)],
            one_way: settings.one_way,
            mirrors,
            policy: parse_enum("policy", &settings.policy, POLICIES)?,
            on_finished: Box::new(move |report| request.complete(Ok(Payload::value(RelayReport::from(report))))),
        };
        let SessionRelay(relay) = engine.handles.objects.get(relay)?;
        Ok(relay.start_session(session)? as f64)
    })
}

/// Cancels a session; its sockets are reset.
#[napi]
pub fn cancel_session(env: &Env, relay: f64, id: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Ok(SessionRelay(relay)) = engine.handles.objects.get(relay) {
            relay.cancel_session(id as u64);
        }
        Ok(())
    })
}

fn nonblocking(engine: &mut Engine, handle: f64) -> Result<NonBlocking> {
    engine.handles.objects.remove::<Descriptor>(handle)?.into_nonblocking()
}

fn mirror(engine: &mut Engine, handle: f64) -> Result<SessionMirror> {
    let objects = &mut engine.handles.objects;
    if objects.is::<TargetFile>(handle) {
        let file: TargetFile = objects.remove(handle)?;
        return Ok(SessionMirror::File(Arc::new(FileWriter::from_position(file.into_file())?)));
    }
    if objects.is::<Output>(handle) {
        let output: Output = objects.remove(handle)?;
        return Ok(match output.is_stream() {
            true => SessionMirror::Stream(NonBlocking::new(output.into_fd())?),
            false => SessionMirror::File(FileWriter::shared(output)),
        });
    }
    Ok(SessionMirror::Stream(nonblocking(engine, handle)?))
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

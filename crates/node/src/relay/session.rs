//! Joining sockets and pipes that JavaScript has: relays of two, and splitters.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use nix::errno::Errno;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::NonBlocking;
use zerosend_core::output::FileWriter;
use zerosend_core::relay::{Join, LinkReport, Outcome, Party, Relay, RelayOptions, Sink, TapReport};
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::relay::{METHODS, POLICIES};
use crate::site::one_of;
use crate::transfer::milliseconds;

/// How bytes go between what is joined. Times in milliseconds.
#[napi(object)]
pub struct JoinerSettings {
    #[napi(ts_type = "'auto' | 'splice' | 'read-write'")]
    pub method: String,
    pub pipe_size: u32,
    pub idle_timeout: f64,
    pub keep_alive: f64,
}

/// What is to be joined: tokens of `holdTarget`, `openSink` and `openOutput`, which are used up.
#[napi(object)]
pub struct JoinSettings {
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
pub fn open_joiner(env: &Env, request: f64, settings: JoinerSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let mut options = RelayOptions::joining();
        options.method = one_of("method", &settings.method, METHODS)?;
        options.pipe_size = settings.pipe_size as usize;
        options.idle_timeout = milliseconds(settings.idle_timeout);
        options.keep_alive = milliseconds(settings.keep_alive);
        let joiner = Relay::start(options)?;
        let ended = Request::new(&engine.events, request);
        joiner.on_exit(move || ended.answer(Ok(Answer::Ended)));
        Ok(engine.hold(Held::Joiner(joiner))? as f64)
    })
}

/// Joins. `request` is answered when that is over. Returns a name for `cancelJoin`.
#[napi]
pub fn join(env: &Env, token: f64, request: f64, settings: JoinSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let client = engine.taken(settings.client)?;
        let target = settings.target.map(|target| engine.taken(target)).transpose()?;
        let sinks = settings.sinks.into_iter().map(|sink| engine.sink(sink)).collect::<Result<_>>()?;
        let bytes = |bytes: Option<Uint8Array>| bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
        let told = Request::new(&engine.events, request);
        let join = Join {
            client,
            target,
            first: [bytes(settings.first_up), bytes(settings.first_down)],
            one_way: settings.one_way,
            sinks,
            policy: one_of("policy", &settings.policy, POLICIES)?,
            ended: Box::new(move |report| told.answer(Ok(Answer::Joined(report)))),
        };
        match engine.held.get_mut(token as Token) {
            Some(Held::Joiner(joiner)) => Ok(joiner.join(join)? as f64),
            _ => Err(closed()),
        }
    })
}

/// Ends what was joined; its sockets are reset.
#[napi]
pub fn cancel_join(env: &Env, token: f64, name: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Some(Held::Joiner(joiner)) = engine.held.get_mut(token as Token) {
            joiner.cancel(name as u64);
        }
        Ok(())
    })
}

/// Ends a thread for joins, and what is joined.
#[napi]
pub fn close_joiner(env: &Env, token: f64) -> napi::Result<()> {
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
pub struct JoinReport {
    pub up: f64,
    pub down: f64,
    #[napi(ts_type = "'complete' | 'idle' | 'cut' | 'failed'")]
    pub outcome: &'static str,
    /// Who has failed: a sink's number, -1 the target, -2 the client.
    pub party: Option<i32>,
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

impl From<LinkReport> for JoinReport {
    fn from(report: LinkReport) -> Self {
        let (outcome, failed) = match report.outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Idle => ("idle", None),
            Outcome::Cut => ("cut", None),
            Outcome::Failed(party, errno) => ("failed", Some((party, errno))),
        };
        let party = |party| match party {
            Party::Client => -2,
            Party::Target => -1,
            Party::Tap(at) => at as i32,
        };
        let sink = |tap: &TapReport| SinkReport {
            bytes: tap.bytes as f64,
            dropped: tap.dropped as f64,
            failure: tap.failure.map(ErrnoName::from),
        };
        Self {
            up: report.up as f64,
            down: report.down as f64,
            outcome,
            party: failed.map(|(failed, _)| party(failed)),
            failure: failed.map(|(_, errno)| errno.into()),
            sinks: report.taps.iter().map(sink).collect(),
        }
    }
}

//! The state of one JavaScript environment: the main thread or a worker.
//!
//! Each environment has a thread of its own for life, so the state is thread-local. Functions are bound as plain
//! functions, not as methods of a class: unwrapping `this` costs three times the call itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{Buffer, Function, JsObjectValue, Object};
use napi_derive::napi;
use zerosend_core::cache::{CachedFile, FileCache};
use zerosend_core::event_loop::slab::{Slab, Token};
use zerosend_core::io::pool::{Lane, Pool, Task, Volume};
use zerosend_core::mapped_file::MappedFile;
use zerosend_core::output::Output;
use zerosend_core::reactor::{JobHandle, Reactor};
use zerosend_core::relay::{MirrorDestination, Relay};
use zerosend_core::server::Server;
use zerosend_core::server::access_log::AccessLog;
use zerosend_core::shm::{PipeTo, SharedBuffer};
use zerosend_core::transfer::{TargetFile, Transfer};
use zerosend_core::{Code, Error, Result};

use crate::background_task::StopOnDrop;
use crate::cache::CachedFileInfo;
use crate::error;
use crate::events::{Answer, Event, Events, Request};
use crate::pages::PageRegistry;
use crate::raw::Ends;
use crate::relay::HeldRelay;
use crate::relay::session::RelayReport;
use crate::server::handoff::HeldDoor;
use crate::shm::OpenRing;
use crate::site::{Current, HeldSite};

thread_local! {
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

/// What a token can name.
pub enum Held {
    Transfer(Box<Transfer>),
    Site(Arc<HeldSite>),
    /// A duplicate of a descriptor that bytes will be sent to, or come from.
    Target(OwnedFd),
    /// A file that bytes will be received into.
    Sink(TargetFile),
    /// A file, FIFO or terminal that is open for output.
    Output(Output),
    Mirror(MirrorDestination),
    Log(AccessLog),
    Pipe(Ends),
    Server(Server),
    Door(Box<HeldDoor>),
    Relay(Box<HeldRelay>),
    SessionRelay(Relay),
    Cache(Arc<FileCache>),
    File(Arc<CachedFile>),
    Mapped(Arc<MappedFile>),
    Buffer(Box<SharedBuffer>),
    Ring(OpenRing),
    PipeTo(PipeTo),
    /// Something that is under way on a thread of its own, and ends when this is released.
    UnderWay(#[allow(dead_code, reason = "it is there to be dropped")] StopOnDrop),
}

/// Work for a request on another thread.
pub enum Pending {
    Reactor(JobHandle),
    Pool(Task),
}

impl Pending {
    /// Answers the request with `ABORT_ERR`, unless it has an answer.
    fn cancel(&self) {
        match self {
            Pending::Reactor(job) => Reactor::global().cancel(job),
            Pending::Pool(task) => {
                task.cancel(Error::new(Code::Aborted, "the operation was aborted"));
            }
        }
    }
}

/// Transfers, sites, targets and pending requests of this environment.
pub struct Engine {
    pub events: Events,
    pub held: Slab<Held>,
    /// What other threads do for requests that are not answered yet, by the number of the request.
    pub jobs: HashMap<u64, Pending>,
    /// Memory made by `allocPages`, by its address.
    pub pages: PageRegistry,
    /// The last answer of a site, until its transfer is started or held.
    pub current: Option<Current>,
}

/// Runs `body` on the engine of this environment and gives its result to JavaScript. A panic becomes an error: it must
/// never cross into Node.
pub fn with<T>(env: &Env, body: impl FnOnce(&mut Engine) -> Result<T>) -> napi::Result<T> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        ENGINE.with(|cell| match cell.try_borrow_mut() {
            Ok(mut engine) => match engine.as_mut() {
                Some(engine) => body(engine),
                None => Err(Error::new(Code::Closed, "the engine of this thread is closed")),
            },
            Err(_) => Err(Error::new(Code::Internal, "internal error, please report it: the engine is in use")),
        })
    }));
    let outcome = outcome.unwrap_or_else(|panic| {
        zerosend_core::stats::count_contained_panic();
        let reason = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Error::new(Code::Internal, format!("internal error, please report it: {reason}")))
    });
    outcome.map_err(|failure| error::throw(env, &failure))
}

/// The version of the package that this binary is of.
#[napi]
pub fn package_version() -> &'static str {
    env!("ZEROSEND_VERSION")
}

/// Opens the engine of this environment. `wake` is called, with nothing, when `takeEvents` has something to give.
#[napi]
pub fn open_engine(env: &Env, wake: Function<'_, (), ()>) -> napi::Result<()> {
    let events = Events::default();
    let wake =
        wake.build_threadsafe_function::<()>().weak::<true>().callee_handled::<false>().build_callback(|_| Ok(()))?;
    events.open(wake);
    ENGINE.with(|cell| {
        *cell.borrow_mut() = Some(Engine {
            events: events.clone(),
            held: Slab::default(),
            jobs: HashMap::new(),
            pages: PageRegistry::default(),
            current: None,
        });
    });
    // Hooks run last in, first out: this one before the thread-safe function itself goes.
    env.add_env_cleanup_hook(events, |events| {
        events.close();
        ENGINE.with(|cell| cell.take());
    })?;
    Ok(())
}

/// All events since the last call, in order: `request` and what there is to say.
#[napi(
    ts_return_type = "Array<{ request: number; error?: NodeJS.ErrnoException; token?: number; progress?: number; report?: TransferReport; answer?: SiteAnswer; file?: CachedFileInfo; bytes?: Buffer; session?: RelayReport; probe?: ProbeReport; pages?: PageReport; warmed?: WarmedReport; measured?: MeasuredReport; piped?: number; sample?: BenchSample }>"
)]
pub fn take_events(env: &Env) -> napi::Result<Vec<Object<'_>>> {
    with(env, |engine| {
        let events = engine.events.take();
        Ok(events.into_iter().map(|event| engine.deliver(env, event)).collect::<napi::Result<Vec<_>>>())
    })?
}

/// Lets go of what `token` names. Unknown and used tokens are ignored.
#[napi]
pub fn release(env: &Env, token: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.held.remove(token as Token);
        Ok(())
    })
}

/// How many transfers, sites and targets are held, for tests and statistics.
#[napi]
pub fn held_count(env: &Env) -> napi::Result<u32> {
    with(env, |engine| Ok(engine.held.len() as u32))
}

/// The lane for copying `bytes` bytes from or to a file.
pub fn lane_for(bytes: f64) -> Lane {
    const SHORT: f64 = 1024.0 * 1024.0;
    if bytes <= SHORT { Lane::Short } else { Lane::Long }
}

impl Engine {
    pub fn hold(&mut self, held: Held) -> Result<Token> {
        self.held
            .insert(held)
            .map_err(|_| Error::new(Code::Limit, "too many transfers at once; wait for some of them to end"))
    }

    /// Runs `work` on a thread that may wait for the disk; its result answers `request`. See [`Pool::run`].
    pub fn run(
        &mut self,
        lane: Lane,
        volume: Volume,
        request: f64,
        work: impl FnOnce() -> Result<Answer> + Send + 'static,
    ) {
        let answer = Request::new(&self.events, request);
        let task = Pool::global().run(lane, volume, work, move |result| answer.answer(result));
        self.jobs.insert(request as u64, Pending::Pool(task));
    }

    /// As [`Engine::run`], in steps. See [`Pool::run_in_steps`].
    pub fn run_in_steps(
        &mut self,
        lane: Lane,
        volume: Volume,
        request: f64,
        step: impl FnMut() -> ControlFlow<Result<Answer>> + Send + 'static,
    ) {
        let answer = Request::new(&self.events, request);
        let task = Pool::global().run_in_steps(lane, volume, step, move |result| answer.answer(result));
        self.jobs.insert(request as u64, Pending::Pool(task));
    }

    /// Aborts what is done for `request`, which is then answered with `ABORT_ERR`.
    pub fn cancel(&self, request: f64) {
        if let Some(job) = self.jobs.get(&(request as u64)) {
            job.cancel();
        }
    }

    pub fn transfer(&mut self, token: f64) -> Result<&mut Transfer> {
        match self.held.get_mut(token as Token) {
            Some(Held::Transfer(transfer)) => Ok(transfer),
            _ => Err(Error::new(Code::Closed, "the transfer has ended or was released")),
        }
    }

    fn deliver<'env>(&mut self, env: &'env Env, event: Event) -> napi::Result<Object<'env>> {
        let mut object = Object::new(env)?;
        object.set_named_property("request", event.request)?;
        if !matches!(event.answer, Ok(Answer::Progress(_))) {
            self.jobs.remove(&(event.request as u64));
        }
        let to_hold = match event.answer {
            Err(failure) => {
                object.set_named_property("error", error::to_object(env, &failure)?)?;
                None
            }
            Ok(Answer::Prefetched(token, prefetched)) => {
                if let Ok(transfer) = self.transfer(token as f64) {
                    transfer.prefetched(prefetched);
                }
                None
            }
            Ok(Answer::Transfer(transfer)) => Some(Held::Transfer(transfer)),
            Ok(Answer::Sink(file)) => Some(Held::Sink(file)),
            Ok(Answer::Output(output)) => Some(Held::Output(output)),
            Ok(Answer::Mirror(mirror)) => Some(Held::Mirror(mirror)),
            Ok(Answer::Log(log)) => Some(Held::Log(log)),
            Ok(Answer::Outcome(site, outcome)) => {
                let current = Current::new(&site, *outcome);
                object.set_named_property("answer", current.describe())?;
                current.into_transfer().map(Held::Transfer)
            }
            Ok(Answer::Cached(file)) => {
                object.set_named_property("file", CachedFileInfo::of(&file))?;
                Some(Held::File(file))
            }
            Ok(Answer::Mapped(file)) => Some(Held::Mapped(Arc::new(file))),
            Ok(Answer::Bytes(bytes)) => {
                object.set_named_property("bytes", Buffer::from(bytes))?;
                None
            }
            Ok(Answer::SessionFinished(report)) => {
                object.set_named_property("session", RelayReport::from(report))?;
                None
            }
            Ok(Answer::Buffer(buffer)) => Some(Held::Buffer(Box::new(buffer))),
            Ok(Answer::Ring(ring)) => Some(Held::Ring(OpenRing(Arc::new(ring)))),
            Ok(Answer::Descriptor(fd)) => Some(Held::Target(fd)),
            Ok(Answer::Shape(shape)) => {
                shape(&mut object)?;
                None
            }
            Ok(Answer::Ended) => None,
            Ok(Answer::Progress(bytes)) => {
                object.set_named_property("progress", bytes as f64)?;
                None
            }
            Ok(Answer::Report(report)) => {
                object.set_named_property("report", crate::transfer::TransferReport::from(report))?;
                None
            }
        };
        match to_hold.map(|held| self.hold(held)) {
            None => {}
            Some(Ok(token)) => object.set_named_property("token", token as f64)?,
            Some(Err(failure)) => object.set_named_property("error", error::to_object(env, &failure)?)?,
        }
        Ok(object)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.events.close();
        for job in self.jobs.values() {
            job.cancel();
        }
    }
}

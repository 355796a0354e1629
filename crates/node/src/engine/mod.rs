//! The state of one JavaScript environment: the main thread or a worker.
//!
//! An environment stays on one thread, so the state is thread-local. Functions are exported as plain functions, not as
//! methods of a class: unwrapping `this` costs three times as much as the call itself.

pub mod background_task;
pub mod convert;
mod error;
pub mod events;
pub mod guard;
pub mod handles;
mod page_registry;
pub mod static_site;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;

use napi::Env;
use napi::bindgen_prelude::{Function, Object};
use napi_derive::napi;
use zerosend_core::io::pool::{Lane, Pool, Task, Volume};
use zerosend_core::reactor::{JobHandle, Reactor};
use zerosend_core::{Code, Error, Result};

use events::{Events, Payload, Request};
use guard::guard;
use handles::Handles;
use page_registry::PageRegistry;
use static_site::{PendingResponse, not_pending};

thread_local! {
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

/// Work for a request on another thread.
pub enum Job {
    Reactor(JobHandle),
    Pool(Task),
}

impl Job {
    /// Completes the request with `ABORT_ERR`, unless it has completed.
    fn cancel(&self) {
        match self {
            Job::Reactor(job) => Reactor::global().cancel(job),
            Job::Pool(task) => {
                task.cancel(Error::new(Code::Aborted, "the operation was aborted"));
            }
        }
    }
}

/// The objects, requests and events of this environment.
#[derive(Default)]
pub struct Engine {
    pub events: Events,
    pub handles: Handles,
    /// Memory made by `allocPages`.
    pub pages: PageRegistry,
    /// The response of the last `respond`, until its transfer is started or kept.
    pub pending: Option<PendingResponse>,
    /// Work that has not completed, by the number of the request.
    jobs: HashMap<u64, Job>,
}

/// Runs `body` with the engine of this environment and throws its error in JavaScript.
pub fn with<T>(env: &Env, body: impl FnOnce(&mut Engine) -> Result<T>) -> napi::Result<T> {
    guard(env, || {
        ENGINE.with(|cell| match cell.try_borrow_mut() {
            Ok(mut engine) => match engine.as_mut() {
                Some(engine) => body(engine),
                None => Err(Error::new(Code::Closed, "the engine of this thread is closed")),
            },
            Err(_) => Err(Error::new(Code::Internal, "internal error, please report it: the engine is in use")),
        })
    })
}

/// The version of the npm package that this binary belongs to.
#[napi]
pub fn package_version() -> &'static str {
    env!("ZEROSEND_VERSION")
}

/// Opens the engine of this environment. `wake` is called without arguments when `takeEvents` has events.
#[napi]
pub fn open_engine(env: &Env, wake: Function<'_, (), ()>) -> napi::Result<()> {
    let wake =
        wake.build_threadsafe_function::<()>().weak::<true>().callee_handled::<false>().build_callback(|_| Ok(()))?;
    let engine = Engine::default();
    let events = engine.events.clone();
    events.open(wake);
    ENGINE.with(|cell| *cell.borrow_mut() = Some(engine));
    // Hooks run in reverse order: this one before the thread-safe function is finalized.
    env.add_env_cleanup_hook(events, |events| {
        events.close();
        ENGINE.with(|cell| cell.take());
    })?;
    Ok(())
}

/// All events since the last call, in order. `progress`: the request is still running. Otherwise it has completed: with `error`, or
/// with the `handle` and `value` that the function which started it describes.
#[napi(
    ts_return_type = "Array<{ request: number; progress?: number; error?: NodeJS.ErrnoException; handle?: number; value?: unknown }>"
)]
pub fn take_events(env: &Env) -> napi::Result<Vec<Object<'_>>> {
    with(env, |engine| {
        let events = engine.events.take();
        Ok(events
            .into_iter()
            .map(|event| {
                if event.is_last() {
                    engine.jobs.remove(&(event.request as u64));
                }
                event.into_object(env, &mut engine.handles)
            })
            .collect::<napi::Result<Vec<_>>>())
    })?
}

/// Releases the object with this handle, of whatever kind, or the pending response with this number (below 0). Handles that
/// were released before are ignored.
#[napi]
pub fn release(env: &Env, handle: f64) -> napi::Result<()> {
    with(env, |engine| {
        if handle >= 0.0 {
            engine.handles.release(handle);
        } else if engine.pending.as_ref().is_some_and(|pending| pending.number == handle) {
            engine.pending = None;
        }
        Ok(())
    })
}

/// Number of objects that have a handle, for tests.
#[napi]
pub fn live_handles(env: &Env) -> napi::Result<u32> {
    with(env, |engine| Ok(engine.handles.len() as u32))
}

/// Aborts the work for `request`, which then completes with `ABORT_ERR`.
#[napi]
pub fn cancel(env: &Env, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Some(job) = engine.jobs.get(&(request as u64)) {
            job.cancel();
        }
        Ok(())
    })
}

/// The lane for copying `bytes` bytes from or to a file.
pub fn lane_for(bytes: f64) -> Lane {
    const SHORT: f64 = 1024.0 * 1024.0;
    if bytes <= SHORT { Lane::Short } else { Lane::Long }
}

impl Engine {
    /// The request with this number, to be completed on another thread.
    pub fn request(&self, number: f64) -> Request {
        Request::new(&self.events, number)
    }

    /// Takes the pending response; fails when it has another number.
    pub fn take_pending(&mut self, number: f64) -> Result<PendingResponse> {
        self.pending.take_if(|pending| pending.number == number).ok_or_else(not_pending)
    }

    /// Lets `cancel` abort `job` until `request` has completed.
    pub fn add_job(&mut self, request: f64, job: Job) {
        self.jobs.insert(request as u64, job);
    }

    /// Runs `work` on a thread that may block on the disk; its result completes `request`. See [`Pool::run`].
    pub fn run(
        &mut self,
        lane: Lane,
        volume: Volume,
        request: f64,
        work: impl FnOnce() -> Result<Payload> + Send + 'static,
    ) {
        let pending = self.request(request);
        let task = Pool::global().run(lane, volume, work, move |result| pending.complete(result));
        self.add_job(request, Job::Pool(task));
    }

    /// Like [`Engine::run`], in steps. See [`Pool::run_in_steps`].
    pub fn run_in_steps(
        &mut self,
        lane: Lane,
        volume: Volume,
        request: f64,
        step: impl FnMut() -> ControlFlow<Result<Payload>> + Send + 'static,
    ) {
        let pending = self.request(request);
        let task = Pool::global().run_in_steps(lane, volume, step, move |result| pending.complete(result));
        self.add_job(request, Job::Pool(task));
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

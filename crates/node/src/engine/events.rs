//! Events: how other threads give results to JavaScript.
//!
//! Each environment has a queue and one thread-safe function without arguments. The function is called only when the queue
//! was empty, so that a burst of completions costs one call into JavaScript, which then takes the whole queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{JsObjectValue, Object, ToNapiValue};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use zerosend_core::{Error, Result};

use crate::engine::error;
use crate::engine::handles::{Handles, Kind};

/// The thread-safe function. It is weak: open requests keep the event loop alive from the JavaScript side.
pub type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// What happened to the request with this number.
pub struct Event {
    pub request: f64,
    kind: EventKind,
}

enum EventKind {
    /// The request is still running. Bytes so far, or 0 if bytes are not counted.
    Progress(u64),
    Completed(Result<Payload>),
}

impl Event {
    pub fn is_last(&self) -> bool {
        matches!(self.kind, EventKind::Completed(_))
    }

    /// The event as an object for JavaScript. Objects in its payload get their handles now.
    pub fn into_object<'env>(self, env: &'env Env, handles: &mut Handles) -> napi::Result<Object<'env>> {
        let mut object = Object::new(env)?;
        object.set_named_property("request", self.request)?;
        match self.kind {
            EventKind::Progress(bytes) => object.set_named_property("progress", bytes as f64)?,
            EventKind::Completed(Err(failure)) => {
                object.set_named_property("error", error::to_object(env, &failure)?)?;
            }
            EventKind::Completed(Ok(Payload(fill))) => fill(&mut Reply { handles, object: &mut object })?,
        }
        Ok(object)
    }
}

/// The result of a request, which the module that made the request writes into the event on the JavaScript thread.
pub struct Payload(Box<Fill>);

type Fill = dyn FnOnce(&mut Reply<'_, '_>) -> napi::Result<()> + Send;

impl Payload {
    pub fn new(fill: impl FnOnce(&mut Reply<'_, '_>) -> napi::Result<()> + Send + 'static) -> Self {
        Self(Box::new(fill))
    }

    /// No result: the event says only that the request has completed. Does not allocate.
    pub fn empty() -> Self {
        Self::new(|_| Ok(()))
    }

    /// The event has the handle of `object`.
    pub fn handle<T: Kind + Send>(object: T) -> Self {
        Self::new(|reply| {
            let handle = reply.handles.objects.register(object);
            reply.set_handle(handle)
        })
    }

    /// The event has `value`.
    pub fn value(value: impl ToNapiValue + Send + 'static) -> Self {
        Self::new(|reply| reply.set_value(value))
    }
}

/// The event of a request that succeeded.
pub struct Reply<'a, 'env> {
    pub handles: &'a mut Handles,
    object: &'a mut Object<'env>,
}

impl Reply<'_, '_> {
    pub fn set_handle(&mut self, handle: f64) -> napi::Result<()> {
        self.object.set_named_property("handle", handle)
    }

    pub fn set_value(&mut self, value: impl ToNapiValue) -> napi::Result<()> {
        self.object.set_named_property("value", value)
    }
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    wake: Option<Wake>,
}

/// The queue of an environment. Clones share it.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<State>>);

impl Events {
    pub fn open(&self, wake: Wake) {
        self.lock().wake = Some(wake);
    }

    /// Discards all events, now and later: the environment is being torn down.
    pub fn close(&self) {
        let mut state = self.lock();
        state.wake = None;
        state.events.clear();
    }

    pub fn progress(&self, request: f64, bytes: u64) {
        self.push(Event { request, kind: EventKind::Progress(bytes) });
    }

    pub fn complete(&self, request: f64, result: Result<Payload>) {
        self.push(Event { request, kind: EventKind::Completed(result) });
    }

    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn push(&self, event: Event) {
        let mut state = self.lock();
        if state.wake.is_none() {
            return;
        }
        state.events.push(event);
        if state.events.len() == 1
            && let Some(wake) = &state.wake
        {
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that completes exactly once: with an error if it is dropped before, as it is when its job panics.
pub struct Request {
    events: Events,
    number: f64,
    completed: bool,
}

impl Request {
    pub fn new(events: &Events, number: f64) -> Self {
        Self { events: events.clone(), number, completed: false }
    }

    pub fn progress(&self, bytes: u64) {
        self.events.progress(self.number, bytes);
    }

    pub fn complete(mut self, result: Result<Payload>) {
        self.completed = true;
        self.events.complete(self.number, result);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.completed {
            self.events.complete(self.number, Err(Error::dropped()));
        }
    }
}

//! What other threads have to tell JavaScript: a queue per environment, and one thread-safe function that says "look".
//!
//! The function is called only when the queue goes from empty to non-empty, so that a burst of completions costs one
//! crossing; JavaScript then takes the whole queue.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use napi::Status;
use napi::bindgen_prelude::Object;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use zerosend_core::cache::CachedFile;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::mapped_file::MappedFile;
use zerosend_core::output::Output;
use zerosend_core::relay::{LinkReport, MirrorDestination};
use zerosend_core::server::access_log::AccessLog;
use zerosend_core::shm::{Ring, SharedBuffer};
use zerosend_core::static_site::Outcome;
use zerosend_core::transfer::{Prefetched, Report, TargetFile, Transfer};
use zerosend_core::{Error, Result};

use crate::site::HeldSite;

/// The thread-safe function: no data, and weak, because what is in flight holds the event loop from the JavaScript side.
pub type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The answer to the request that has the same number.
pub struct Event {
    pub request: f64,
    pub answer: Result<Answer>,
}

pub enum Answer {
    /// What the transfer sends next was prefetched.
    Prefetched(Token, Prefetched),
    /// A transfer was made; it gets its token when JavaScript takes the event.
    Transfer(Box<Transfer>),
    /// A file to receive into was opened.
    Sink(TargetFile),
    /// A file, FIFO or terminal was opened for output.
    Output(Output),
    /// A mirror was opened.
    Mirror(MirrorDestination),
    /// An access log was opened.
    Log(AccessLog),
    /// What a site answers.
    Outcome(Arc<HeldSite>, Box<Outcome>),
    /// Bytes so far; the request goes on.
    Progress(u64),
    Report(Report),
    /// A file of a cache.
    Cached(Arc<CachedFile>),
    /// A mapped file.
    Mapped(MappedFile),
    /// Bytes that were read.
    Bytes(Vec<u8>),
    /// The report of a relay session.
    SessionFinished(LinkReport),
    /// Shared memory.
    Buffer(SharedBuffer),
    /// A ring in shared memory.
    Ring(Ring),
    /// A descriptor that came over a socket.
    Descriptor(OwnedFd),
    /// What there is to say, as properties of the event.
    Shape(Shape),
    /// It is done, or a server has ended.
    Ended,
}

/// Sets properties of an event.
pub type Shape = Box<dyn FnOnce(&mut Object<'_>) -> napi::Result<()> + Send>;

#[derive(Default)]
struct State {
    events: Vec<Event>,
    wake: Option<Wake>,
}

/// The queue. Clones share it.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<State>>);

impl Events {
    pub fn open(&self, wake: Wake) {
        self.lock().wake = Some(wake);
    }

    /// After this nothing is queued and nobody is woken: the environment is going away.
    pub fn close(&self) {
        let mut state = self.lock();
        state.wake = None;
        state.events.clear();
    }

    pub fn push(&self, request: f64, answer: Result<Answer>) {
        let mut state = self.lock();
        if state.wake.is_none() {
            return;
        }
        state.events.push(Event { request, answer });
        if state.events.len() == 1
            && let Some(wake) = &state.wake
        {
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is answered exactly once, even when the job that should answer it panics.
pub struct Request {
    events: Events,
    number: f64,
    answered: bool,
}

impl Request {
    pub fn new(events: &Events, number: f64) -> Self {
        Self { events: events.clone(), number, answered: false }
    }

    pub fn progress(&self, bytes: u64) {
        self.events.push(self.number, Ok(Answer::Progress(bytes)));
    }

    pub fn answer(mut self, answer: Result<Answer>) {
        self.answered = true;
        self.events.push(self.number, answer);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.answered {
            self.events.push(self.number, Err(Error::dropped()));
        }
    }
}

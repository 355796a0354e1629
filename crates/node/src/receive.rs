//! Receiving into a file.

use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use zerosend_core::Error;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::NonBlocking;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::reactor::{Job, Reactor, Work};
use zerosend_core::transfer::{Receive, Start, TargetFile};
use zerosend_sys as sys;

use crate::engine::{Held, Pending, with};
use crate::events::{Answer, Request};
use crate::transfer::{DriveOptions, Watch, ended, milliseconds};

/// Where to receive into: a path, or a descriptor. Checked by the caller.
#[napi(object)]
pub struct SinkOptions {
    pub path: Option<String>,
    pub fd: Option<i32>,
    /// Where the first byte goes, in bytes from the start of the file.
    pub offset: Option<f64>,
    /// The first byte goes to the end of the file.
    pub append: bool,
}

/// Opens the file at `path`, or duplicates `fd`; the answer to `request` is the token of a file to receive into.
#[napi]
pub fn open_sink(env: &Env, request: f64, options: SinkOptions) -> napi::Result<()> {
    with(env, |engine| {
        let SinkOptions { path, fd, offset, append } = options;
        let fd = match fd {
            Some(fd) => Some(sys::fd::duplicate(fd).map_err(|errno| Error::system("dup", errno))?),
            None => None,
        };
        let path = PathBuf::from(path.unwrap_or_default());
        let start = match offset {
            Some(offset) => Start::At(offset as u64),
            None if append => Start::End,
            None => Start::Default,
        };
        let volume = match &fd {
            Some(fd) => Volume::of(fd),
            None => Volume::of_path(&path),
        };
        engine.run(Lane::Short, volume, request, move || {
            let sink = match fd {
                Some(fd) => TargetFile::from_fd(fd, start),
                None => TargetFile::open(&path, start),
            };
            sink.map(Answer::Sink)
        });
        Ok(())
    })
}

/// Lets the reactor receive from a held descriptor into an opened file: `length` bytes, or all until the source ends.
/// `before` has been read from it already: it goes first and counts. `request` hears of progress and of the end.
#[napi]
pub fn receive(
    env: &Env,
    sink: f64,
    source: f64,
    request: f64,
    length: Option<f64>,
    before: Option<Uint8Array>,
    options: DriveOptions,
) -> napi::Result<()> {
    with(env, |engine| {
        let Some(Held::Target(source)) = engine.held.remove(source as Token) else { return Err(ended()) };
        let Some(Held::Sink(sink)) = engine.held.remove(sink as Token) else { return Err(ended()) };
        let before = before.map(|bytes| bytes.to_vec()).unwrap_or_default();
        let job = Job {
            work: Work::Receive(Receive::new(sink, length.map(|length| length as u64)).with_initial_bytes(before)),
            peer: Arc::new(NonBlocking::new(source)?),
            timeout: options.timeout.map(milliseconds),
            chunk: options.chunk as u64,
            progress: options.progress.map(milliseconds),
            observer: Box::new(Watch(Request::new(&engine.events, request))),
        };
        let handle = Reactor::global().submit(job)?;
        engine.jobs.insert(request as u64, Pending::Reactor(handle));
        Ok(())
    })
}

//! Receiving into a file.

use std::path::PathBuf;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::reactor::Work;
use zerosend_core::transfer::{Receive, Start, TargetFile};

use crate::descriptor::{Descriptor, duplicate};
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::with;
use crate::transfer::DriveOptions;

impl Kind for TargetFile {
    const NAME: &'static str = "a file to receive into";
    const RELEASED: &'static str = "the file to receive into was closed";
}

/// The file to receive into: a path or a descriptor. The TypeScript side has checked the numbers.
#[napi(object)]
pub struct SinkOptions {
    pub path: Option<String>,
    pub fd: Option<i32>,
    /// Position of the first byte, in bytes from the start of the file.
    pub offset: Option<f64>,
    /// Write at the end of the file.
    pub append: bool,
}

/// Opens the file at `path`, or duplicates `fd`. The event of `request` has the handle of a file to receive into.
#[napi]
pub fn open_sink(env: &Env, request: f64, options: SinkOptions) -> napi::Result<()> {
    with(env, |engine| {
        let SinkOptions { path, fd, offset, append } = options;
        let fd = fd.map(duplicate).transpose()?;
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
            sink.map(Payload::handle)
        });
        Ok(())
    })
}

/// Lets the reactor receive from a descriptor into an opened file: `length` bytes, or until the end of the stream. `before`
/// was read from the descriptor already: it is written first and counts. Uses up both handles. The last event of `request`
/// has a `TransferReport` as its value.
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
        let source: Descriptor = engine.handles.objects.remove(source)?;
        let sink: TargetFile = engine.handles.objects.remove(sink)?;
        let before = before.map(|bytes| bytes.to_vec()).unwrap_or_default();
        let work = Work::Receive(Receive::new(sink, length.map(|length| length as u64)).with_initial_bytes(before));
        options.submit(engine, work, source.into_nonblocking()?, request)
    })
}

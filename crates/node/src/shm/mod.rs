//! Memory that processes share.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{BufferSlice, JsObjectValue};
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::shm::{self, Framing, PipeTo, Read, Ring, RingOptions, Role, Seals, SegmentName, SharedBuffer};
use zerosend_core::{Code, Error, Result};
use zerosend_sys as sys;

use crate::background_task::under_way;
use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::site::one_of;

/// Which memory: a name, a descriptor, or the token of a descriptor that came over a socket.
#[napi(object)]
pub struct SegmentSource {
    pub name: Option<String>,
    pub fd: Option<i32>,
    pub received: Option<f64>,
}

/// How shared memory is made.
#[napi(object)]
pub struct SegmentSettings {
    pub name: Option<String>,
    /// Bytes.
    pub size: f64,
    pub mode: u32,
    #[napi(ts_type = "'bytes' | 'messages'")]
    pub framing: Option<String>,
}

/// What shared memory is.
#[napi(object, object_from_js = false)]
pub struct SegmentInfo {
    pub name: Option<String>,
    pub fd: i32,
    /// Bytes, of a ring those that it holds.
    pub size: f64,
    #[napi(ts_type = "'bytes' | 'messages'")]
    pub framing: Option<&'static str>,
}

/// A ring that is open in this environment. Threads that wait for it own it too, so its end closes it: they stop waiting.
pub struct OpenRing(pub Arc<Ring>);

impl Drop for OpenRing {
    fn drop(&mut self) {
        self.0.close();
    }
}

enum Source {
    Name(SegmentName),
    Descriptor(std::os::fd::OwnedFd),
}

impl Engine {
    fn source(&mut self, source: SegmentSource) -> Result<Source> {
        if let Some(name) = source.name {
            return Ok(Source::Name(SegmentName::new(&name)?));
        }
        if let Some(token) = source.received {
            return match self.held.remove(token as Token) {
                Some(Held::Target(fd)) => Ok(Source::Descriptor(fd)),
                _ => Err(closed()),
            };
        }
        let fd = source.fd.unwrap_or(-1);
        Ok(Source::Descriptor(sys::fd::duplicate(fd).map_err(|errno| Error::system("dup", errno))?))
    }

    fn shared(&mut self, token: f64) -> Result<&SharedBuffer> {
        match self.held.get_mut(token as Token) {
            Some(Held::Buffer(buffer)) => Ok(buffer),
            _ => Err(closed()),
        }
    }

    fn ring(&mut self, token: f64) -> Result<&Arc<Ring>> {
        match self.held.get_mut(token as Token) {
            Some(Held::Ring(ring)) => Ok(&ring.0),
            _ => Err(closed()),
        }
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the shared memory is closed")
}

/// Makes a shared buffer, or (with `framing`) a ring: the event of `request` has its `token`.
#[napi]
pub fn create_segment(env: &Env, request: f64, settings: SegmentSettings) -> napi::Result<()> {
    with(env, |engine| {
        let name = settings.name.as_deref().map(SegmentName::new).transpose()?;
        let framing = settings.framing.map(|framing| one_of("framing", &framing, FRAMINGS)).transpose()?;
        let (size, mode) = (settings.size as u64, settings.mode);
        engine.run(Lane::Short, Volume::NONE, request, move || match framing {
            None => SharedBuffer::create(name.as_ref(), size, mode).map(Answer::Buffer),
            Some(framing) => {
                let options = RingOptions { capacity: size, framing, mode };
                Ring::create(name.as_ref(), &options).map(Answer::Ring)
            }
        });
        Ok(())
    })
}

/// Opens a shared buffer or a ring: the event of `request` has its `token`. `trust`: a ring behind a descriptor need not be
/// sealed.
#[napi]
pub fn open_segment(env: &Env, request: f64, source: SegmentSource, ring: bool, trust: bool) -> napi::Result<()> {
    with(env, |engine| {
        let source = engine.source(source)?;
        engine.run(Lane::Short, Volume::NONE, request, move || match (&source, ring) {
            (Source::Name(name), false) => SharedBuffer::open(name).map(Answer::Buffer),
            (Source::Descriptor(fd), false) => SharedBuffer::from_fd(fd.as_fd()).map(Answer::Buffer),
            (Source::Name(name), true) => Ring::open(name).map(Answer::Ring),
            (Source::Descriptor(fd), true) => Ring::from_fd(fd.as_fd(), trust).map(Answer::Ring),
        });
        Ok(())
    })
}

/// What it is.
#[napi]
pub fn segment_info(env: &Env, token: f64) -> napi::Result<SegmentInfo> {
    with(env, |engine| match engine.held.get_mut(token as Token) {
        Some(Held::Buffer(buffer)) => Ok(SegmentInfo {
            name: buffer.name().map(|name| name.as_str().to_string()),
            fd: buffer.as_fd().as_raw_fd(),
            size: buffer.size() as f64,
            framing: None,
        }),
        Some(Held::Ring(OpenRing(ring))) => Ok(SegmentInfo {
            name: ring.name().map(|name| name.as_str().to_string()),
            fd: ring.as_fd().as_raw_fd(),
            size: ring.capacity() as f64,
            framing: Some(if ring.framing() == Framing::Bytes { "bytes" } else { "messages" }),
        }),
        _ => Err(closed()),
    })
}

/// Removes a name; false when there is none.
#[napi]
pub fn unlink_segment(env: &Env, name: String) -> napi::Result<bool> {
    with(env, |_| shm::unlink(&SegmentName::new(&name)?))
}

/// Copies bytes of a shared buffer into all of `into`.
#[napi]
pub fn read_shared(env: &Env, token: f64, offset: f64, mut into: BufferSlice<'_>) -> napi::Result<()> {
    with(env, |engine| engine.shared(token)?.read_at(offset as u64, &mut into))
}

/// Copies bytes into a shared buffer.
#[napi]
pub fn write_shared(env: &Env, token: f64, offset: f64, bytes: &[u8]) -> napi::Result<()> {
    with(env, |engine| engine.shared(token)?.write_at(offset as u64, bytes))
}

/// Forbids things for ever.
#[napi]
pub fn seal_shared(env: &Env, token: f64, shrink: bool, grow: bool, write: bool) -> napi::Result<()> {
    with(env, |engine| engine.shared(token)?.seal(Seals { shrink, grow, write }))
}

/// Writes what fits: of messages whole frames. Returns how many bytes.
#[napi]
pub fn write_ring(env: &Env, token: f64, bytes: &[u8]) -> napi::Result<u32> {
    with(env, |engine| engine.ring(token)?.write(bytes).map(|count| count as u32))
}

/// Writes one message, when there is room for it.
#[napi]
pub fn write_ring_message(env: &Env, token: f64, message: &[u8]) -> napi::Result<bool> {
    with(env, |engine| engine.ring(token)?.write_message(message))
}

/// Reads into `into` from `offset` on. 0: nothing, now; -1: the end; less: the next message takes as many bytes as this says.
#[napi]
pub fn read_ring(env: &Env, token: f64, mut into: BufferSlice<'_>, offset: u32) -> napi::Result<f64> {
    with(env, |engine| {
        let into = into.get_mut(offset as usize..).unwrap_or_default();
        Ok(match engine.ring(token)?.read(into)? {
            Read::Bytes(count) => count as f64,
            Read::Empty => 0.0,
            Read::Ended => -1.0,
            Read::TooLarge(bytes) => -(bytes as f64),
        })
    })
}

/// The writer says that there is no more.
#[napi]
pub fn end_ring(env: &Env, token: f64) -> napi::Result<()> {
    with(env, |engine| engine.ring(token)?.end())
}

/// The event of `request` comes when there is room for `bytes`, or something to read.
#[napi]
pub fn wait_ring(
    env: &Env,
    request: f64,
    token: f64,
    #[napi(ts_arg_type = "'writer' | 'reader'")] role: String,
    bytes: u32,
) -> napi::Result<()> {
    with(env, |engine| {
        let role = one_of("role", &role, ROLES)?;
        let request = Request::new(&engine.events, request);
        let ready = Box::new(move |outcome: Result<()>| request.answer(outcome.map(|()| Answer::Ended)));
        engine.ring(token)?.when_ready(role, bytes as usize, ready);
        Ok(())
    })
}

/// Leaves a ring.
#[napi]
pub fn close_ring(env: &Env, token: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.held.remove(token as Token);
        Ok(())
    })
}

/// Sends what comes out of a ring to a target, until it ends. The last event of `request` has the number of bytes as its
/// `report`; the token that is returned cancels it.
#[napi]
pub fn pipe_ring(env: &Env, request: f64, token: f64, target: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let ring = engine.ring(token)?.clone();
        let target = match engine.held.get_mut(target as Token) {
            Some(Held::Target(fd)) => fd.try_clone().map_err(|_| Error::system("dup", nix::errno::Errno::EMFILE))?,
            _ => return Err(closed()),
        };
        let request = Request::new(&engine.events, request);
        let task = PipeTo::start(ring, target, move |outcome| {
            request
                .answer(outcome.map(|bytes| {
                    Answer::Shape(Box::new(move |event| event.set_named_property("piped", bytes as f64)))
                }));
        })?;
        Ok(engine.hold(Held::PipeTo(task))? as f64)
    })
}

/// Ends a task.
#[napi]
pub fn cancel_pipe_ring(env: &Env, token: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Some(Held::PipeTo(task)) = engine.held.get_mut(token as Token) {
            task.cancel();
        }
        Ok(())
    })
}

/// Sends the descriptor of shared memory over a Unix socket.
#[napi]
pub fn send_segment(env: &Env, token: f64, socket: f64) -> napi::Result<()> {
    with(env, |engine| {
        let Some(Held::Target(socket)) = engine.held.get_mut(socket as Token) else { return Err(closed()) };
        let socket = socket.try_clone().map_err(|_| Error::system("dup", nix::errno::Errno::EMFILE))?;
        match engine.held.get_mut(token as Token) {
            Some(Held::Buffer(buffer)) => shm::send_descriptor(socket.as_fd(), buffer.as_fd()),
            Some(Held::Ring(ring)) => shm::send_descriptor(socket.as_fd(), ring.0.as_fd()),
            _ => Err(closed()),
        }
    })
}

/// Waits for a descriptor: the event of `request` has its `token`. Releasing the token that is returned ends the wait.
#[napi]
pub fn receive_segment(env: &Env, request: f64, socket: f64) -> napi::Result<f64> {
    let socket = with(env, |engine| match engine.held.remove(socket as Token) {
        Some(Held::Target(fd)) => Ok(fd),
        _ => Err(closed()),
    })?;
    under_way(env, request, move |stop, _| shm::receive_descriptor(&socket, stop).map(Answer::Descriptor))
}

const FRAMINGS: &[(&str, Framing)] = &[("bytes", Framing::Bytes), ("messages", Framing::Messages)];
const ROLES: &[(&str, Role)] = &[("writer", Role::Writer), ("reader", Role::Reader)];

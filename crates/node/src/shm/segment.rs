//! Creating and opening shared buffers and rings, and sending them to other processes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use napi::Env;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::shm::{self, Framing, Ring, RingHandle, RingOptions, SegmentName, SharedBuffer};

use crate::descriptor::{Descriptor, duplicate};
use crate::engine::background_task::run_in_background;
use crate::engine::convert::parse_enum;
use crate::engine::events::Payload;
use crate::engine::guard::guard;
use crate::engine::{Engine, with};

/// The memory to open: exactly one of these.
#[napi(object)]
pub struct SegmentSource {
    pub name: Option<String>,
    /// A descriptor, which is duplicated during the call.
    pub fd: Option<i32>,
    /// The handle of a descriptor from `receiveSegment`, which is used up.
    pub received: Option<f64>,
}

/// How shared memory is created.
#[napi(object)]
pub struct SegmentSettings {
    /// Absent: the memory has no name.
    pub name: Option<String>,
    /// Size of a buffer, or capacity of a ring, in bytes.
    pub size: f64,
    /// Permissions.
    pub mode: u32,
    /// Absent: a shared buffer. Present: a ring.
    #[napi(ts_type = "'bytes' | 'messages'")]
    pub framing: Option<String>,
}

/// A shared buffer or a ring.
#[napi(object, object_from_js = false)]
pub struct SegmentInfo {
    pub name: Option<String>,
    pub fd: i32,
    /// Size of a buffer, or capacity of a ring, in bytes.
    pub size: f64,
    /// Of a ring.
    #[napi(ts_type = "'bytes' | 'messages'")]
    pub framing: Option<&'static str>,
}

enum Source {
    Name(SegmentName),
    Descriptor(OwnedFd),
}

impl Source {
    fn new(engine: &mut Engine, source: SegmentSource) -> Result<Self> {
        if let Some(name) = source.name {
            return Ok(Source::Name(SegmentName::new(&name)?));
        }
        if let Some(handle) = source.received {
            return Ok(Source::Descriptor(engine.handles.objects.remove::<Descriptor>(handle)?.0));
        }
        Ok(Source::Descriptor(duplicate(source.fd.unwrap_or(-1))?))
    }
}

/// Creates a shared buffer, or a ring when there is a `framing`. The event of `request` has its handle.
#[napi]
pub fn create_segment(env: &Env, request: f64, settings: SegmentSettings) -> napi::Result<()> {
    with(env, |engine| {
        let name = settings.name.as_deref().map(SegmentName::new).transpose()?;
        let framing = settings.framing.map(|framing| parse_enum("framing", &framing, FRAMINGS)).transpose()?;
        let (size, mode) = (settings.size as u64, settings.mode);
        engine.run(Lane::Short, Volume::NONE, request, move || match framing {
            None => SharedBuffer::create(name.as_ref(), size, mode).map(Payload::handle),
            Some(framing) => {
                let options = RingOptions { capacity: size, framing, mode };
                Ring::create(name.as_ref(), &options).map(ring_payload)
            }
        });
        Ok(())
    })
}

/// Opens a shared buffer or a ring. The event of `request` has its handle. `trust`: accept a ring behind a descriptor that
/// is not sealed against changes of its size.
#[napi]
pub fn open_segment(env: &Env, request: f64, source: SegmentSource, ring: bool, trust: bool) -> napi::Result<()> {
    with(env, |engine| {
        let source = Source::new(engine, source)?;
        engine.run(Lane::Short, Volume::NONE, request, move || match (&source, ring) {
            (Source::Name(name), false) => SharedBuffer::open(name).map(Payload::handle),
            (Source::Descriptor(fd), false) => SharedBuffer::from_fd(fd.as_fd()).map(Payload::handle),
            (Source::Name(name), true) => Ring::open(name).map(ring_payload),
            (Source::Descriptor(fd), true) => Ring::from_fd(fd.as_fd(), trust).map(ring_payload),
        });
        Ok(())
    })
}

fn ring_payload(ring: Ring) -> Payload {
    Payload::handle(RingHandle::new(ring))
}

/// Describes a shared buffer or a ring.
#[napi]
pub fn segment_info(env: &Env, segment: f64) -> napi::Result<SegmentInfo> {
    with(env, |engine| {
        if engine.handles.objects.is::<RingHandle>(segment) {
            let ring: &mut RingHandle = engine.handles.objects.get(segment)?;
            return Ok(SegmentInfo {
                name: ring.name().map(|name| name.as_str().to_string()),
                fd: ring.as_fd().as_raw_fd(),
                size: ring.capacity() as f64,
                framing: Some(if ring.framing() == Framing::Bytes { "bytes" } else { "messages" }),
            });
        }
        let buffer: &mut SharedBuffer = engine.handles.objects.get(segment)?;
        Ok(SegmentInfo {
            name: buffer.name().map(|name| name.as_str().to_string()),
            fd: buffer.as_fd().as_raw_fd(),
            size: buffer.size() as f64,
            framing: None,
        })
    })
}

/// Removes a name; false when it does not exist.
#[napi]
pub fn unlink_segment(env: &Env, name: String) -> napi::Result<bool> {
    guard(env, || shm::unlink(&SegmentName::new(&name)?))
}

/// Sends the descriptor of a shared buffer or a ring over a Unix socket.
#[napi]
pub fn send_segment(env: &Env, segment: f64, socket: f64) -> napi::Result<()> {
    with(env, |engine| {
        let socket = engine.handles.objects.get::<Descriptor>(socket)?.try_clone()?;
        if engine.handles.objects.is::<RingHandle>(segment) {
            let ring: &mut RingHandle = engine.handles.objects.get(segment)?;
            return shm::send_descriptor(socket.as_fd(), ring.as_fd());
        }
        shm::send_descriptor(socket.as_fd(), engine.handles.objects.get::<SharedBuffer>(segment)?.as_fd())
    })
}

/// Waits for a descriptor on a Unix socket. The event of `request` has its handle. Returns another handle; releasing that
/// ends the wait.
#[napi]
pub fn receive_segment(env: &Env, request: f64, socket: f64) -> napi::Result<f64> {
    let Descriptor(socket) = with(env, |engine| engine.handles.objects.remove(socket))?;
    run_in_background(env, request, move |stop, _| {
        Ok(Payload::handle(Descriptor(shm::receive_descriptor(&socket, stop)?)))
    })
}

const FRAMINGS: &[(&str, Framing)] = &[("bytes", Framing::Bytes), ("messages", Framing::Messages)];

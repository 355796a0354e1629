//! Rings in shared memory.

use napi::Env;
use napi::bindgen_prelude::BufferSlice;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::shm::{PipeTo, ReadOutcome, RingHandle, Role};

use crate::descriptor::Descriptor;
use crate::engine::convert::parse_enum;
use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::{Engine, with};

impl Kind for RingHandle {
    const NAME: &'static str = "a ring";
    const RELEASED: &'static str = "the shared memory is closed";
}

impl Kind for PipeTo {
    const NAME: &'static str = "a task that sends a ring";
    const RELEASED: &'static str = "the task has ended";
}

/// Writes as many bytes as there is room for; of messages only whole frames. Returns the number of bytes.
#[napi]
pub fn write_ring(env: &Env, ring: f64, bytes: &[u8]) -> napi::Result<u32> {
    with(env, |engine| engine.ring(ring)?.write(bytes).map(|count| count as u32))
}

/// Writes a message; false when it does not fit now.
#[napi]
pub fn write_ring_message(env: &Env, ring: f64, message: &[u8]) -> napi::Result<bool> {
    with(env, |engine| engine.ring(ring)?.write_message(message))
}

/// Reads into `into` from `offset` on and returns the number of bytes. 0: the ring is empty. -1: the end. Below -1: minus
/// the number of bytes that the next message needs.
#[napi]
pub fn read_ring(env: &Env, ring: f64, mut into: BufferSlice<'_>, offset: u32) -> napi::Result<f64> {
    with(env, |engine| {
        let into = into.get_mut(offset as usize..).unwrap_or_default();
        Ok(match engine.ring(ring)?.read(into)? {
            ReadOutcome::Bytes(count) => count as f64,
            ReadOutcome::Empty => 0.0,
            ReadOutcome::Ended => -1.0,
            ReadOutcome::TooLarge(bytes) => -(bytes as f64),
        })
    })
}

/// Marks the end of the stream, for the reader.
#[napi]
pub fn end_ring(env: &Env, ring: f64) -> napi::Result<()> {
    with(env, |engine| engine.ring(ring)?.end())
}

/// Waits until a writer has room for `bytes` bytes, or a reader has bytes or the end to read; then `request` completes, without a
/// value.
#[napi]
pub fn wait_ring(
    env: &Env,
    request: f64,
    ring: f64,
    #[napi(ts_arg_type = "'writer' | 'reader'")] role: String,
    bytes: u32,
) -> napi::Result<()> {
    with(env, |engine| {
        let role = parse_enum("role", &role, ROLES)?;
        let request = engine.request(request);
        let ready = Box::new(move |result: Result<()>| request.complete(result.map(|()| Payload::empty())));
        engine.ring(ring)?.when_ready(role, bytes as usize, ready);
        Ok(())
    })
}

/// Sends the bytes of a ring to a descriptor, until the ring ends. The event of `request` has the number of bytes as its
/// value. Returns the handle of the task.
#[napi]
pub fn pipe_ring(env: &Env, request: f64, ring: f64, target: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let ring = engine.ring(ring)?.ring().clone();
        let target = engine.handles.objects.get::<Descriptor>(target)?.try_clone()?;
        let request = engine.request(request);
        let task = PipeTo::start(ring, target, move |result| {
            request.complete(result.map(|bytes| Payload::value(bytes as f64)));
        })?;
        Ok(engine.handles.objects.register(task))
    })
}

/// Cancels a task of `pipeRing`. Does nothing when it has ended.
#[napi]
pub fn cancel_pipe_ring(env: &Env, task: f64) -> napi::Result<()> {
    with(env, |engine| {
        if let Ok(task) = engine.handles.objects.get::<PipeTo>(task) {
            task.cancel();
        }
        Ok(())
    })
}

impl Engine {
    fn ring(&mut self, handle: f64) -> Result<&RingHandle> {
        self.handles.objects.get(handle).map(|ring| &*ring)
    }
}

const ROLES: &[(&str, Role)] = &[("writer", Role::Writer), ("reader", Role::Reader)];

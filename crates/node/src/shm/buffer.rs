//! Shared buffers.

use napi::Env;
use napi::bindgen_prelude::BufferSlice;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::shm::{Seals, SharedBuffer};

use crate::engine::handles::Kind;
use crate::engine::{Engine, with};

impl Kind for SharedBuffer {
    const NAME: &'static str = "a shared buffer";
    const RELEASED: &'static str = "the shared memory is closed";
}

/// Fills `into` with bytes of a shared buffer.
#[napi]
pub fn read_shared(env: &Env, buffer: f64, offset: f64, mut into: BufferSlice<'_>) -> napi::Result<()> {
    with(env, |engine| engine.shared_buffer(buffer)?.read_at(offset as u64, &mut into))
}

/// Copies `bytes` into a shared buffer.
#[napi]
pub fn write_shared(env: &Env, buffer: f64, offset: f64, bytes: &[u8]) -> napi::Result<()> {
    with(env, |engine| engine.shared_buffer(buffer)?.write_at(offset as u64, bytes))
}

/// Forbids changes, for all processes: see `F_ADD_SEALS` in fcntl(2).
#[napi]
pub fn seal_shared(env: &Env, buffer: f64, shrink: bool, grow: bool, write: bool) -> napi::Result<()> {
    with(env, |engine| engine.shared_buffer(buffer)?.seal(Seals { shrink, grow, write }))
}

impl Engine {
    fn shared_buffer(&mut self, handle: f64) -> Result<&SharedBuffer> {
        self.handles.objects.get(handle).map(|buffer| &*buffer)
    }
}

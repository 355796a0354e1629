//! Pipes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use napi::Env;
use napi_derive::napi;
use zerosend_core::io::pipe::{Pipe, statistics};
use zerosend_core::{Code, Error, Result};
use zerosend_sys::pipe;

use crate::engine::handles::Kind;
use crate::engine::{Engine, with};

/// The ends of a pipe that are open.
struct PipeEnds {
    read: Option<OwnedFd>,
    write: Option<OwnedFd>,
}

impl Kind for PipeEnds {
    const NAME: &'static str = "a pipe";
    const RELEASED: &'static str = "the pipe is closed";
}

impl PipeEnds {
    fn any(&self) -> Result<BorrowedFd<'_>> {
        let end = self.read.as_ref().or(self.write.as_ref());
        end.map(AsFd::as_fd).ok_or_else(|| Error::new(Code::Closed, Self::RELEASED))
    }
}

/// A new pipe.
#[napi(object)]
pub struct PipeDescription {
    pub handle: f64,
    pub read_fd: i32,
    pub write_fd: i32,
}

/// Counters of the pipes that transfers use, for the whole process.
#[napi(object)]
pub struct PipeStatistics {
    /// Pipes created.
    pub made: f64,
    /// Transfers that got a pipe of the pool.
    pub reused: f64,
    /// Pipes that are smaller than requested, because of the quota of the user (`pipe-user-pages-soft`).
    pub small: f64,
    /// Transfers that got no pipe and used another method.
    pub refused: f64,
}

/// Creates a pipe with a capacity of `size` bytes, or of less where the quota of the user does not allow it.
#[napi]
pub fn make_pipe(env: &Env, size: f64) -> napi::Result<PipeDescription> {
    with(env, |engine| {
        let (read, write) = Pipe::new(size as usize).map_err(|errno| Error::system("pipe2", errno))?.into_ends();
        let (read_fd, write_fd) = (read.as_raw_fd(), write.as_raw_fd());
        let handle = engine.handles.objects.register(PipeEnds { read: Some(read), write: Some(write) });
        Ok(PipeDescription { handle, read_fd, write_fd })
    })
}

/// Capacity of the pipe in bytes.
#[napi]
pub fn pipe_size(env: &Env, pipe: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let size = pipe::capacity(engine.pipe(pipe)?.any()?).map_err(|errno| Error::system("fcntl", errno))?;
        Ok(size as f64)
    })
}

/// Changes the capacity; returns the new one in bytes, which the kernel rounds up.
#[napi]
pub fn resize_pipe(env: &Env, pipe: f64, size: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let end = engine.pipe(pipe)?.any()?;
        let size = pipe::set_capacity(end, size as usize).map_err(|errno| Error::system("fcntl", errno))?;
        Ok(size as f64)
    })
}

/// Bytes in the pipe that were not read.
#[napi]
pub fn pipe_available(env: &Env, pipe: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let count = pipe::unread(engine.pipe(pipe)?.any()?).map_err(|errno| Error::system("ioctl", errno))?;
        Ok(count as f64)
    })
}

/// Closes an end of a pipe; `release` closes both.
#[napi]
pub fn close_pipe_end(env: &Env, pipe: f64, #[napi(ts_arg_type = "'read' | 'write'")] end: String) -> napi::Result<()> {
    with(env, |engine| {
        let ends = engine.pipe(pipe)?;
        drop(if end == "read" { ends.read.take() } else { ends.write.take() });
        Ok(())
    })
}

/// Counters of the pipes that transfers use, for the whole process.
#[napi]
pub fn pipe_statistics() -> PipeStatistics {
    let statistics = statistics();
    PipeStatistics {
        made: statistics.made.get() as f64,
        reused: statistics.reused.get() as f64,
        small: statistics.small.get() as f64,
        refused: statistics.refused.get() as f64,
    }
}

impl Engine {
    fn pipe(&mut self, handle: f64) -> Result<&mut PipeEnds> {
        self.handles.objects.get(handle)
    }
}

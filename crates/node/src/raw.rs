//! Single calls: pipes, `splice(2)`, `tee(2)`, `vmsplice(2)`, `sendfile(2)`. Descriptors are borrowed for the call.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array};
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::pipe::{Pipe, statistics};
use zerosend_core::io::raw;
use zerosend_core::{Code, Error, Result};
use zerosend_sys as sys;
use zerosend_sys::pipe::{self, SpliceFlags};

use crate::engine::{Engine, Held, with};
use crate::ffi::JsFd;
use crate::pages;

/// A pipe's ends, each until it is closed.
pub struct Ends {
    read: Option<OwnedFd>,
    write: Option<OwnedFd>,
}

impl Ends {
    fn any(&self) -> Result<BorrowedFd<'_>> {
        let end = self.read.as_ref().or(self.write.as_ref());
        end.map(AsFd::as_fd).ok_or_else(|| Error::new(Code::Closed, "the pipe is closed"))
    }
}

/// A new pipe.
#[napi(object)]
pub struct PipeDescription {
    /// Names it.
    pub token: f64,
    pub read_fd: i32,
    pub write_fd: i32,
}

/// What has become of requests for pipes, in this process.
#[napi(object)]
pub struct PipeStatistics {
    /// Pipes made.
    pub made: f64,
    /// Transfers served with a pipe of the pool.
    pub reused: f64,
    /// Pipes that are smaller than was asked for, because of the user's quota.
    pub small: f64,
    /// Transfers that got none and fell back to another method.
    pub refused: f64,
}

/// Makes a pipe with room for `size` bytes; for less where a quota says so.
#[napi]
pub fn make_pipe(env: &Env, size: f64) -> napi::Result<PipeDescription> {
    with(env, |engine| {
        let (read, write) = Pipe::new(size as usize).map_err(|errno| Error::system("pipe2", errno))?.into_ends();
        let (read_fd, write_fd) = (read.as_raw_fd(), write.as_raw_fd());
        let token = engine.hold(Held::Pipe(Ends { read: Some(read), write: Some(write) }))? as f64;
        Ok(PipeDescription { token, read_fd, write_fd })
    })
}

/// Bytes that fit into the pipe.
#[napi]
pub fn pipe_size(env: &Env, token: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let size = pipe::capacity(ends(engine, token)?.any()?).map_err(|errno| Error::system("fcntl", errno))?;
        Ok(size as f64)
    })
}

/// Asks for another size; returns what it is then.
#[napi]
pub fn resize_pipe(env: &Env, token: f64, size: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let pipe = ends(engine, token)?.any()?;
        let size = pipe::set_capacity(pipe, size as usize).map_err(|errno| Error::system("fcntl", errno))?;
        Ok(size as f64)
    })
}

/// Bytes in the pipe.
#[napi]
pub fn pipe_available(env: &Env, token: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let count = pipe::unread(ends(engine, token)?.any()?).map_err(|errno| Error::system("ioctl", errno))?;
        Ok(count as f64)
    })
}

/// Closes an end of a pipe. Without one, `release` closes both.
#[napi]
pub fn close_pipe_end(
    env: &Env,
    token: f64,
    #[napi(ts_arg_type = "'read' | 'write'")] end: String,
) -> napi::Result<()> {
    with(env, |engine| {
        let ends = ends(engine, token)?;
        drop(if end == "read" { ends.read.take() } else { ends.write.take() });
        Ok(())
    })
}

/// What has become of requests for pipes, in this process.
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

/// Where a splice goes from and to, and how.
#[napi(object, object_to_js = false)]
pub struct SpliceCall {
    #[napi(ts_type = "number")]
    pub from: JsFd,
    #[napi(ts_type = "number")]
    pub to: JsFd,
    pub length: f64,
    pub from_offset: Option<f64>,
    pub to_offset: Option<f64>,
    pub more: bool,
    #[napi(js_name = "move")]
    pub moving: bool,
}

/// One `splice(2)`; `null`: `EAGAIN`.
#[napi]
pub fn splice(env: &Env, call: SpliceCall) -> napi::Result<Option<f64>> {
    with(env, |_| {
        let flags = SpliceFlags { more: call.more, moving: call.moving };
        let offset = |offset: Option<f64>| offset.map(|offset| offset as u64);
        let (from_offset, to_offset) = (offset(call.from_offset), offset(call.to_offset));
        borrow("splice", &call.from, |from| {
            borrow("splice", &call.to, |to| raw::splice(from, from_offset, to, to_offset, call.length as usize, flags))
        })
        .map(number)
    })
}

/// One `tee(2)`; `null`: `EAGAIN`.
#[napi]
pub fn tee(
    env: &Env,
    #[napi(ts_arg_type = "number")] from: JsFd,
    #[napi(ts_arg_type = "number")] to: JsFd,
    length: f64,
) -> napi::Result<Option<f64>> {
    with(env, |_| borrow("tee", &from, |from| borrow("tee", &to, |to| raw::tee(from, to, length as usize))).map(number))
}

/// One `sendfile(2)`; `null`: `EAGAIN`.
#[napi]
pub fn sendfile(
    env: &Env,
    #[napi(ts_arg_type = "number")] out: JsFd,
    #[napi(ts_arg_type = "number")] file: JsFd,
    offset: f64,
    length: f64,
) -> napi::Result<Option<f64>> {
    with(env, |_| {
        borrow("sendfile", &out, |out| {
            borrow("sendfile", &file, |file| raw::sendfile(out, file, offset as u64, length as usize))
        })
        .map(number)
    })
}

/// One `vmsplice(2)` of a copy of `buffers`; `null`: `EAGAIN`.
#[napi]
pub fn vmsplice_copy(
    env: &Env,
    #[napi(ts_arg_type = "number")] pipe: JsFd,
    buffers: Vec<Uint8Array>,
) -> napi::Result<Option<f64>> {
    with(env, |_| {
        let slices: Vec<&[u8]> = buffers.iter().map(AsRef::as_ref).collect();
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length == 0 {
            return Ok(Some(0.0));
        }
        let pages = pages::copy(&slices)?;
        borrow("vmsplice", &pipe, |pipe| raw::vmsplice(pipe, &[pages.span(0, length)])).map(number)
    })
}

/// A part of an ArrayBuffer of `allocPages`.
#[napi(object, object_to_js = false)]
pub struct Gift<'env> {
    pub buffer: ArrayBuffer<'env>,
    pub offset: f64,
    pub length: f64,
}

/// One `vmsplice(2)` of parts of buffers, which are `allocPages`' own, each another one, and JavaScript's no more after
/// this. The pipe must be empty and have room: `null` when it is not empty, and then nothing is taken.
#[napi]
pub fn vmsplice_gift(
    env: &Env,
    #[napi(ts_arg_type = "number")] pipe: JsFd,
    gifts: Vec<Gift<'_>>,
) -> napi::Result<Option<f64>> {
    with(env, |engine| {
        borrow("vmsplice", &pipe, |pipe| {
            let page = sys::page::page_size() as usize;
            let mut needed = 0;
            for gift in &gifts {
                engine.pages.find(&gift.buffer)?;
                let (offset, length) = (gift.offset as usize, gift.length as usize);
                needed += if length == 0 { 0 } else { ((offset + length - 1) / page - offset / page + 1) * page };
            }
            let Some(room) = raw::capacity_if_empty(pipe)? else { return Ok(None) };
            if needed > room {
                return Err(Error::new(
                    Code::OutOfRange,
                    format!(
                        "the gift takes {needed} bytes of whole pages, but the pipe has room for {room}: resize it"
                    ),
                ));
            }
            let mut taken = Vec::with_capacity(gifts.len());
            for gift in gifts {
                taken.push((engine.pages.take(gift.buffer)?, gift.offset as usize, gift.length as usize));
            }
            let spans: Vec<_> = taken.iter().map(|(pages, offset, length)| pages.span(*offset, *length)).collect();
            raw::vmsplice(pipe, &spans)
        })
        .map(number)
    })
}

fn ends(engine: &mut Engine, token: f64) -> Result<&mut Ends> {
    match engine.held.get_mut(token as Token) {
        Some(Held::Pipe(ends)) => Ok(ends),
        _ => Err(Error::new(Code::Closed, "the pipe is closed")),
    }
}

fn borrow<T>(syscall: &'static str, fd: &JsFd, call: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
    call(fd.borrow().map_err(|errno| Error::system(syscall, errno))?)
}

fn number(count: Option<usize>) -> Option<f64> {
    count.map(|count| count as f64)
}

//! Single system calls: splice(2), tee(2), vmsplice(2), sendfile(2). Descriptors are borrowed for the call.

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array};
use napi_derive::napi;
use zerosend_core::io::raw;
use zerosend_core::{Code, Error};
use zerosend_sys as sys;
use zerosend_sys::pipe::SpliceFlags;

use crate::descriptor::borrow;
use crate::engine::guard::guard;
use crate::engine::with;
use crate::ffi::JsFd;
use crate::pages;

/// The arguments of splice(2).
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

/// One splice(2). Returns the number of bytes; `null` for `EAGAIN`.
#[napi]
pub fn splice(env: &Env, call: SpliceCall) -> napi::Result<Option<f64>> {
    guard(env, || {
        let flags = SpliceFlags { more: call.more, moving: call.moving };
        let offset = |offset: Option<f64>| offset.map(|offset| offset as u64);
        let (from, to) = (borrow("splice", &call.from)?, borrow("splice", &call.to)?);
        let (from_offset, to_offset) = (offset(call.from_offset), offset(call.to_offset));
        raw::splice(from, from_offset, to, to_offset, call.length as usize, flags).map(number)
    })
}

/// One tee(2). Returns the number of bytes; `null` for `EAGAIN`.
#[napi]
pub fn tee(
    env: &Env,
    #[napi(ts_arg_type = "number")] from: JsFd,
    #[napi(ts_arg_type = "number")] to: JsFd,
    length: f64,
) -> napi::Result<Option<f64>> {
    guard(env, || raw::tee(borrow("tee", &from)?, borrow("tee", &to)?, length as usize).map(number))
}

/// One sendfile(2). Returns the number of bytes; `null` for `EAGAIN`.
#[napi]
pub fn sendfile(
    env: &Env,
    #[napi(ts_arg_type = "number")] out: JsFd,
    #[napi(ts_arg_type = "number")] file: JsFd,
    offset: f64,
    length: f64,
) -> napi::Result<Option<f64>> {
    guard(env, || {
        let (out, file) = (borrow("sendfile", &out)?, borrow("sendfile", &file)?);
        raw::sendfile(out, file, offset as u64, length as usize).map(number)
    })
}

/// One vmsplice(2) of a copy of `buffers`. Returns the number of bytes; `null` for `EAGAIN`.
#[napi]
pub fn vmsplice_copy(
    env: &Env,
    #[napi(ts_arg_type = "number")] pipe: JsFd,
    buffers: Vec<Uint8Array>,
) -> napi::Result<Option<f64>> {
    guard(env, || {
        let slices: Vec<&[u8]> = buffers.iter().map(AsRef::as_ref).collect();
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length == 0 {
            return Ok(Some(0.0));
        }
        let pages = pages::copy(&slices)?;
        raw::vmsplice(borrow("vmsplice", &pipe)?, &[pages.span(0, length)]).map(number)
    })
}

/// A part of an ArrayBuffer from `allocPages`.
#[napi(object, object_to_js = false)]
pub struct Gift<'env> {
    pub buffer: ArrayBuffer<'env>,
    pub offset: f64,
    pub length: f64,
}

/// One vmsplice(2) of parts of distinct buffers from `allocPages`, which are detached. The pipe must be empty and have room
/// for all their pages. Returns the number of bytes; `null` when the pipe is not empty: then no buffer is detached.
#[napi]
pub fn vmsplice_gift(
    env: &Env,
    #[napi(ts_arg_type = "number")] pipe: JsFd,
    gifts: Vec<Gift<'_>>,
) -> napi::Result<Option<f64>> {
    with(env, |engine| {
        let pipe = borrow("vmsplice", &pipe)?;
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
                    "the gift takes {needed} bytes of whole pages, more than the capacity of the pipe ({room}): resize the pipe"
                ),
            ));
        }
        let mut taken = Vec::with_capacity(gifts.len());
        for gift in gifts {
            taken.push((engine.pages.take(gift.buffer)?, gift.offset as usize, gift.length as usize));
        }
        let spans: Vec<_> = taken.iter().map(|(pages, offset, length)| pages.span(*offset, *length)).collect();
        raw::vmsplice(pipe, &spans).map(number)
    })
}

fn number(count: Option<usize>) -> Option<f64> {
    count.map(|count| count as f64)
}

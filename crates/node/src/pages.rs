//! Transfers of whole pages, which vmsplice(2) gives to the kernel without a copy.

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array};
use napi_derive::napi;
use zerosend_core::transfer::{Disk, Method, Part, Target, Transfer};
use zerosend_core::{Error, Result};
use zerosend_sys::memory::{Pages, SealedPages};

use crate::engine::guard::guard;
use crate::engine::with;
use crate::ffi;
use crate::parts::SendingOptions;

/// Page-aligned memory of `bytes`, rounded up to whole pages. Unmapped when the ArrayBuffer is collected and the last
/// transfer that has it has ended.
#[napi]
pub fn alloc_pages(env: &Env, bytes: f64) -> napi::Result<ArrayBuffer<'_>> {
    let pages = guard(env, || Pages::new(bytes as usize).map_err(|errno| Error::system("mmap", errno)))?;
    // Outside of the engine: this may run finalizers.
    let (buffer, pages) = ffi::share_pages(env, pages)?;
    with(env, |engine| {
        engine.pages.insert(&pages);
        Ok(())
    })?;
    Ok(buffer)
}

/// Detaches `buffer`, which is from `allocPages`, and returns the handle of a transfer of a part of its pages.
#[napi]
pub fn open_gift(
    env: &Env,
    buffer: ArrayBuffer<'_>,
    offset: f64,
    length: f64,
    options: SendingOptions,
) -> napi::Result<f64> {
    with(env, |engine| {
        let pages = engine.pages.take(buffer)?;
        let part = Part::Pages { pages, offset: offset as u64, length: length as u64 };
        Ok(engine.handles.transfers.register(page_transfer(part, &options)))
    })
}

/// Copies `bytes` into pages and returns the handle of a transfer of them.
#[napi]
pub fn open_copy(env: &Env, bytes: Uint8Array, options: SendingOptions) -> napi::Result<f64> {
    with(env, |engine| {
        let part = Part::Pages { pages: copy(&[bytes.as_ref()])?, offset: 0, length: bytes.len() as u64 };
        Ok(engine.handles.transfers.register(page_transfer(part, &options)))
    })
}

/// A copy of all `buffers`, one after another.
pub fn copy(buffers: &[&[u8]]) -> Result<SealedPages> {
    let length = buffers.iter().map(|bytes| bytes.len()).sum();
    let mut pages = Pages::new(length).map_err(|errno| Error::system("mmap", errno))?;
    let mut at = 0;
    for bytes in buffers {
        at += pages.copy_in(at, bytes);
    }
    Ok(pages.seal())
}

fn page_transfer(part: Part, options: &SendingOptions) -> Transfer {
    let mut transfer = Transfer::new([part], Method::Vmsplice, Target::Socket, Disk::ResidentOnly);
    options.apply(&mut transfer);
    transfer
}

//! Memory whose pages go to the kernel: lent to JavaScript as an ArrayBuffer, taken back by detaching it.
//!
//! This is the one place of the binding with an unsafe call: only napi can put memory that is not V8's behind an
//! ArrayBuffer.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array};
use napi_derive::napi;
use zerosend_core::transfer::{Disk, Method, Part, Target, Transfer};
use zerosend_core::{Code, Error, Result};
use zerosend_sys::memory::Pages;

use crate::engine::{Held, with};
use crate::parts::SendingOptions;

/// What JavaScript has, by address.
#[derive(Default)]
pub struct PageRegistry(HashMap<usize, Weak<Pages>>);

impl PageRegistry {
    fn insert(&mut self, pages: &Arc<Pages>) {
        if self.0.len() >= 2 * (1 + self.0.values().filter(|pages| pages.strong_count() > 0).count()) {
            self.0.retain(|_, pages| pages.strong_count() > 0);
        }
        self.0.insert(pages.address().as_ptr() as usize, Arc::downgrade(pages));
    }

    /// Whether an ArrayBuffer's memory is ours to take.
    pub fn check(&self, buffer: &ArrayBuffer<'_>) -> Result<Arc<Pages>> {
        self.0.get(&(buffer.as_ptr() as usize)).and_then(Weak::upgrade).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                "gift is true, but the buffer is not from allocPages (or was given already): the memory of an ordinary \
                 Buffer is used again by others while the kernel still reads it; leave gift out, then it is copied",
            )
        })
    }

    /// Takes an ArrayBuffer's memory away from JavaScript: from here on it reads as empty there.
    pub fn take(&mut self, buffer: ArrayBuffer<'_>) -> Result<Arc<Pages>> {
        let pages = self.check(&buffer)?;
        self.0.remove(&(pages.address().as_ptr() as usize));
        buffer
            .detach()
            .map_err(|error| Error::new(Code::InvalidArgument, format!("the buffer cannot be given: {error}")))?;
        Ok(pages)
    }
}

/// Page-aligned memory of `bytes`, rounded up to whole pages. It is unmapped when the ArrayBuffer is collected and the
/// last transfer that got it has ended.
#[napi]
pub fn alloc_pages(env: &Env, bytes: f64) -> napi::Result<ArrayBuffer<'_>> {
    let pages = with(env, |engine| {
        let pages = Arc::new(Pages::new(bytes as usize).map_err(|errno| Error::system("mmap", errno))?);
        engine.pages.insert(&pages);
        Ok(pages)
    })?;
    let (address, length) = (pages.address().as_ptr(), pages.len());
    // SAFETY: `length` bytes from `address` on are mapped and writable until the last `Arc` is gone, and the finalizer has
    // one. Nothing on this side reads or writes them while the ArrayBuffer has them: `PageRegistry::take` detaches it first.
    unsafe { ArrayBuffer::from_external(env, address, length, pages, |_env, pages| drop(pages)) }
}

/// A transfer of a part of `buffer`, which is `allocPages`' own and JavaScript's no more after this; returns its token.
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
        let transfer = transfer(part, &options);
        Ok(engine.hold(Held::Transfer(transfer))? as f64)
    })
}

/// A transfer of a copy of `bytes`, in pages of its own; returns its token.
#[napi]
pub fn open_copy(env: &Env, bytes: Uint8Array, options: SendingOptions) -> napi::Result<f64> {
    with(env, |engine| {
        let part = Part::Pages { pages: Arc::new(copy(&[bytes.as_ref()])?), offset: 0, length: bytes.len() as u64 };
        let transfer = transfer(part, &options);
        Ok(engine.hold(Held::Transfer(transfer))? as f64)
    })
}

/// The bytes of all `buffers` in fresh pages.
pub fn copy(buffers: &[&[u8]]) -> Result<Pages> {
    let length = buffers.iter().map(|bytes| bytes.len()).sum();
    let mut pages = Pages::new(length).map_err(|errno| Error::system("mmap", errno))?;
    let mut at = 0;
    for bytes in buffers {
        at += pages.copy_in(at, bytes);
    }
    Ok(pages)
}

fn transfer(part: Part, options: &SendingOptions) -> Box<Transfer> {
    let mut transfer = Transfer::new([part], Method::Vmsplice, Target::Socket, Disk::ResidentOnly);
    options.apply(&mut transfer);
    Box::new(transfer)
}

//! Memory whose pages go to the kernel: shared with JavaScript as an ArrayBuffer, and taken back by detaching it.

use std::collections::HashMap;

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array};
use napi_derive::napi;
use zerosend_core::transfer::{Disk, Method, Part, Target, Transfer};
use zerosend_core::{Code, Error, Result};
use zerosend_sys::memory::{Pages, SealedPages, SharedPages, WeakPages};

use crate::engine::{Held, with};
use crate::ffi;
use crate::parts::SendingOptions;

/// The pages that JavaScript has, by address.
#[derive(Default)]
pub struct PageRegistry(HashMap<usize, WeakPages>);

impl PageRegistry {
    fn insert(&mut self, pages: &SharedPages) {
        // Entries of collected buffers are removed once they are the majority.
        if self.0.len() >= 2 * (1 + self.0.values().filter(|pages| pages.is_live()).count()) {
            self.0.retain(|_, pages| pages.is_live());
        }
        self.0.insert(pages.as_mut_ptr().addr().get(), pages.downgrade());
    }

    /// The pages of an ArrayBuffer that [`alloc_pages`] made.
    pub fn find(&self, buffer: &ArrayBuffer<'_>) -> Result<SharedPages> {
        self.0.get(&buffer.as_ptr().addr()).and_then(WeakPages::upgrade).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                "gift is true, but the buffer is not from allocPages or was given before: Node may reuse the memory of \
                 other buffers while the kernel still reads it; without gift the bytes are copied",
            )
        })
    }

    /// Takes the pages of an ArrayBuffer from JavaScript, which has an empty buffer afterwards.
    pub fn take(&mut self, buffer: ArrayBuffer<'_>) -> Result<SealedPages> {
        let pages = self.find(&buffer)?;
        self.0.remove(&pages.as_mut_ptr().addr().get());
        ffi::seal_pages(buffer, pages)
    }
}

/// Page-aligned memory of `bytes`, rounded up to whole pages. Unmapped when the ArrayBuffer is collected and the last
/// transfer that has it has ended.
#[napi]
pub fn alloc_pages(env: &Env, bytes: f64) -> napi::Result<ArrayBuffer<'_>> {
    let pages = with(env, |_| Pages::new(bytes as usize).map_err(|errno| Error::system("mmap", errno)))?;
    // Outside of the engine: this may run finalizers.
    let (buffer, pages) = ffi::share_pages(env, pages)?;
    with(env, |engine| {
        engine.pages.insert(&pages);
        Ok(())
    })?;
    Ok(buffer)
}

/// A transfer of a part of `buffer`, memory of `allocPages` that this detaches; returns its token.
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

/// A transfer of a copy of `bytes`; returns its token.
#[napi]
pub fn open_copy(env: &Env, bytes: Uint8Array, options: SendingOptions) -> napi::Result<f64> {
    with(env, |engine| {
        let part = Part::Pages { pages: copy(&[bytes.as_ref()])?, offset: 0, length: bytes.len() as u64 };
        let transfer = transfer(part, &options);
        Ok(engine.hold(Held::Transfer(transfer))? as f64)
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

fn transfer(part: Part, options: &SendingOptions) -> Box<Transfer> {
    let mut transfer = Transfer::new([part], Method::Vmsplice, Target::Socket, Disk::ResidentOnly);
    options.apply(&mut transfer);
    Box::new(transfer)
}

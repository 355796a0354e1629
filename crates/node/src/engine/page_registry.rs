//! Pages that JavaScript sees as an ArrayBuffer, until it is detached and they go to the kernel.

use std::collections::HashMap;

use napi::bindgen_prelude::ArrayBuffer;
use zerosend_core::{Code, Error, Result};
use zerosend_sys::memory::{SealedPages, SharedPages, WeakPages};

use crate::ffi;

/// The pages that JavaScript has, by address.
#[derive(Default)]
pub struct PageRegistry(HashMap<usize, WeakPages>);

impl PageRegistry {
    pub fn insert(&mut self, pages: &SharedPages) {
        // Entries of collected buffers are removed once they are the majority.
        if self.0.len() >= 2 * (1 + self.0.values().filter(|pages| pages.is_live()).count()) {
            self.0.retain(|_, pages| pages.is_live());
        }
        self.0.insert(pages.as_mut_ptr().addr().get(), pages.downgrade());
    }

    /// The pages of an ArrayBuffer that `allocPages` has returned.
    pub fn find(&self, buffer: &ArrayBuffer<'_>) -> Result<SharedPages> {
        self.0.get(&buffer.as_ptr().addr()).and_then(WeakPages::upgrade).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                "a gift must be a buffer from allocPages that was not given before, because Node reuses the memory of other \
                 buffers while the kernel reads it; leave out gift to send a copy",
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

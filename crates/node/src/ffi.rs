//! The unsafe code of the binding: descriptors that JavaScript passes by number, and memory behind an ArrayBuffer.
#![allow(
    unsafe_code,
    reason = "napi has no safe API for memory that V8 does not own, and a number is not a descriptor"
)]

use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};

use napi::bindgen_prelude::{ArrayBuffer, FromNapiValue, TypeName, ValidateNapiValue};
use napi::{Env, ValueType, sys};
use nix::errno::Errno;
use zerosend_core::{Code, Error, Result};
use zerosend_sys::SysResult;
use zerosend_sys::memory::{Pages, SealedPages, SharedPages};

/// A descriptor that JavaScript passes to a native function by its number. It exists during the call only.
pub struct JsFd {
    number: RawFd,
    /// Not `Send`: it must not outlive the call on another thread.
    call: PhantomData<*const ()>,
}

impl JsFd {
    /// Borrows the descriptor. `EBADF` for a negative number.
    pub fn borrow(&self) -> SysResult<BorrowedFd<'_>> {
        if self.number < 0 {
            return Err(Errno::EBADF);
        }
        // SAFETY: the number is not -1. A `JsFd` comes from an argument of the native function that is being called, and cannot
        // leave its thread. JavaScript passes the number of an object that it holds open, and cannot close it before the function
        // returns, because it runs on the same thread. A number that is not open is EBADF in every system call.
        Ok(unsafe { BorrowedFd::borrow_raw(self.number) })
    }
}

impl TypeName for JsFd {
    fn type_name() -> &'static str {
        "number"
    }

    fn value_type() -> ValueType {
        ValueType::Number
    }
}

impl ValidateNapiValue for JsFd {}

impl FromNapiValue for JsFd {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: `env` and `value` are valid, as the caller of this function promises.
        let number = unsafe { i32::from_napi_value(env, value) }?;
        Ok(Self { number, call: PhantomData })
    }
}

/// An ArrayBuffer whose memory is `pages`. They stay mapped until it is collected, or longer when a transfer has them.
pub fn share_pages<'env>(env: &'env Env, pages: Pages) -> napi::Result<(ArrayBuffer<'env>, SharedPages)> {
    let shared = pages.share();
    let kept = shared.clone();
    let (address, length) = (shared.as_mut_ptr().as_ptr(), shared.len());
    // SAFETY: `length` bytes from `address` on are mapped and writable while a `SharedPages` of them exists, and the finalizer,
    // which runs when V8 frees the memory, owns one. Rust code accesses the bytes only after `seal_pages`.
    let buffer = unsafe { ArrayBuffer::from_external(env, address, length, kept, |_env, pages| drop(pages)) }?;
    Ok((buffer, shared))
}

/// Detaches the ArrayBuffer of `pages`, so that JavaScript cannot change them any more.
pub fn seal_pages(buffer: ArrayBuffer<'_>, pages: SharedPages) -> Result<SealedPages> {
    if buffer.as_ptr() != pages.as_mut_ptr().as_ptr() {
        return Err(Error::new(Code::Internal, "internal error, please report it: the buffer has other memory"));
    }
    buffer
        .detach()
        .map_err(|error| Error::new(Code::InvalidArgument, format!("cannot detach the ArrayBuffer: {error}")))?;
    // SAFETY: `share_pages` gave the pointer to one ArrayBuffer, and the memory of an ArrayBuffer belongs to one at a time, also
    // when `transfer()` moves it. That one is `buffer`, as its address shows, and it is detached now: every view of it has
    // length 0. The clones of `pages` (the finalizer, weak references) do not use the pointer.
    Ok(unsafe { pages.seal() })
}

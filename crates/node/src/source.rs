//! Opening what is to be sent, off the JavaScript thread.

use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use zerosend_core::files::OpenFile;
use zerosend_core::pool::Pool;
use zerosend_core::transfer::{Disk, Method, Part, Target, Transfer};
use zerosend_core::{Code, Error, Result, sys};

use crate::engine::{Held, with};
use crate::events::{Answer, Request};

/// What to open and which part of it to send. Checked by the caller: numbers are safe integers and not negative.
#[napi(object)]
pub struct SourceOptions {
    /// A path, or
    pub path: Option<String>,
    /// a descriptor, which is duplicated at once.
    pub fd: Option<i32>,
    /// First byte, 0 when absent.
    pub offset: Option<f64>,
    /// Number of bytes; to the end when absent.
    pub length: Option<f64>,
    /// Bytes that go first.
    pub head: Option<Uint8Array>,
    #[napi(ts_type = "'auto' | 'sendfile' | 'read-write'")]
    pub method: String,
}

/// Opens a source; the answer to `request` is the token of a transfer.
#[napi]
pub fn open(env: &Env, request: f64, options: SourceOptions) -> napi::Result<()> {
    with(env, |engine| {
        let SourceOptions { path, fd, offset, length, head, method } = options;
        let method: Method = method.parse()?;
        let head = head.map(|head| head.to_vec()).unwrap_or_default();
        let fd = match fd {
            Some(fd) => Some(sys::fd::duplicate(fd).map_err(|errno| Error::system("dup", errno))?),
            None => None,
        };
        let path = PathBuf::from(path.unwrap_or_default());
        let request = Request::new(&engine.events, request);
        Pool::global().run(move || {
            let transfer = (|| {
                let file = match fd {
                    Some(fd) => OpenFile::from_fd(fd)?,
                    None => OpenFile::open(&path)?,
                };
                let (offset, length) = stretch(file.meta().size, offset, length)?;
                let parts = [Part::Memory(head), Part::File { file: Arc::new(file), offset, length }];
                Ok(Transfer::new(parts, method, Target::Socket, Disk::ResidentOnly))
            })();
            request.answer(transfer.map(|transfer| Answer::Transfer(Box::new(transfer))));
        });
        Ok(())
    })
}

/// Duplicates a descriptor that bytes will be sent to, and returns its token.
#[napi]
pub fn hold_target(env: &Env, fd: i32) -> napi::Result<f64> {
    with(env, |engine| {
        let target = sys::fd::duplicate(fd).map_err(|errno| Error::system("dup", errno))?;
        Ok(engine.hold(Held::Target(target))? as f64)
    })
}

/// The bytes meant by `offset` and `length` in a file of `size` bytes.
fn stretch(size: u64, offset: Option<f64>, length: Option<f64>) -> Result<(u64, u64)> {
    let offset = offset.unwrap_or(0.0) as u64;
    if offset > size {
        return Err(Error::new(Code::OutOfRange, format!("offset is {offset}, but the file has {size} bytes")));
    }
    let rest = size - offset;
    match length.map(|length| length as u64) {
        None => Ok((offset, rest)),
        Some(length) if length <= rest => Ok((offset, length)),
        Some(length) => Err(Error::new(
            Code::OutOfRange,
            format!("length is {length}, but the file has only {rest} bytes from offset {offset} on"),
        )),
    }
}

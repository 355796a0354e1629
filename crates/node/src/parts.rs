//! Opening what is to be sent, off the JavaScript thread.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use zerosend_core::cache::CachedFile;
use zerosend_core::fs::OpenFile;
use zerosend_core::fs::pseudo_file::pseudo_file_bytes;
use zerosend_core::io::pool::{Lane, Volume};
use zerosend_core::transfer::{Cork, Disk, Method, Part, Target, Transfer};
use zerosend_core::{Code, Error, Result};
use zerosend_sys as sys;

use crate::engine::{Engine, Held, with};
use crate::events::Answer;

/// One part of what is to be sent: a file, or bytes. Checked by the caller: numbers are safe integers and not negative.
#[napi(object)]
pub struct PartOptions {
    /// Bytes, or
    pub bytes: Option<Uint8Array>,
    /// a path, or
    pub path: Option<String>,
    /// a descriptor, which is duplicated at once, or
    pub fd: Option<i32>,
    /// the token of a file of a cache.
    pub cached: Option<f64>,
    /// First byte of the file, 0 when absent.
    pub offset: Option<f64>,
    /// Number of bytes of the file; to the end when absent.
    pub length: Option<f64>,
}

/// How parts are to be sent.
#[napi(object)]
pub struct SendingOptions {
    #[napi(ts_type = "ReturnType<typeof methodNames>[number]")]
    pub method: String,
    /// Bytes of the buffer of `read-write`; 128 KiB when absent.
    pub buffer: Option<u32>,
    /// Hold back packets that are not full; where it helps when absent.
    pub cork: Option<bool>,
}

/// What is known of a part before it is opened.
enum Named {
    Bytes(Vec<u8>),
    Cached { file: Arc<CachedFile>, offset: Option<f64>, length: Option<f64> },
    File { name: FileName, offset: Option<f64>, length: Option<f64> },
}

enum FileName {
    Descriptor(OwnedFd),
    Path(PathBuf),
}

/// Opens all parts, in order; the answer to `request` is the token of one transfer of them.
#[napi]
pub fn open(env: &Env, request: f64, parts: Vec<PartOptions>, options: SendingOptions) -> napi::Result<()> {
    with(env, |engine| {
        let method: Method = options.method.parse()?;
        let named = parts.into_iter().map(|part| Named::new(engine, part)).collect::<Result<Vec<_>>>()?;
        // The first file decides: those of one transfer lie on one file system as a rule.
        let volume = named.iter().find_map(Named::volume).unwrap_or(Volume::NONE);
        engine.run(Lane::Short, volume, request, move || {
            make(named, method).map(|mut transfer| {
                options.apply(&mut transfer);
                Answer::Transfer(Box::new(transfer))
            })
        });
        Ok(())
    })
}

impl SendingOptions {
    pub fn apply(&self, transfer: &mut Transfer) {
        if let Some(bytes) = self.buffer {
            transfer.set_buffer(bytes as usize);
        }
        transfer.set_cork(match self.cork {
            None => Cork::Auto,
            Some(true) => Cork::On,
            Some(false) => Cork::Off,
        });
    }
}

impl Named {
    fn new(engine: &mut Engine, part: PartOptions) -> Result<Self> {
        let PartOptions { bytes, path, fd, cached, offset, length } = part;
        if let Some(token) = cached {
            return Ok(Named::Cached { file: engine.cached(token)?, offset, length });
        }
        let name = match (bytes, fd) {
            (Some(bytes), _) => return Ok(Named::Bytes(bytes.to_vec())),
            (None, Some(fd)) => {
                FileName::Descriptor(sys::fd::duplicate(fd).map_err(|errno| Error::system("dup", errno))?)
            }
            (None, None) => FileName::Path(PathBuf::from(path.unwrap_or_default())),
        };
        Ok(Named::File { name, offset, length })
    }
}

impl Named {
    /// The file system that is asked when this is opened.
    fn volume(&self) -> Option<Volume> {
        match self {
            Named::Bytes(_) | Named::Cached { .. } => None,
            Named::File { name: FileName::Descriptor(fd), .. } => Some(Volume::of(fd)),
            Named::File { name: FileName::Path(path), .. } => Some(Volume::of_path(path)),
        }
    }
}

fn make(named: Vec<Named>, mut method: Method) -> Result<Transfer> {
    let mut parts = Vec::with_capacity(named.len());
    for part in named {
        match part {
            Named::Bytes(bytes) => parts.push(Part::Memory(bytes)),
            Named::Cached { file, offset, length } => {
                let (offset, length) = stretch(file.meta().size, offset, length)?;
                parts.push(file.part(offset, length));
            }
            Named::File { name, offset, length } => {
                let file = match name {
                    FileName::Descriptor(fd) => OpenFile::from_fd(fd)?,
                    FileName::Path(path) => OpenFile::open(&path)?,
                };
                if let Some(mut bytes) = pseudo_file_bytes(&file, file.meta().size)? {
                    // It has no size and no pages: reading is the one way.
                    method = Method::ReadWrite;
                    let (offset, length) = stretch(bytes.len() as u64, offset, length)?;
                    bytes.truncate((offset + length) as usize);
                    bytes.drain(..offset as usize);
                    parts.push(Part::Memory(bytes));
                } else {
                    let (offset, length) = stretch(file.meta().size, offset, length)?;
                    parts.push(Part::File { file: Arc::new(file), offset, length });
                }
            }
        }
    }
    Ok(Transfer::new(parts, method, Target::Socket, Disk::ResidentOnly))
}

/// Duplicates a descriptor that bytes will be sent to or come from, and returns its token.
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

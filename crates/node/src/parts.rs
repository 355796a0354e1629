//! The parts of a transfer: files and bytes. Files are opened on a thread of the pool.

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

use crate::descriptor::duplicate;
use crate::engine::events::Payload;
use crate::engine::{Engine, with};

/// A part of a transfer: bytes, or a file given by exactly one of `path`, `fd` and `cached`. The TypeScript side has checked
/// that the numbers are safe integers and not negative.
#[napi(object)]
pub struct PartOptions {
    pub bytes: Option<Uint8Array>,
    pub path: Option<String>,
    /// A descriptor, which is duplicated during the call.
    pub fd: Option<i32>,
    /// The handle of a file of a cache.
    pub cached: Option<f64>,
    /// First byte of the file. Default 0.
    pub offset: Option<f64>,
    /// Number of bytes of the file. Default: to the end.
    pub length: Option<f64>,
}

/// How a transfer sends.
#[napi(object)]
pub struct SendingOptions {
    #[napi(ts_type = "ReturnType<typeof methodNames>[number]")]
    pub method: String,
    /// Buffer size of `read-write` in bytes. Default 128 KiB.
    pub buffer: Option<u32>,
    /// True: hold back packets that are not full until the end of a turn (`TCP_CORK`). False: send the bytes of each call at
    /// once. Default: hold back where more bytes follow (`MSG_MORE`).
    pub cork: Option<bool>,
}

/// A part before it is opened.
enum PartSource {
    Bytes(Vec<u8>),
    Cached { file: Arc<CachedFile>, range: PartRange },
    File { name: FileName, range: PartRange },
}

enum FileName {
    Descriptor(OwnedFd),
    Path(PathBuf),
}

/// Bytes of a file, before its size is known.
struct PartRange {
    offset: Option<f64>,
    length: Option<f64>,
}

/// Opens all parts, in order. The event of `request` has the handle of a transfer of them.
#[napi]
pub fn open(env: &Env, request: f64, parts: Vec<PartOptions>, options: SendingOptions) -> napi::Result<()> {
    with(env, |engine| {
        let method: Method = options.method.parse()?;
        let sources = parts.into_iter().map(|part| PartSource::new(engine, part)).collect::<Result<Vec<_>>>()?;
        // The files of one transfer are usually on one file system.
        let volume = sources.iter().find_map(PartSource::volume).unwrap_or(Volume::NONE);
        engine.run(Lane::Short, volume, request, move || {
            let mut transfer = open_parts(sources, method)?;
            options.apply(&mut transfer);
            Ok(Payload::new(move |reply| {
                let handle = reply.handles.transfers.register(transfer);
                reply.set_handle(handle)
            }))
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

impl PartSource {
    fn new(engine: &mut Engine, part: PartOptions) -> Result<Self> {
        let PartOptions { bytes, path, fd, cached, offset, length } = part;
        let range = PartRange { offset, length };
        if let Some(handle) = cached {
            let file = engine.handles.objects.get::<Arc<CachedFile>>(handle)?.clone();
            return Ok(PartSource::Cached { file, range });
        }
        let name = match (bytes, fd) {
            (Some(bytes), _) => return Ok(PartSource::Bytes(bytes.to_vec())),
            (None, Some(fd)) => FileName::Descriptor(duplicate(fd)?),
            (None, None) => FileName::Path(PathBuf::from(path.unwrap_or_default())),
        };
        Ok(PartSource::File { name, range })
    }

    /// The file system that opening this part accesses.
    fn volume(&self) -> Option<Volume> {
        match self {
            PartSource::Bytes(_) | PartSource::Cached { .. } => None,
            PartSource::File { name: FileName::Descriptor(fd), .. } => Some(Volume::of(fd)),
            PartSource::File { name: FileName::Path(path), .. } => Some(Volume::of_path(path)),
        }
    }
}

fn open_parts(sources: Vec<PartSource>, mut method: Method) -> Result<Transfer> {
    let mut parts = Vec::with_capacity(sources.len());
    for source in sources {
        match source {
            PartSource::Bytes(bytes) => parts.push(Part::Memory(bytes)),
            PartSource::Cached { file, range } => {
                let (offset, length) = range.within(file.meta().size)?;
                parts.push(file.part(offset, length));
            }
            PartSource::File { name, range } => {
                let file = match name {
                    FileName::Descriptor(fd) => OpenFile::from_fd(fd)?,
                    FileName::Path(path) => OpenFile::open(&path)?,
                };
                if let Some(mut bytes) = pseudo_file_bytes(&file, file.meta().size)? {
                    // Files of procfs have no size and no pages: only read(2) works.
                    method = Method::ReadWrite;
                    let (offset, length) = range.within(bytes.len() as u64)?;
                    bytes.truncate((offset + length) as usize);
                    bytes.drain(..offset as usize);
                    parts.push(Part::Memory(bytes));
                } else {
                    let (offset, length) = range.within(file.meta().size)?;
                    parts.push(Part::File { file: Arc::new(file), offset, length });
                }
            }
        }
    }
    Ok(Transfer::new(parts, method, Target::Socket, Disk::ResidentOnly))
}

impl PartRange {
    /// The offset and the length in a file of `size` bytes.
    fn within(&self, size: u64) -> Result<(u64, u64)> {
        let offset = self.offset.unwrap_or(0.0) as u64;
        if offset > size {
            return Err(Error::new(Code::OutOfRange, format!("invalid offset {offset}: the file has {size} bytes")));
        }
        let rest = size - offset;
        match self.length.map(|length| length as u64) {
            None => Ok((offset, rest)),
            Some(length) if length <= rest => Ok((offset, length)),
            Some(length) => Err(Error::new(
                Code::OutOfRange,
                format!("invalid length {length}: the file has {rest} bytes from offset {offset}"),
            )),
        }
    }
}

//! The result of a request: a response with its file, or why there is none.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::cache::CachedFile;
use crate::fs::content_tag::Content;
use crate::fs::meta::FileMeta;
use crate::fs::open_file::OpenFile;
use crate::transfer;
use zerosend_http::site::{Body, BodyPart, Directory, Head, Refusal};

/// The result of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Response(Response),
    /// 301 to the same path with a slash.
    Redirect,
    /// 404.
    NotFound,
    /// 403, with the reason for a log.
    Forbidden(&'static str),
    /// 400.
    BadPath,
    /// A directory without an index.
    Directory(Directory),
    /// The request would block: repeat it with [`Access::MayBlock`](crate::fs::Access::MayBlock) on another thread.
    WouldBlock,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::Forbidden(reason) => Self::Forbidden(reason),
            Refusal::BadPath => Self::BadPath,
        }
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// 200, 206, 304, 412 or 416. A caller with a status other than 200 keeps its own; headers and body are the same.
    pub status: u16,
    /// The headers. Shared by all plain requests for the same version of a file.
    pub head: Arc<Head>,
    /// The body.
    pub body: Body<Source>,
    /// The file's metadata.
    pub meta: FileMeta,
}

impl Response {
    /// The body as parts of a transfer, in order.
    pub fn into_parts(self) -> Vec<transfer::Part> {
        match self.body {
            Body::Empty => Vec::new(),
            Body::File { file, offset, length } => vec![file.part(offset, length)],
            Body::Multipart { file, parts, tail } => {
                let mut all = Vec::with_capacity(parts.len() * 2 + 1);
                for BodyPart { head, range } in parts {
                    all.push(transfer::Part::Memory(head.into_bytes()));
                    all.push(file.part(range.start, range.length()));
                }
                all.push(transfer::Part::Memory(tail.into_bytes()));
                all
            }
        }
    }
}

/// The file of a response.
#[derive(Debug, Clone)]
pub enum Source {
    /// Opened for this response.
    Open(Arc<OpenFile>),
    /// From the cache, or a snapshot of a pseudo file.
    Cached(Arc<CachedFile>),
}

impl Source {
    /// Its metadata.
    pub fn meta(&self) -> &FileMeta {
        match self {
            Source::Open(file) => file.meta(),
            Source::Cached(file) => file.meta(),
        }
    }

    /// A range of its bytes to send.
    pub fn part(&self, offset: u64, length: u64) -> transfer::Part {
        match self {
            Source::Open(file) => transfer::Part::File { file: file.clone(), offset, length },
            Source::Cached(file) => file.part(offset, length),
        }
    }

    /// Where its bytes are.
    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Source::Open(file) => Content::File((**file).as_fd()),
            Source::Cached(file) => match file.descriptor() {
                Some(fd) => Content::File(fd),
                None => Content::Memory(file.bytes().unwrap_or_default()),
            },
        }
    }

    /// Whether it is the snapshot of a pseudo file, whose metadata does not identify its bytes.
    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self, Source::Cached(file) if file.is_snapshot())
    }

    /// The entity tag of a snapshot; `None` for other files.
    pub(super) fn snapshot_tag(&self) -> Option<String> {
        match self {
            Source::Cached(file) if file.is_snapshot() => Some(file.etag()),
            _ => None,
        }
    }
}

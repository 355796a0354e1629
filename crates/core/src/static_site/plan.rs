//! Status, headers and body for a file that was found: the second half of a request.
//!
//! 1. validators and fixed headers
//! 2. preconditions
//! 3. range
//! 4. body
//!
//! The order of the headers is `@fastify/send`'s. Which file it is was decided in [`super::site`]; the bytes are sent
//! elsewhere.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::site::{Request, SiteOptions};
use super::validators::FileValidators;
use crate::cache::CachedFile;
use crate::fs::content_tag::Content;
use crate::fs::meta::FileMeta;
use crate::fs::open_file::OpenFile;
use crate::transfer;
use zerosend_http::conditional::{self, Validators, Verdict};
use zerosend_http::headers::{HeaderList, content_range, unsatisfied_range};
use zerosend_http::negotiation::Encoding;
use zerosend_http::range::{self, ByteRange, RangeDecision, RangePolicy};
use zerosend_http::{Conformance, date, mime};

/// What to send.
#[derive(Debug)]
pub struct Response {
    /// 200, 206, 304, 412 or 416. A caller whose own status is not 200 keeps it; the headers and body are the same.
    pub status: u16,
    /// What is said of the bytes. Shared by all plain requests for the same version of a file.
    pub head: Arc<Head>,
    /// The bytes.
    pub body: Body,
    /// The file's metadata.
    pub meta: FileMeta,
}

/// The headers of a response, and which file it is.
#[derive(Debug)]
pub struct Head {
    /// The same number is the same head, in this process and for ever; 0 for a head made for one request only.
    pub id: u64,
    /// Without `Date` and `Connection`. Errors (412, 416) have no body and no content headers: they are the caller's.
    pub headers: HeaderList,
    /// The file chosen, relative to its root: with index, extension and coding suffix.
    pub path: String,
    /// Which root it is under.
    pub root_index: usize,
    /// The coding it is stored in. `path` less [`Encoding::suffix`] is then the name it stands for.
    pub encoding: Option<Encoding>,
}

/// The file of a response.
#[derive(Debug, Clone)]
pub enum Source {
    /// Opened for it.
    Open(Arc<OpenFile>),
    /// Of the cache.
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

    /// The tag of a file whose metadata says nothing of its bytes.
    pub(super) fn generated_tag(&self) -> Option<String> {
        match self {
            Source::Cached(file) if file.is_snapshot() => Some(file.etag()),
            _ => None,
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

    /// A stretch of it, to be sent.
    pub fn part(&self, offset: u64, length: u64) -> transfer::Part {
        match self {
            Source::Open(file) => transfer::Part::File { file: file.clone(), offset, length },
            Source::Cached(file) => file.part(offset, length),
        }
    }
}

/// The bytes of a response.
#[derive(Debug)]
pub enum Body {
    /// None: HEAD, 304 and errors.
    Empty,
    /// `length` bytes of the file from `offset`.
    File {
        /// The file.
        file: Source,
        /// First byte.
        offset: u64,
        /// How many; 0 for an empty file.
        length: u64,
    },
    /// `multipart/byteranges`, RFC 9110 section 14.6: each part's head, then its bytes; at the end the tail.
    Multipart {
        /// The file.
        file: Source,
        /// In the order to send.
        parts: Vec<Part>,
        /// The closing boundary.
        tail: String,
    },
}

impl Body {
    /// The stretches to send, in order.
    pub fn into_parts(self) -> Vec<transfer::Part> {
        match self {
            Body::Empty => Vec::new(),
            Body::File { file, offset, length } => vec![file.part(offset, length)],
            Body::Multipart { file, parts, tail } => {
                let mut all = Vec::with_capacity(parts.len() * 2 + 1);
                for Part { head, range } in parts {
                    all.push(transfer::Part::Memory(head.into_bytes()));
                    all.push(file.part(range.start, range.length()));
                }
                all.push(transfer::Part::Memory(tail.into_bytes()));
                all
            }
        }
    }

    /// Bytes to send.
    pub fn length(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::File { length, .. } => *length,
            Body::Multipart { parts, tail, .. } => multipart_length(parts, tail),
        }
    }
}

fn multipart_length(parts: &[Part], tail: &str) -> u64 {
    parts.iter().map(|part| part.head.len() as u64 + part.range.length()).sum::<u64>() + tail.len() as u64
}

/// One part of a multipart body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Boundary and part headers.
    pub head: String,
    /// Its bytes.
    pub range: ByteRange,
}

/// A file that was found.
pub(super) struct Found {
    pub file: Source,
    pub path: String,
    pub encoding: Option<Encoding>,
    /// The hash of its bytes as an entity tag, where [`SiteOptions::content_tags`] asks for it.
    pub content_tag: Option<String>,
}

impl Found {
    /// The path that names the type: without the coding's suffix.
    fn plain_path(&self) -> &str {
        let suffix = self.encoding.map_or("", Encoding::suffix);
        self.path.strip_suffix(suffix).unwrap_or(&self.path)
    }
}

/// Plans the response to `request` with the file `found`.
pub(super) fn plan(
    found: Found,
    own: FileValidators,
    root_index: usize,
    request: &Request<'_>,
    options: &SiteOptions,
) -> Response {
    let meta = *found.file.meta();
    let overrides = &request.overrides;
    let mut validators = own.of_conditions(options);
    if let Some(tag) = overrides.etag {
        validators.etag = Some(tag);
    }
    if let Some(text) = overrides.last_modified {
        validators.last_modified = date::parse(text);
    }
    let length = overrides.slice.length(meta.size);
    // `@fastify/static` types a compressed variant even with the option off.
    let typed = options.content_type || (found.encoding.is_some() && options.conformance == Conformance::FastifyStatic);
    let content_type = typed.then(|| mime::content_type(found.plain_path()));

    let conditions = &request.conditions;
    let verdict = conditional::evaluate(conditions, &validators, options.conformance);
    let decision = match verdict {
        Verdict::Proceed => decide_range(request, options, &validators, length),
        _ => RangeDecision::Whole,
    };
    let error = |status, headers| (status, headers, Body::Empty);

    let (status, headers, body) = match (verdict, decision) {
        (Verdict::PreconditionFailed, _) => error(412, HeaderList::new()),
        (_, RangeDecision::Unsatisfiable) => error(416, vec![("content-range", Cow::Owned(unsatisfied_range(length)))]),
        (verdict, decision) => {
            let mut headers = HeaderList::with_capacity(9);
            if options.accept_ranges {
                headers.push(("accept-ranges", Cow::Borrowed("bytes")));
            }
            if let Some(cache_control) = options.caching.value(found.plain_path(), overrides.max_age) {
                headers.push(("cache-control", cache_control));
            }
            if let Some(text) = overrides.last_modified {
                headers.push(("last-modified", Cow::Owned(text.to_owned())));
            } else if let Some(seconds) = own.last_modified {
                headers.push(("last-modified", Cow::Owned(date::format(seconds))));
            }
            if let Some(tag) = validators.etag {
                headers.push(("etag", Cow::Owned(tag.to_owned())));
            }
            if !options.pre_compressed.is_empty() {
                headers.push(("vary", Cow::Borrowed("accept-encoding")));
            }
            if verdict == Verdict::NotModified {
                (304, headers, Body::Empty)
            } else {
                if let Some(encoding) = found.encoding {
                    headers.push(("content-encoding", Cow::Borrowed(encoding.as_str())));
                }
                let file = found.file;
                let whole = (overrides.slice.start, length);
                let (status, body, length) = with_body(file, decision, whole, content_type, &mut headers);
                headers.push(("content-length", Cow::Owned(length.to_string())));
                (status, headers, if request.head_only { Body::Empty } else { body })
            }
        }
    };
    let head = Head { id: 0, headers, path: found.path, root_index, encoding: found.encoding };
    Response { status, head: Arc::new(head), body, meta }
}

fn decide_range(request: &Request<'_>, options: &SiteOptions, validators: &Validators<'_>, size: u64) -> RangeDecision {
    // RFC 9110 section 14.2: a range is defined for GET only. `@fastify/send` heeds it on HEAD too.
    let heeded = options.accept_ranges && (!request.head_only || options.conformance == Conformance::FastifyStatic);
    match request.conditions.range.filter(|_| heeded) {
        Some(header) if conditional::range_applies(request.conditions.if_range, validators, options.conformance) => {
            let SiteOptions { max_ranges, multipart, conformance, .. } = *options;
            match range::decide(header, size, &RangePolicy { max_ranges, multipart, conformance }) {
                RangeDecision::Single(ByteRange { start, end_exclusive }) => {
                    let most = request.overrides.max_range_length.unwrap_or(u64::MAX);
                    let end_exclusive = end_exclusive.min(start.saturating_add(most));
                    RangeDecision::Single(ByteRange { start, end_exclusive })
                }
                decision => decision,
            }
        }
        _ => RangeDecision::Whole,
    }
}

/// Adds type and range headers; gives status, body and its length.
fn with_body(
    file: Source,
    decision: RangeDecision,
    (first, size): (u64, u64),
    content_type: Option<&'static str>,
    headers: &mut HeaderList,
) -> (u16, Body, u64) {
    if let RangeDecision::Several(ranges) = decision {
        let boundary = boundary();
        headers.push(("content-type", Cow::Owned(format!("multipart/byteranges; boundary={boundary}"))));
        let type_line = content_type.map_or(String::new(), |value| format!("content-type: {value}\r\n"));
        let parts: Vec<Part> = ranges
            .into_iter()
            .map(|range| {
                let content_range = content_range(range, size);
                let head = format!("\r\n--{boundary}\r\n{type_line}content-range: {content_range}\r\n\r\n");
                let (start, end_exclusive) = (first + range.start, first + range.end_exclusive);
                Part { head, range: ByteRange { start, end_exclusive } }
            })
            .collect();
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = multipart_length(&parts, &tail);
        return (206, Body::Multipart { file, parts, tail }, length);
    }
    if let Some(content_type) = content_type {
        headers.push(("content-type", Cow::Borrowed(content_type)));
    }
    let (status, offset, length) = match decision {
        RangeDecision::Single(range) => {
            headers.push(("content-range", Cow::Owned(content_range(range, size))));
            (206, first + range.start, range.length())
        }
        _ => (200, first, size),
    };
    (status, Body::File { file, offset, length }, length)
}

/// A boundary nobody can put into a file beforehand: hashed from keys that are random for each process.
fn boundary() -> String {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("zerosend-{:016x}{:016x}", KEYS.0.hash_one(count), KEYS.1.hash_one(count))
}

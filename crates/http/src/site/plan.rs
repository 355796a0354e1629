//! The response for a file that was found: status, headers and body.
//!
//! 1. preconditions
//! 2. range
//! 3. headers, in the order of `@fastify/send`
//! 4. body

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::options::SiteOptions;
use super::request::Request;
use super::resolver::Lookup;
use crate::conditional::{self, Validators, Verdict};
use crate::conformance::Conformance;
use crate::headers::{HeaderList, content_range, unsatisfied_range};
use crate::negotiation::Encoding;
use crate::range::{self, ByteRange, RangeDecision, RangePolicy};
use crate::{date, mime};

/// The validators of a version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileValidators {
    /// The entity tag, with its quotes; `None` when [`SiteOptions::etag`] is off.
    pub etag: Option<String>,
    /// `Last-Modified` in seconds since 1970; `None` when it is off or unknown.
    pub last_modified: Option<i64>,
    /// `last_modified` is the time of this very version, so conditions may use it.
    pub date_is_exact: bool,
    /// The version keeps these validators from now on.
    pub is_final: bool,
}

impl FileValidators {
    /// The validators for the evaluation of conditions.
    fn for_conditions(&self, options: &SiteOptions) -> Validators<'_> {
        let last_modified = match self.last_modified {
            _ if !options.last_modified => None,
            Some(date) if self.date_is_exact => Some(date),
            // Unknown. `@fastify/send` takes a missing date in `If-Range` for "not modified": a date later than all others
            // fails every condition.
            _ => (options.conformance == Conformance::FastifyStatic).then_some(i64::MAX),
        };
        Validators { etag: self.etag.as_deref(), last_modified }
    }
}

/// The response. `F` is the caller's handle of the file.
#[derive(Debug)]
pub struct Plan<F> {
    /// 200, 206, 304, 412 or 416. A caller with a status other than 200 keeps its own; headers and body are the same.
    pub status: u16,
    /// The headers, and which file it is.
    pub head: Head,
    /// The body.
    pub body: Body<F>,
}

/// The headers of a response, and which file it is.
#[derive(Debug)]
pub struct Head {
    /// Identifies a head that is used for several responses; unique in this process. 0: for one response only.
    pub id: u64,
    /// Without `Date` and `Connection`. For 412 and 416 without content headers: the caller adds an error body.
    pub headers: HeaderList,
    /// The selected file, relative to its root: with index, extension and coding suffix.
    pub path: String,
    /// Its root.
    pub root_index: usize,
    /// The coding it is stored in.
    pub encoding: Option<Encoding>,
}

/// The body of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<F> {
    /// None: HEAD, 304 and errors.
    Empty,
    /// A range of the file.
    File {
        /// The file.
        file: F,
        /// Offset of the first byte.
        offset: u64,
        /// In bytes; 0 for an empty file.
        length: u64,
    },
    /// `multipart/byteranges`, RFC 9110 section 14.6: for each part its head and its bytes, at the end the tail.
    Multipart {
        /// The file.
        file: F,
        /// In the order they are sent.
        parts: Vec<BodyPart>,
        /// The closing boundary.
        tail: String,
    },
}

/// One part of a multipart body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyPart {
    /// Boundary and part headers.
    pub head: String,
    /// Its bytes of the file.
    pub range: ByteRange,
}

impl<F> Body<F> {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::File { length, .. } => *length,
            Self::Multipart { parts, tail, .. } => {
                parts.iter().map(|part| part.head.len() as u64 + part.range.length()).sum::<u64>() + tail.len() as u64
            }
        }
    }
}

/// Plans the response to `request` with `file` of `size` bytes, which `selected` names.
pub fn plan<F>(
    file: F,
    size: u64,
    selected: Lookup<'_>,
    own: &FileValidators,
    request: &Request<'_>,
    options: &SiteOptions,
) -> Plan<F> {
    let overrides = &request.overrides;
    let mut validators = own.for_conditions(options);
    if let Some(tag) = overrides.etag {
        validators.etag = Some(tag);
    }
    if let Some(text) = overrides.last_modified {
        validators.last_modified = date::parse(text);
    }
    let size = overrides.served.length(size);
    let verdict = conditional::evaluate(&request.conditions, &validators, options.conformance);
    let decision = match verdict {
        Verdict::Proceed => decide_range(request, options, &validators, size),
        _ => RangeDecision::Whole,
    };
    let (status, headers, body) = match (verdict, decision) {
        (Verdict::PreconditionFailed, _) => (412, HeaderList::new(), Body::Empty),
        (_, RangeDecision::Unsatisfiable) => {
            (416, vec![("content-range", Cow::Owned(unsatisfied_range(size)))], Body::Empty)
        }
        (Verdict::NotModified, _) => {
            (304, validator_headers(selected, validators.etag, own, request, options), Body::Empty)
        }
        (Verdict::Proceed, decision) => {
            let mut headers = validator_headers(selected, validators.etag, own, request, options);
            if let Some(encoding) = selected.encoding {
                headers.push(("content-encoding", Cow::Borrowed(encoding.as_str())));
            }
            // `@fastify/static` types a compressed variant even with the option off.
            let is_typed = options.content_type
                || (selected.encoding.is_some() && options.conformance == Conformance::FastifyStatic);
            let content_type = is_typed.then(|| mime::content_type(selected.plain_path()));
            let (status, body) = with_body(file, decision, (overrides.served.start, size), content_type, &mut headers);
            headers.push(("content-length", Cow::Owned(body.length().to_string())));
            (status, headers, if request.head_only { Body::Empty } else { body })
        }
    };
    let Lookup { root_index, path, encoding } = selected;
    Plan { status, head: Head { id: 0, headers, path: path.to_owned(), root_index, encoding }, body }
}

/// The headers that 304 has too, RFC 9110 section 15.4.5.
fn validator_headers(
    selected: Lookup<'_>,
    etag: Option<&str>,
    own: &FileValidators,
    request: &Request<'_>,
    options: &SiteOptions,
) -> HeaderList {
    let overrides = &request.overrides;
    let mut headers = HeaderList::with_capacity(9);
    if options.accept_ranges {
        headers.push(("accept-ranges", Cow::Borrowed("bytes")));
    }
    if let Some(cache_control) = options.caching.value(selected.plain_path(), overrides.max_age) {
        headers.push(("cache-control", cache_control));
    }
    if let Some(text) = overrides.last_modified {
        headers.push(("last-modified", Cow::Owned(text.to_owned())));
    } else if let Some(seconds) = own.last_modified {
        headers.push(("last-modified", Cow::Owned(date::format(seconds))));
    }
    if let Some(tag) = etag {
        headers.push(("etag", Cow::Owned(tag.to_owned())));
    }
    if !options.pre_compressed.is_empty() {
        headers.push(("vary", Cow::Borrowed("accept-encoding")));
    }
    headers
}

fn decide_range(request: &Request<'_>, options: &SiteOptions, validators: &Validators<'_>, size: u64) -> RangeDecision {
    let SiteOptions { accept_ranges, max_ranges, multipart, conformance, .. } = *options;
    // RFC 9110 section 14.2 defines ranges for GET only. `@fastify/send` applies them to HEAD too.
    let is_allowed = accept_ranges && (!request.head_only || conformance == Conformance::FastifyStatic);
    let Some(header) = request.conditions.range.filter(|_| is_allowed) else { return RangeDecision::Whole };
    if !conditional::range_applies(request.conditions.if_range, validators, conformance) {
        return RangeDecision::Whole;
    }
    match range::decide(header, size, &RangePolicy { max_ranges, multipart, conformance }) {
        RangeDecision::Single(ByteRange { start, end_exclusive }) => {
            let max = request.overrides.max_range_length.unwrap_or(u64::MAX);
            RangeDecision::Single(ByteRange { start, end_exclusive: end_exclusive.min(start.saturating_add(max)) })
        }
        decision => decision,
    }
}

/// Adds the type and range headers, and returns status and body. `start` and `size` delimit the served range of the file.
fn with_body<F>(
    file: F,
    decision: RangeDecision,
    (start, size): (u64, u64),
    content_type: Option<&'static str>,
    headers: &mut HeaderList,
) -> (u16, Body<F>) {
    if let RangeDecision::Several(ranges) = decision {
        let boundary = boundary();
        headers.push(("content-type", Cow::Owned(format!("multipart/byteranges; boundary={boundary}"))));
        let type_line = content_type.map_or(String::new(), |value| format!("content-type: {value}\r\n"));
        let parts = ranges.into_iter().map(|range| {
            let content_range = content_range(range, size);
            let head = format!("\r\n--{boundary}\r\n{type_line}content-range: {content_range}\r\n\r\n");
            let range = ByteRange { start: start + range.start, end_exclusive: start + range.end_exclusive };
            BodyPart { head, range }
        });
        let parts = parts.collect();
        return (206, Body::Multipart { file, parts, tail: format!("\r\n--{boundary}--\r\n") });
    }
    if let Some(content_type) = content_type {
        headers.push(("content-type", Cow::Borrowed(content_type)));
    }
    match decision {
        RangeDecision::Single(range) => {
            headers.push(("content-range", Cow::Owned(content_range(range, size))));
            (206, Body::File { file, offset: start + range.start, length: range.length() })
        }
        _ => (200, Body::File { file, offset: start, length: size }),
    }
}

/// A boundary that cannot be predicted and put into a file: hashed with keys that are random in each process.
fn boundary() -> String {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("zerosend-{:016x}{:016x}", KEYS.0.hash_one(count), KEYS.1.hash_one(count))
}

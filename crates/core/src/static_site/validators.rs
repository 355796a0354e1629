//! The validators of a version of a file: its entity tag and `Last-Modified`.
//!
//! No clock is read here: the caller says what time it is.

use super::site::SiteOptions;
use crate::fs::meta::FileMeta;
use zerosend_http::conditional::Validators;
use zerosend_http::{Conformance, etag};

const SECOND_NS: i64 = 1_000_000_000;
/// How long after its last change a file may still be changed without that being seen. Apache and nginx, too, wait until the
/// time of a file is past before they call a tag strong, RFC 9110 section 8.8.1.
const YOUNG_NS: i64 = 2 * SECOND_NS;

/// What is known of a version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileValidators {
    /// The entity tag, unless it is switched off.
    pub tag: Option<String>,
    /// `Last-Modified` in seconds since 1970: what the header says, if anything.
    pub last_modified: Option<i64>,
    /// `last_modified` is the time of this very version, so that conditions may be judged by it.
    date_counts: bool,
    /// The same file has the same validators from now on.
    pub is_final: bool,
}

impl FileValidators {
    /// The validators of the version `meta` at the time `now`, in nanoseconds since 1970.
    pub fn new(meta: &FileMeta, content_tag: Option<String>, options: &SiteOptions, now: i64) -> Self {
        let mut is_final = true;
        let tag = content_tag.filter(|_| options.etag).or_else(|| {
            options.etag.then(|| {
                if !options.strong_tags || options.content_tags {
                    return meta.weak_tag();
                }
                let tag = etag::strong(meta.size, meta.mtime_ns, meta.ctime_ns);
                is_final = meta.is_older_than(YOUNG_NS, now);
                if is_final { tag } else { format!("W/{tag}") }
            })
        });
        let modified = etag::node_mtime_ms(meta.mtime_ns).div_euclid(1000);
        let now = now.div_euclid(SECOND_NS);
        let (last_modified, date_counts) = match modified {
            _ if !options.last_modified || !meta.has_modification_time() => (None, false),
            // RFC 9110 section 8.8.2.1: not later than `Date`, which Node makes once a second.
            modified if modified > now => (Some(now - 1), false),
            modified => (Some(modified), true),
        };
        Self { tag, last_modified, date_counts, is_final }
    }

    /// The validators of bytes that were generated for this request: their times say nothing.
    pub fn of_generated(tag: String, options: &SiteOptions) -> Self {
        Self { tag: options.etag.then_some(tag), last_modified: None, date_counts: false, is_final: false }
    }

    /// What conditions are judged by.
    pub fn of_conditions(&self, options: &SiteOptions) -> Validators<'_> {
        let last_modified = match self.last_modified {
            _ if !options.last_modified => None,
            Some(date) if self.date_counts => Some(date),
            // Unknown. `@fastify/send` would take that for "not modified" in `If-Range`: a time later than all others fails
            // every condition.
            _ => (options.conformance == Conformance::FastifyStatic).then_some(i64::MAX),
        };
        Validators { etag: self.tag.as_deref(), last_modified }
    }
}

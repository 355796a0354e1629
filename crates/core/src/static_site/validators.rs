//! The validators of a version of a file: its entity tag and `Last-Modified`.
//!
//! The caller passes the current time.

use crate::fs::meta::FileMeta;
use zerosend_http::etag;
use zerosend_http::site::{FileValidators, SiteOptions};

const SECOND_NS: i64 = 1_000_000_000;
/// How long after its last change a file may change again without a visible difference. Apache and nginx, too, send a weak tag
/// until the time of the file has passed, RFC 9110 section 8.8.1.
const YOUNG_NS: i64 = 2 * SECOND_NS;

/// The validators of the version `meta` at the time `now`, in nanoseconds since 1970.
pub(super) fn of_file(meta: &FileMeta, content_tag: Option<String>, options: &SiteOptions, now: i64) -> FileValidators {
    let mut is_final = true;
    let etag = match content_tag {
        _ if !options.etag => None,
        Some(tag) => Some(tag),
        None if !options.strong_tags || options.content_tags => Some(meta.weak_tag()),
        None => {
            let tag = etag::strong(meta.size, meta.mtime_ns, meta.ctime_ns);
            is_final = meta.is_older_than(YOUNG_NS, now);
            Some(if is_final { tag } else { format!("W/{tag}") })
        }
    };
    let modified = etag::node_mtime_ms(meta.mtime_ns).div_euclid(1000);
    let now = now.div_euclid(SECOND_NS);
    let (last_modified, date_is_exact) = match modified {
        _ if !options.last_modified || !meta.has_modification_time() => (None, false),
        // RFC 9110 section 8.8.2.1: not later than `Date`, which Node updates once a second.
        modified if modified > now => (Some(now - 1), false),
        modified => (Some(modified), true),
    };
    FileValidators { etag, last_modified, date_is_exact, is_final }
}

/// The validators of a snapshot of a pseudo file, which has no meaningful times.
pub(super) fn of_snapshot(tag: String, options: &SiteOptions) -> FileValidators {
    FileValidators { etag: options.etag.then_some(tag), last_modified: None, date_is_exact: false, is_final: false }
}

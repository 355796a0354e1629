//! Header values and header lists. Names are lower case, as in Node and HTTP/2.

use std::borrow::Cow;

use super::range::ByteRange;

/// Response headers in the order they are sent.
pub type HeaderList = Vec<(&'static str, Cow<'static, str>)>;

/// A value of `Cache-Control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheControl {
    /// Freshness in seconds.
    pub max_age_secs: u64,
    /// `immutable`, RFC 8246.
    pub immutable: bool,
}

impl CacheControl {
    /// `public, max-age=N[, immutable]`.
    pub fn value(self) -> Cow<'static, str> {
        match self {
            Self { max_age_secs: 0, immutable: false } => Cow::Borrowed("public, max-age=0"),
            Self { max_age_secs, immutable: false } => Cow::Owned(format!("public, max-age={max_age_secs}")),
            Self { max_age_secs, immutable: true } => Cow::Owned(format!("public, max-age={max_age_secs}, immutable")),
        }
    }
}

/// `Content-Range` of a range, RFC 9110 section 14.4.
pub fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end_exclusive.saturating_sub(1))
}

/// `Content-Range` of a 416.
pub fn unsatisfied_range(size: u64) -> String {
    format!("bytes */{size}")
}

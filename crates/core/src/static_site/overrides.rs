//! What one response has in place of the options of its site. They are parameters of the request, so that a value of its
//! own for each request costs neither a site nor the heads that a site keeps.

/// The stretch of a file that is treated as if it were the whole: ranges and lengths count from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slice {
    /// First byte.
    pub start: u64,
    /// Last byte; `None`: to the end.
    pub last: Option<u64>,
}

impl Slice {
    /// How much of a file of `size` bytes it is.
    pub(super) fn length(self, size: u64) -> u64 {
        let rest = size.saturating_sub(self.start);
        self.last.map_or(rest, |last| rest.min(last.saturating_add(1).saturating_sub(self.start)))
    }
}

/// The default overrides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides<'a> {
    /// Serve this stretch of the file as if it were the whole.
    pub slice: Slice,
    /// The longest answer to a single range, in bytes; what is cut off is to be asked for again.
    pub max_range_length: Option<u64>,
    /// Seconds of `max-age`, where [`zerosend_http::caching::CachePolicy::otherwise`] decides.
    pub max_age: Option<u64>,
    /// The entity tag, with its quotes.
    pub etag: Option<&'a str>,
    /// `Last-Modified`. One that is no date is no validator.
    pub last_modified: Option<&'a str>,
}

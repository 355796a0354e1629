//! A request to a site.

use crate::conditional::Conditions;
use crate::path::{self, PathError, PathRules, RequestPath};

/// The path of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathInput<'a> {
    /// From a request target: percent-encoded, without the query.
    Encoded(&'a str),
    /// From code, as in `sendFile(name)`. A file that cannot be read is then an error instead of 403.
    Decoded(&'a str),
}

impl<'a> PathInput<'a> {
    /// Decodes and checks the path.
    pub fn parse(self, rules: PathRules) -> Result<RequestPath<'a>, PathError> {
        match self {
            Self::Encoded(raw) => path::decode(raw, rules),
            Self::Decoded(name) => RequestPath::from_decoded(name),
        }
    }
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// HEAD: the same headers, no body.
    pub head_only: bool,
    /// The path below the roots.
    pub path: PathInput<'a>,
    /// The request headers that select and condition the response.
    pub conditions: Conditions<'a>,
    /// What this response has instead of the options of the site.
    pub overrides: Overrides<'a>,
    /// The first root to search.
    pub root_index: usize,
}

/// The range of a file that is served as if it were the whole file: ranges and lengths count from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServedRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset of the last byte; `None`: the end of the file.
    pub last: Option<u64>,
}

impl ServedRange {
    /// Its length in a file of `size` bytes.
    pub fn length(self, size: u64) -> u64 {
        let rest = size.saturating_sub(self.start);
        self.last.map_or(rest, |last| rest.min(last.saturating_add(1).saturating_sub(self.start)))
    }
}

/// What one response has instead of the options of its site. These are parameters of the request, so that different values need
/// neither another site nor another cached head. The default overrides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides<'a> {
    /// Serve this range of the file as if it were the whole file.
    pub served: ServedRange,
    /// Maximum length of the response to a single range, in bytes. The client requests the rest.
    pub max_range_length: Option<u64>,
    /// `max-age` in seconds, where [`CachePolicy::otherwise`](crate::caching::CachePolicy::otherwise) applies.
    pub max_age: Option<u64>,
    /// The entity tag, with its quotes.
    pub etag: Option<&'a str>,
    /// `Last-Modified`. Sent as it is; a value that is not a date is not used for conditions.
    pub last_modified: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::ServedRange;

    #[test]
    fn a_served_range_ends_with_the_file_whatever_its_numbers() {
        for (start, last, size, length) in [
            (0, None, 10, 10),
            (3, None, 10, 7),
            (10, None, 10, 0),
            (11, None, 10, 0),
            (u64::MAX, None, 10, 0),
            (0, Some(0), 10, 1),
            (2, Some(4), 10, 3),
            (2, Some(1), 10, 0),
            (2, Some(u64::MAX), 10, 8),
            (0, Some(u64::MAX), u64::MAX, u64::MAX),
        ] {
            assert_eq!(ServedRange { start, last }.length(size), length, "{start} {last:?} {size}");
        }
    }
}

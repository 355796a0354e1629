//! What decides the response to one request.

use napi_derive::napi;
use zerosend_core::static_site::{Overrides, PathInput, Request, ServedRange};
use zerosend_http::conditional::Conditions;

/// The headers of a request, and what its response has in place of the options of the site.
#[napi(object)]
#[derive(Default)]
pub struct RequestConditions {
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub if_unmodified_since: Option<String>,
    pub if_range: Option<String>,
    pub range: Option<String>,
    pub cache_control: Option<String>,
    pub accept_encoding: Option<String>,
    /// First byte of the part of the file that is served in place of the whole file. Default 0.
    pub start: Option<f64>,
    /// Last byte of that part. Default: the end of the file.
    pub last: Option<f64>,
    /// Maximum length of the response to a single range, in bytes. Default: no limit.
    pub max_range_length: Option<f64>,
    /// `max-age` in seconds.
    pub max_age: Option<f64>,
    /// The entity tag of the response, with its quotes.
    pub etag: Option<String>,
    /// The `Last-Modified` of the response.
    pub last_modified: Option<String>,
}

/// A request as JavaScript gives it.
pub struct SiteRequest {
    pub path: String,
    pub encoded: bool,
    pub head_only: bool,
    pub root_index: u32,
    pub conditions: RequestConditions,
}

impl SiteRequest {
    pub fn as_core(&self) -> Request<'_> {
        let conditions = &self.conditions;
        Request {
            head_only: self.head_only,
            path: if self.encoded { PathInput::Encoded(&self.path) } else { PathInput::Decoded(&self.path) },
            conditions: Conditions {
                if_match: conditions.if_match.as_deref(),
                if_none_match: conditions.if_none_match.as_deref(),
                if_modified_since: conditions.if_modified_since.as_deref(),
                if_unmodified_since: conditions.if_unmodified_since.as_deref(),
                if_range: conditions.if_range.as_deref(),
                range: conditions.range.as_deref(),
                cache_control: conditions.cache_control.as_deref(),
                accept_encoding: conditions.accept_encoding.as_deref(),
            },
            overrides: Overrides {
                served: ServedRange {
                    start: conditions.start.unwrap_or(0.0) as u64,
                    last: conditions.last.map(|byte| byte as u64),
                },
                max_range_length: conditions.max_range_length.map(|bytes| bytes as u64),
                max_age: conditions.max_age.map(|seconds| seconds as u64),
                etag: conditions.etag.as_deref(),
                last_modified: conditions.last_modified.as_deref(),
            },
            root_index: self.root_index as usize,
        }
    }
}

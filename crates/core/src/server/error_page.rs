//! Bodies of error responses.

use super::html::page;
use zerosend_http::head_writer::reason;

/// An HTML page with the status only: internal details belong in the log.
pub(super) fn error_page(status: u16) -> String {
    page(&format!("{status} {}", reason(status)), "")
}

/// `{"statusCode": 404, "error": "Not Found"}`, as Fastify's error responses.
pub(super) fn error_json(status: u16) -> String {
    format!("{{\"statusCode\":{status},\"error\":\"{}\"}}", reason(status))
}

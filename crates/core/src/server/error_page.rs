//! The HTML body of an error response.

use super::html::page;
use zerosend_http::head_writer::reason;

/// The page shows the status only: internal details belong in the log.
pub(super) fn error_page(status: u16) -> String {
    page(&format!("{status} {}", reason(status)), "")
}

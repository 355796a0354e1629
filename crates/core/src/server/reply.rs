//! A response that is ready to be sent.

use super::error_page::error_page;
use crate::transfer::{Method, Part};
use zerosend_http::head_writer::HeadWriter;

pub(super) struct Reply {
    pub status: u16,
    /// The head, followed by a body that does not come from a file.
    pub head: Vec<u8>,
    /// Length of the head alone, in bytes.
    pub head_length: usize,
    /// The parts of a file that follow `head`.
    pub body: Vec<Part>,
    pub method: Method,
}

impl Reply {
    /// A response without file parts.
    pub fn new(status: u16, writer: HeadWriter, body: &str) -> Self {
        let head = writer.finish(body.as_bytes());
        let head_length = head.len() - body.len();
        Self { status, head, head_length, body: Vec::new(), method: Method::Auto }
    }

    /// An error response that depends on no request: for malformed input, a refused connection, or a response that failed.
    /// The connection is closed after it.
    pub fn refusal(status: u16, date_line: &[u8]) -> Self {
        let page = error_page(status);
        let mut writer = HeadWriter::new(status);
        writer.lines(date_line);
        writer.field("connection", "close");
        writer.field("content-type", "text/html; charset=utf-8");
        writer.field("content-length", &page.len().to_string());
        if status == 503 {
            writer.field("retry-after", "1");
        }
        Self::new(status, writer, &page)
    }
}

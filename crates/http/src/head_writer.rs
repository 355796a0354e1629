//! Writes the head of an HTTP/1.1 response as bytes.

use std::io::Write as _;

use super::headers::HeaderList;

/// The reason phrase of a status that a file server sends; any other status reads as 500.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

/// A response head under construction.
pub struct HeadWriter(Vec<u8>);

impl HeadWriter {
    /// Writes the status line.
    pub fn new(status: u16) -> Self {
        let mut bytes = Vec::with_capacity(512);
        if status == 200 {
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let _ = write!(bytes, "HTTP/1.1 {status} {}\r\n", reason(status));
        }
        Self(bytes)
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: &str) {
        for piece in [name, ": ", value, "\r\n"] {
            self.0.extend_from_slice(piece.as_bytes());
        }
    }

    /// Adds a list of fields.
    pub fn fields(&mut self, list: &HeaderList) {
        for (name, value) in list {
            self.field(name, value);
        }
    }

    /// Adds complete lines, each with its CRLF.
    pub fn lines(&mut self, lines: &[u8]) {
        self.0.extend_from_slice(lines);
    }

    /// Adds the empty line and `body`, and returns all bytes.
    pub fn finish(mut self, body: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0.extend_from_slice(body);
        self.0
    }
}

//! The head of an HTTP/1.1 response as bytes, and the pages that a server of files has of its own.

use std::borrow::Cow;
use std::io::Write as _;

use super::headers::HeaderList;

/// The reason phrase of the statuses that a server of files sends.
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

/// A head that is being written, line by line.
pub struct HeadWriter(Vec<u8>);

impl HeadWriter {
    /// Begins with the status line.
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

    /// Adds lines that are complete with their CRLF.
    pub fn lines(&mut self, lines: &[u8]) {
        self.0.extend_from_slice(lines);
    }

    /// The empty line and then `body`.
    pub fn finish(mut self, body: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0.extend_from_slice(body);
        self.0
    }
}

/// Text as it may stand in HTML, between tags and in quoted attributes.
pub fn escape_html(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// What all pages look like: plain, readable, light or dark as the reader likes it.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid color-mix(in srgb,currentColor 15%,transparent)}\
td:first-child{overflow-wrap:anywhere}\
td:nth-child(n+2),th:nth-child(n+2){text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:0;padding-left:.75rem}\
a{text-decoration:none}a:hover{text-decoration:underline}";

/// A page of HTML with a heading.
pub fn page(title: &str, content: &str) -> String {
    let title = escape_html(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n{content}</body>\n</html>\n"
    )
}

/// The page of an error. It says nothing but the status: what went wrong inside is for the log.
pub fn error_page(status: u16) -> String {
    page(&format!("{status} {}", reason(status)), "")
}

//! Finds the end of a request head in bytes that arrive in chunks.

use super::error::HeadError;

/// Empty lines before a request line that are ignored, RFC 9112 section 2.2.
const MAX_EMPTY_LINES: u8 = 4;

/// Scans each byte once, over any number of calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScanner {
    scanned: usize,
    /// Start of the current line.
    line: usize,
    /// Offset of the LF of the request line, once found.
    request_line: Option<usize>,
    empty_lines: u8,
}

impl HeadScanner {
    /// Continues scanning `bytes`, which must start at the same byte as in the previous call. Returns the length of the head
    /// once it is complete. A head may have up to `max` bytes.
    pub fn scan(&mut self, bytes: &[u8], max: usize) -> Result<Option<usize>, HeadError> {
        while let Some(found) = memchr::memchr(b'\n', bytes.get(self.scanned..).unwrap_or_default()) {
            let end = self.scanned + found;
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(HeadError::Bad("a line ends without CR"));
            }
            let empty = end == self.line + 1;
            self.scanned = end + 1;
            self.line = end + 1;
            match (empty, self.request_line) {
                (true, None) if self.empty_lines < MAX_EMPTY_LINES => self.empty_lines += 1,
                (true, None) => return Err(HeadError::Bad("empty lines before the request")),
                (true, Some(_)) if end < max => return Ok(Some(end + 1)),
                (true, Some(_)) => return Err(self.too_long(max)),
                (false, request_line) => self.request_line = request_line.or(Some(end)),
            }
        }
        self.scanned = bytes.len();
        if bytes.len() < max { Ok(None) } else { Err(self.too_long(max)) }
    }

    fn too_long(&self, max: usize) -> HeadError {
        if self.request_line.is_some_and(|end| end < max) { HeadError::HeadTooLong } else { HeadError::TargetTooLong }
    }

    /// True when `bytes` has more than empty lines.
    pub fn has_begun(&self, bytes: &[u8]) -> bool {
        bytes.len() > usize::from(self.empty_lines) * 2
    }
}

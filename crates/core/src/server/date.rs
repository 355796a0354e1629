//! The `Date` field.

use std::time::{SystemTime, UNIX_EPOCH};

use zerosend_http::date;

/// The line `date: ...` with its CRLF, formatted once per second.
#[derive(Default)]
pub(super) struct DateLine {
    second: u64,
    line: Vec<u8>,
}

impl DateLine {
    /// The line for the current second.
    pub fn line(&mut self) -> &[u8] {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second || self.line.is_empty() {
            self.second = second;
            self.line = format!("date: {}\r\n", date::format(i64::try_from(second).unwrap_or(i64::MAX))).into_bytes();
        }
        &self.line
    }
}

//! Message framing: the fields that determine the length of the body and whether the connection persists.

use super::error::HeadError;

/// The length of a request body, RFC 9112 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// In bytes; 0 without a body.
    Known(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// The framing fields of one head.
#[derive(Default)]
pub(super) struct Framing {
    content_length: Option<u64>,
    chunked: bool,
    pub close: bool,
    pub keep_alive: bool,
    /// `Connection` has the option `upgrade`.
    pub upgrade: bool,
    /// The field `Upgrade` is present.
    pub upgrade_field: bool,
}

impl Framing {
    pub fn read_connection(&mut self, value: &str) {
        for token in value.split(',').map(str::trim_ascii) {
            self.close |= token.eq_ignore_ascii_case("close");
            self.keep_alive |= token.eq_ignore_ascii_case("keep-alive");
            self.upgrade |= token.eq_ignore_ascii_case("upgrade");
        }
    }

    pub fn read_content_length(&mut self, value: Option<&str>) -> Result<(), HeadError> {
        let digits = value.filter(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|value| value.parse().ok()).ok_or(HeadError::Bad("malformed Content-Length"))?;
        match self.content_length.replace(length) {
            // RFC 9112 section 6.3 allows equal values to be merged; a proxy may have done otherwise, so refuse.
            Some(_) => Err(HeadError::Bad("more than one Content-Length")),
            None => Ok(()),
        }
    }

    pub fn read_transfer_encoding(&mut self, value: Option<&str>) -> Result<(), HeadError> {
        if self.chunked {
            return Err(HeadError::Bad("more than one Transfer-Encoding"));
        }
        self.chunked = value.is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        match value {
            Some(_) if self.chunked => Ok(()),
            // `gzip, chunked` is well-formed, but no other coding is implemented.
            Some(value) if value.to_ascii_lowercase().ends_with("chunked") => Err(HeadError::Coding),
            _ => Err(HeadError::Bad("malformed Transfer-Encoding")),
        }
    }

    pub fn length(&self, is_http10: bool) -> Result<BodyLength, HeadError> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(HeadError::Bad("both Content-Length and Transfer-Encoding")),
            (None, true) if is_http10 => Err(HeadError::Bad("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(BodyLength::Chunked),
            (length, false) => Ok(BodyLength::Known(length.unwrap_or(0))),
        }
    }
}

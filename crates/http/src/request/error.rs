//! Errors of the request parser, with their status.

/// Why a request head is refused. The connection must be closed afterwards: where the next request begins is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// 400, with the reason.
    Bad(&'static str),
    /// 414: the request line exceeds the limit.
    TargetTooLong,
    /// 431: the head exceeds the limit of bytes.
    HeadTooLong,
    /// 431: more fields than the limit.
    TooManyHeaders,
    /// 501: a transfer coding other than `chunked`.
    Coding,
    /// 505: a major version other than 1.
    Version,
}

impl HeadError {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::TargetTooLong => 414,
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::Coding => 501,
            Self::Version => 505,
        }
    }

    /// The reason, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bad(reason) => reason,
            Self::TargetTooLong => "request target too long",
            Self::HeadTooLong => "request head too long",
            Self::TooManyHeaders => "too many header fields",
            Self::Coding => "transfer coding not implemented",
            Self::Version => "HTTP version not supported",
        }
    }
}

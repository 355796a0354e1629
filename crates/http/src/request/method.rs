//! Request methods and tokens.

/// A request method, as a file server classifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// A method of RFC 9110 or RFC 5789 that files do not support: 405.
    NotAllowed,
    /// Any other method: 501.
    Unknown,
}

impl Method {
    pub(super) fn parse(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "CONNECT" => Self::NotAllowed,
            _ => Self::Unknown,
        }
    }
}

/// `token` of RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    let is_token_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_char)
}

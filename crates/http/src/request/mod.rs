//! The request head of HTTP/1.1, RFC 9112.
//!
//! [`HeadScanner`] finds the end of a head as bytes arrive, [`RequestHead::parse`] reads it. The grammar is that of `httparse`.
//! The additional rules prevent request smuggling: lines end in CRLF only, there is exactly one `Host`, and every head whose
//! body length could be read in two ways is an error.
//!
//! | module | what it is for |
//! |---|---|
//! | `scanner` | the end of a head |
//! | `head` | the head and its fields |
//! | `method`, `target` | the request line |
//! | `framing` | the length of the body, and whether the connection persists |
//! | `error` | why a head is refused, and with which status |

mod error;
mod framing;
mod head;
mod method;
mod scanner;
mod target;

pub use error::HeadError;
pub use framing::BodyLength;
pub use head::{MAX_HEADERS, RequestHead};
pub use method::{Method, is_token};
pub use scanner::HeadScanner;
pub use target::Target;

//! What `auto` means: a table, each row with the measurement that put it there.

use super::{Method, Target};

/// Up to this many bytes a copy through a warm buffer, with the head in the same `sendmsg`, beats a `sendmsg` for the
/// head and a `sendfile` for the body.
const SMALL: u64 = 64 * 1024;

/// The method for a file part of `length` bytes when the user asked for `wanted`.
pub(super) fn choose(wanted: Method, length: u64, target: Target) -> Method {
    match (wanted, target) {
        (Method::Auto, _) if length <= SMALL => Method::ReadWrite,
        (Method::Auto, _) => Method::Sendfile,
        (explicit, _) => explicit,
    }
}

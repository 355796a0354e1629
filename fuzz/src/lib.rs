//! The fuzz targets: one function each, which panics when an invariant does not hold.
//!
//! `fuzz_targets/` runs them with libFuzzer; `crates/core/tests/fuzz.rs` includes this file and runs them with mutations of the
//! corpus, on a stable compiler.

mod chunked;
mod conditional;
mod negotiation;
mod path;
mod proxy_protocol;
mod range;
mod request;
mod ring;

pub use chunked::chunked;
pub use conditional::conditional;
pub use negotiation::negotiation;
pub use path::path;
pub use proxy_protocol::proxy_protocol;
pub use range::range;
pub use request::request;
pub use ring::ring;

/// A target by name.
pub type Target = fn(&[u8]);

/// All targets.
pub const TARGETS: &[(&str, Target)] = &[
    ("chunked", chunked),
    ("conditional", conditional),
    ("negotiation", negotiation),
    ("path", path),
    ("proxy_protocol", proxy_protocol),
    ("range", range),
    ("request", request),
    ("ring", ring),
];

/// Splits off the first `N` bytes, which select the options of a target; zeros where there are fewer.
fn take<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = data.split_at(N.min(data.len()));
    let mut bytes = [0; N];
    bytes[..head.len()].copy_from_slice(head);
    (bytes, rest)
}

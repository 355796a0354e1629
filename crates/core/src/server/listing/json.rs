//! A directory listing as JSON.

use std::fmt::Write as _;

use crate::fs::directory::{Entry, Listing};
use crate::server::json::json_string;
use zerosend_http::date;

/// `{"path": ..., "entries": [{"name", "type", "size", "modified"}, ...], "omitted": n}`, sizes in bytes, times as in
/// `Last-Modified`.
pub(in crate::server) fn json(listing: &Listing, path: &str) -> String {
    let mut text = format!("{{\"path\":{},\"entries\":[", json_string(path));
    for (at, Entry { name, is_directory, size, modified }) in listing.entries.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let kind = if *is_directory { "directory" } else { "file" };
        let _ = write!(
            text,
            "{comma}{{\"name\":{},\"type\":\"{kind}\",\"size\":{size},\"modified\":\"{}\"}}",
            json_string(name),
            date::format(*modified)
        );
    }
    let _ = write!(text, "],\"omitted\":{}}}", listing.omitted);
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn names_are_escaped_in_json() {
        let json = json(&sample(), "/\"\\\u{1}</");
        assert!(json.starts_with("{\"path\":\"/\\\"\\\\\\u0001\\u003c/\",\"entries\":[{\"name\":\"a?#%b\""), "{json}");
        assert!(json.ends_with("\"omitted\":3}"));
    }
}

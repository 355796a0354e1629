//! A directory listing as JSON.

use std::fmt::Write as _;

use crate::fs::directory::{Entry, Listing};
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

/// Quotes a JSON string, RFC 8259 section 7. The result is also safe inside HTML.
pub(in crate::server) fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control @ ('\0'..='\x1f' | '<' | '\u{7f}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
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

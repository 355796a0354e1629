//! The list of a directory, as a page or as JSON.

use std::fmt::Write as _;

use super::date;
use super::response::{escape_html, page};

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without a slash.
    pub name: String,
    /// A directory.
    pub is_directory: bool,
    /// Bytes of a file; 0 for a directory.
    pub size: u64,
    /// Last modification in seconds since 1970.
    pub modified: i64,
}

/// The names in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Directories first, then by name.
    pub entries: Vec<Entry>,
    /// How many more there are, when it was cut off.
    pub omitted: u64,
}

impl Listing {
    /// Puts the entries in order.
    pub fn new(mut entries: Vec<Entry>, omitted: u64) -> Self {
        entries.sort_unstable_by(|one, other| {
            other.is_directory.cmp(&one.is_directory).then_with(|| one.name.cmp(&other.name))
        });
        Self { entries, omitted }
    }

    /// A page. `path` is the directory's, decoded, with both slashes; `is_top` leaves out the way up.
    pub fn html(&self, path: &str, is_top: bool) -> String {
        let mut rows =
            String::from("<table>\n<thead><tr><th>Name</th><th>Size</th><th>Modified</th></tr></thead>\n<tbody>\n");
        if !is_top {
            rows.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
        }
        for Entry { name, is_directory, size, modified } in &self.entries {
            let slash = if *is_directory { "/" } else { "" };
            let href = encode_segment(name);
            let name = escape_html(name);
            let size = if *is_directory { String::new() } else { readable_size(*size) };
            let modified = date::format(*modified);
            let _ = writeln!(
                rows,
                "<tr><td><a href=\"./{href}{slash}\">{name}{slash}</a></td><td>{size}</td><td>{modified}</td></tr>"
            );
        }
        rows.push_str("</tbody>\n</table>\n");
        if self.omitted > 0 {
            let _ = writeln!(rows, "<p>… and {} more.</p>", self.omitted);
        }
        page(&format!("Index of {path}"), &rows)
    }

    /// `{"path": ..., "entries": [{"name", "type", "size", "modified"}, ...], "omitted": n}`, sizes in bytes, times as in
    /// `Last-Modified`.
    pub fn json(&self, path: &str) -> String {
        let mut text = format!("{{\"path\":{},\"entries\":[", json_string(path));
        for (at, Entry { name, is_directory, size, modified }) in self.entries.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let kind = if *is_directory { "directory" } else { "file" };
            let _ = write!(
                text,
                "{comma}{{\"name\":{},\"type\":\"{kind}\",\"size\":{size},\"modified\":\"{}\"}}",
                json_string(name),
                date::format(*modified)
            );
        }
        let _ = write!(text, "],\"omitted\":{}}}", self.omitted);
        text
    }
}

/// A segment of a path as it may stand in a URL, RFC 3986 section 2.3; everything else is escaped.
pub fn encode_segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A string of JSON, RFC 8259 section 7, safe inside of HTML too.
pub fn json_string(text: &str) -> String {
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

/// `999 B`, `1.4 KiB`, `20 MiB`: at least two digits of what there is.
fn readable_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Listing {
        let entry = |name: &str, is_directory, size| Entry { name: name.into(), is_directory, size, modified: 0 };
        Listing::new(vec![entry("z.txt", false, 1536), entry("<b>&\"'.html", false, 10), entry("a?#%b", true, 0)], 3)
    }

    #[test]
    fn names_are_harmless_in_a_page() {
        let html = sample().html("/x/<script>/", false);
        assert!(html.contains("Index of /x/&lt;script&gt;/") && !html.contains("<script>"));
        assert!(html.contains("<a href=\"./%3Cb%3E%26%22%27.html\">&lt;b&gt;&amp;&quot;&#39;.html</a>"));
        assert!(html.contains("<a href=\"./a%3F%23%25b/\">a?#%b/</a>"));
        assert!(html.contains("1.5 KiB") && html.contains("and 3 more"));
        assert!(html.find("a?#%b/") < html.find("z.txt"), "directories first");
    }

    #[test]
    fn names_are_harmless_in_json() {
        let json = sample().json("/\"\\\u{1}</");
        assert!(json.starts_with("{\"path\":\"/\\\"\\\\\\u0001\\u003c/\",\"entries\":[{\"name\":\"a?#%b\""), "{json}");
        assert!(json.ends_with("\"omitted\":3}"));
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10_240, "10 KiB"), (1 << 20, "1.0 MiB")]
        {
            assert_eq!(readable_size(bytes), text);
        }
    }
}

//! A directory listing as an HTML page.

use std::fmt::Write as _;

use crate::fs::directory::{Entry, Listing};
use crate::server::html::{escape_html, page};
use zerosend_http::date;

/// `path` is the decoded path of the directory, with a slash at both ends. `is_top` omits the link to the parent.
pub(in crate::server) fn html(listing: &Listing, path: &str, is_top: bool) -> String {
    let mut rows =
        String::from("<table>\n<thead><tr><th>Name</th><th>Size</th><th>Modified</th></tr></thead>\n<tbody>\n");
    if !is_top {
        rows.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for Entry { name, is_directory, size, modified } in &listing.entries {
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
    if listing.omitted > 0 {
        let _ = writeln!(rows, "<p>… and {} more.</p>", listing.omitted);
    }
    page(&format!("Index of {path}"), &rows)
}

/// Percent-encodes a path segment: everything but the unreserved characters of RFC 3986 section 2.3.
fn encode_segment(name: &str) -> String {
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

/// `999 B`, `1.4 KiB`, `20 MiB`: two digits or more.
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
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn names_are_escaped_in_html() {
        let html = html(&sample(), "/x/<script>/", false);
        assert!(html.contains("Index of /x/&lt;script&gt;/") && !html.contains("<script>"));
        assert!(html.contains("<a href=\"./%3Cb%3E%26%22%27.html\">&lt;b&gt;&amp;&quot;&#39;.html</a>"));
        assert!(html.contains("<a href=\"./a%3F%23%25b/\">a?#%b/</a>"));
        assert!(html.contains("1.5 KiB") && html.contains("and 3 more"));
        assert!(html.find("a?#%b/") < html.find("z.txt"), "directories come first");
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10_240, "10 KiB"), (1 << 20, "1.0 MiB")]
        {
            assert_eq!(readable_size(bytes), text);
        }
    }
}

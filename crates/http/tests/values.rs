//! Content types and header values.

use zerosend_http::headers::{CacheControl, content_range, unsatisfied_range};
use zerosend_http::mime::{DEFAULT_TYPE, by_extension, content_type};
use zerosend_http::range::ByteRange;

#[test]
fn content_types_equal_those_of_mime_3() {
    let rows = [
        ("index.html", "text/html; charset=utf-8"),
        ("a/b.HTML", "text/html; charset=utf-8"),
        ("app.js", "application/javascript; charset=utf-8"),
        ("app.mjs", "application/javascript; charset=utf-8"),
        ("data.json", "application/json; charset=utf-8"),
        ("data.json5", "application/json5; charset=utf-8"),
        ("app.webmanifest", "application/manifest+json"),
        ("style.css", "text/css; charset=utf-8"),
        ("x.tar.gz", "application/gzip"),
        ("x.svg", "image/svg+xml"),
        ("x.wasm", "application/wasm"),
        ("x.mp4", "video/mp4"),
        ("x.woff2", "font/woff2"),
        ("x.123", "application/vnd.lotus-1-2-3"),
        ("x.zmm", "application/vnd.handheld-entertainment+xml"),
        ("x.unknown", DEFAULT_TYPE),
        ("html", DEFAULT_TYPE),
        (".html", DEFAULT_TYPE),
        ("d.html/file", DEFAULT_TYPE),
        ("x.", DEFAULT_TYPE),
        ("", DEFAULT_TYPE),
    ];
    for (path, expected) in rows {
        assert_eq!(content_type(path), expected, "{path}");
    }
    assert_eq!(by_extension(&"x".repeat(10_000)), None);
    assert_eq!(by_extension("é"), None);
}

#[test]
fn header_values_are_formatted() {
    assert_eq!(CacheControl::default().value(), "public, max-age=0");
    assert_eq!(CacheControl { max_age_secs: 60, immutable: false }.value(), "public, max-age=60");
    assert_eq!(CacheControl { max_age_secs: 0, immutable: true }.value(), "public, max-age=0, immutable");
    assert_eq!(content_range(ByteRange { start: 2, end_exclusive: 5 }, 10), "bytes 2-4/10");
    assert_eq!(unsatisfied_range(10), "bytes */10");
}

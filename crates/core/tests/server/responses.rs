//! Responses: files, conditions, ranges, listings, metrics, the access log.

use std::sync::{Arc, Mutex};

use zerosend_core::fs::Symlinks;
use zerosend_core::server::ListFormat;
use zerosend_core::server::access_log::{AccessLog, Entry};
use zerosend_core::static_site::Dotfiles;
use zerosend_http::negotiation::Encoding;

use super::server_support::{MIB, Running, body, field, pattern, request_with_close, status, wait_for};

#[test]
fn files_directories_and_redirects_have_the_right_heads() {
    let running = Running::start();
    let response = running.get("/a.txt", "");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\ndate: "), "{response}");
    assert_eq!(field(&response, "content-length"), Some("10"));
    assert_eq!(field(&response, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(field(&response, "accept-ranges"), Some("bytes"));
    assert_eq!(field(&response, "connection"), Some("close"));
    assert!(field(&response, "etag").is_some() && field(&response, "last-modified").is_some());
    assert_eq!(body(&response), "0123456789");

    let head = running.exchange(request_with_close("HEAD", "/a.txt", "").as_bytes());
    assert_eq!((status(&head), field(&head, "content-length"), body(&head)), (200, Some("10"), ""));
    assert_eq!(body(&running.get("/", "")), "<h1>top</h1>");
    assert_eq!(body(&running.get("/dir/", "")), "<h1>dir</h1>");
    assert_eq!(body(&running.get("/a%40b%2Cc%3Ad.txt", "")), "reserved");
    assert_eq!(field(&running.get("/empty.txt", ""), "content-length"), Some("0"));
    let redirect = running.get("/dir?q=1", "");
    assert_eq!((status(&redirect), field(&redirect, "location")), (301, Some("/dir/?q=1")));
    let missing = running.get("/nothing", "");
    assert_eq!(status(&missing), 404);
    assert!(!missing.contains(&*running.root.path().to_string_lossy()));
    assert_eq!(body(&running.get("/big.bin", "")).len(), String::from_utf8_lossy(pattern(12 * MIB)).len());
}

#[test]
fn conditional_and_range_requests_are_evaluated() {
    let running = Running::start();
    let plain = running.get("/a.txt", "");
    let (etag, modified) = (field(&plain, "etag").unwrap(), field(&plain, "last-modified").unwrap());
    let with = |headers: &str| running.get("/a.txt", headers);
    let fresh = with(&format!("If-None-Match: {etag}\r\n"));
    assert_eq!((status(&fresh), body(&fresh), field(&fresh, "content-length")), (304, "", None));
    assert_eq!(
        status(&with(&format!("If-None-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"))),
        304,
        "the values of field lines are joined"
    );
    assert_eq!(status(&with(&format!("If-Modified-Since: {modified}\r\n"))), 304);
    assert_eq!(status(&with("If-None-Match: \"x\"\r\n")), 200);
    assert_eq!(status(&with("If-Match: \"x\"\r\n")), 412);
    assert_eq!(status(&with("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n")), 412);
    let part = with("Range: bytes=2-4\r\n");
    assert_eq!((status(&part), field(&part, "content-range"), body(&part)), (206, Some("bytes 2-4/10"), "234"));
    assert_eq!(body(&with("Range: bytes=-3\r\n")), "789");
    assert_eq!(body(&with(&format!("Range: bytes=7-\r\nIf-Range: {modified}\r\n"))), "789");
    assert_eq!(status(&with("Range: bytes=7-\r\nIf-Range: \"x\"\r\n")), 200);
    assert_eq!(status(&with("Range: bytes=1-2\r\nRange: bytes=3-4\r\n")), 200, "a repeated Range is ignored");
    let beyond = with("Range: bytes=10-\r\n");
    assert_eq!((status(&beyond), field(&beyond, "content-range")), (416, Some("bytes */10")));
    let parts = with("Range: bytes=0-1,8-9\r\n");
    let boundary = field(&parts, "content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range, bytes| {
        format!(
            "\r\n--{boundary}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-range: bytes {range}/10\r\n\r\n{bytes}"
        )
    };
    assert_eq!(body(&parts), format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "01"), part("8-9", "89")));
    assert_eq!(field(&parts, "content-length").unwrap().parse(), Ok(body(&parts).len()));
}

#[test]
fn a_precompressed_file_is_negotiated() {
    let running = Running::new(|_, site| site.pre_compressed = vec![Encoding::Br]);
    let response = running.get("/app.js", "Accept-Encoding: br\r\n");
    assert_eq!((field(&response, "content-encoding"), field(&response, "vary")), (Some("br"), Some("accept-encoding")));
    assert_eq!(body(&response), "brotli");
    let response = running.get("/app.js", "Accept-Encoding: br;q=0\r\n");
    assert_eq!((field(&response, "vary"), body(&response)), (Some("accept-encoding"), "plain"));
}

#[test]
fn other_methods_are_refused_and_options_is_answered() {
    let running = Running::new(|options, _| {
        options.cors = true;
        options.headers = vec![("Access-Control-Allow-Origin".into(), "*".into())];
    });
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let response = running.exchange(request_with_close(method, "/a.txt", "").as_bytes());
        assert_eq!((status(&response), field(&response, "allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    assert_eq!(status(&running.exchange(request_with_close("CONNECT", "x:443", "").as_bytes())), 405);
    assert_eq!(status(&running.exchange(request_with_close("BREW", "/a.txt", "").as_bytes())), 501);
    for target in ["/a.txt", "*", "http://x"] {
        let response = running.exchange(request_with_close("OPTIONS", target, "").as_bytes());
        assert_eq!((status(&response), field(&response, "allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
        assert_eq!(field(&response, "content-length"), None);
    }
    let preflight = running.exchange(request_with_close("OPTIONS", "/a.txt", "Origin: http://y\r\n").as_bytes());
    assert_eq!(field(&preflight, "access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(field(&running.get("/a.txt", ""), "access-control-allow-origin"), Some("*"));
}

#[test]
fn directories_are_listed_as_html_or_json() {
    let running = Running::with_mount(|_, site, mount| {
        site.listing = true;
        site.dotfiles = Dotfiles::Ignore;
        mount.list = Some(ListFormat::Html);
    });
    let html = running.get("/bare/", "");
    assert_eq!((status(&html), field(&html, "content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(html.contains("<a href=\"./x%20%26%20%3Cy%3E.txt\">x &amp; &lt;y&gt;.txt</a>"), "{html}");
    assert!(!html.contains(".hidden") && html.contains("Index of /bare/"));
    let json = running.get("/bare/", "Accept: application/json\r\n");
    assert!(body(&json).starts_with(
        "{\"path\":\"/bare/\",\"entries\":[{\"name\":\"x & \\u003cy>.txt\",\"type\":\"file\",\"size\":3,"
    ));
    let redirect = running.get("/bare", "");
    assert_eq!((status(&redirect), field(&redirect, "location")), (301, Some("/bare/")));
    assert_eq!(body(&running.get("/dir/", "")), "<h1>dir</h1>", "an index takes precedence over a listing");
    assert_eq!(status(&running.get("/bare/.hidden", "")), 404);
    assert_eq!(status(&running.get("/none/", "")), 404);
}

#[test]
fn metrics_and_the_access_log_count_all_requests() {
    let entries = Arc::new(Mutex::new(Vec::<Entry>::new()));
    let running = Running::new(|options, _| {
        options.metrics_path = Some("/-/metrics".into());
        let entries = entries.clone();
        let sink = Box::new(move |batch: &[Entry]| entries.lock().expect("no panic").extend_from_slice(batch));
        options.log = Some(Arc::new(AccessLog::new(sink).expect("a thread")));
    });
    running.get("/a.txt", "User-Agent: test\r\nReferer: /r\r\n");
    running.get("/nothing?q", "");
    running.exchange(b"nonsense\r\n\r\n");
    let text = running.get("/-/metrics", "");
    assert_eq!(field(&text, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.contains("\nzerosend_requests_total 4\n"), "{text}");
    assert!(text.contains("zerosend_responses_total{class=\"2xx\"} 1\n") && text.contains("{class=\"4xx\"} 2\n"));
    wait_for("four entries", || entries.lock().expect("no panic").len() == 4);
    let entries = entries.lock().expect("no panic");
    let first = &entries[0];
    assert_eq!((&*first.method, &*first.target, first.status, first.aborted), ("GET", "/a.txt", 200, false));
    assert_eq!((first.user_agent.as_deref(), first.referer.as_deref()), (Some("test"), Some("/r")));
    assert!(
        first.bytes == 10 && first.head_bytes > 100 && first.client.is_some(),
        "bytes of body and head are counted"
    );
    assert_eq!((&*entries[1].target, entries[1].status), ("/nothing?q", 404));
    assert_eq!(entries[2].status, 400);
}

#[test]
fn a_denied_symbolic_link_is_403() {
    let running = Running::with_symlinks(Symlinks::Deny);
    std::os::unix::fs::symlink("a.txt", running.root.path().join("link")).expect("a link");
    assert_eq!(status(&running.get("/link", "")), 403);
}

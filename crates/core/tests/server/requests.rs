//! Request heads and bodies: versions, targets, pipelining, malformed input.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use zerosend_core::server::Limit;

use super::server_support::{
    MIB, Running, body, field, pattern, read_until_closed, request_with_close, status, wait_for,
};

#[test]
fn versions_and_persistence_follow_the_rfc() {
    let running = Running::start();
    let old = running.exchange(b"GET /a.txt HTTP/1.0\r\n\r\n");
    assert_eq!((status(&old), field(&old, "connection")), (200, Some("close")));
    let kept =
        running.exchange(b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /empty.txt HTTP/1.0\r\n\r\n");
    assert_eq!(field(&kept, "connection"), Some("keep-alive"));
    assert_eq!(kept.matches("HTTP/1.1 200").count(), 2);
    for (line, expected) in [
        ("GET /a.txt HTTP/2.0", 505),
        ("GET /a.txt HTTP/1.10", 400),
        ("PRI * HTTP/2.0", 505),
        ("GET /a.txt", 400),
        ("GET  /a.txt HTTP/1.1", 400),
        ("GET /a.txt http/1.1", 400),
        ("/a.txt", 400),
    ] {
        assert_eq!(status(&running.exchange(format!("{line}\r\nHost: x\r\n\r\n").as_bytes())), expected, "{line}");
    }
    let leading = running.exchange(b"\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&leading), 200, "empty lines before a request are skipped");
    assert_eq!(status(&running.exchange(&b"\r\n".repeat(50))), 400);
}

#[test]
fn pipelined_requests_of_a_half_closed_client_are_answered_in_order() {
    let running = Running::start();
    let mut stream = running.connect();
    let mut requests = String::new();
    for at in 0..200 {
        let target = ["/a.txt", "/big.bin", "/nothing", "/empty.txt"][at % 4];
        let range = if at % 4 == 1 { format!("Range: bytes={at}-{}\r\n", at * 1000) } else { String::new() };
        requests += &format!("GET {target} HTTP/1.1\r\nHost: x\r\n{range}\r\n");
    }
    let writer = std::thread::spawn({
        let mut stream = stream.try_clone().expect("a clone");
        move || {
            for piece in requests.as_bytes().chunks(97) {
                stream.write_all(piece).expect("sent");
            }
            stream.shutdown(Shutdown::Write).expect("half-closed");
        }
    });
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("all responses");
    writer.join().expect("written");
    let bytes = pattern(12 * MIB);
    let mut rest = &all[..];
    for at in 0..200 {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        let length: usize = field(&head, "content-length").expect("a length").parse().expect("a number");
        let content = &rest[end..end + length];
        match at % 4 {
            0 => assert_eq!(content, b"0123456789"),
            1 => assert_eq!(content, &bytes[at..=at * 1000]),
            2 => assert_eq!(status(&head), 404),
            _ => assert_eq!((status(&head), length), (200, 0)),
        }
        rest = &rest[end + length..];
    }
    assert!(rest.is_empty());
}

#[test]
fn targets_and_hosts_are_validated() {
    let running = Running::start();
    assert_eq!(status(&running.get("http://other/a.txt", "")), 200, "absolute-form");
    assert_eq!(status(&running.get("HTTPS://other:8080/a.txt?x", "")), 200);
    assert_eq!(body(&running.get("http://other", "")), "<h1>top</h1>");
    for target in ["*", "a.txt", "ftp://x/a.txt", "http:///a.txt", "http://u@x/a.txt", "/a.txt#x", "/\u{e9}"] {
        assert_eq!(status(&running.get(target, "")), 400, "{target}");
    }
    let raw = |head: &str| status(&running.exchange(head.as_bytes()));
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\n\r\n"), 400, "no Host");
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), 400, "two Host fields");
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: x/y\r\n\r\n"), 400);
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: x y\r\n\r\n"), 400);
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n"), 200);
    for path in ["/../etc/passwd", "/%2e%2e/etc/passwd", "/a.txt%00", "/dir\\index.html"] {
        assert_eq!(status(&running.get(path, "")), 403, "{path}");
    }
    assert_eq!(status(&running.get("/%zz", "")), 400);
    assert_eq!(status(&running.get("/dir%2Findex.html", "")), 404, "an escaped slash does not separate segments");
}

/// Request smuggling: two servers that read these heads may disagree about where the request ends.
#[test]
fn ambiguous_body_lengths_are_refused() {
    let running = Running::start();
    let head = "GET /a.txt HTTP/1.1\r\nHost: x\r\n";
    for (shape, expected) in [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("Content-Length: 3, 3\r\n\r\nabc", 400),
        ("Content-Length: +3\r\n\r\nabc", 400),
        ("Content-Length: -1\r\n\r\n", 400),
        ("Content-Length: 0x3\r\n\r\nabc", 400),
        ("Content-Length: \r\n\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n\r\n", 400),
        ("Content-Length : 3\r\n\r\nabc", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: identity\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, identity\r\n\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        ("X: a\r\n b\r\n\r\n", 400),
        (" X: a\r\n\r\n", 400),
        ("X: a\nY: b\r\n\r\n", 400),
        ("X: a\rY: b\r\n\r\n", 400),
        ("X: a\0b\r\n\r\n", 400),
        ("X\r\n\r\n", 400),
        (": a\r\n\r\n", 400),
        ("X Y: a\r\n\r\n", 400),
    ] {
        let mut bytes = format!("{head}{shape}").into_bytes();
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = running.exchange(&bytes);
        assert_eq!(status(&response), expected, "{shape:?}");
        assert_eq!(field(&response, "connection"), Some("close"), "{shape:?}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{shape:?}: the bytes after it are not answered");
    }
    let bare = running.exchange(b"GET /a.txt HTTP/1.1\nHost: x\n\n");
    assert_eq!(status(&bare), 400, "bare LF");
    let old = running.exchange(b"GET /a.txt HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(status(&old), 400);
}

#[test]
fn bodies_are_discarded_or_refused() {
    let running = Running::start();
    let get = "GET /a.txt HTTP/1.1\r\nHost: x\r\n";
    let last = "GET /empty.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for request in [
        format!("{get}Content-Length: 5\r\n\r\nhello{last}"),
        format!("{get}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n{last}"),
        format!("POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{}{last}", "x".repeat(60000)),
    ] {
        let response = running.exchange(request.as_bytes());
        assert_eq!(response.matches("HTTP/1.1 ").count(), 2, "{response}");
        assert!(response.contains("content-length: 0\r\n"));
    }
    let long = running.exchange(format!("{get}Content-Length: 65537\r\n\r\n").as_bytes());
    assert_eq!((status(&long), field(&long, "connection")), (413, Some("close")));
    assert_eq!(running.server.stats().limits[Limit::Body as usize], 1);
    let chunks =
        format!("{get}Transfer-Encoding: chunked\r\n\r\n{}", format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(20));
    assert_eq!(running.exchange(chunks.as_bytes()).matches("HTTP/1.1 ").count(), 1);
    assert_eq!(running.server.stats().limits[Limit::Body as usize], 2);
    let broken = running.exchange(format!("{get}Transfer-Encoding: chunked\r\n\r\nzz\r\n{last}").as_bytes());
    assert_eq!(broken.matches("HTTP/1.1 ").count(), 1, "{broken}");
    // The client gets the final status instead of 100.
    let expects = running.exchange(format!("{get}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n").as_bytes());
    assert_eq!((status(&expects), field(&expects, "connection")), (200, Some("close")));
    assert_eq!(status(&running.get("/a.txt", "Expect: the-moon\r\n")), 417);
}

#[test]
fn a_head_may_arrive_byte_by_byte() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.set_nodelay(true).expect("no delay");
    for byte in request_with_close("GET", "/a.txt", "Range: bytes=3-5\r\n").as_bytes() {
        stream.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(body(&read_until_closed(&mut stream)), "345");
}

/// Afterwards the server still serves requests.
#[test]
fn random_bytes_get_a_response_or_a_close() {
    let running = Running::new(|options, _| options.limits.head_timeout = Duration::from_millis(100));
    let words: [&[u8]; 24] = [
        b"GET",
        b" ",
        b"/a.txt",
        b"HTTP/1.1",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: x\r\n",
        b":",
        b"\0",
        b"\xff\xfe",
        b"%2e",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"Range: bytes=",
        b"0-",
        b"5\r\nhello\r\n",
        b"Connection: close\r\n",
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b",",
        b"{",
        b"a",
    ];
    let count = std::env::var("ZEROSEND_RANDOM_HEADS").ok().and_then(|count| count.parse().ok()).unwrap_or(4000);
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for round in 0..count {
        let mut stream = running.connect();
        let mut bytes = if round % 2 == 0 { b"GET /a.txt HTTP/1.1\r\nHost: x\r\n".to_vec() } else { Vec::new() };
        for _ in 0..random(20) {
            bytes.extend_from_slice(words[random(words.len())]);
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let response = read_until_closed(&mut stream);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 "), "{bytes:?}: {response}");
    }
    assert_eq!(body(&running.get("/a.txt", "")), "0123456789");
    wait_for("the connections to close", || running.server.stats().connections == 0);
    assert_eq!(running.server.stats().failures, 0);
}

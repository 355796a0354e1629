//! Valid request heads of real clients, and invalid ones that must be refused.

use std::fs;
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};
use zerosend_core::net::Address;

use crate::server_support::{Running, field, read_response, read_to_end, request, status, wait_for};

#[test]
fn invalid_hosts_are_refused() {
    let running = Running::start();
    let ask = |host: &str| {
        status(
            &running.exchange(format!("GET /a.txt HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()),
        )
    };
    for host in [
        "a",
        "a:80",
        "a:",
        "a:65535",
        "a:0080",
        "A.example",
        "a.example.",
        "a_b.example",
        "-a",
        "1.2.3.4:5",
        "[::1]",
        "[::1]:80",
        "[::ffff:1.2.3.4]",
        "[v1.x:y]",
        "%61",
        "a%2Db",
        "xn--bcher-kva.example",
        "a~b!$&'()*+,;=",
        "",
    ] {
        assert_eq!(ask(host), 200, "{host:?}");
    }
    for host in [
        "a:1:2",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]80",
        "x[::1]",
        "[]",
        "[::g]",
        "[fe80::1%25eth0]",
        "[1.2.3.4]",
        "[v.x]",
        "..a",
        ".a",
        "a..b",
        "..",
        ".",
        "a:99999",
        "a:65536",
        "a:-1",
        "a:x",
        "a:80x",
        "a:8 0",
        "u@a",
        "u:p@a",
        "a/",
        "/a",
        "a?b",
        "a#b",
        "a\\b",
        "<a>",
        "a%",
        "a%2",
        "a%zz",
        "a,b:80:1",
        "http://a",
        "a b",
        "\"a\"",
    ] {
        assert_eq!(ask(host), 400, "{host:?}");
    }
    for target in
        ["http://a:1:2/a.txt", "http://:80/a.txt", "http://[::1/a.txt", "http://u@a/a.txt", "http://a:99999/a.txt"]
    {
        assert_eq!(status(&running.exchange(request(target, "Connection: close\r\n").as_bytes())), 400, "{target}");
    }
    // The authority of the target takes precedence over Host.
    assert_eq!(status(&running.exchange(request("http://other:81/a.txt", "Connection: close\r\n").as_bytes())), 200);
    for target in ["a", "a:", ":1", "a:1:2", "a:99999"] {
        let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&running.exchange(connect.as_bytes())), 400, "{target}");
    }
}

#[test]
fn a_later_minor_version_is_treated_as_1_1() {
    let running = Running::start();
    for version in ["1.2", "1.9"] {
        let ask = |rest: &str| running.exchange(format!("GET /a.txt HTTP/{version}\r\n{rest}\r\n").as_bytes());
        let response = ask("Host: x\r\nConnection: close\r\nRange: bytes=2-3\r\n");
        assert!(response.starts_with("HTTP/1.1 206 ") && response.ends_with("\r\n\r\n23"), "{response}");
        assert_eq!(status(&ask("")), 400, "HTTP/1.1 requires Host");
        assert_eq!(status(&ask("Host: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n")), 400);
        assert_eq!(status(&ask("Host: x\r\nX : y\r\n")), 400);
        assert_eq!(status(&ask(&"X: y\r\n".repeat(200))), 431);
    }
    let two = format!("GET /a.txt HTTP/1.3\r\nHost: x\r\n\r\n{}", request("/a.txt", "Connection: close\r\n"));
    assert_eq!(running.exchange(two.as_bytes()).matches("HTTP/1.1 200").count(), 2, "the connection persists");
    for (line, expected) in [
        ("GET /a.txt HTTP/2.0", 505),
        ("GET /a.txt HTTP/0.9", 505),
        ("GET /a.txt HTTP/1.22", 400),
        ("GET /a.txt HTTP/1.", 400),
        ("GET /a.txt HTTP/11", 400),
        ("GET /a.txt HTTPS/1.2", 400),
        ("GET  /a.txt HTTP/1.2", 400),
        ("GET /a b HTTP/1.2", 400),
        ("G(T /a.txt HTTP/1.2", 400),
        ("GET /\u{e9} HTTP/1.2", 400),
    ] {
        let response = running.exchange(format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        assert_eq!(status(&response), expected, "{line}");
    }
}

#[test]
fn a_head_truncated_by_a_half_close_gets_400() {
    let running = Running::start();
    for (sent, expected) in
        [("G", 400), ("GET /a.txt HTTP/1.1\r\n", 400), ("GET /a.txt HTTP/1.1\r\nHost: x\r\n", 400), ("\r\n", 0)]
    {
        let mut stream = running.connect();
        stream.write_all(request("/a.txt", "").as_bytes()).expect("sent");
        stream.write_all(sent.as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half-closed");
        let all = String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned();
        let (first, rest) = all.split_at(all.find("0123456789").expect("the response before") + 10);
        assert_eq!((status(first), status(rest)), (200, expected), "{sent:?}");
    }
}

#[test]
fn expectations_of_http_1_0_are_ignored() {
    let running = Running::start();
    assert_eq!(status(&running.exchange(b"GET /a.txt HTTP/1.0\r\nExpect: the-moon\r\n\r\n")), 200);
}

#[test]
fn empty_and_dot_segments_are_removed() {
    let running = Running::new(|options, _| options.metrics_path = Some("/-/metrics".into()));
    fs::create_dir_all(running.root.path().join("evil.example/deep")).expect("a directory");
    fs::write(running.root.path().join("evil.example/deep/.dot"), b"dot").expect("a file");
    let ask = |target: &str| running.exchange(request(target, "Connection: close\r\n").as_bytes());
    for target in [
        "//a.txt",
        "/./a.txt",
        "/.//./a.txt",
        "///a.txt",
        "/%2e/a.txt",
        "/%2E//a.txt",
        "http://x//a.txt",
        "//a.txt?q=//",
    ] {
        let response = ask(target);
        assert!(status(&response) == 200 && response.ends_with("0123456789"), "{target}: {response}");
    }
    assert!(ask("/evil.example//deep/./.dot").ends_with("dot"), "a name that starts with a dot is not a dot segment");
    for target in ["/../a.txt", "//../a.txt", "/./../a.txt", "/a/../a.txt", "/%2e%2e/a.txt", "/.%2e/a.txt", "//\\a.txt"]
    {
        assert_eq!(status(&ask(target)), 403, "{target}");
    }
    assert_eq!(status(&ask("/%2F/a.txt")), 404, "an escaped slash does not separate segments");
    assert_eq!(status(&ask("//-/metrics")), 200);
    // A location that starts with two slashes would name another host.
    for target in ["//evil.example", "/.//evil.example", "///evil.example/."] {
        let response = ask(target);
        match status(&response) {
            301 => assert_eq!(field(&response, "location"), Some("/evil.example/"), "{target}"),
            other => assert_eq!(other, 404, "{target}"),
        }
    }
}

#[test]
fn the_weekday_of_a_date_is_ignored() {
    let running = Running::start();
    let when = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
    let file = fs::File::options().write(true).open(running.root.path().join("a.txt")).expect("a.txt");
    file.set_modified(when).expect("set");
    let ask = |date: &str| {
        status(
            &running
                .exchange(request("/a.txt", &format!("Connection: close\r\nIf-Modified-Since: {date}\r\n")).as_bytes()),
        )
    };
    for date in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sat, 06 Nov 1994 08:49:37 GMT",
        "Monday, 06-Nov-94 08:49:37 GMT",
        "Tue Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:60 GMT",
    ] {
        assert_eq!(ask(date), 304, "{date}");
    }
    for date in [
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:36 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Monday, 06 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(ask(date), 200, "{date}");
    }
}

#[test]
fn negotiated_error_pages_have_vary() {
    let running = Running::new(|options, _| options.limits.body_bytes = 10);
    for (target, fields, expected) in [
        ("/nothing", "", 404),
        ("/../x", "", 403),
        ("/%zz", "", 400),
        ("/dir", "", 301),
        ("/a.txt", "If-Match: \"x\"\r\n", 412),
        ("/a.txt", "Range: bytes=90-\r\n", 416),
        ("/a.txt", "Expect: the-moon\r\n", 417),
        ("/a.txt", "Content-Length: 11\r\n", 413),
    ] {
        for accept in ["", "Accept: application/json\r\n"] {
            let response =
                running.exchange(request(target, &format!("Connection: close\r\n{accept}{fields}")).as_bytes());
            assert_eq!((status(&response), field(&response, "vary")), (expected, Some("accept")), "{target} {accept}");
            let kind = if accept.is_empty() { "text/html; charset=utf-8" } else { "application/json; charset=utf-8" };
            assert_eq!(field(&response, "content-type"), Some(kind), "{target}");
        }
    }
    assert_eq!(field(&running.exchange(request("/a.txt", "Connection: close\r\n").as_bytes()), "vary"), None);
}

/// recv(2) stops at urgent data, so a short read does not mean that the socket is empty.
#[test]
fn bytes_after_urgent_data_are_read() {
    let running = Running::start();
    let head = request("/a.txt", "X: 1234567890\r\n");
    let last = request("/a.txt", "Connection: close\r\n");
    for at in [5, head.len()] {
        let mut stream = running.connect();
        // Two segments arrive before the next wake-up of the server, which is blocked on a large response.
        stream.write_all(request("/big.bin", "").as_bytes()).expect("sent");
        wait_for("the first request", || running.server.stats().requests >= 1);
        let both = [&head[..], &last].concat();
        stream.write_all(&both.as_bytes()[..at]).expect("sent");
        send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("an urgent byte");
        stream.write_all(&both.as_bytes()[at..]).expect("sent");
        assert_eq!(read_response(&mut stream).0, 200);
        assert_eq!(read_response(&mut stream).1, b"0123456789", "at {at}");
        assert_eq!(read_response(&mut stream).1, b"0123456789", "at {at}");
    }
}

/// recv(2) on a Unix socket stops after bytes that were sent with descriptors.
#[test]
fn bytes_after_a_passed_descriptor_are_read() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("socket");
    let running = Running::new(|options, _| options.address = Address::Unix(path.clone()));
    let head = request("/a.txt", "");
    let last = request("/a.txt", "Connection: close\r\n");
    for at in [5, head.len()] {
        let mut stream = UnixStream::connect(&path).expect("connected");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
        stream.write_all(request("/big.bin", "").as_bytes()).expect("sent");
        wait_for("the first request", || running.server.stats().requests % 3 == 1);
        let both = [&head[..], &last].concat();
        let (first, second) = both.as_bytes().split_at(at);
        let fds = [stream.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(first)], &control, MsgFlags::empty(), None).expect("sent");
        stream.write_all(second).expect("sent");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("three responses");
        let found = all.windows(10).filter(|window| window == b"0123456789").count();
        assert_eq!(found, 2, "at {at}");
    }
    drop(running);
}

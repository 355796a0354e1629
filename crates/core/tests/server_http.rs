//! The native server as a client on a raw socket sees it: each case is bytes in and bytes out.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zerosend_core::fs::{Root, Symlinks};
use zerosend_core::net::Address;
use zerosend_core::server::access_log::{AccessLog, Entry};
use zerosend_core::server::{Limit, ListFormat, Mount, Server, ServerOptions};
use zerosend_core::static_site::{Dotfiles, Site, SiteOptions};
use zerosend_http::Conformance;
use zerosend_http::negotiation::Encoding;
use zerosend_http::path::PathRules;

struct Running {
    server: Server,
    root: TempDir,
}

fn site_options() -> SiteOptions {
    SiteOptions {
        conformance: Conformance::Rfc9110,
        path_rules: PathRules::Full,
        redirect: true,
        multipart: true,
        ..SiteOptions::default()
    }
}

impl Running {
    fn new(change: impl FnOnce(&mut SiteOptions, &mut ServerOptions, &mut Mount)) -> Self {
        Self::with_symlinks(Symlinks::Follow, change)
    }

    fn with_symlinks(
        symlinks: Symlinks,
        change: impl FnOnce(&mut SiteOptions, &mut ServerOptions, &mut Mount),
    ) -> Self {
        let root = TempDir::new().expect("a directory");
        let write = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, bytes).expect("a file");
        };
        write("a.txt", b"0123456789");
        write("empty.txt", b"");
        write("index.html", b"<h1>top</h1>");
        write("dir/index.html", b"<h1>dir</h1>");
        write("bare/x & <y>.txt", b"odd");
        write("bare/.hidden", b"h");
        write("app.js", b"plain");
        write("app.js.br", b"brotli");
        write("a@b,c:d.txt", b"reserved");
        write("big.bin", &big());
        let mut site = site_options();
        let site_of = |options| {
            let root = Root::new(root.path(), symlinks).expect("a root");
            Arc::new(Site::with_roots(vec![root], options).expect("a site"))
        };
        let mut mount = Mount::new("/", site_of(site_options()));
        let mut options = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Vec::new());
        options.workers = 1;
        change(&mut site, &mut options, &mut mount);
        mount.site = site_of(site);
        options.mounts.push(mount);
        Self { server: Server::start(options).expect("a server"), root }
    }

    fn plain() -> Self {
        Self::new(|_, _, _| {})
    }

    fn connect(&self) -> TcpStream {
        let Address::Tcp(address) = self.server.address() else { panic!("a TCP server") };
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// Sends `bytes`, and reads until the server closes.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        read_all(&mut stream)
    }

    /// One request that closes the connection.
    fn get(&self, target: &str, headers: &str) -> String {
        self.exchange(request("GET", target, headers).as_bytes())
    }
}

fn request(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
}

fn big() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(|word| word.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(response: &str) -> u16 {
    response.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn field<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.split("\r\n").find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)).map(|(_, value)| value)
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn files_and_their_heads() {
    let running = Running::plain();
    let response = running.get("/a.txt", "");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\ndate: "), "{response}");
    assert_eq!(field(&response, "content-length"), Some("10"));
    assert_eq!(field(&response, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(field(&response, "accept-ranges"), Some("bytes"));
    assert_eq!(field(&response, "connection"), Some("close"));
    assert!(field(&response, "etag").is_some() && field(&response, "last-modified").is_some());
    assert_eq!(body(&response), "0123456789");

    let head = running.exchange(request("HEAD", "/a.txt", "").as_bytes());
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
    assert_eq!(running.get("/big.bin", "").len(), body_start(&running.get("/big.bin", "")) + lossy(&big()).len());
}

fn body_start(response: &str) -> usize {
    response.find("\r\n\r\n").map_or(0, |at| at + 4)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn conditions_and_ranges() {
    let running = Running::plain();
    let plain = running.get("/a.txt", "");
    let (etag, modified) = (field(&plain, "etag").unwrap(), field(&plain, "last-modified").unwrap());
    let with = |headers: &str| running.get("/a.txt", headers);
    let fresh = with(&format!("If-None-Match: {etag}\r\n"));
    assert_eq!((status(&fresh), body(&fresh), field(&fresh, "content-length")), (304, "", None));
    assert_eq!(status(&with(&format!("If-None-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"))), 304, "lines join");
    assert_eq!(status(&with(&format!("If-Modified-Since: {modified}\r\n"))), 304);
    assert_eq!(status(&with("If-None-Match: \"x\"\r\n")), 200);
    assert_eq!(status(&with("If-Match: \"x\"\r\n")), 412);
    assert_eq!(status(&with("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n")), 412);
    let part = with("Range: bytes=2-4\r\n");
    assert_eq!((status(&part), field(&part, "content-range"), body(&part)), (206, Some("bytes 2-4/10"), "234"));
    assert_eq!(body(&with("Range: bytes=-3\r\n")), "789");
    assert_eq!(body(&with(&format!("Range: bytes=7-\r\nIf-Range: {modified}\r\n"))), "789");
    assert_eq!(status(&with("Range: bytes=7-\r\nIf-Range: \"x\"\r\n")), 200);
    assert_eq!(status(&with("Range: bytes=1-2\r\nRange: bytes=3-4\r\n")), 200, "a field that may come once");
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
fn codings() {
    let running = Running::new(|site, _, _| site.pre_compressed = vec![Encoding::Br]);
    let response = running.get("/app.js", "Accept-Encoding: br\r\n");
    assert_eq!((field(&response, "content-encoding"), field(&response, "vary")), (Some("br"), Some("accept-encoding")));
    assert_eq!(body(&response), "brotli");
    let response = running.get("/app.js", "Accept-Encoding: br;q=0\r\n");
    assert_eq!((field(&response, "vary"), body(&response)), (Some("accept-encoding"), "plain"));
}

#[test]
fn methods() {
    let running = Running::new(|_, options, _| {
        options.cors = true;
        options.headers = vec![("Access-Control-Allow-Origin".into(), "*".into())];
    });
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let response = running.exchange(request(method, "/a.txt", "").as_bytes());
        assert_eq!((status(&response), field(&response, "allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    assert_eq!(status(&running.exchange(request("CONNECT", "x:443", "").as_bytes())), 405);
    assert_eq!(status(&running.exchange(request("BREW", "/a.txt", "").as_bytes())), 501);
    for target in ["/a.txt", "*", "http://x"] {
        let response = running.exchange(request("OPTIONS", target, "").as_bytes());
        assert_eq!((status(&response), field(&response, "allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
        assert_eq!(field(&response, "content-length"), None);
    }
    let preflight = running.exchange(request("OPTIONS", "/a.txt", "Origin: http://y\r\n").as_bytes());
    assert_eq!(field(&preflight, "access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(field(&running.get("/a.txt", ""), "access-control-allow-origin"), Some("*"));
}

#[test]
fn versions_and_persistence() {
    let running = Running::plain();
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
    assert_eq!(status(&leading), 200, "empty lines before a request");
    assert_eq!(status(&running.exchange(&b"\r\n".repeat(50))), 400);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_half_closed_client_gets_all() {
    let running = Running::plain();
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
    stream.read_to_end(&mut all).expect("whole");
    writer.join().expect("written");
    let bytes = big();
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
fn targets_and_hosts() {
    let running = Running::plain();
    assert_eq!(status(&running.get("http://other/a.txt", "")), 200, "absolute-form");
    assert_eq!(status(&running.get("HTTPS://other:8080/a.txt?x", "")), 200);
    assert_eq!(body(&running.get("http://other", "")), "<h1>top</h1>");
    for target in ["*", "a.txt", "ftp://x/a.txt", "http:///a.txt", "http://u@x/a.txt", "/a.txt#x", "/\u{e9}"] {
        assert_eq!(status(&running.get(target, "")), 400, "{target}");
    }
    let raw = |head: &str| status(&running.exchange(head.as_bytes()));
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\n\r\n"), 400, "no Host");
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), 400, "two");
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: x/y\r\n\r\n"), 400);
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: x y\r\n\r\n"), 400);
    assert_eq!(raw("GET /a.txt HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n"), 200);
    for path in ["/../etc/passwd", "/%2e%2e/etc/passwd", "/a.txt%00", "/dir\\index.html"] {
        assert_eq!(status(&running.get(path, "")), 403, "{path}");
    }
    assert_eq!(status(&running.get("/%zz", "")), 400);
    assert_eq!(status(&running.get("/dir%2Findex.html", "")), 404, "an escaped slash is no separator");
}

/// Each is a way to make two servers disagree about where a request ends.
#[test]
fn smuggling() {
    let running = Running::plain();
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
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{shape:?}: nothing after it is answered");
    }
    let bare = running.exchange(b"GET /a.txt HTTP/1.1\nHost: x\n\n");
    assert_eq!(status(&bare), 400, "bare LF");
    let old = running.exchange(b"GET /a.txt HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(status(&old), 400);
}

#[test]
fn bodies_are_thrown_away_or_refused() {
    let running = Running::plain();
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
    // The client waits for a word before it sends: the answer is the word.
    let expects = running.exchange(format!("{get}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n").as_bytes());
    assert_eq!((status(&expects), field(&expects, "connection")), (200, Some("close")));
    assert_eq!(status(&running.get("/a.txt", "Expect: the-moon\r\n")), 417);
}

#[test]
fn heads_have_bounds() {
    let running = Running::plain();
    let response = running.get(&format!("/{}", "a".repeat(17_000)), "");
    assert_eq!(status(&response), 414);
    assert_eq!(status(&running.get("/a.txt", &format!("X: {}\r\n", "a".repeat(17_000)))), 431);
    assert_eq!(status(&running.get("/a.txt", &"X: a\r\n".repeat(101))), 431);
    assert_eq!(status(&running.get("/a.txt", &"X: a\r\n".repeat(98))), 200);
    assert_eq!(running.server.stats().limits[Limit::Head as usize], 3);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let running = Running::plain();
    let mut stream = running.connect();
    stream.set_nodelay(true).expect("no delay");
    for byte in request("GET", "/a.txt", "Range: bytes=3-5\r\n").as_bytes() {
        stream.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(body(&read_all(&mut stream)), "345");
}

#[test]
fn time_has_bounds() {
    let short = Duration::from_millis(200);
    let running = Running::new(|_, options, _| {
        options.limits.head_timeout = short;
        options.limits.idle_timeout = short * 2;
    });
    let began = Instant::now();
    let slow = running.exchange(b"GET /a.txt HTTP/1.1\r\nHos");
    assert_eq!((status(&slow), field(&slow, "connection")), (408, Some("close")));
    assert!(began.elapsed() >= short);
    let began = Instant::now();
    assert_eq!(running.exchange(b""), "", "who says nothing is told nothing");
    assert!(began.elapsed() >= short * 2);
    let body = running.exchange(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(status(&body), 200, "and then the connection ends");
    let stats = running.server.stats();
    assert_eq!(stats.limits[Limit::HeadTimeout as usize], 2);
    assert_eq!(stats.limits[Limit::IdleTimeout as usize], 1);
}

#[test]
fn who_does_not_read_is_cut() {
    let running = Running::new(|_, options, _| options.limits.send_timeout = Duration::from_millis(1500));
    let mut stream = running.connect();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3).as_slice()).expect("sent");
    wait_for(|| running.server.stats().limits[Limit::SendTimeout as usize] == 1);
    wait_for(|| running.server.stats().connections == 0);
    assert_eq!(running.server.stats().aborted, 1);
}

#[test]
fn who_reads_too_slowly_is_cut() {
    let running = Running::new(|_, options, _| options.limits.min_rate = 3_000_000);
    let mut stream = running.connect();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut buffer = vec![0; 64 * 1024];
    let began = Instant::now();
    while running.server.stats().limits[Limit::MinRate as usize] == 0 && began.elapsed() < Duration::from_secs(20) {
        let _ = stream.read(&mut buffer);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() >= Duration::from_secs(5), "not before the grace is over");
    assert_eq!(running.server.stats().limits[Limit::MinRate as usize], 1);
}

#[test]
fn connections_have_bounds() {
    let running = Running::new(|_, options, _| {
        options.limits.connections = 3;
        options.limits.requests_per_connection = 2;
    });
    let held: Vec<_> = (0..3).map(|_| running.connect()).collect();
    wait_for(|| running.server.stats().connections == 3);
    let refused = running.exchange(b"");
    assert_eq!((status(&refused), field(&refused, "connection")), (503, Some("close")));
    assert_eq!(running.server.stats().limits[Limit::Connections as usize], 1);
    drop(held);
    wait_for(|| running.server.stats().connections == 0);
    let three = running.exchange(b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3).as_slice());
    assert_eq!(three.matches("HTTP/1.1 200").count(), 2);
    assert_eq!(three.matches("connection: close").count(), 1);

    let running = Running::new(|_, options, _| options.limits.connections_per_address = 1);
    let held = running.connect();
    wait_for(|| running.server.stats().connections == 1);
    assert_eq!(status(&running.exchange(b"")), 503);
    assert_eq!(running.server.stats().limits[Limit::ConnectionsPerAddress as usize], 1);
    drop(held);
    wait_for(|| running.server.stats().connections == 0);
    assert_eq!(status(&running.get("/a.txt", "")), 200);
}

fn wait_for(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn lists() {
    let running = Running::new(|site, _, mount| {
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
    assert_eq!(body(&running.get("/dir/", "")), "<h1>dir</h1>", "an index comes first");
    assert_eq!(status(&running.get("/bare/.hidden", "")), 404);
    assert_eq!(status(&running.get("/none/", "")), 404);
}

#[test]
fn metrics_and_the_log() {
    let entries = Arc::new(Mutex::new(Vec::<Entry>::new()));
    let running = Running::new(|_, options, _| {
        options.metrics_path = Some("/-/metrics".into());
        let entries = entries.clone();
        let sink = Box::new(move |batch: &[Entry]| entries.lock().expect("whole").extend_from_slice(batch));
        options.log = Some(Arc::new(AccessLog::new(sink).expect("a thread")));
    });
    running.get("/a.txt", "User-Agent: test\r\nReferer: /r\r\n");
    running.get("/nothing?q", "");
    running.exchange(b"nonsense\r\n\r\n");
    let text = running.get("/-/metrics", "");
    assert_eq!(field(&text, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.contains("\nzerosend_requests_total 4\n"), "{text}");
    assert!(text.contains("zerosend_responses_total{class=\"2xx\"} 1\n") && text.contains("{class=\"4xx\"} 2\n"));
    wait_for(|| entries.lock().expect("whole").len() == 4);
    let entries = entries.lock().expect("whole");
    let first = &entries[0];
    assert_eq!((&*first.method, &*first.target, first.status, first.aborted), ("GET", "/a.txt", 200, false));
    assert_eq!((first.user_agent.as_deref(), first.referer.as_deref()), (Some("test"), Some("/r")));
    assert!(first.bytes == 10 && first.head_bytes > 100 && first.client.is_some(), "bytes of body and head");
    assert_eq!((&*entries[1].target, entries[1].status), ("/nothing?q", 404));
    assert_eq!(entries[2].status, 400);
}

#[test]
fn close_lets_what_is_in_flight_end() {
    let running = Running::new(|_, options, _| options.workers = 2);
    let idle = running.connect();
    let mut busy = running.connect();
    busy.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut first = [0; 1000];
    busy.read_exact(&mut first).expect("it began");
    let (told, ended) = mpsc::channel();
    running.server.on_exit(move || told.send(()).expect("somebody waits"));
    running.server.close(Duration::from_secs(20));
    let mut idle = idle;
    assert_eq!(read_all(&mut idle), "", "who waits is closed");
    assert!(ended.recv_timeout(Duration::from_millis(300)).is_err(), "not before the response has ended");
    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).expect("whole");
    assert!(rest.ends_with(&big()[big().len() - 1000..]));
    ended.recv_timeout(Duration::from_secs(5)).expect("it ends");
    let Address::Tcp(address) = running.server.address() else { panic!("a TCP server") };
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn close_cuts_what_takes_too_long() {
    let running = Running::plain();
    let mut busy = running.connect();
    busy.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    busy.read_exact(&mut [0; 1000]).expect("it began");
    let (told, ended) = mpsc::channel();
    running.server.on_exit(move || told.send(()).expect("somebody waits"));
    running.server.close(Duration::from_millis(200));
    ended.recv_timeout(Duration::from_secs(5)).expect("it ends");
    let mut rest = Vec::new();
    let _ = busy.read_to_end(&mut rest);
    assert!(rest.len() < big().len());
    assert_eq!(running.server.stats().aborted, 1);
}

#[test]
fn a_port_in_use_and_invalid_options_are_errors() {
    let running = Running::plain();
    let taken = ServerOptions::new(running.server.address().clone(), Vec::new());
    let error = Server::start(taken).err().expect("refused");
    assert_eq!(error.to_string().split(' ').next(), Some("EADDRINUSE:"), "{error}");
    let mut invalid = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Vec::new());
    invalid.workers = 0;
    let error = Server::start(invalid).err().expect("refused");
    assert_eq!(error.to_string(), "invalid workers 0: use 1 to 1024");
}

#[test]
fn a_unix_socket() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("s");
    let running = Running::new(|_, options, _| {
        options.address = Address::Unix(path.clone());
        options.workers = 2;
    });
    for _ in 0..10 {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("connected");
        stream.write_all(request("GET", "/a.txt", "").as_bytes()).expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("text");
        assert_eq!(body(&response), "0123456789");
    }
    let (told, ended) = mpsc::channel();
    running.server.on_exit(move || told.send(()).expect("somebody waits"));
    running.server.close(Duration::ZERO);
    ended.recv_timeout(Duration::from_secs(5)).expect("it ends");
    assert!(!path.exists(), "the file goes with the socket");
}

#[test]
fn a_file_that_gets_shorter_ends_the_connection() {
    let running = Running::plain();
    let mut stream = running.connect();
    stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    stream.read_exact(&mut [0; 1000]).expect("it began");
    let file = fs::File::options().write(true).open(running.root.path().join("big.bin")).expect("there");
    file.set_len(100).expect("shorter");
    let rest = read_all(&mut stream);
    assert!(!rest.contains("HTTP/1.1 200"), "nothing follows a body that was cut");
    wait_for(|| running.server.stats().connections == 0);
    assert_eq!(running.server.stats().failures, 1);
}

#[test]
fn links_follow_the_policy() {
    let running = Running::with_symlinks(Symlinks::Deny, |_, _, _| {});
    std::os::unix::fs::symlink("a.txt", running.root.path().join("link")).expect("a link");
    assert_eq!(status(&running.get("/link", "")), 403);
}

/// Whatever comes, there is an answer or an end; and the next client is served.
#[test]
fn random_heads() {
    let running = Running::new(|_, options, _| options.limits.head_timeout = Duration::from_millis(100));
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
        let response = read_all(&mut stream);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 "), "{bytes:?}: {response}");
    }
    assert_eq!(body(&running.get("/a.txt", "")), "0123456789");
    wait_for(|| running.server.stats().connections == 0);
    assert_eq!(running.server.stats().failures, 0);
}

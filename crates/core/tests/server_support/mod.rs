//! A server on a temporary directory, and clients on raw sockets.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zerosend_core::fs::{Root, Symlinks};
use zerosend_core::net::Address;
use zerosend_core::server::{Mount, Server, ServerOptions};
use zerosend_core::static_site::{Site, SiteOptions};
use zerosend_http::Conformance;
use zerosend_http::path::PathRules;

pub const MIB: usize = 1024 * 1024;

pub struct Running {
    pub server: Server,
    pub root: TempDir,
}

impl Running {
    /// One worker with default options.
    pub fn start() -> Self {
        Self::new(|_, _| {})
    }

    pub fn new(change: impl FnOnce(&mut ServerOptions, &mut SiteOptions)) -> Self {
        Self::with_mount(|options, site, _| change(options, site))
    }

    pub fn with_mount(change: impl FnOnce(&mut ServerOptions, &mut SiteOptions, &mut Mount)) -> Self {
        Self::with_root(Symlinks::Follow, change)
    }

    pub fn with_symlinks(symlinks: Symlinks) -> Self {
        Self::with_root(symlinks, |_, _, _| {})
    }

    fn with_root(symlinks: Symlinks, change: impl FnOnce(&mut ServerOptions, &mut SiteOptions, &mut Mount)) -> Self {
        let root = TempDir::new().expect("a directory");
        for (name, bytes) in [
            ("a.txt", &b"0123456789"[..]),
            ("empty.txt", b""),
            ("index.html", b"<h1>top</h1>"),
            ("dir/index.html", b"<h1>dir</h1>"),
            ("bare/x & <y>.txt", b"odd"),
            ("bare/.hidden", b"h"),
            ("app.js", b"plain"),
            ("app.js.br", b"brotli"),
            ("a@b,c:d.txt", b"reserved"),
            ("mib.bin", pattern(MIB)),
            ("big.bin", pattern(12 * MIB)),
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, bytes).expect("a file");
        }
        let mut site = SiteOptions {
            conformance: Conformance::Rfc9110,
            path_rules: PathRules::Full,
            redirect: true,
            multipart: true,
            ..SiteOptions::default()
        };
        let new_site = |options: SiteOptions| {
            let root = Root::new(root.path(), symlinks).expect("a root");
            Arc::new(Site::with_roots(vec![root], options).expect("a site"))
        };
        let mut mount = Mount::new("/", new_site(site.clone()));
        let mut options = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Vec::new());
        options.workers = 1;
        change(&mut options, &mut site, &mut mount);
        mount.site = new_site(site);
        options.mounts.push(mount);
        Self { server: Server::start(options).expect("a server"), root }
    }

    pub fn connect(&self) -> TcpStream {
        let Address::Tcp(address) = self.server.address() else { panic!("a TCP server") };
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// Sends `bytes` and reads until the server closes; fails on a reset.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned()
    }

    /// Sends one GET request with `Connection: close`.
    pub fn get(&self, target: &str, fields: &str) -> String {
        self.exchange(request_with_close("GET", target, fields).as_bytes())
    }
}

/// Bytes in which every 4-byte word depends on its position; up to 12 MiB.
pub fn pattern(length: usize) -> &'static [u8] {
    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = vec![0; 12 * MIB];
        for (at, word) in bytes.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&(at as u32).wrapping_mul(0x9E37_79B9).to_le_bytes());
        }
        bytes
    });
    &ALL[..length]
}

pub fn request(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

pub fn request_with_close(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
}

/// Reads to the end of the stream; fails on a reset.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        panic!("{error} after {} bytes: {:?}", bytes.len(), String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    }
    bytes
}

/// Reads to the end of the stream or a reset.
pub fn read_until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one response with Content-Length. Returns its status and body.
pub fn read_response(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} in the head, after {head:?}"));
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    let mut read = 0;
    while read < body.len() {
        match stream.read(&mut body[read..]) {
            Ok(0) => panic!("the body ends after {read} of {} bytes", body.len()),
            Ok(count) => read += count,
            Err(error) => panic!("{error} after {read} of {} bytes", body.len()),
        }
    }
    (head[9..12].parse().expect("a status"), body)
}

/// The status of a response; 0 if there is none.
pub fn status(response: &str) -> u16 {
    response.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

pub fn field<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.split("\r\n").find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)).map(|(_, value)| value)
}

pub fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! A server over a directory of its own, and clients on raw sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;
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
    /// One worker, `a.txt` (10 bytes), `mib.bin` (1 MiB) and `big.bin` (12 MiB).
    pub fn new(change: impl FnOnce(&mut ServerOptions, &mut SiteOptions)) -> Self {
        let root = TempDir::new().expect("a directory");
        fs::write(root.path().join("a.txt"), b"0123456789").expect("a file");
        fs::write(root.path().join("mib.bin"), pattern(MIB)).expect("a file");
        fs::write(root.path().join("big.bin"), pattern(12 * MIB)).expect("a file");
        let mut site = SiteOptions {
            conformance: Conformance::Rfc9110,
            path_rules: PathRules::Full,
            redirect: true,
            ..SiteOptions::default()
        };
        let mut options = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Vec::new());
        options.workers = 1;
        change(&mut options, &mut site);
        let site = Arc::new(Site::new(vec![root.path().into()], site).expect("a site"));
        options.mounts.push(Mount::new("/", site));
        Self { server: Server::start(options).expect("a server"), root }
    }

    /// Sends `bytes` and reads up to a clean end.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned()
    }

    pub fn connect(&self) -> TcpStream {
        let Address::Tcp(address) = self.server.address() else { panic!("a TCP server") };
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream
    }
}

/// Bytes in which every 4-byte word is its own position; 12 MiB at most.
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

/// Everything up to a clean end of the stream.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        panic!("{error} after {} bytes", bytes.len());
    }
    bytes
}

/// One response by its Content-Length: the status and the body.
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

pub fn status(response: &str) -> u16 {
    response.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

pub fn field<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.split("\r\n").find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)).map(|(_, value)| value)
}

pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: it did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

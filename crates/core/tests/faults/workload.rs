//! The test bed: a server, a proxy in front of it, transfers by the reactor, and clients that compare every byte.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zerosend_core::cache::{CacheOptions, FileCache};
use zerosend_core::fs::OpenFile;
use zerosend_core::io::NonBlocking;
use zerosend_core::net::Address;
use zerosend_core::reactor::{Job, Observer, Reactor, Work};
use zerosend_core::relay::{
    Balance, Destination, Direction, MirrorDestination, MirrorOptions, Policy, Relay, RelayOptions,
};
use zerosend_core::server::{Mount, Server, ServerOptions};
use zerosend_core::static_site::{Site, SiteOptions};
use zerosend_core::transfer::{Disk, Method, Part, Report, Transfer};
use zerosend_http::Conformance;
use zerosend_http::path::PathRules;

use crate::interpose;

/// Sizes of the files in bytes: in one packet, in the cache's memory, mapped by the cache, larger than a socket buffer.
const SIZES: [usize; 4] = [1000, 60_000, 300_000, 2_000_000];
/// Time without a byte after which a test fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Counts of the outcomes of requests and transfers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcomes {
    /// Every byte arrived.
    pub complete: u64,
    /// The received bytes are right, and the receiver saw that they are not all.
    pub truncated: u64,
    /// An error status, or no connection.
    pub refused: u64,
}

impl Outcomes {
    pub fn add(&mut self, other: &Outcomes) {
        self.complete += other.complete;
        self.truncated += other.truncated;
        self.refused += other.refused;
    }
}

/// The byte at an offset of a file.
fn byte(file: usize, offset: usize) -> u8 {
    let word = (offset as u64 / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(file as u64);
    (word >> (8 * (offset % 8))) as u8
}

fn content(file: usize) -> Vec<u8> {
    (0..SIZES[file]).map(|offset| byte(file, offset)).collect()
}

/// A server, a proxy, a cache and their files.
pub struct TestBed {
    root: TempDir,
    contents: Vec<Arc<Vec<u8>>>,
    server: Option<Server>,
    relay: Option<Relay>,
    cache: FileCache,
    direct: SocketAddr,
    proxied: SocketAddr,
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        other => panic!("a TCP address: {other:?}"),
    }
}

impl TestBed {
    pub fn new(_seed: u64) -> Self {
        let root = TempDir::new().expect("a directory");
        let contents: Vec<_> = (0..SIZES.len()).map(|file| Arc::new(content(file))).collect();
        for (file, bytes) in contents.iter().enumerate() {
            fs::write(root.path().join(format!("{file}.bin")), bytes.as_slice()).expect("a file");
        }
        let options = SiteOptions {
            conformance: Conformance::Rfc9110,
            path_rules: PathRules::Full,
            redirect: true,
            multipart: true,
            ..SiteOptions::default()
        };
        let site = Arc::new(Site::new(vec![root.path().into()], options).expect("a site"));
        let loopback = || Address::Tcp(([127, 0, 0, 1], 0).into());
        let mut options = ServerOptions::new(loopback(), vec![Mount::new("/", site)]);
        options.workers = 2;
        let server = Server::start(options).expect("a server");
        let direct = tcp(server.address());
        let targets = Destination::Targets(vec![vec![Address::Tcp(direct)]], Balance::RoundRobin);
        let mut options = RelayOptions::new(loopback(), targets);
        options.workers = 2;
        options.down_time = Duration::from_millis(1);
        options.mirrors.push(MirrorOptions {
            to: MirrorDestination::file(&root.path().join("mirror-{n}").to_string_lossy(), 0o600).expect("a name"),
            direction: Direction::Down,
            policy: Policy::Drop,
        });
        let relay = Relay::start(options).expect("a relay");
        let proxied = tcp(relay.address().expect("an address"));
        let cache = FileCache::new(CacheOptions::default()).expect("a cache");
        Self { root, contents, server: Some(server), relay: Some(relay), cache, direct, proxied }
    }

    /// Runs clients of each kind at the same time.
    pub fn load(&self, seed: u64) -> Outcomes {
        let clients = (0..6u64).map(|client| {
            let (address, contents) = (if client % 2 == 0 { self.direct } else { self.proxied }, self.contents.clone());
            thread::spawn(move || requests(address, &contents, seed.wrapping_mul(31) + client))
        });
        let clients: Vec<_> = clients.collect();
        let mut sum = self.transfers(seed);
        sum.add(&self.cached(seed));
        for client in clients {
            let Ok(outcomes) = client.join() else {
                let (server, relay) = (self.server.as_ref().map(Server::stats), self.relay.as_ref().map(Relay::stats));
                panic!("a client of the server {} or the proxy {}: {server:?} {relay:?}", self.direct, self.proxied);
            };
            sum.add(&outcomes);
        }
        sum
    }

    /// Checks that everything is complete without faults.
    pub fn check(&self) {
        // Connections and pauses of the last schedule may have to end first.
        let deadline = Instant::now() + TIMEOUT;
        for address in [self.direct, self.proxied] {
            for file in 0..SIZES.len() {
                while get(address, file, &self.contents[file], true) != Some(true) {
                    assert!(Instant::now() < deadline, "file {file} is not served after the faults have ended");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        let mut sent = self.transfers(0);
        sent.add(&self.cached(0));
        assert_eq!((sent.truncated, sent.refused), (0, 0), "{sent:?}");
        while self.server.as_ref().is_some_and(|server| server.stats().connections > 0) {
            assert!(Instant::now() < deadline, "connections are left: {:?}", self.server.as_ref().map(Server::stats));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads files through a cache, on a thread that is affected by faults.
    fn cached(&self, seed: u64) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for step in 0..8 {
            let file = ((seed + step) % SIZES.len() as u64) as usize;
            let path = self.root.path().join(format!("{file}.bin"));
            let faults = interpose::OnThisThread::new();
            let read = catch_unwind(AssertUnwindSafe(|| self.cache.get(&path)?.read_at(0, SIZES[file] as u64)));
            drop(faults);
            match read {
                Ok(Ok(bytes)) => {
                    assert_eq!(bytes.len(), SIZES[file], "file {file} from the cache");
                    assert!(bytes == *self.contents[file], "file {file} from the cache: wrong bytes");
                    outcomes.complete += 1;
                }
                Ok(Err(_)) | Err(_) => outcomes.refused += 1,
            }
        }
        outcomes
    }

    /// Sends each file by the reactor to a Unix socket, with one of the methods.
    fn transfers(&self, seed: u64) -> Outcomes {
        let mut running = Vec::new();
        let mut outcomes = Outcomes::default();
        for (at, file) in (0..SIZES.len()).enumerate() {
            let method = Method::ALL[(seed as usize + at) % Method::ALL.len()];
            match self.transfer(file, method) {
                Some(transfer) => running.push((file, method, transfer)),
                None => outcomes.refused += 1,
            }
        }
        for (file, method, (reader, done)) in running {
            let received = reader.join().expect("a reader");
            let result = match done.recv_timeout(TIMEOUT) {
                Ok(result) => result,
                Err(RecvTimeoutError::Timeout) => panic!("a transfer of file {file} by {method:?} hangs"),
                Err(RecvTimeoutError::Disconnected) => panic!("the end of file {file} by {method:?} is not reported"),
            };
            let expected = &self.contents[file];
            assert!(expected.starts_with(&received), "file {file} by {method:?}: wrong bytes");
            match result {
                Ok(report) => {
                    assert_eq!(received.len(), expected.len(), "file {file} by {method:?} is reported as complete");
                    assert_eq!(report.bytes, expected.len() as u64);
                    outcomes.complete += 1;
                }
                Err(_) if received.is_empty() => outcomes.refused += 1,
                Err(_) => outcomes.truncated += 1,
            }
        }
        outcomes
    }

    #[allow(clippy::type_complexity)]
    fn transfer(
        &self,
        file: usize,
        method: Method,
    ) -> Option<(thread::JoinHandle<Vec<u8>>, Receiver<zerosend_core::Result<Report>>)> {
        let path: PathBuf = self.root.path().join(format!("{file}.bin"));
        let open = OpenFile::open(&path).ok()?;
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("non-blocking");
        let part = Part::File { file: Arc::new(open), offset: 0, length: SIZES[file] as u64 };
        let transfer = Transfer::new([part], method, zerosend_core::transfer::Target::Socket, Disk::ResidentOnly);
        let (sender, done) = channel();
        let job = Job {
            work: Work::Send(transfer),
            peer: Arc::new(NonBlocking::socket(OwnedFd::from(ours))),
            timeout: Some(TIMEOUT),
            chunk: 256 * 1024,
            progress: None,
            observer: Box::new(DoneObserver(sender)),
        };
        Reactor::global().submit(job).ok()?;
        let reader = thread::spawn(move || {
            theirs.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            let mut bytes = Vec::new();
            match theirs.read_to_end(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("a receiver waits after {}", bytes.len()),
                _ => bytes,
            }
        });
        Some((reader, done))
    }
}

impl Drop for TestBed {
    fn drop(&mut self) {
        let (sender, done) = mpsc::channel::<()>();
        if let Some(relay) = self.relay.take() {
            let sender = sender.clone();
            relay.on_exit(move || drop(sender));
            relay.close(Duration::from_secs(1));
        }
        if let Some(server) = self.server.take() {
            server.on_exit(move || drop(sender));
            server.close(Duration::from_secs(1));
        }
        if !thread::panicking() {
            assert_eq!(done.recv_timeout(TIMEOUT), Err(RecvTimeoutError::Disconnected), "server or relay did not end");
        }
    }
}

struct DoneObserver(mpsc::Sender<zerosend_core::Result<Report>>);

impl Observer for DoneObserver {
    fn progress(&mut self, _: u64) {}

    fn done(self: Box<Self>, result: zerosend_core::Result<Report>) {
        let _ = self.0.send(result);
    }
}

/// Makes ten requests.
fn requests(address: SocketAddr, contents: &[Arc<Vec<u8>>], seed: u64) -> Outcomes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    };
    let mut outcomes = Outcomes::default();
    for _ in 0..10 {
        let file = (random() % SIZES.len() as u64) as usize;
        match get(address, file, &contents[file], false) {
            Some(true) => outcomes.complete += 1,
            Some(false) => outcomes.truncated += 1,
            None => outcomes.refused += 1,
        }
    }
    outcomes
}

/// Makes a request on a new connection. `Some(true)`: complete; `Some(false)`: truncated; `None`: refused.
fn get(address: SocketAddr, file: usize, expected: &[u8], strict: bool) -> Option<bool> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let request = format!("GET /{file}.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::with_capacity(expected.len() + 1024);
    let end = stream.read_to_end(&mut bytes);
    if let Err(error) = &end
        && error.kind() == ErrorKind::WouldBlock
    {
        panic!("file {file} from {address}: nothing comes after {} bytes", bytes.len());
    }
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    if !text.starts_with("HTTP/1.1 200") {
        assert!(!strict || !text.starts_with("HTTP/1.1 404"), "{text}");
        assert!(text.starts_with("HTTP/1.1 5"), "file {file}: {text}");
        return None;
    }
    assert!(text.contains(&format!("content-length: {}", expected.len())), "{text}");
    let body = &bytes[head + 4..];
    assert!(expected.starts_with(body), "file {file} from {address}: wrong bytes");
    if body.len() == expected.len() {
        return Some(true);
    }
    assert!(end.is_err(), "file {file} from {address}: ends normally after {} bytes", body.len());
    Some(false)
}

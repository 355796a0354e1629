//! Every method over real sockets, with a table of sizes, sockets, receivers and ranges.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use zerosend_core::transfer::{Budget, Disk, Method, Part, Progress, SharedFile, Target, Transfer};

const METHODS: [Method; 6] = Method::ALL;
const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp,
    Unix,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Receiver {
    Fast,
    /// Sleeps after each read of 100,000 bytes.
    Slow,
    /// The send buffer of the socket has the minimum size.
    Tiny,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Whole,
    Range,
    /// Dropped after this share of the bytes (of 256), then resumed on the same socket.
    Resumed(u64),
}

/// Bytes without repetitions.
fn pattern(length: u64) -> Arc<Vec<u8>> {
    let mut bytes: Vec<u8> =
        (0..length.div_ceil(8)).flat_map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    bytes.truncate(length as usize);
    Arc::new(bytes)
}

struct Sample {
    file: SharedFile,
    bytes: Arc<Vec<u8>>,
}

impl Sample {
    fn new(size: u64) -> Self {
        Self::within(tempfile::tempfile().expect("a file"), size)
    }

    fn within(mut file: File, size: u64) -> Self {
        let bytes = pattern(size);
        file.write_all(&bytes).expect("room on the disk");
        Self { file: Arc::new(file), bytes }
    }
}

fn pair(kind: Kind) -> (OwnedFd, OwnedFd) {
    match kind {
        Kind::Unix => {
            let (out, from) = UnixStream::pair().expect("a pair");
            out.set_nonblocking(true).expect("non-blocking");
            (out.into(), from.into())
        }
        Kind::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let out = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
            out.set_nonblocking(true).expect("non-blocking");
            (out.into(), listener.accept().expect("accepted").0.into())
        }
    }
}

/// Reads until the end and checks with `expected` the bytes at each offset.
fn receive<E>(from: OwnedFd, receiver: Receiver, start: u64, expected: E) -> JoinHandle<u64>
where
    E: Fn(u64, &[u8]) -> bool + Send + 'static,
{
    thread::spawn(move || {
        let mut from = File::from(from);
        let mut buffer = vec![0; if receiver == Receiver::Slow { 100_000 } else { 1 << 20 }];
        let mut received = 0;
        loop {
            let count = from.read(&mut buffer).expect("readable");
            if count == 0 {
                return received;
            }
            assert!(expected(start + received, &buffer[..count]), "wrong bytes among the {count} bytes at {received}");
            received += count as u64;
            if receiver == Receiver::Slow {
                thread::sleep(Duration::from_millis(1));
            }
        }
    })
}

/// Advances until the end, or until `stop` bytes are sent.
fn drive(transfer: &mut Transfer, out: &OwnedFd, chunk: u64, stop: u64) {
    loop {
        let left = stop - transfer.report().bytes;
        if left == 0 {
            return;
        }
        match transfer.advance(out, &mut Budget::new(chunk.min(left))).expect("nothing fails") {
            Progress::Done => return,
            Progress::Yield => {}
            Progress::Cold => {
                let prefetched = transfer.prefetch().expect("a file is next").wait();
                transfer.prefetched(prefetched.expect("readable"));
            }
            Progress::Blocked => {
                poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE).expect("poll");
            }
        }
    }
}

fn send(
    sample: &Sample,
    (offset, length): (u64, u64),
    method: Method,
    kind: Kind,
    receiver: Receiver,
    stop: Option<u64>,
) {
    let (out, from) = pair(kind);
    if receiver == Receiver::Tiny {
        setsockopt(&out, sockopt::SndBuf, &1).expect("a small buffer");
    }
    let all = sample.bytes.clone();
    let reader = receive(from, receiver, offset, move |at, bytes| all[at as usize..].starts_with(bytes));
    let transfer = |offset, length| {
        let part = Part::File { file: sample.file.clone(), offset, length };
        Transfer::new([part], method, Target::Socket, Disk::ResidentOnly)
    };
    let mut first = transfer(offset, length);
    drive(&mut first, &out, MIB, stop.unwrap_or(length));
    let sent = first.report().bytes;
    if stop.is_some() {
        drop(first);
        drive(&mut transfer(offset + sent, length - sent), &out, MIB, length);
    } else {
        let used = first.report().method;
        assert!(method == Method::Auto || used == method, "{method:?} was replaced by {used:?}");
    }
    drop(out);
    assert_eq!(reader.join().expect("the bytes are right"), length, "{method:?} {kind:?} {receiver:?}");
}

fn run(sizes: &[u64], kinds: &[Kind], receivers: &[Receiver], requests: &[Request]) {
    for &size in sizes {
        let sample = Sample::new(size);
        for method in METHODS {
            for &kind in kinds {
                for &receiver in receivers {
                    for &request in requests {
                        let (range, stop) = match request {
                            Request::Whole => ((0, size), None),
                            Request::Range => ((size / 3, size / 2), None),
                            Request::Resumed(share) => ((0, size), Some(size * share / 256)),
                        };
                        send(&sample, range, method, kind, receiver, stop);
                    }
                }
            }
        }
    }
}

const ALL_KINDS: [Kind; 2] = [Kind::Tcp, Kind::Unix];
const ALL_RECEIVERS: [Receiver; 3] = [Receiver::Fast, Receiver::Slow, Receiver::Tiny];

#[test]
fn small_sizes_in_every_combination() {
    let requests = [Request::Whole, Request::Range, Request::Resumed(77), Request::Resumed(201)];
    run(&[0, 1, 4095, 4096, 65537], &ALL_KINDS, &ALL_RECEIVERS, &requests);
}

#[test]
fn a_mebibyte_and_three_bytes_in_every_combination() {
    run(&[MIB + 3], &ALL_KINDS, &ALL_RECEIVERS, &[Request::Whole, Request::Range, Request::Resumed(133)]);
}

#[test]
fn every_method_resumes_a_file_of_64_mebibytes() {
    run(&[64 * MIB], &ALL_KINDS, &[Receiver::Fast], &[Request::Resumed(150)]);
}

/// A mark every 512 MiB and around powers of two, zeros between them. The file is larger than 4 GiB.
#[test]
fn every_method_sends_a_sparse_file_of_5_gibibytes() {
    let size = 5 * GIB + 5;
    let mut marks: Vec<u64> = (0..10).map(|at| at * 512 * MIB + 17).collect();
    marks.extend([2 * GIB - 1, 4 * GIB - 1, 4 * GIB, size - 1]);
    let file = tempfile::tempfile().expect("a file");
    file.set_len(size).expect("a sparse file");
    for &mark in &marks {
        file.write_all_at(&[mark as u8 | 1], mark).expect("written");
    }
    let file: SharedFile = Arc::new(file);
    for (at, method) in METHODS.into_iter().enumerate().skip(1) {
        let (out, from) = pair(ALL_KINDS[at % 2]);
        let marks = marks.clone();
        let zeros = vec![0; 1 << 20];
        let reader = receive(from, Receiver::Fast, 0, move |start, bytes| {
            let end = start + bytes.len() as u64;
            let inside: Vec<u64> = marks.iter().copied().filter(|mark| (start..end).contains(mark)).collect();
            if inside.is_empty() {
                return bytes == &zeros[..bytes.len()];
            }
            let mut expected = vec![0; bytes.len()];
            for mark in inside {
                expected[(mark - start) as usize] = mark as u8 | 1;
            }
            bytes == expected
        });
        let part = Part::File { file: file.clone(), offset: 0, length: size };
        let mut transfer = Transfer::new([part], method, Target::Socket, Disk::ResidentOnly);
        drive(&mut transfer, &out, 8 * MIB, size);
        assert_eq!(transfer.report().method, method);
        drop(out);
        assert_eq!(reader.join().expect("the bytes are right"), size);
    }
}

#[test]
fn files_of_tmpfs_and_procfs() {
    // tmpfs has pages but does not report residency. procfs has none: calls fail with EINVAL, or its size is 0.
    let memory = nix::sys::memfd::memfd_create("zerosend", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a memfd");
    let sample = Sample::within(File::from(memory), 300_000);
    for method in METHODS {
        send(&sample, (0, 300_000), method, Kind::Tcp, Receiver::Fast, None);
    }
    for method in METHODS {
        let status = File::open("/proc/filesystems").expect("procfs");
        let expected = std::fs::read("/proc/filesystems").expect("readable");
        let (out, from) = pair(Kind::Unix);
        let part = Part::File { file: Arc::new(status), offset: 0, length: expected.len() as u64 };
        let mut transfer = Transfer::new([part], method, Target::Socket, Disk::MayBlock);
        let length = expected.len() as u64;
        let outcome = transfer.advance(&out, &mut Budget::unlimited());
        assert_eq!(outcome, Ok(Progress::Done), "{method:?}");
        if method == Method::Mmap || method == Method::Vmsplice {
            assert_eq!(transfer.report().method, Method::ReadWrite, "{method:?}: procfs cannot be mapped");
        }
        drop(out);
        let reader = receive(from, Receiver::Fast, 0, move |at, bytes| {
            bytes == &expected[at as usize..at as usize + bytes.len()]
        });
        assert_eq!(reader.join().expect("the bytes are right"), length);
    }
}

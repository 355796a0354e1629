//! Throughput of each method by file size, over loopback TCP and Unix sockets, with the file in the page cache.
//!
//! `cargo bench -p zerosend-core --bench methods`. A head of 200 bytes and the file are sent repeatedly over one connection; a
//! thread receives them. The time ends when the last byte is received. `transfer/strategy.rs` cites the figures.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerosend_core::transfer::{Budget, Disk, Method, Part, Progress, SharedFile, Target, Transfer};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const SIZES: [u64; 8] = [KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 64 * MIB];
const HEAD: usize = 200;

fn pair(kind: &str) -> (OwnedFd, OwnedFd) {
    if kind == "unix" {
        let (out, from) = UnixStream::pair().expect("a pair");
        out.set_nonblocking(true).expect("non-blocking");
        return (out.into(), from.into());
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let out = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    out.set_nonblocking(true).expect("non-blocking");
    out.set_nodelay(true).expect("no delay");
    (out.into(), listener.accept().expect("accepted").0.into())
}

fn send(file: &SharedFile, size: u64, method: Method, out: &OwnedFd) {
    let parts = [Part::Memory(vec![b'h'; HEAD]), Part::File { file: file.clone(), offset: 0, length: size }];
    let mut transfer = Transfer::new(parts, method, Target::Socket, Disk::ResidentOnly);
    loop {
        match transfer.advance(out, &mut Budget::new(MIB)).expect("nothing fails") {
            Progress::Done => break,
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
    black_box(transfer.report());
}

fn methods(criterion: &mut Criterion) {
    for kind in ["tcp", "unix"] {
        for size in SIZES {
            let mut group = criterion.benchmark_group(format!("{kind}/{size}"));
            group.throughput(Throughput::Bytes(size));
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&vec![7; size as usize]).expect("room on the disk");
            let file: SharedFile = Arc::new(file);
            for method in Method::ALL.into_iter().skip(1) {
                let (out, from) = pair(kind);
                let received = Arc::new(AtomicU64::new(0));
                let reader = thread::spawn({
                    let received = received.clone();
                    move || {
                        let mut from = File::from(from);
                        let mut buffer = vec![0; 256 * KIB as usize];
                        while let Ok(count @ 1..) = from.read(&mut buffer) {
                            received.fetch_add(count as u64, Ordering::Release);
                        }
                    }
                });
                group.bench_function(BenchmarkId::from_parameter(method.as_str()), |bencher| {
                    bencher.iter_custom(|rounds| {
                        let until = received.load(Ordering::Acquire) + rounds * (size + HEAD as u64);
                        let began = Instant::now();
                        for _ in 0..rounds {
                            send(&file, size, method, &out);
                        }
                        while received.load(Ordering::Acquire) < until {
                            thread::yield_now();
                        }
                        began.elapsed()
                    });
                });
                drop(out);
                reader.join().expect("the reader ends");
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = methods
}
criterion_main!(benches);

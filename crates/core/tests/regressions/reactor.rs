//! The reactor: panics, shared descriptors in blocking mode, truncated files.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use zerosend_core::io::NonBlocking;
use zerosend_core::reactor::{Job, Observer, Reactor, Work};
use zerosend_core::transfer::{
    Disk, FileSource, Method, Part, Receive, Report, SharedFile, Start, Target, TargetFile, Transfer,
};
use zerosend_core::{Code, Result, stats};

const TIMEOUT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

struct PanickingObserver(std::sync::mpsc::Sender<Result<Report>>);

impl Observer for PanickingObserver {
    fn progress(&mut self, _: u64) {
        panic!("injected");
    }

    fn done(self: Box<Self>, result: Result<Report>) {
        self.0.send(result).unwrap_or_default();
    }
}

fn submit(work: Work, peer: impl Into<OwnedFd>, timeout: Option<Duration>) -> Receiver<Result<Report>> {
    let (sender, receiver) = channel();
    let peer = Arc::new(NonBlocking::new(peer.into()).expect("a descriptor"));
    let progress = Some(Duration::ZERO);
    let job = Job { work, peer, timeout, chunk: MIB as u64, progress, observer: Box::new(PanickingObserver(sender)) };
    Reactor::global().submit(job).expect("a reactor");
    receiver
}

fn send(file: SharedFile, length: u64, method: Method, target: Target) -> Work {
    let part = Part::File { file, offset: 0, length };
    Work::Send(Transfer::new([part], method, target, Disk::ResidentOnly))
}

fn sample(length: usize) -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&vec![b'x'; length]).expect("room on the disk");
    Arc::new(file)
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let out = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    (out, listener.accept().expect("accepted").0)
}

struct PanickingSource;

impl AsFd for PanickingSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        panic!("injected");
    }
}

impl FileSource for PanickingSource {}

#[test]
fn a_panic_in_a_turn_ends_only_that_transfer() {
    let before = stats::contained_panics();
    let (blocked, _unread) = UnixStream::pair().expect("a pair");
    let waiting = submit(send(sample(4 * MIB), 4 * MIB as u64, Method::Auto, Target::Socket), blocked, None);
    for _ in 0..3 {
        let (out, _from) = UnixStream::pair().expect("a pair");
        let broken = submit(send(Arc::new(PanickingSource), 10, Method::Auto, Target::Socket), out, None);
        let error = broken.recv_timeout(TIMEOUT).expect("a result").expect_err("a panic");
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(error.message(), "internal error, please report it: a task was dropped without a result");
        let (out, mut from) = UnixStream::pair().expect("a pair");
        let whole = submit(send(sample(5), 5, Method::Auto, Target::Socket), out, None);
        // The observer panics in `progress`; `done` is called nevertheless.
        assert_eq!(whole.recv_timeout(TIMEOUT).expect("a result").expect("sent").bytes, 5);
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("readable");
        assert_eq!(bytes, b"xxxxx");
    }
    assert!(stats::contained_panics() >= before + 3);
    assert!(waiting.try_recv().is_err(), "the blocked transfer continues");
}

fn is_non_blocking(fd: impl AsFd) -> bool {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("flags")).contains(OFlag::O_NONBLOCK)
}

/// Checks that the reactor runs another transfer.
fn check_another_transfer() {
    let (out, mut from) = UnixStream::pair().expect("a pair");
    let third = submit(send(sample(3), 3, Method::Auto, Target::Socket), out, None);
    third.recv_timeout(TIMEOUT).expect("the reactor is not blocked").expect("sent");
    from.read_exact(&mut [0; 3]).expect("readable");
}

/// Two users share an open file description in blocking mode. When the first one ends, non-blocking mode must stay set for the
/// second, whose next turn would otherwise block the reactor.
#[test]
fn transfers_on_one_blocking_descriptor_are_independent() {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (socket, other) = UnixStream::pair().expect("a pair");
    for (out, target) in [(write, Target::Fd), (socket.into(), Target::Socket)] {
        let duplicate = || out.try_clone().expect("a descriptor");
        for method in [Method::Auto, Method::Sendfile, Method::Splice, Method::ReadWrite, Method::Mmap] {
            let first = NonBlocking::new(duplicate()).expect("a descriptor");
            // Fills the pipe or socket and is blocked.
            let long = submit(send(sample(4 * MIB), 4 * MIB as u64, method, target), duplicate(), None);
            check_another_transfer();
            drop(first);
            let mut buffer = vec![0; MIB];
            let source: &dyn AsFdRead = if target == Target::Fd { &read } else { &other };
            let mut count = 0;
            // Makes room for another turn.
            while count < 64 * 1024 {
                count += nix::unistd::read(source.fd(), &mut buffer[..32 * 1024]).expect("readable");
            }
            check_another_transfer();
            assert!(long.try_recv().is_err());
            while count < 4 * MIB {
                count += nix::unistd::read(source.fd(), &mut buffer).expect("readable");
            }
            long.recv_timeout(TIMEOUT).expect("a result").expect("sent");
        }
        assert!(!is_non_blocking(&out), "the mode is restored");
    }
}

trait AsFdRead {
    fn fd(&self) -> BorrowedFd<'_>;
}

impl<T: AsFd> AsFdRead for T {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// The same for receivers, whose turns run on the pool: its threads must not wait for a sender.
#[test]
fn receives_from_shared_blocking_descriptors_are_independent() {
    let receive = |length, peer: OwnedFd| {
        let target = tempfile::tempfile().expect("a file");
        submit(
            Work::Receive(Receive::new(TargetFile::from_fd(target.into(), Start::Default).unwrap(), Some(length))),
            peer,
            None,
        )
    };
    let all: Vec<_> = (0..5)
        .map(|_| {
            let (socket, other) = tcp();
            let duplicate = || OwnedFd::from(socket.try_clone().expect("a descriptor"));
            let first = NonBlocking::new(duplicate()).expect("a descriptor");
            let receiving = receive(6, duplicate());
            (socket, other, first, receiving)
        })
        .collect();
    check_another_transfer();
    let all: Vec<_> = all
        .into_iter()
        .map(|(socket, mut other, first, receiving)| {
            drop(first);
            other.write_all(b"abc").expect("room");
            (socket, other, receiving)
        })
        .collect();
    for _ in 0..8 {
        let (out, mut other) = UnixStream::pair().expect("a pair");
        other.write_all(b"x").expect("room");
        let one = receive(1, out.into());
        assert_eq!(one.recv_timeout(TIMEOUT).expect("no thread is blocked").expect("received").bytes, 1);
    }
    for (socket, mut other, receiving) in all {
        other.write_all(b"def").expect("room");
        assert_eq!(receiving.recv_timeout(TIMEOUT).expect("a result").expect("received").bytes, 6);
        assert!(!is_non_blocking(&socket));
    }
}

/// The receiver of an incomplete body must not see a normal end.
#[test]
fn a_truncated_file_resets_the_connection() {
    for method in [Method::Auto, Method::Mmap, Method::ReadWrite, Method::Splice, Method::Vmsplice] {
        let file = sample(30 * MIB);
        let (out, mut from) = tcp();
        let sending = submit(send(file.clone(), 30 * MIB as u64, method, Target::Socket), out, None);
        from.read_exact(&mut vec![0; MIB]).expect("the first bytes");
        file.set_len(10 * MIB as u64).expect("truncated");
        let mut rest = Vec::new();
        let end = from.read_to_end(&mut rest);
        let error = sending.recv_timeout(TIMEOUT).expect("a result").expect_err("truncated");
        assert_eq!(error.code(), Code::Truncated, "{method:?}");
        assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset), "{method:?}");
        assert!(!rest.contains(&0), "{method:?}: no byte beyond the end");
    }
}

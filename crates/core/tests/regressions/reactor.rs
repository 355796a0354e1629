//! The reactor: failures that are contained, descriptors that others share, ends that the receiver can tell.

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

const SOON: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

struct Tell(std::sync::mpsc::Sender<Result<Report>>);

impl Observer for Tell {
    fn progress(&mut self, _: u64) {
        panic!("a bug of an observer");
    }

    fn done(self: Box<Self>, result: Result<Report>) {
        self.0.send(result).unwrap_or_default();
    }
}

fn submit(work: Work, peer: impl Into<OwnedFd>, timeout: Option<Duration>) -> Receiver<Result<Report>> {
    let (sender, receiver) = channel();
    let peer = Arc::new(NonBlocking::new(peer.into()).expect("a descriptor"));
    let progress = Some(Duration::ZERO);
    let job = Job { work, peer, timeout, chunk: MIB as u64, progress, observer: Box::new(Tell(sender)) };
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

struct Panics;

impl AsFd for Panics {
    fn as_fd(&self) -> BorrowedFd<'_> {
        panic!("a bug of a source");
    }
}

impl FileSource for Panics {}

#[test]
fn a_panic_in_a_turn_ends_that_transfer_and_no_other() {
    let before = stats::contained_panics();
    let (blocked, _unread) = UnixStream::pair().expect("a pair");
    let waiting = submit(send(sample(4 * MIB), 4 * MIB as u64, Method::Auto, Target::Socket), blocked, None);
    for _ in 0..3 {
        let (out, _from) = UnixStream::pair().expect("a pair");
        let broken = submit(send(Arc::new(Panics), 10, Method::Auto, Target::Socket), out, None);
        let error = broken.recv_timeout(SOON).expect("an answer").expect_err("a panic");
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(error.message(), "internal error, please report it: a task was dropped without a result");
        let (out, mut from) = UnixStream::pair().expect("a pair");
        let whole = submit(send(sample(5), 5, Method::Auto, Target::Socket), out, None);
        // Its observer panics at the report of progress, and is told of the end all the same.
        assert_eq!(whole.recv_timeout(SOON).expect("an answer").expect("sent").bytes, 5);
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("readable");
        assert_eq!(bytes, b"xxxxx");
    }
    assert!(stats::contained_panics() >= before + 3);
    assert!(waiting.try_recv().is_err(), "the blocked transfer is still there");
}

fn is_non_blocking(fd: impl AsFd) -> bool {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("flags")).contains(OFlag::O_NONBLOCK)
}

/// The reactor serves another transfer.
fn serves_others() {
    let (elsewhere, mut from) = UnixStream::pair().expect("a pair");
    let third = submit(send(sample(3), 3, Method::Auto, Target::Socket), elsewhere, None);
    third.recv_timeout(SOON).expect("the reactor is not blocked").expect("sent");
    from.read_exact(&mut [0; 3]).expect("readable");
}

/// Two users share an open file in blocking mode; the first to end must not take the mode from the second, whose next turn
/// would then block the reactor and with it every other transfer.
#[test]
fn transfers_on_one_blocking_descriptor_are_independent() {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (socket, other) = UnixStream::pair().expect("a pair");
    for (out, target) in [(write, Target::Fd), (socket.into(), Target::Socket)] {
        let duplicate = || out.try_clone().expect("a descriptor");
        for method in [Method::Auto, Method::Sendfile, Method::Splice, Method::ReadWrite, Method::Mmap] {
            let first = NonBlocking::new(duplicate()).expect("a descriptor");
            // It fills the pipe or socket and waits.
            let long = submit(send(sample(4 * MIB), 4 * MIB as u64, method, target), duplicate(), None);
            serves_others();
            drop(first);
            let mut buffer = vec![0; MIB];
            let source: &dyn AsFdRead = if target == Target::Fd { &read } else { &other };
            let mut count = 0;
            // Room for some of it: another turn.
            while count < 64 * 1024 {
                count += nix::unistd::read(source.fd(), &mut buffer[..32 * 1024]).expect("readable");
            }
            serves_others();
            assert!(long.try_recv().is_err());
            while count < 4 * MIB {
                count += nix::unistd::read(source.fd(), &mut buffer).expect("readable");
            }
            long.recv_timeout(SOON).expect("an answer").expect("sent");
        }
        assert!(!is_non_blocking(&out), "the owner's mode is as it was");
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

/// The same for receivers, whose turns are made by the pool: none of its threads may wait for a sender.
#[test]
fn receiving_from_blocking_descriptors_that_others_use_too() {
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
    serves_others();
    let all: Vec<_> = all
        .into_iter()
        .map(|(socket, mut other, first, receiving)| {
            drop(first);
            other.write_all(b"abc").expect("room");
            (socket, other, receiving)
        })
        .collect();
    for _ in 0..8 {
        let (elsewhere, mut other) = UnixStream::pair().expect("a pair");
        other.write_all(b"x").expect("room");
        let one = receive(1, elsewhere.into());
        assert_eq!(one.recv_timeout(SOON).expect("no thread is blocked").expect("received").bytes, 1);
    }
    for (socket, mut other, receiving) in all {
        other.write_all(b"def").expect("room");
        assert_eq!(receiving.recv_timeout(SOON).expect("an answer").expect("received").bytes, 6);
        assert!(!is_non_blocking(&socket));
    }
}

/// The receiver of a body that is not whole must not see an orderly end.
#[test]
fn a_truncated_file_ends_in_a_reset() {
    for method in [Method::Auto, Method::Mmap, Method::ReadWrite, Method::Splice, Method::Vmsplice] {
        let file = sample(30 * MIB);
        let (out, mut from) = tcp();
        let sending = submit(send(file.clone(), 30 * MIB as u64, method, Target::Socket), out, None);
        from.read_exact(&mut vec![0; MIB]).expect("the first bytes");
        file.set_len(10 * MIB as u64).expect("truncated");
        let mut rest = Vec::new();
        let end = from.read_to_end(&mut rest);
        let error = sending.recv_timeout(SOON).expect("an answer").expect_err("truncated");
        assert_eq!(error.code(), Code::Truncated, "{method:?}");
        assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset), "{method:?}");
        assert!(!rest.contains(&0), "{method:?}: no byte beyond the end");
    }
}

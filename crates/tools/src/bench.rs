//! The method comparison that `zerosend bench` prints: one file, sent again and again by one method to a receiver that reads
//! every byte, each on a thread and a core of its own.
//!
//! Time is the sender's, from the first byte to the moment when the receiver has the last. Processor time and context switches
//! are counted for each thread by itself (`getrusage(2)`, `RUSAGE_THREAD`), so that what a method spares the sender and what
//! it costs the receiver can be told apart. Nothing here knows of rounds, medians or reports.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use zerosend_core::error::{Code, Error, Result};
use zerosend_core::fs::OpenFile;

use zerosend_core::transfer::{Budget, Disk, Method, Part, Progress, Target, Transfer};

/// Bytes that the receiver reads at once.
const RECEIVED: usize = 256 * 1024;
/// The longest time without a byte, after which something is wrong.
const PATIENCE: u16 = 10_000;

/// The socket between sender and receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// Over the loopback.
    Tcp,
    /// A pair of Unix sockets.
    Unix,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// How bytes go.
    pub method: Method,
    /// Bytes of the buffer of `read-write`; of the others, bytes after which a call ends. `None`: what zerosend does.
    pub piece: Option<u64>,
    /// Where to.
    pub socket: Socket,
    /// Takes the file out of the page cache before each time it is sent.
    pub cold: bool,
    /// Send it again until so much time has passed. It is sent once at least.
    pub least: Duration,
}

/// What a thread has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time in user space.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Context switches because it had to wait.
    pub waits: u64,
    /// Context switches because its time was over.
    pub preemptions: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes sent and received.
    pub bytes: u64,
    /// How often the file was sent.
    pub times: u64,
    /// While it was sent; without evicting it.
    pub time: Duration,
    /// The method that was really used.
    pub method: Method,
    /// System calls of the transfers: those that moved bytes, or tried to, and those that asked whether the file is still as long.
    pub syscalls: u64,
    /// Calls that waited for room in the socket, `poll(2)`.
    pub polls: u64,
    /// The sender's thread.
    pub sender: Usage,
    /// The receiver's thread.
    pub receiver: Usage,
    /// Pages of the file in the page cache before it was sent, on the average.
    pub resident: f64,
    /// Pages of the file.
    pub pages: u64,
}

fn usage() -> Usage {
    let Ok(found) = getrusage(UsageWho::RUSAGE_THREAD) else { return Usage::default() };
    let time = |time: TimeVal| Duration::from_micros((time.tv_sec() as u64) * 1_000_000 + time.tv_usec() as u64);
    Usage {
        user: time(found.user_time()),
        system: time(found.system_time()),
        waits: found.voluntary_context_switches() as u64,
        preemptions: found.involuntary_context_switches() as u64,
    }
}

impl std::ops::Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            waits: self.waits - before.waits,
            preemptions: self.preemptions - before.preemptions,
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
        self.waits += other.waits;
        self.preemptions += other.preemptions;
    }
}

/// The two cores that sender and receiver get; none where there is only one.
fn cores() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut all = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
    Some([all.next()?, all.next()?])
}

/// Keeps this thread on a core. It is the thread's last work: nobody undoes it.
fn pin(core: Option<usize>) {
    let mut set = CpuSet::new();
    if let Some(core) = core
        && set.set(core).is_ok()
    {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// Runs one case. Takes [`Case::least`] or as long as the file takes once, and starts two threads. [`Code::InvalidArgument`] for an
/// empty file and for one that cannot be evicted though it is to be cold; [`Code::Aborted`]; the errors of `open(2)`.
pub fn run(path: &Path, case: Case, stop: &AtomicBool) -> Result<Sample> {
    let file = Arc::new(OpenFile::open(path)?);
    if file.meta().size == 0 {
        return Err(Error::new(Code::InvalidArgument, "the file is empty: there is nothing to send").with_path(path));
    }
    let failed =
        |error: std::io::Error| Error::system("socket", error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
    let (out, back) = pair(case.socket).map_err(failed)?;
    let cores = cores();
    let received = Arc::new(AtomicU64::new(0));
    let count = received.clone();
    let (sender, told) = channel();
    let receiving = zerosend_core::thread::spawn("zerosend-bench", move || {
        pin(cores.map(|[_, core]| core));
        let before = usage();
        receive(back, &count, || {
            let _ = sender.send(());
        });
        usage() - before
    })
    .map_err(failed)?;
    let (file, received) = (&file, &received);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(move || {
            pin(cores.map(|[core, _]| core));
            let sent = send(path, file, case, out.as_fd(), stop, &|sum| {
                while received.load(Ordering::Acquire) < sum {
                    if told.recv_timeout(Duration::from_millis(u64::from(PATIENCE))).is_err() {
                        return Err(Error::new(Code::Timeout, "the receiver has not got what was sent"));
                    }
                }
                Ok(())
            });
            drop(out);
            sent
        });
        sending.join().unwrap_or_else(|_| Err(Error::new(Code::Internal, "the sender has panicked")))
    });
    let receiver = receiving.join().unwrap_or_default();
    sent.map(|sample| Sample { receiver, ..sample })
}

fn pair(socket: Socket) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (out, back): (OwnedFd, OwnedFd) = match socket {
        Socket::Unix => {
            let (out, back) = UnixStream::pair()?;
            out.set_nonblocking(true)?;
            (out.into(), back.into())
        }
        Socket::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let out = TcpStream::connect(listener.local_addr()?)?;
            out.set_nodelay(true)?;
            out.set_nonblocking(true)?;
            (out.into(), listener.accept()?.0.into())
        }
    };
    Ok((out, back))
}

/// Reads until the end, and every byte that was read.
fn receive(back: OwnedFd, received: &AtomicU64, tell: impl Fn()) {
    let mut stream = std::fs::File::from(back);
    let mut buffer = vec![0; RECEIVED];
    let mut sum = 0_u64;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // A receiver that does not look at the bytes would flatter methods that leave them cold in its cache.
                for word in buffer[..count].chunks(8) {
                    let mut bytes = [0; 8];
                    bytes[..word.len()].copy_from_slice(word);
                    sum = sum.wrapping_add(u64::from_le_bytes(bytes));
                }
                received.fetch_add(count as u64, Ordering::Release);
                tell();
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    std::hint::black_box(sum);
}

fn send(
    path: &Path,
    file: &Arc<OpenFile>,
    case: Case,
    out: std::os::fd::BorrowedFd<'_>,
    stop: &AtomicBool,
    arrived: &dyn Fn(u64) -> Result<()>,
) -> Result<Sample> {
    let size = file.meta().size;
    let mut sample = Sample {
        bytes: 0,
        times: 0,
        time: Duration::ZERO,
        method: case.method,
        syscalls: 0,
        polls: 0,
        sender: Usage::default(),
        receiver: Usage::default(),
        resident: 0.0,
        pages: size.div_ceil(zerosend_sys::page::page_size()),
    };
    while sample.times == 0 || sample.time < case.least {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Aborted, "The operation was aborted"));
        }
        if case.cold {
            let left = crate::evict(path)?;
            if left.resident > left.pages / 20 {
                let message = "the file cannot be made cold: it lives in memory, or somebody has it mapped";
                return Err(Error::new(Code::InvalidArgument, message).with_path(path));
            }
            sample.resident += left.resident as f64;
        } else if sample.times == 0 {
            sample.resident = crate::residency(path)?.resident as f64;
        }
        let (before, begun) = (usage(), Instant::now());
        // Small files in a row, so that the clock and the counters are not what is measured.
        let row = if case.cold { 1 } else { ((1 << 20) / size).max(1) };
        for _ in 0..row {
            one(file, case, out, &mut sample)?;
        }
        arrived(sample.bytes)?;
        sample.time += begun.elapsed();
        sample.sender += usage() - before;
    }
    if case.cold {
        sample.resident /= sample.times as f64;
    }
    Ok(sample)
}

fn one(file: &Arc<OpenFile>, case: Case, out: std::os::fd::BorrowedFd<'_>, sample: &mut Sample) -> Result<()> {
    let length = file.meta().size;
    let part = Part::File { file: file.clone(), offset: 0, length };
    let mut transfer = Transfer::new([part], case.method, Target::Socket, Disk::MayBlock);
    if let (Method::ReadWrite, Some(bytes)) = (case.method, case.piece) {
        transfer.set_buffer(bytes as usize);
    }
    loop {
        let mut budget = match case.piece {
            Some(bytes) if case.method != Method::ReadWrite => Budget::new(bytes),
            _ => Budget::unlimited(),
        };
        match transfer.advance(out, &mut budget)? {
            Progress::Done => break,
            Progress::Yield | Progress::Cold => {}
            Progress::Blocked => {
                sample.polls += 1;
                let mut wanted = [PollFd::new(out, PollFlags::POLLOUT)];
                match poll(&mut wanted, PollTimeout::from(PATIENCE)) {
                    Ok(0) => return Err(Error::new(Code::Timeout, "the receiver takes nothing")),
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("poll", errno)),
                }
            }
        }
    }
    let report = transfer.report();
    sample.bytes += report.bytes;
    sample.times += 1;
    sample.syscalls += report.syscalls;
    sample.method = report.method;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_sends_it_all_and_says_what_it_took() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 3_000_000]).expect("written");
        for socket in [Socket::Tcp, Socket::Unix] {
            for method in Method::ALL {
                let case = Case { method, piece: None, socket, cold: false, least: Duration::from_millis(5) };
                let sample = run(&path, case, &AtomicBool::new(false)).expect("sent");
                assert_eq!(sample.bytes, sample.times * 3_000_000, "{method:?}");
                assert!(sample.syscalls >= sample.times && sample.time >= case.least, "{sample:?}");
                assert!(sample.receiver.system > Duration::ZERO || sample.times < 20, "{sample:?}");
            }
        }
        let small = Case {
            method: Method::ReadWrite,
            piece: Some(4096),
            socket: Socket::Tcp,
            cold: false,
            least: Duration::ZERO,
        };
        let sample = run(&path, small, &AtomicBool::new(false)).expect("sent");
        // A read and a send for each 4 KiB, and one more where a send was short.
        let pieces = 3_000_000_u64.div_ceil(4096);
        assert!(sample.syscalls >= 2 * pieces && sample.syscalls < 2 * pieces + 2 * sample.polls + 100, "{sample:?}");
        let error = run(&path, small, &AtomicBool::new(true)).expect_err("stopped");
        assert_eq!(error.code(), Code::Aborted);
        std::fs::write(&path, "").expect("written");
        assert_eq!(run(&path, small, &AtomicBool::new(false)).expect_err("empty").code(), Code::InvalidArgument);
    }
}

//! Measures one method for `zerosend bench`: sends a file repeatedly to a receiver that reads every byte. Sender and receiver
//! are two threads on two cores.
//!
//! The time is measured from the first byte sent to the last byte received. CPU time and context switches are counted for
//! each thread (`getrusage(2)`, `RUSAGE_THREAD`), to separate the costs of sender and receiver. Rounds and medians are
//! computed by the caller.

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

/// Bytes of one read of the receiver.
const RECEIVE_SIZE: usize = 256 * 1024;
/// Milliseconds without a byte after which the measurement fails.
const TIMEOUT: u16 = 10_000;

/// The socket between sender and receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// TCP over loopback.
    Tcp,
    /// A pair of Unix sockets.
    Unix,
}

/// A measurement to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The method.
    pub method: Method,
    /// For `read-write` the bytes of the buffer, for other methods the maximum of bytes of a call. `None`: as zerosend sends.
    pub chunk: Option<u64>,
    /// The socket.
    pub socket: Socket,
    /// Evicts the file from the page cache before each time it is sent.
    pub cold: bool,
    /// The file is sent until this time has passed, but at least once.
    pub min_time: Duration,
}

/// CPU time and context switches of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in user space.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Voluntary context switches: the thread waited.
    pub waits: u64,
    /// Involuntary context switches: its time slice ended.
    pub preemptions: u64,
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes sent and received.
    pub bytes: u64,
    /// The number of times the file was sent.
    pub times: u64,
    /// The time of sending, without eviction.
    pub time: Duration,
    /// The method that was used.
    pub method: Method,
    /// System calls of the transfers, with those that check the size of the file.
    pub syscalls: u64,
    /// Calls of `poll(2)` that waited for room in the socket.
    pub polls: u64,
    /// The sending thread.
    pub sender: Usage,
    /// The receiving thread.
    pub receiver: Usage,
    /// Pages of the file in the page cache before it was sent, on average.
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

/// Two cores for sender and receiver; `None` where only one is available.
fn cores() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut all = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
    Some([all.next()?, all.next()?])
}

/// Pins this thread to a core until it ends.
fn pin(core: Option<usize>) {
    let mut set = CpuSet::new();
    if let Some(core) = core
        && set.set(core).is_ok()
    {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// Runs a measurement on two new threads, until [`Case::min_time`] has passed and the file was sent at least once.
///
/// [`Code::InvalidArgument`]: the file is empty, or `cold` is set and it cannot be evicted. [`Code::Aborted`]; the errors of
/// `open(2)`.
pub fn run(path: &Path, case: Case, stop: &AtomicBool) -> Result<Sample> {
    let file = Arc::new(OpenFile::open(path)?);
    if file.meta().size == 0 {
        return Err(Error::new(Code::InvalidArgument, "cannot measure an empty file").with_path(path));
    }
    let failed =
        |error: std::io::Error| Error::system("socket", error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
    let (out, back) = pair(case.socket).map_err(failed)?;
    let cores = cores();
    let received = Arc::new(AtomicU64::new(0));
    let count = received.clone();
    let (notify, notified) = channel();
    let receiving = zerosend_core::thread::spawn("zerosend-bench", move || {
        pin(cores.map(|[_, core]| core));
        let before = usage();
        receive(back, &count, || {
            let _ = notify.send(());
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
                    if notified.recv_timeout(Duration::from_millis(u64::from(TIMEOUT))).is_err() {
                        return Err(Error::new(
                            Code::Timeout,
                            "the receiver did not receive all bytes within 10 seconds",
                        ));
                    }
                }
                Ok(())
            });
            drop(out);
            sent
        });
        sending.join().unwrap_or_else(|_| Err(Error::new(Code::Internal, "the sending thread panicked")))
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

/// Reads until the end of the stream, and adds up all bytes.
fn receive(back: OwnedFd, received: &AtomicU64, notify: impl Fn()) {
    let mut stream = std::fs::File::from(back);
    let mut buffer = vec![0; RECEIVE_SIZE];
    let mut sum = 0_u64;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // Without reading the bytes, methods that leave them out of the receiver's CPU cache would look too fast.
                for word in buffer[..count].chunks(8) {
                    let mut bytes = [0; 8];
                    bytes[..word.len()].copy_from_slice(word);
                    sum = sum.wrapping_add(u64::from_le_bytes(bytes));
                }
                received.fetch_add(count as u64, Ordering::Release);
                notify();
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
    while sample.times == 0 || sample.time < case.min_time {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Aborted, "The operation was aborted"));
        }
        if case.cold {
            let left = crate::evict(path)?;
            if left.resident > left.pages / 20 {
                let message =
                    "the file cannot be evicted from the page cache: it is in memory (tmpfs) or mapped by a process";
                return Err(Error::new(Code::InvalidArgument, message).with_path(path));
            }
            sample.resident += left.resident as f64;
        } else if sample.times == 0 {
            sample.resident = crate::residency(path)?.resident as f64;
        }
        let (before, begun) = (usage(), Instant::now());
        // A small file is sent several times between two readings of the clock and the counters.
        let repeats = if case.cold { 1 } else { ((1 << 20) / size).max(1) };
        for _ in 0..repeats {
            send_once(file, case, out, &mut sample)?;
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

fn send_once(file: &Arc<OpenFile>, case: Case, out: std::os::fd::BorrowedFd<'_>, sample: &mut Sample) -> Result<()> {
    let length = file.meta().size;
    let part = Part::File { file: file.clone(), offset: 0, length };
    let mut transfer = Transfer::new([part], case.method, Target::Socket, Disk::MayBlock);
    if let (Method::ReadWrite, Some(bytes)) = (case.method, case.chunk) {
        transfer.set_buffer(bytes as usize);
    }
    loop {
        let mut budget = match case.chunk {
            Some(bytes) if case.method != Method::ReadWrite => Budget::new(bytes),
            _ => Budget::unlimited(),
        };
        match transfer.advance(out, &mut budget)? {
            Progress::Done => break,
            Progress::Yield | Progress::Cold => {}
            Progress::Blocked => {
                sample.polls += 1;
                let mut wanted = [PollFd::new(out, PollFlags::POLLOUT)];
                match poll(&mut wanted, PollTimeout::from(TIMEOUT)) {
                    Ok(0) => return Err(Error::new(Code::Timeout, "the receiver read nothing for 10 seconds")),
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
    fn each_method_sends_all_bytes_and_reports_its_cost() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 3_000_000]).expect("written");
        for socket in [Socket::Tcp, Socket::Unix] {
            for method in Method::ALL {
                let case = Case { method, chunk: None, socket, cold: false, min_time: Duration::from_millis(5) };
                let sample = run(&path, case, &AtomicBool::new(false)).expect("sent");
                assert_eq!(sample.bytes, sample.times * 3_000_000, "{method:?}");
                assert!(sample.syscalls >= sample.times && sample.time >= case.min_time, "{sample:?}");
                assert!(sample.receiver.system > Duration::ZERO || sample.times < 20, "{sample:?}");
            }
        }
        let small = Case {
            method: Method::ReadWrite,
            chunk: Some(4096),
            socket: Socket::Tcp,
            cold: false,
            min_time: Duration::ZERO,
        };
        let sample = run(&path, small, &AtomicBool::new(false)).expect("sent");
        // A read and a send for each 4 KiB, and one more where a send was short.
        let chunks = 3_000_000_u64.div_ceil(4096);
        assert!(sample.syscalls >= 2 * chunks && sample.syscalls < 2 * chunks + 2 * sample.polls + 100, "{sample:?}");
        let error = run(&path, small, &AtomicBool::new(true)).expect_err("stopped");
        assert_eq!(error.code(), Code::Aborted);
        std::fs::write(&path, "").expect("written");
        assert_eq!(run(&path, small, &AtomicBool::new(false)).expect_err("empty").code(), Code::InvalidArgument);
    }
}

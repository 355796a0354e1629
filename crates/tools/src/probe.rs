//! [`probe`] tests kernel features with a scratch file and loopback sockets.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, ResolveFlag, SealFlag, copy_file_range, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::sockopt::ReusePort;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt, socket,
    socketpair,
};
use nix::sys::uio::RemoteIoVec;

use super::interfaces::{Interface, interfaces};
use zerosend_core::error::Result;
use zerosend_sys::memory::Pages;
use zerosend_sys::page::page_size;
use zerosend_sys::pipe::{self, SpliceFlags};
use zerosend_sys::residency::{self, cached_pages};
use zerosend_sys::{features, open};

/// Limits of pipes; see `pipe(7)`. 0 where `/proc/sys/fs` does not have the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PipeLimits {
    /// Bytes of a new pipe.
    pub default_size: u64,
    /// Bytes of the largest pipe for an unprivileged user.
    pub max_size: u64,
    /// Pages in all pipes of an unprivileged user beyond which a new pipe has one page; 0: no limit.
    pub user_pages_soft: u64,
    /// Pages in all pipes of an unprivileged user beyond which no pipe can be made; 0: no limit.
    pub user_pages_hard: u64,
}

/// A system call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The system call.
    pub syscall: &'static str,
    /// The error.
    pub errno: Errno,
}

/// A kernel feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism {
    /// Its name.
    pub name: &'static str,
    /// Why it is not available; `None` when it is.
    pub refusal: Option<Refusal>,
    /// The first kernel version that has it.
    pub since: &'static str,
    /// What zerosend uses it for, or why it does not use it.
    pub purpose: &'static str,
    /// What zerosend does instead where it is missing; `None` when it does not use it.
    pub without: Option<&'static str>,
}

/// The result of [`probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Limits of pipes.
    pub pipes: PipeLimits,
    /// The features.
    pub mechanisms: Vec<Mechanism>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
}

type TestResult = std::result::Result<(), Refusal>;

const BYTES: usize = 8192;

fn refused(syscall: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal { syscall, errno }
}

fn failed(syscall: &'static str) -> impl Fn(std::io::Error) -> Refusal {
    move |error| Refusal { syscall, errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) }
}

/// Tests all features. Takes some milliseconds and may wait for a disk. Leaves no files behind.
pub fn probe() -> Result<Probe> {
    let name = nix::sys::utsname::uname().map_err(|errno| zerosend_core::Error::system("uname", errno))?;
    let mechanism = |name, since, purpose, without, outcome: TestResult| Mechanism {
        name,
        refusal: outcome.err(),
        since,
        purpose,
        without,
    };
    let mechanisms = vec![
        mechanism(
            "sendfile",
            "2.6.33",
            "files of 64 KiB and more to sockets",
            Some("read-write, through a buffer"),
            try_sendfile(),
        ),
        mechanism(
            "splice",
            "2.6.17",
            "relays, uploads into files, and the method 'splice'",
            Some("read-write, through a buffer"),
            try_splice(),
        ),
        mechanism("tee", "2.6.17", "mirrors and splitters", Some("mirrors and splitters fail"), try_tee()),
        mechanism(
            "vmsplice",
            "2.6.17",
            "sendPages and the method 'vmsplice'",
            Some("read-write, through a buffer"),
            try_vmsplice(),
        ),
        mechanism("copy_file_range", "4.5", "not used: files go to sockets, not to files", None, try_copy_file_range()),
        mechanism(
            "openat2",
            "5.6",
            "opening files below a root in one call, with symbolic links",
            Some("the path is opened one component at a time"),
            try_openat2(),
        ),
        mechanism(
            "statx",
            "4.11",
            "checking in one call whether a cached file has changed",
            Some("cached files are opened to check them"),
            try_statx(),
        ),
        mechanism(
            "preadv2(RWF_NOWAIT)",
            "4.14",
            "reading without waiting for a disk",
            Some("a pool thread reads every file ahead"),
            try_nowait(),
        ),
        mechanism(
            "cachestat",
            "6.5",
            "checking whether a file is in the page cache",
            Some("reads one byte of each 64 KiB, and mincore(2)"),
            try_cachestat(),
        ),
        mechanism(
            "process_vm_readv",
            "3.2",
            "MappedFile: reads mapped bytes without SIGBUS",
            Some("pread(2), and private mappings cannot be read"),
            try_process_vm(),
        ),
        mechanism(
            "memfd",
            "3.17",
            "unnamed SharedBuffer and SharedRing",
            Some("only named ones can be made"),
            try_memfd(),
        ),
        mechanism(
            "open file description locks",
            "3.15",
            "one writer and one reader of a SharedRing; noticing that one died",
            Some("SharedRing cannot be used"),
            try_locks(),
        ),
        mechanism(
            "SO_REUSEPORT",
            "3.9",
            "a listener for each worker of a server",
            Some("servers listen with one worker"),
            try_reuse_port(),
        ),
        mechanism(
            "io_uring",
            "5.1",
            "not used: as fast as epoll(7) for files and sockets",
            None,
            features::io_uring().map_err(refused("io_uring_setup")),
        ),
        mechanism("MSG_ZEROCOPY", "4.14", "not used: on loopback the kernel copies anyway", None, try_zerocopy()),
        mechanism("kernel TLS", "4.13", "not used: Node encrypts TLS", None, try_kernel_tls()),
    ];
    Ok(Probe {
        kernel: name.release().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
        page_size: page_size(),
        pipes: pipe_limits(),
        mechanisms,
        interfaces: interfaces().unwrap_or_default(),
    })
}

fn pipe_limits() -> PipeLimits {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let default_size = pipe::new().and_then(|(read, _write)| pipe::capacity(read.as_fd())).unwrap_or(0) as u64;
    PipeLimits {
        default_size,
        max_size: setting("pipe-max-size"),
        user_pages_soft: setting("pipe-user-pages-soft"),
        user_pages_hard: setting("pipe-user-pages-hard"),
    }
}

/// An unnamed file in the temporary directory, or in memory where that is not writable.
fn scratch() -> std::result::Result<File, Refusal> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    let mut file = match options.open(std::env::temp_dir()) {
        Ok(file) => file,
        Err(_) => memfd_create(c"zerosend-probe", MFdFlags::MFD_CLOEXEC).map_err(refused("memfd_create"))?.into(),
    };
    file.write_all(&pattern()).map_err(failed("write"))?;
    Ok(file)
}

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 7) as u8).collect()
}

/// Two connected stream sockets: over loopback, or a Unix pair where loopback is down.
fn sockets() -> std::result::Result<(OwnedFd, File), Refusal> {
    if let Ok((out, back)) = loopback() {
        return Ok((out.into(), OwnedFd::from(back).into()));
    }
    let flags = SockFlag::SOCK_CLOEXEC;
    let (out, back) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(refused("socketpair"))?;
    Ok((out, back.into()))
}

fn loopback() -> std::result::Result<(TcpStream, TcpStream), Refusal> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed("bind"))?;
    let address = listener.local_addr().map_err(failed("getsockname"))?;
    let client = TcpStream::connect(address).map_err(failed("connect"))?;
    let (server, _) = listener.accept().map_err(failed("accept"))?;
    Ok((client, server))
}

fn pipe_pair() -> std::result::Result<(OwnedFd, OwnedFd), Refusal> {
    pipe::new().map_err(refused("pipe2"))
}

/// Checks that the next `count` bytes are those of the pattern.
fn expect(from: &mut impl Read, count: usize, syscall: &'static str) -> TestResult {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).map_err(failed(syscall))?;
    if bytes == pattern()[..count] { Ok(()) } else { Err(Refusal { syscall, errno: Errno::EIO }) }
}

fn try_sendfile() -> TestResult {
    let (file, (out, mut back)) = (scratch()?, sockets()?);
    let mut offset = 0;
    let sent = nix::sys::sendfile::sendfile64(&out, &file, Some(&mut offset), BYTES).map_err(refused("sendfile"))?;
    expect(&mut back, sent, "sendfile")
}

fn try_splice() -> TestResult {
    let (file, (out, mut back), (read, write)) = (scratch()?, sockets()?, pipe_pair()?);
    let flags = SpliceFlags::default();
    let sent = pipe::splice(file.as_fd(), Some(0), write.as_fd(), None, BYTES, flags)
        .and_then(|count| pipe::splice(read.as_fd(), None, out.as_fd(), None, count, flags))
        .map_err(refused("splice"))?;
    expect(&mut back, sent, "splice")
}

fn try_tee() -> TestResult {
    let ((read, write), (copy, to)) = (pipe_pair()?, pipe_pair()?);
    nix::unistd::write(&write, &pattern()[..4096]).map_err(refused("write"))?;
    let copied = pipe::tee(read.as_fd(), to.as_fd(), 4096).map_err(refused("tee"))?;
    expect(&mut File::from(read), 4096, "tee")?;
    expect(&mut File::from(copy), copied, "tee")
}

fn try_vmsplice() -> TestResult {
    let (read, write) = pipe_pair()?;
    let mut pages = Pages::new(4096).map_err(refused("mmap"))?;
    pages.copy_in(0, &pattern()[..4096]);
    let count = pipe::vmsplice(write.as_fd(), &[pages.span(0, 4096)], false).map_err(refused("vmsplice"))?;
    expect(&mut File::from(read), count, "vmsplice")
}

fn try_copy_file_range() -> TestResult {
    let (from, to) = (scratch()?, scratch()?);
    to.set_len(0).map_err(failed("ftruncate"))?;
    let (mut at, mut there) = (0, 0);
    let count =
        copy_file_range(&from, Some(&mut at), &to, Some(&mut there), BYTES).map_err(refused("copy_file_range"))?;
    let mut bytes = vec![0; count];
    std::os::unix::fs::FileExt::read_exact_at(&to, &mut bytes, 0).map_err(failed("pread"))?;
    if bytes == pattern()[..count] { Ok(()) } else { Err(Refusal { syscall: "copy_file_range", errno: Errno::EIO }) }
}

fn try_openat2() -> TestResult {
    let root = File::open("/").map_err(failed("open"))?;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open::openat2(&root, c".", flags, ResolveFlag::RESOLVE_BENEATH).map(drop).map_err(refused("openat2"))
}

fn try_statx() -> TestResult {
    let file = scratch()?;
    match open::statx(&file, open::Attributes::Fresh).map_err(refused("statx"))?.size {
        size if size == BYTES as u64 => Ok(()),
        _ => Err(Refusal { syscall: "statx", errno: Errno::EIO }),
    }
}

fn try_nowait() -> TestResult {
    let file = scratch()?;
    match residency::pread_resident(file.as_fd(), &mut [0], 0) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(refused("preadv2")(errno)),
    }
}

fn try_cachestat() -> TestResult {
    let file = scratch()?;
    cached_pages(file.as_fd(), 0, BYTES as u64).map(drop).map_err(refused("cachestat"))
}

fn try_process_vm() -> TestResult {
    let (bytes, mut copy) = (pattern(), vec![0; 16]);
    let remote = RemoteIoVec { base: bytes.as_ptr() as usize, len: 16 };
    let into = &mut [std::io::IoSliceMut::new(&mut copy)];
    nix::sys::uio::process_vm_readv(nix::unistd::getpid(), into, &[remote])
        .map(drop)
        .map_err(refused("process_vm_readv"))
}

fn try_memfd() -> TestResult {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"zerosend-probe", flags).map_err(refused("memfd_create"))?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).map(drop).map_err(refused("fcntl"))
}

fn try_locks() -> TestResult {
    let file = scratch()?;
    let lock =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 1, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).map(drop).map_err(refused("fcntl"))
}

fn try_reuse_port() -> TestResult {
    let open = |port| {
        let listener =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(refused("socket"))?;
        setsockopt(&listener, ReusePort, &true).map_err(refused("setsockopt"))?;
        bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).map_err(refused("bind"))?;
        listen(&listener, Backlog::MAXCONN).map_err(refused("listen"))?;
        Ok(listener)
    };
    let first = open(0)?;
    let address: SockaddrIn = getsockname(first.as_raw_fd()).map_err(refused("getsockname"))?;
    open(address.port()).map(drop)
}

fn try_zerocopy() -> TestResult {
    let (out, mut back) = loopback()?;
    features::set_zerocopy(out.as_fd()).map_err(refused("setsockopt"))?;
    let bytes = pattern();
    let flags = MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL);
    let sent = nix::sys::socket::sendmsg::<()>(out.as_raw_fd(), &[IoSlice::new(&bytes)], &[], flags, None)
        .map_err(refused("sendmsg"))?;
    expect(&mut back, sent, "sendmsg")
}

fn try_kernel_tls() -> TestResult {
    let (out, _back) = loopback()?;
    features::set_kernel_tls(out.as_fd()).map_err(refused("setsockopt"))
}

//! [`probe`]: what works here, by trying it on a scratch file and on sockets of the loopback.

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

/// What the kernel allows pipes to be; bytes and pages of 0 for what `/proc/sys/fs` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PipeLimits {
    /// Bytes of a new pipe.
    pub default_size: u64,
    /// Bytes of the largest pipe that an unprivileged user may ask for.
    pub max_size: u64,
    /// Pages in pipes of one unprivileged user, beyond which new ones are of one page; 0: no limit.
    pub user_pages_soft: u64,
    /// Pages in pipes of one unprivileged user, beyond which there are no new ones; 0: no limit.
    pub user_pages_hard: u64,
}

/// The call that was refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The system call.
    pub syscall: &'static str,
    /// Why.
    pub errno: Errno,
}

/// One thing that a kernel can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism {
    /// Its name.
    pub name: &'static str,
    /// What came of trying.
    pub refusal: Option<Refusal>,
    /// The kernel that had it first.
    pub since: &'static str,
    /// What zerosend uses it for, or why it does not.
    pub purpose: &'static str,
    /// What zerosend does without it; `None` when it does not use it.
    pub without: Option<&'static str>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pipes.
    pub pipes: PipeLimits,
    /// Each thing by itself.
    pub mechanisms: Vec<Mechanism>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
}

type Attempt = std::result::Result<(), Refusal>;

const BYTES: usize = 8192;

fn refused(syscall: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal { syscall, errno }
}

fn failed(syscall: &'static str) -> impl Fn(std::io::Error) -> Refusal {
    move |error| Refusal { syscall, errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) }
}

/// Tries everything. Takes some milliseconds and may wait for a disk; nothing is left behind.
pub fn probe() -> Result<Probe> {
    let name = nix::sys::utsname::uname().map_err(|errno| zerosend_core::Error::system("uname", errno))?;
    let mechanism = |name, since, purpose, without, attempt: Attempt| Mechanism {
        name,
        refusal: attempt.err(),
        since,
        purpose,
        without,
    };
    let mechanisms = vec![
        mechanism(
            "sendfile",
            "2.6.33",
            "files to sockets, from 64 KiB up",
            Some("read-write: through a buffer"),
            try_sendfile(),
        ),
        mechanism(
            "splice",
            "2.6.17",
            "relays, uploads into files, and the method 'splice'",
            Some("read-write: through a buffer"),
            try_splice(),
        ),
        mechanism("tee", "2.6.17", "mirrors and splitters", Some("mirrors and splitters fail"), try_tee()),
        mechanism(
            "vmsplice",
            "2.6.17",
            "sendPages and the method 'vmsplice'",
            Some("read-write: through a buffer"),
            try_vmsplice(),
        ),
        mechanism("copy_file_range", "4.5", "not used: files go to sockets, not to files", None, try_copy_file_range()),
        mechanism(
            "openat2",
            "5.6",
            "files below a root, links and all, in one call",
            Some("the path is walked one component at a time"),
            try_openat2(),
        ),
        mechanism(
            "statx",
            "4.11",
            "has a cached file changed? A whole path in one call",
            Some("cached files are looked up by opening them"),
            try_statx(),
        ),
        mechanism(
            "preadv2(RWF_NOWAIT)",
            "4.14",
            "reading without waiting for a disk",
            Some("every file is read ahead by a thread first"),
            try_nowait(),
        ),
        mechanism(
            "cachestat",
            "6.5",
            "is a file in the page cache?",
            Some("one byte in 64 KiB is tried, and mincore(2)"),
            try_cachestat(),
        ),
        mechanism(
            "process_vm_readv",
            "3.2",
            "MappedFile: mapped bytes without SIGBUS",
            Some("pread(2), and private mappings cannot be read"),
            try_process_vm(),
        ),
        mechanism(
            "memfd",
            "3.17",
            "SharedBuffer and SharedRing without a name",
            Some("only those with a name"),
            try_memfd(),
        ),
        mechanism(
            "open file description locks",
            "3.15",
            "one writer and one reader of a SharedRing, and their deaths",
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
        mechanism("MSG_ZEROCOPY", "4.14", "not used: on loopback the kernel copies all the same", None, try_zerocopy()),
        mechanism("kernel TLS", "4.13", "not used: TLS goes through Node", None, try_kernel_tls()),
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

/// A file without a name, in the directory for such files; in memory where nothing can be written there.
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

/// Two connected stream sockets: over loopback, or a Unix pair where that is down, for which no mechanism is to blame.
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

/// Everything that comes must be what was sent.
fn expect(from: &mut impl Read, count: usize, syscall: &'static str) -> Attempt {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).map_err(failed(syscall))?;
    if bytes == pattern()[..count] { Ok(()) } else { Err(Refusal { syscall, errno: Errno::EIO }) }
}

fn try_sendfile() -> Attempt {
    let (file, (out, mut back)) = (scratch()?, sockets()?);
    let mut offset = 0;
    let sent = nix::sys::sendfile::sendfile64(&out, &file, Some(&mut offset), BYTES).map_err(refused("sendfile"))?;
    expect(&mut back, sent, "sendfile")
}

fn try_splice() -> Attempt {
    let (file, (out, mut back), (read, write)) = (scratch()?, sockets()?, pipe_pair()?);
    let flags = SpliceFlags::default();
    let sent = pipe::splice(file.as_fd(), Some(0), write.as_fd(), None, BYTES, flags)
        .and_then(|count| pipe::splice(read.as_fd(), None, out.as_fd(), None, count, flags))
        .map_err(refused("splice"))?;
    expect(&mut back, sent, "splice")
}

fn try_tee() -> Attempt {
    let ((read, write), (copy, to)) = (pipe_pair()?, pipe_pair()?);
    nix::unistd::write(&write, &pattern()[..4096]).map_err(refused("write"))?;
    let copied = pipe::tee(read.as_fd(), to.as_fd(), 4096).map_err(refused("tee"))?;
    expect(&mut File::from(read), 4096, "tee")?;
    expect(&mut File::from(copy), copied, "tee")
}

fn try_vmsplice() -> Attempt {
    let (read, write) = pipe_pair()?;
    let mut pages = Pages::new(4096).map_err(refused("mmap"))?;
    pages.copy_in(0, &pattern()[..4096]);
    let count = pipe::vmsplice(write.as_fd(), &[pages.span(0, 4096)], false).map_err(refused("vmsplice"))?;
    expect(&mut File::from(read), count, "vmsplice")
}

fn try_copy_file_range() -> Attempt {
    let (from, to) = (scratch()?, scratch()?);
    to.set_len(0).map_err(failed("ftruncate"))?;
    let (mut at, mut there) = (0, 0);
    let count =
        copy_file_range(&from, Some(&mut at), &to, Some(&mut there), BYTES).map_err(refused("copy_file_range"))?;
    let mut bytes = vec![0; count];
    std::os::unix::fs::FileExt::read_exact_at(&to, &mut bytes, 0).map_err(failed("pread"))?;
    if bytes == pattern()[..count] { Ok(()) } else { Err(Refusal { syscall: "copy_file_range", errno: Errno::EIO }) }
}

fn try_openat2() -> Attempt {
    let root = File::open("/").map_err(failed("open"))?;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open::openat2(&root, c".", flags, ResolveFlag::RESOLVE_BENEATH).map(drop).map_err(refused("openat2"))
}

fn try_statx() -> Attempt {
    let file = scratch()?;
    match open::statx(&file, open::Attributes::Fresh).map_err(refused("statx"))?.size {
        size if size == BYTES as u64 => Ok(()),
        _ => Err(Refusal { syscall: "statx", errno: Errno::EIO }),
    }
}

fn try_nowait() -> Attempt {
    let file = scratch()?;
    match residency::pread_resident(file.as_fd(), &mut [0], 0) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(refused("preadv2")(errno)),
    }
}

fn try_cachestat() -> Attempt {
    let file = scratch()?;
    cached_pages(file.as_fd(), 0, BYTES as u64).map(drop).map_err(refused("cachestat"))
}

fn try_process_vm() -> Attempt {
    let (bytes, mut copy) = (pattern(), vec![0; 16]);
    let remote = RemoteIoVec { base: bytes.as_ptr() as usize, len: 16 };
    let into = &mut [std::io::IoSliceMut::new(&mut copy)];
    nix::sys::uio::process_vm_readv(nix::unistd::getpid(), into, &[remote])
        .map(drop)
        .map_err(refused("process_vm_readv"))
}

fn try_memfd() -> Attempt {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"zerosend-probe", flags).map_err(refused("memfd_create"))?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).map(drop).map_err(refused("fcntl"))
}

fn try_locks() -> Attempt {
    let file = scratch()?;
    let lock =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 1, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).map(drop).map_err(refused("fcntl"))
}

fn try_reuse_port() -> Attempt {
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

fn try_zerocopy() -> Attempt {
    let (out, mut back) = loopback()?;
    features::set_zerocopy(out.as_fd()).map_err(refused("setsockopt"))?;
    let bytes = pattern();
    let flags = MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL);
    let sent = nix::sys::socket::sendmsg::<()>(out.as_raw_fd(), &[IoSlice::new(&bytes)], &[], flags, None)
        .map_err(refused("sendmsg"))?;
    expect(&mut back, sent, "sendmsg")
}

fn try_kernel_tls() -> Attempt {
    let (out, _back) = loopback()?;
    features::set_kernel_tls(out.as_fd()).map_err(refused("setsockopt"))
}

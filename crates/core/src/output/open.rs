//! Opens files, FIFOs and terminals for output.
//!
//! With `O_NONBLOCK`, `open(2)` of a FIFO without a reader fails with `ENXIO` instead of waiting for one. With `O_APPEND`, each
//! `write(2)` appends, also when other processes write to the file or truncate it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, fstat, stat};

use crate::error::{Code, Error, Result};
use zerosend_sys as sys;

const FLAGS: OFlag = OFlag::O_WRONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// The maximum of symbolic links followed to the name of a descriptor.
const MAX_LINKS: usize = 8;

/// A descriptor open for output.
#[derive(Debug)]
pub struct Output {
    fd: OwnedFd,
    kind: SFlag,
    identity: (u64, u64),
    is_terminal: bool,
    is_inherited: bool,
}

impl Output {
    /// Takes an open descriptor. [`Code::NotRegularFile`] for directories and block devices.
    fn new(fd: OwnedFd) -> Result<Self> {
        let stat = fstat(&fd).map_err(|errno| Error::system("fstat", errno))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let what = match kind {
            SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFSOCK | SFlag::S_IFCHR => None,
            SFlag::S_IFDIR => Some("a directory"),
            SFlag::S_IFBLK => Some("a block device"),
            _ => Some("of an unknown type"),
        };
        if let Some(what) = what {
            let message = format!("this is {what}; use a regular file, a FIFO with a reader, or a terminal");
            return Err(Error::new(Code::NotRegularFile, message));
        }
        let is_terminal = kind == SFlag::S_IFCHR && nix::unistd::isatty(&fd).unwrap_or(false);
        Ok(Self { fd, kind, identity: (stat.st_dev, stat.st_ino), is_terminal, is_inherited: false })
    }

    /// Device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether it was opened by its number: other users of the descriptor write to the same file.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == SFlag::S_IFREG
    }

    /// Whether it is a socket.
    pub fn is_socket(&self) -> bool {
        self.kind == SFlag::S_IFSOCK
    }

    /// Whether it is a pipe, FIFO, socket or terminal: a write may block, and `poll(2)` reports when it does not.
    pub fn is_stream(&self) -> bool {
        self.kind == SFlag::S_IFIFO || self.is_socket() || self.is_terminal
    }

    /// The descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `path` for appending. Creates a missing file with `mode` (reduced by the umask).
///
/// Names of descriptors of this process (`/dev/stdout`, `/dev/stderr`, `/dev/fd/3`, ...) refer to those descriptors: opened by
/// name, a file would have a second position, and a socket cannot be opened.
pub fn open(path: &Path, mode: u32) -> Result<Output> {
    if let Some(number) = own_descriptor(path) {
        return descriptor(number).map_err(|error| error.with_path(path));
    }
    open_with(path, OFlag::O_APPEND | OFlag::O_CREAT, mode)
}

/// Creates the file `path` with `mode` (reduced by the umask). `EEXIST` when it exists.
pub fn create_new(path: &Path, mode: u32) -> Result<Output> {
    open_with(path, OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL, mode)
}

/// The standard output of this process.
pub fn standard_output() -> Result<Output> {
    descriptor(1)
}

fn open_with(path: &Path, flags: OFlag, mode: u32) -> Result<Output> {
    match nix::fcntl::open(path, FLAGS | flags, Mode::from_bits_truncate(mode)) {
        Ok(fd) => Output::new(fd).map_err(|error| error.with_path(path)),
        Err(errno) => Err(explained(path, errno)),
    }
}

/// The error of open(2), with the reason for `ENXIO`.
fn explained(path: &Path, errno: Errno) -> Error {
    let error = Error::system("open", errno);
    let kind = stat(path).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    let error = match (errno, kind) {
        (Errno::ENXIO, Ok(SFlag::S_IFIFO)) => error.explained("no process reads this FIFO; start its reader first"),
        (Errno::ENXIO, Ok(SFlag::S_IFSOCK)) => error.explained("this is a socket, which cannot be opened as a file"),
        _ => error,
    };
    error.with_path(path)
}

/// The number of the descriptor that `path` names, also through symbolic links: container images have log files that are
/// links to `/dev/stdout`.
fn own_descriptor(path: &Path) -> Option<RawFd> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Some(number) = descriptor_in_name(&path) {
            return Some(number);
        }
        let target = std::fs::read_link(&path).ok()?;
        path = path.parent()?.join(target);
    }
    None
}

/// The number in `/dev/stdout`, `/dev/stderr`, `/dev/fd/<n>` and `/proc/self/fd/<n>`.
fn descriptor_in_name(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => {
            let digits = path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/"))?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        }
    }
}

fn descriptor(number: RawFd) -> Result<Output> {
    let output = Output::new(sys::fd::duplicate(number).map_err(|errno| Error::system("dup", errno))?)?;
    let flags = fcntl(&output, FcntlArg::F_GETFL).map_err(|errno| Error::system("fcntl", errno))?;
    if OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err(Error::system("open", Errno::EBADF).explained("the descriptor is not open for writing"));
    }
    if !output.is_stream() || output.is_socket() {
        return Ok(Output { is_inherited: true, ..output });
    }
    // O_NONBLOCK belongs to the open file description, which other processes may share. Opening a pipe or terminal again
    // makes another one.
    let path = format!("/proc/self/fd/{}", output.fd.as_raw_fd());
    match nix::fcntl::open(path.as_str(), FLAGS, Mode::empty()) {
        Ok(fd) => Output::new(fd),
        Err(_) => Ok(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Instant;

    #[test]
    fn opening_a_fifo_without_a_reader_fails_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
        let before = Instant::now();
        let error = open(&path, 0o600).expect_err("no reader");
        assert!(before.elapsed().as_secs() < 5);
        assert_eq!(error.errno(), Some(Errno::ENXIO));
        assert!(error.to_string().contains("no process reads this FIFO"), "{error}");
        let reader = nix::fcntl::open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).expect("a reader");
        let output = open(&path, 0o600).expect("opened");
        assert!(output.is_stream() && !output.is_file());
        nix::unistd::write(&output, b"there").expect("written");
        drop(output);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).expect("read");
        assert_eq!(text, "there");
    }

    #[test]
    fn directories_and_sockets_are_refused_and_links_to_descriptors_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(open(directory.path(), 0o600).expect_err("a directory").errno(), Some(Errno::EISDIR));
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let error = open(&socket, 0o600).expect_err("a socket");
        assert!(error.to_string().contains("this is a socket"), "{error}");
        assert!(open(Path::new("/dev/null"), 0o600).is_ok_and(|output| !output.is_stream()));
        assert_eq!(own_descriptor(Path::new("/dev/fd/12")), Some(12));
        assert_eq!(own_descriptor(Path::new("/dev/fd/")), None);
        assert_eq!(own_descriptor(Path::new("/dev/fd/1/x")), None);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/stderr", &link).expect("a link");
        std::os::unix::fs::symlink("link", directory.path().join("second")).expect("a link");
        assert_eq!(own_descriptor(&directory.path().join("second")), Some(2));
        std::os::unix::fs::symlink("loop", directory.path().join("loop")).expect("a link");
        assert_eq!(own_descriptor(&directory.path().join("loop")), None);
    }

    #[test]
    fn create_new_sets_the_mode_and_refuses_an_existing_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let output = create_new(&path, 0o600).expect("made");
        assert_eq!(fstat(&output).expect("a stat").st_mode & 0o777, 0o600);
        assert_eq!(create_new(&path, 0o600).expect_err("taken").errno(), Some(Errno::EEXIST));
    }
}

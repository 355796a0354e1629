//! Opening for output by name.
//!
//! `O_NONBLOCK` makes `open(2)` of a FIFO without a reader fail with `ENXIO` instead of waiting for one. `O_APPEND` makes each
//! `write(2)` an append, also when others write to the file, or have truncated it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, fstat, stat};

use crate::error::{Code, Error, Result};
use zerosend_sys as sys;

const FLAGS: OFlag = OFlag::O_WRONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// Symbolic links that are followed from a name to one of a descriptor.
const MAX_LINKS: usize = 8;

/// Something open for output.
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
            let message = format!("this is {what}; name a regular file, a FIFO with a reader, or a terminal");
            return Err(Error::new(Code::NotRegularFile, message));
        }
        let is_terminal = kind == SFlag::S_IFCHR && nix::unistd::isatty(&fd).unwrap_or(false);
        Ok(Self { fd, kind, identity: (stat.st_dev, stat.st_ino), is_terminal, is_inherited: false })
    }

    /// Device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// A descriptor that this process had before, whose file others write to as well.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// A regular file.
    pub fn is_file(&self) -> bool {
        self.kind == SFlag::S_IFREG
    }

    /// A socket.
    pub fn is_socket(&self) -> bool {
        self.kind == SFlag::S_IFSOCK
    }

    /// A pipe, FIFO, socket or terminal: it may take nothing for a while, and `poll(2)` says when it takes something.
    pub fn is_stream(&self) -> bool {
        self.kind == SFlag::S_IFIFO || self.is_socket() || self.is_terminal
    }

    /// The descriptor itself.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `path` for appending, making a file with `mode` (less the umask) where there is none.
///
/// Names of this process's own descriptors (`/dev/stdout`, `/dev/stderr`, `/dev/fd/3`, ...) are those descriptors: opened by
/// name, a file would have a second position, and a socket cannot be opened at all.
pub fn open(path: &Path, mode: u32) -> Result<Output> {
    if let Some(number) = own_descriptor(path) {
        return descriptor(number).map_err(|error| error.with_path(path));
    }
    open_with(path, OFlag::O_APPEND | OFlag::O_CREAT, mode)
}

/// Makes the file at `path`, with `mode` less the umask. `EEXIST` when the name is taken.
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
        Err(errno) => Err(refusal(path, errno)),
    }
}

/// Says what `ENXIO` of open(2) means here.
fn refusal(path: &Path, errno: Errno) -> Error {
    let error = Error::system("open", errno);
    let kind = stat(path).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    let error = match (errno, kind) {
        (Errno::ENXIO, Ok(SFlag::S_IFIFO)) => error.explained("no process reads this FIFO; start its reader first"),
        (Errno::ENXIO, Ok(SFlag::S_IFSOCK)) => error.explained("this is a socket, which cannot be opened as a file"),
        _ => error,
    };
    error.with_path(path)
}

/// The descriptor that a name stands for, also through symbolic links: images of containers have a log that is a link to
/// `/dev/stdout`.
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
    // O_NONBLOCK belongs to the open file, which other processes may share. Opened again, a pipe or terminal has its own.
    let again = format!("/proc/self/fd/{}", output.fd.as_raw_fd());
    match nix::fcntl::open(again.as_str(), FLAGS, Mode::empty()) {
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
    fn a_fifo_needs_a_reader_and_nothing_waits_for_it() {
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
    fn what_is_no_output_is_named() {
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
    fn a_new_file_has_its_mode_and_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let output = create_new(&path, 0o600).expect("made");
        assert_eq!(fstat(&output).expect("a stat").st_mode & 0o777, 0o600);
        assert_eq!(create_new(&path, 0o600).expect_err("taken").errno(), Some(Errno::EEXIST));
    }
}

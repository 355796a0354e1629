//! Files that mirrors write to: one for all connections, or one for each.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;

use super::append::AppendBacklog;
use super::template::{Template, Values};
use crate::error::{Code, Error, Result};
use crate::io::pool::Volume;
use crate::output::{self, FileWriter, Output, Serial};
use zerosend_sys::SysResult;

/// Names that are tried when files of other processes appear meanwhile.
const MAX_TRIES: usize = 100;

/// One file, FIFO, pipe or terminal for all connections.
pub struct MirrorFile {
    path: PathBuf,
    mode: u32,
    current: Mutex<Current>,
    waiting: Arc<AppendBacklog>,
}

#[derive(Clone)]
enum Current {
    File(Arc<FileWriter>),
    Stream(Arc<OwnedFd>),
}

impl From<Output> for Current {
    fn from(output: Output) -> Self {
        if output.is_stream() {
            Self::Stream(Arc::new(output.into_fd()))
        } else {
            Self::File(FileWriter::shared(output))
        }
    }
}

impl MirrorFile {
    /// Opens it, making a file with `mode` where there is none. May wait for a disk.
    pub fn open(path: &Path, mode: u32) -> Result<Self> {
        let current = output::open(path, mode)?.into();
        Ok(Self { path: path.to_owned(), mode, current: Mutex::new(current), waiting: Arc::default() })
    }

    /// Opens what has the name now; on failure it stays with what it has. May wait for a disk.
    pub fn reopen(&self) -> Result<()> {
        let opened: Current = output::open(&self.path, self.mode)?.into();
        let mut current = self.lock();
        if matches!(*current, Current::File(_)) != matches!(opened, Current::File(_)) {
            let message = "a file cannot be replaced by a FIFO or terminal while it is a mirror, nor the reverse";
            return Err(Error::new(Code::InvalidArgument, message).with_path(&self.path));
        }
        *current = opened;
        Ok(())
    }

    pub(super) fn waiting(&self) -> &Arc<AppendBacklog> {
        &self.waiting
    }

    /// A duplicate of the descriptor of a stream; `None` for a file.
    pub(super) fn stream(&self) -> Option<SysResult<OwnedFd>> {
        match &*self.lock() {
            Current::Stream(fd) => Some(fd.try_clone().map_err(errno_of)),
            Current::File(_) => None,
        }
    }

    /// Has `job` write to the file that is current then.
    pub(super) fn run(&self, job: impl FnOnce(SysResult<&FileWriter>) + Send + 'static) {
        match self.lock().clone() {
            Current::File(writer) => writer.run(move |writer| job(Ok(writer))),
            // Only a file is asked.
            Current::Stream(_) => job(Err(Errno::ESPIPE)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file for each connection.
pub struct MirrorFiles {
    template: Template,
    mode: u32,
    /// All of them are written by one thread at a time: they are on the same disk as a rule.
    queue: Serial,
    first_free: u64,
    waiting: Arc<AppendBacklog>,
    /// Raised by [`MirrorFiles::reopen`].
    generation: AtomicU64,
}

impl MirrorFiles {
    /// Nothing is opened yet, but the directory is searched for numbers that are taken.
    pub fn new(template: Template, mode: u32) -> Self {
        let volume = Volume::of_path(template.directory());
        let first_free = if template.is_numbered() { template.first_free() } else { 1 };
        Self {
            template,
            mode,
            queue: Serial::new(volume),
            first_free,
            waiting: Arc::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Files of connections that are open are opened by name again, before the next bytes.
    pub fn reopen(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// The first number for `{n}` that no file has.
    pub(super) fn first_free(&self) -> u64 {
        self.first_free
    }

    /// Whether both are for the same files.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.template == other.template
    }
}

/// Numbers for connections, and an id that no other relay has.
pub(super) struct Numbers {
    next: AtomicU64,
    id: u64,
}

impl Numbers {
    /// Numbers from `first` on.
    pub fn from(first: u64) -> Self {
        Self { next: AtomicU64::new(first), id: RandomState::new().hash_one(std::process::id()) }
    }

    fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the names of a connection's files are made of.
pub(super) struct LinkName {
    numbers: Arc<Numbers>,
    time: SystemTime,
    client: Option<SocketAddr>,
    id: String,
    taken: Mutex<Taken>,
}

/// The number of a connection, and the files that were made for it.
#[derive(Default)]
struct Taken {
    number: u64,
    paths: Vec<PathBuf>,
}

impl LinkName {
    pub fn new(numbers: &Arc<Numbers>, client: Option<SocketAddr>) -> Self {
        let number = numbers.take();
        Self {
            numbers: numbers.clone(),
            time: SystemTime::now(),
            client,
            id: format!("{:016x}-{number}", numbers.id),
            taken: Mutex::new(Taken { number, paths: Vec::new() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the files of a connection, opened when it is first written to.
pub(super) struct LinkFile {
    files: Arc<MirrorFiles>,
    link: Arc<LinkName>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    writer: Arc<FileWriter>,
    path: PathBuf,
    generation: u64,
}

impl LinkFile {
    pub fn new(files: Arc<MirrorFiles>, link: Arc<LinkName>) -> Self {
        Self { files, link, opened: Mutex::new(None) }
    }

    pub fn waiting(&self) -> &Arc<AppendBacklog> {
        &self.files.waiting
    }

    /// Has `job` write to it.
    pub fn run(self: &Arc<Self>, job: impl FnOnce(SysResult<&FileWriter>) + Send + 'static) {
        let file = self.clone();
        self.files.queue.run(move || match file.writer() {
            Ok(writer) => job(Ok(&writer)),
            Err(error) => job(Err(error.errno().unwrap_or(Errno::EINVAL))),
        });
    }

    fn writer(&self) -> Result<Arc<FileWriter>> {
        let generation = self.files.generation.load(Ordering::Relaxed);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &mut *opened {
            if opened.generation != generation {
                opened.generation = generation;
                // As with one file for all: without a new one the old one is kept.
                if let Ok(output) = output::open(&opened.path, self.files.mode).and_then(only_files) {
                    opened.writer = Arc::new(FileWriter::unshared(output));
                }
            }
            return Ok(opened.writer.clone());
        }
        let (output, path) = self.open()?;
        let writer = Arc::new(FileWriter::unshared(only_files(output)?));
        *opened = Some(Opened { writer: writer.clone(), path, generation });
        Ok(writer)
    }

    /// Opens a file for the first time. One with a number is made: what another start or process has written is left alone.
    fn open(&self) -> Result<(Output, PathBuf)> {
        let MirrorFiles { template, mode, .. } = &*self.files;
        let LinkName { time, client, ref id, .. } = *self.link;
        let mut number = self.link.lock().number;
        let mut tries = 0;
        loop {
            let path = PathBuf::from(template.expand(&Values { number, time, client, id }));
            if !template.is_numbered() || self.link.lock().paths.contains(&path) {
                return output::open(&path, *mode).map(|output| (output, path));
            }
            match output::create_new(&path, *mode) {
                Ok(output) => {
                    let mut taken = self.link.lock();
                    // The other files of the connection get the same number.
                    if taken.paths.is_empty() {
                        taken.number = number;
                    }
                    taken.paths.push(path.clone());
                    return Ok((output, path));
                }
                Err(error) if error.errno() == Some(Errno::EEXIST) && tries < MAX_TRIES => {
                    tries += 1;
                    // Another process makes files by the same name. Their numbers are looked up seldom: it reads the directory.
                    if tries % 10 == 2 {
                        self.link.numbers.next.fetch_max(template.first_free(), Ordering::Relaxed);
                    }
                    number = self.link.numbers.take();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Streams would have to be waited for.
fn only_files(output: Output) -> Result<Output> {
    if output.is_stream() {
        return Err(Error::system("open", Errno::ESPIPE));
    }
    Ok(output)
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

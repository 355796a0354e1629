//! Files of a mirror, one for each connection.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;

use super::append_backlog::AppendBacklog;
use super::template::{Template, Values};
use crate::error::{Error, Result};
use crate::io::pool::Volume;
use crate::output::{self, FileWriter, Output, Serial};
use zerosend_sys::SysResult;

/// Number of names to try while other processes create files with the same names.
const MAX_TRIES: usize = 100;

/// A file for each connection.
pub struct MirrorFiles {
    template: Template,
    mode: u32,
    /// One thread at a time writes to all of them, since they are usually on the same disk.
    queue: Serial,
    first_free: u64,
    backlog: Arc<AppendBacklog>,
    /// Incremented by [`MirrorFiles::reopen`].
    generation: AtomicU64,
}

impl MirrorFiles {
    /// Searches the directory for the numbers of existing files. Opens no file.
    pub fn new(template: Template, mode: u32) -> Self {
        let volume = Volume::of_path(template.directory());
        let first_free = if template.is_numbered() { template.first_free() } else { 1 };
        Self {
            template,
            mode,
            queue: Serial::new(volume),
            first_free,
            backlog: Arc::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Has each open file opened by its path again before the next append.
    pub fn reopen(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// The first value of `{n}` that no existing file has.
    pub(super) fn first_free(&self) -> u64 {
        self.first_free
    }

    /// Whether both have the same file names.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.template == other.template
    }
}

/// Numbers of connections, and a random id of the relay.
pub(super) struct ConnectionNumbers {
    next: AtomicU64,
    id: u64,
}

impl ConnectionNumbers {
    pub fn starting_at(first: u64) -> Self {
        Self { next: AtomicU64::new(first), id: RandomState::new().hash_one(std::process::id()) }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// The values for the names of a connection's files.
pub(super) struct LinkName {
    numbers: Arc<ConnectionNumbers>,
    time: SystemTime,
    client: Option<SocketAddr>,
    id: String,
    created: Mutex<Created>,
}

/// The number of a connection, and the files that were created with it.
#[derive(Default)]
struct Created {
    number: u64,
    paths: Vec<PathBuf>,
}

impl LinkName {
    pub fn new(numbers: &Arc<ConnectionNumbers>, client: Option<SocketAddr>) -> Self {
        let number = numbers.next();
        Self {
            numbers: numbers.clone(),
            time: SystemTime::now(),
            client,
            id: format!("{:016x}-{number}", numbers.id),
            created: Mutex::new(Created { number, paths: Vec::new() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Created> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the files of a connection, opened at the first append.
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

    pub fn backlog(&self) -> &Arc<AppendBacklog> {
        &self.files.backlog
    }

    /// Runs `job` with the writer of the file, on a thread that may wait for a disk.
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
                // As in `MirrorFile::reopen`, the open file stays if that fails.
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

    /// Opens the file for the first time. A file with a number in its name is always a new one, so that files of other processes
    /// and of earlier runs are not changed.
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
                    let mut created = self.link.lock();
                    // The other files of the connection get the same number.
                    if created.paths.is_empty() {
                        created.number = number;
                    }
                    created.paths.push(path.clone());
                    return Ok((output, path));
                }
                Err(error) if error.errno() == Some(Errno::EEXIST) && tries < MAX_TRIES => {
                    tries += 1;
                    // Another process creates files with the same names. Reads the directory at every tenth try only.
                    if tries % 10 == 2 {
                        self.link.numbers.next.fetch_max(template.first_free(), Ordering::Relaxed);
                    }
                    number = self.link.numbers.next();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Refuses a FIFO or terminal: a write to it could block.
fn only_files(output: Output) -> Result<Output> {
    if output.is_stream() {
        return Err(Error::system("open", Errno::ESPIPE));
    }
    Ok(output)
}

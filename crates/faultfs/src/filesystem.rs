//! The operations: each asks the rules first, then does to the backing directory what was asked.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, mkdirat, utimensat};
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::Options;
use crate::inodes::{Inode, Inodes, child};
use crate::rules::{Operation, Rules};

/// An open file, or an open directory with the names that were in it then.
enum Open {
    File(File),
    Directory(Vec<(u64, FileType, OsString)>),
}

struct Mirror {
    options: Options,
    rules: Arc<Rules>,
    inodes: Inodes,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    last_handle: AtomicU64,
}

/// The file system as fuser calls it.
pub(crate) struct FaultFs(Arc<Mirror>);

impl FaultFs {
    pub(crate) fn new(backing: &Path, options: Options, rules: Arc<Rules>) -> Result<FaultFs, Errno> {
        let inodes = Inodes::new(backing)?;
        Ok(FaultFs(Arc::new(Mirror { options, rules, inodes, open: Mutex::default(), last_handle: AtomicU64::new(0) })))
    }

    /// Calls `reply` with what the rules say, on a thread of its own where they delay it: other requests are not held up.
    fn gate(
        &self,
        operation: Operation,
        path: &Path,
        end: Option<u64>,
        reply: impl FnOnce(&Mirror, Result<(), Errno>) + Send + 'static,
    ) {
        let mirror = Arc::clone(&self.0);
        let verdict = mirror.rules.enter(operation, path, end);
        if verdict.is_immediate() {
            return reply(&mirror, verdict.result());
        }
        // Where no thread can be had, the reply is dropped with the closure, which answers EIO.
        let _ = thread::Builder::new()
            .name(operation.name().into())
            .spawn(move || reply(&mirror, mirror.rules.wait(&verdict)));
    }

    fn inode_path(&self, number: INodeNo) -> PathBuf {
        self.0.inodes.get(number).map(|inode| inode.path()).unwrap_or_default()
    }

    fn child_path(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.0.inodes.get(parent).map(|inode| child(&inode, name)).unwrap_or_default()
    }
}

impl Mirror {
    // The types of the fields differ between processors.
    #[allow(clippy::unnecessary_cast)]
    fn attributes(&self, stat: &FileStat) -> FileAttr {
        let time = |seconds: i64, nanoseconds: i64| {
            let whole = Duration::from_secs(seconds.unsigned_abs());
            let base = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
            let nanoseconds = if self.options.whole_seconds { 0 } else { nanoseconds };
            base + Duration::from_nanos(nanoseconds as u64)
        };
        let kind = file_type(stat);
        FileAttr {
            ino: self.inodes.number(stat.st_ino),
            size: if self.options.zero_size && kind == FileType::RegularFile { 0 } else { stat.st_size as u64 },
            blocks: stat.st_blocks as u64,
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            crtime: UNIX_EPOCH,
            kind,
            perm: (stat.st_mode & 0o7777) as u16,
            nlink: stat.st_nlink as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev as u32,
            blksize: stat.st_blksize as u32,
            flags: 0,
        }
    }

    fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let stat = self.inodes.lookup(&*self.inodes.get(parent)?, name)?;
        Ok(self.attributes(&stat))
    }

    fn getattr(&self, number: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let stat = match handle.and_then(|handle| self.handle(handle).ok()).as_deref() {
            Some(Open::File(file)) => fstat(file)?,
            _ => self.inodes.get(number)?.stat()?,
        };
        Ok(self.attributes(&stat))
    }

    fn open_inode(&self, inode: &Inode, flags: i32) -> Result<File, Errno> {
        let flags = OFlag::from_bits_retain(flags) & !(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW);
        let fd = nix::fcntl::open(&inode.proc_path(), flags | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(File::from(fd))
    }

    fn file_flags(&self) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, self.options.keep_cache);
        flags.set(FopenFlags::FOPEN_DIRECT_IO, self.options.direct_io);
        flags
    }

    fn add(&self, open: Open) -> FileHandle {
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        self.handles().insert(handle, Arc::new(open));
        FileHandle(handle)
    }

    fn handle(&self, handle: FileHandle) -> Result<Arc<Open>, Errno> {
        self.handles().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let open = self.handle(handle)?;
        let Open::File(file) = &*open else { return Err(Errno::EISDIR) };
        let mut bytes = vec![0; size as usize];
        let mut have = 0;
        while have < bytes.len() {
            match file.read_at(&mut bytes[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
        bytes.truncate(have);
        Ok(bytes)
    }

    fn names(&self, inode: &Inode) -> Result<Vec<(u64, FileType, OsString)>, Errno> {
        let mut names = vec![(1, FileType::Directory, ".".into()), (1, FileType::Directory, "..".into())];
        for entry in std::fs::read_dir(inode.proc_path()).map_err(|error| errno(&error))? {
            let entry = entry.map_err(|error| errno(&error))?;
            let kind = entry.file_type().ok().and_then(FileType::from_std).unwrap_or(FileType::RegularFile);
            names.push((self.inodes.number(entry.ino()).0, kind, entry.file_name()));
        }
        Ok(names)
    }

    fn set_attributes(&self, inode: &Inode, wanted: &Wanted, handle: Option<FileHandle>) -> Result<(), Errno> {
        let path = inode.proc_path();
        if let Some(mode) = wanted.mode {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode & 0o7777)).map_err(|error| errno(&error))?;
        }
        if wanted.uid.is_some() || wanted.gid.is_some() {
            chown(&path, wanted.uid, wanted.gid).map_err(|error| errno(&error))?;
        }
        if let Some(size) = wanted.size {
            let open = handle.and_then(|handle| self.handle(handle).ok());
            match open.as_deref() {
                Some(Open::File(file)) => file.set_len(size),
                _ => OpenOptions::new()
                    .write(true)
                    .custom_flags(OFlag::O_CLOEXEC.bits())
                    .open(&path)
                    .and_then(|file| file.set_len(size)),
            }
            .map_err(|error| errno(&error))?;
        }
        if wanted.atime.is_some() || wanted.mtime.is_some() {
            let [atime, mtime] = [wanted.atime, wanted.mtime].map(time_spec);
            utimensat(AT_FDCWD, &path, &atime, &mtime, UtimensatFlags::FollowSymlink)?;
        }
        Ok(())
    }
}

struct Wanted {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

impl fuser::Filesystem for FaultFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it the kernel has one lookup or readdir of a directory at a time.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        if self.0.options.auto_invalidate {
            // As libfuse does: cached pages are dropped when size or modification time change.
            let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
        }
        // Delayed reads of one file must not keep those of another from being sent.
        let _ = config.set_max_background(1024);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (path, name) = (self.child_path(parent, name), name.to_owned());
        self.gate(Operation::Lookup, &path, None, move |mirror, gate| {
            entry(mirror, gate.and_then(|()| mirror.lookup(parent, &name)), reply);
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.0.inodes.forget(number, lookups);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        self.gate(Operation::Getattr, &self.inode_path(number), None, move |mirror, gate| {
            match gate.and_then(|()| mirror.getattr(number, handle)) {
                Ok(attributes) => reply.attr(&mirror.options.attr_timeout, &attributes),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, uid, gid, size, atime, mtime };
        self.gate(Operation::Setattr, &self.inode_path(number), None, move |mirror, gate| {
            let set = || {
                mirror.set_attributes(&*mirror.inodes.get(number)?, &wanted, handle)?;
                mirror.getattr(number, handle)
            };
            match gate.and_then(|()| set()) {
                Ok(attributes) => reply.attr(&mirror.options.attr_timeout, &attributes),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        self.gate(Operation::Readlink, &self.inode_path(number), None, move |mirror, gate| {
            match gate.and_then(|()| readlinkat(&*mirror.inodes.get(number)?, "")) {
                Ok(target) => reply.data(target.as_bytes()),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (path, name) = (self.child_path(parent, name), name.to_owned());
        self.gate(Operation::Mkdir, &path, None, move |mirror, gate| {
            let make = || {
                mkdirat(&*mirror.inodes.get(parent)?, &*name, Mode::from_bits_truncate(mode & !umask))?;
                mirror.lookup(parent, &name)
            };
            entry(mirror, gate.and_then(|()| make()), reply);
        });
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (path, name, target) = (self.child_path(parent, name), name.to_owned(), target.to_owned());
        self.gate(Operation::Symlink, &path, None, move |mirror, gate| {
            let make = || {
                symlinkat(&target, &*mirror.inodes.get(parent)?, &*name)?;
                mirror.lookup(parent, &name)
            };
            entry(mirror, gate.and_then(|()| make()), reply);
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, UnlinkatFlags::NoRemoveDir, reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, UnlinkatFlags::RemoveDir, reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(fuser::Errno::EINVAL);
        }
        let (path, name, new_name) = (self.child_path(parent, name), name.to_owned(), new_name.to_owned());
        self.gate(Operation::Rename, &path, None, move |mirror, gate| {
            let rename =
                || renameat(&*mirror.inodes.get(parent)?, &*name, &*mirror.inodes.get(new_parent)?, &*new_name);
            done(gate.and_then(|()| rename()), reply);
        });
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.gate(Operation::Open, &self.inode_path(number), None, move |mirror, gate| {
            match gate.and_then(|()| mirror.open_inode(&*mirror.inodes.get(number)?, flags.0)) {
                Ok(file) => reply.opened(mirror.add(Open::File(file)), mirror.file_flags()),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (path, name) = (self.child_path(parent, name), name.to_owned());
        self.gate(Operation::Create, &path, None, move |mirror, gate| {
            let create = || {
                let flags = OFlag::from_bits_retain(flags) | OFlag::O_CREAT | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_truncate(mode & !umask);
                let fd = openat(&*mirror.inodes.get(parent)?, &*name, flags, mode)?;
                Ok((mirror.lookup(parent, &name)?, mirror.add(Open::File(File::from(fd)))))
            };
            match gate.and_then(|()| create()) {
                Ok((attributes, handle)) => {
                    reply.created(&mirror.options.attr_timeout, &attributes, Generation(0), handle, mirror.file_flags())
                }
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = offset + u64::from(size);
        self.gate(Operation::Read, &self.inode_path(number), Some(end), move |mirror, gate| {
            match gate.and_then(|()| mirror.read(handle, offset, size)) {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (data, end) = (data.to_vec(), offset + data.len() as u64);
        self.gate(Operation::Write, &self.inode_path(number), Some(end), move |mirror, gate| {
            let write = || match &*mirror.handle(handle)? {
                Open::File(file) => file.write_at(&data, offset).map_err(|error| errno(&error)),
                Open::Directory(_) => Err(Errno::EISDIR),
            };
            match gate.and_then(|()| write()) {
                Ok(count) => reply.written(count as u32),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn flush(&self, _request: &Request, number: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.gate(Operation::Flush, &self.inode_path(number), None, move |_, gate| done(gate, reply));
    }

    fn fsync(&self, _request: &Request, number: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.gate(Operation::Fsync, &self.inode_path(number), None, move |mirror, gate| {
            let sync = || match &*mirror.handle(handle)? {
                Open::File(file) => file.sync_all().map_err(|error| errno(&error)),
                Open::Directory(_) => Ok(()),
            };
            done(gate.and_then(|()| sync()), reply);
        });
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.gate(Operation::Release, &self.inode_path(number), None, move |mirror, gate| {
            mirror.handles().remove(&handle.0);
            done(gate, reply);
        });
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.gate(Operation::Opendir, &self.inode_path(number), None, move |mirror, gate| {
            match gate.and_then(|()| mirror.names(&*mirror.inodes.get(number)?)) {
                Ok(names) => reply.opened(mirror.add(Open::Directory(names)), FopenFlags::empty()),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn readdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.gate(Operation::Readdir, &self.inode_path(number), None, move |mirror, gate| {
            match gate.and_then(|()| mirror.handle(handle)).as_deref() {
                Ok(Open::Directory(names)) => {
                    for (at, (number, kind, name)) in names.iter().enumerate().skip(offset as usize) {
                        if reply.add(INodeNo(*number), at as u64 + 1, *kind, name) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Ok(Open::File(_)) => reply.error(fuser::Errno::ENOTDIR),
                Err(errno) => reply.error(reported(*errno)),
            }
        });
    }

    fn releasedir(&self, _request: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.handles().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.gate(Operation::Statfs, &self.inode_path(number), None, move |mirror, gate| {
            match gate.and_then(|()| fstatvfs(&*mirror.inodes.get(INodeNo::ROOT)?)) {
                Ok(stat) => reply.statfs(
                    stat.blocks(),
                    stat.blocks_free(),
                    stat.blocks_available(),
                    stat.files(),
                    stat.files_free(),
                    stat.block_size() as u32,
                    stat.name_max() as u32,
                    stat.fragment_size() as u32,
                ),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }
}

impl FaultFs {
    fn remove(&self, parent: INodeNo, name: &OsStr, flags: UnlinkatFlags, reply: ReplyEmpty) {
        let (path, name) = (self.child_path(parent, name), name.to_owned());
        self.gate(Operation::Remove, &path, None, move |mirror, gate| {
            done(gate.and_then(|()| unlinkat(&*mirror.inodes.get(parent)?, &*name, flags)), reply);
        });
    }
}

fn entry(mirror: &Mirror, result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    let Options { attr_timeout, entry_timeout, .. } = mirror.options;
    match result {
        Ok(attributes) => reply.entry_with_ttls(&attr_timeout, &entry_timeout, &attributes, Generation(0)),
        Err(errno) => reply.error(reported(errno)),
    }
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(reported(errno)),
    }
}

fn reported(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn time_spec(time: Option<TimeOrNow>) -> TimeSpec {
    match time {
        None => TimeSpec::UTIME_OMIT,
        Some(TimeOrNow::Now) => TimeSpec::UTIME_NOW,
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(after) => after.into(),
            Err(before) => TimeSpec::new(-(before.duration().as_secs() as i64), 0),
        },
    }
}

fn file_type(stat: &FileStat) -> FileType {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => FileType::Directory,
        SFlag::S_IFLNK => FileType::Symlink,
        SFlag::S_IFIFO => FileType::NamedPipe,
        SFlag::S_IFSOCK => FileType::Socket,
        SFlag::S_IFCHR => FileType::CharDevice,
        SFlag::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

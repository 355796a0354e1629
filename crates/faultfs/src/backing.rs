//! The operations on the backing directory.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{FileAttr, FileHandle, FileType, FopenFlags, INodeNo, TimeOrNow};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, utimensat};
use nix::sys::time::TimeSpec;

use crate::Options;
use crate::inodes::{Inode, Inodes};

/// An open file, or an open directory with its entries at the time of opening.
pub(crate) enum Open {
    File(File),
    Directory(Vec<(u64, FileType, OsString)>),
}

/// The backing directory and its open files.
pub(crate) struct Backing {
    pub(crate) options: Options,
    pub(crate) inodes: Inodes,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    last_handle: AtomicU64,
}

impl Backing {
    pub(crate) fn new(path: &Path, options: Options) -> Result<Backing, Errno> {
        let inodes = Inodes::new(path)?;
        Ok(Backing { options, inodes, open: Mutex::default(), last_handle: AtomicU64::new(0) })
    }

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

    pub(crate) fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let stat = self.inodes.lookup(&*self.inodes.get(parent)?, name)?;
        Ok(self.attributes(&stat))
    }

    pub(crate) fn getattr(&self, number: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let stat = match handle.and_then(|handle| self.handle(handle).ok()).as_deref() {
            Some(Open::File(file)) => fstat(file)?,
            _ => self.inodes.get(number)?.stat()?,
        };
        Ok(self.attributes(&stat))
    }

    pub(crate) fn open_inode(&self, inode: &Inode, flags: i32) -> Result<File, Errno> {
        let flags = OFlag::from_bits_retain(flags) & !(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW);
        let fd = nix::fcntl::open(&inode.proc_path(), flags | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(File::from(fd))
    }

    pub(crate) fn file_flags(&self) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, self.options.keep_cache);
        flags.set(FopenFlags::FOPEN_DIRECT_IO, self.options.direct_io);
        flags
    }

    pub(crate) fn add(&self, open: Open) -> FileHandle {
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        self.handles().insert(handle, Arc::new(open));
        FileHandle(handle)
    }

    pub(crate) fn handle(&self, handle: FileHandle) -> Result<Arc<Open>, Errno> {
        self.handles().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    pub(crate) fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
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

    pub(crate) fn entries(&self, inode: &Inode) -> Result<Vec<(u64, FileType, OsString)>, Errno> {
        let mut names = vec![(1, FileType::Directory, ".".into()), (1, FileType::Directory, "..".into())];
        for entry in std::fs::read_dir(inode.proc_path()).map_err(|error| errno(&error))? {
            let entry = entry.map_err(|error| errno(&error))?;
            let kind = entry.file_type().ok().and_then(FileType::from_std).unwrap_or(FileType::RegularFile);
            names.push((self.inodes.number(entry.ino()).0, kind, entry.file_name()));
        }
        Ok(names)
    }

    pub(crate) fn set_attributes(
        &self,
        inode: &Inode,
        new: &NewAttributes,
        handle: Option<FileHandle>,
    ) -> Result<(), Errno> {
        let path = inode.proc_path();
        if let Some(mode) = new.mode {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode & 0o7777)).map_err(|error| errno(&error))?;
        }
        if new.uid.is_some() || new.gid.is_some() {
            chown(&path, new.uid, new.gid).map_err(|error| errno(&error))?;
        }
        if let Some(size) = new.size {
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
        if new.atime.is_some() || new.mtime.is_some() {
            let [atime, mtime] = [new.atime, new.mtime].map(time_spec);
            utimensat(AT_FDCWD, &path, &atime, &mtime, UtimensatFlags::FollowSymlink)?;
        }
        Ok(())
    }
}

/// The attributes that a setattr changes.
pub(crate) struct NewAttributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

pub(crate) fn errno(error: &io::Error) -> Errno {
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

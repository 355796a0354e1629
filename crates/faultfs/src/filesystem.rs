//! The file system that fuser calls: each operation first applies the rules, then the operation of the backing directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::Options;
use crate::backing::{Backing, NewAttributes, Open, errno};
use crate::inodes::child;
use crate::rules::{Operation, Rules};

/// The file system of a mount.
pub(crate) struct FaultFs {
    backing: Arc<Backing>,
    rules: Arc<Rules>,
}

impl FaultFs {
    pub(crate) fn new(backing: &Path, options: Options, rules: Arc<Rules>) -> Result<FaultFs, Errno> {
        Ok(FaultFs { backing: Arc::new(Backing::new(backing, options)?), rules })
    }

    /// Applies the rules, then calls `reply` with their result: on another thread when a rule delays it, so that other
    /// requests are not delayed.
    fn apply_rules(
        &self,
        operation: Operation,
        path: &Path,
        end: Option<u64>,
        reply: impl FnOnce(&Backing, Result<(), Errno>) + Send + 'static,
    ) {
        let verdict = self.rules.enter(operation, path, end);
        if verdict.is_immediate() {
            return reply(&self.backing, verdict.result());
        }
        let (backing, rules) = (Arc::clone(&self.backing), Arc::clone(&self.rules));
        // If no thread can be started, the closure and its reply are dropped: fuser then replies EIO.
        let _ =
            thread::Builder::new().name(operation.name().into()).spawn(move || reply(&backing, rules.wait(&verdict)));
    }

    fn inode_path(&self, number: INodeNo) -> PathBuf {
        self.backing.inodes.get(number).map(|inode| inode.path()).unwrap_or_default()
    }

    fn child_path(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.backing.inodes.get(parent).map(|inode| child(&inode, name)).unwrap_or_default()
    }
}

impl fuser::Filesystem for FaultFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it the kernel serializes lookup and readdir of a directory.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        if self.backing.options.auto_invalidate {
            // As libfuse does: cached pages are dropped when size or modification time change.
            let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
        }
        // High enough that delayed reads of one file do not stop reads of others.
        let _ = config.set_max_background(1024);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (path, name) = (self.child_path(parent, name), name.to_owned());
        self.apply_rules(Operation::Lookup, &path, None, move |backing, rules| {
            entry(backing, rules.and_then(|()| backing.lookup(parent, &name)), reply);
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.backing.inodes.forget(number, lookups);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        self.apply_rules(Operation::Getattr, &self.inode_path(number), None, move |backing, rules| {
            match rules.and_then(|()| backing.getattr(number, handle)) {
                Ok(attributes) => reply.attr(&backing.options.attr_timeout, &attributes),
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
        let new = NewAttributes { mode, uid, gid, size, atime, mtime };
        self.apply_rules(Operation::Setattr, &self.inode_path(number), None, move |backing, rules| {
            let set = || {
                backing.set_attributes(&*backing.inodes.get(number)?, &new, handle)?;
                backing.getattr(number, handle)
            };
            match rules.and_then(|()| set()) {
                Ok(attributes) => reply.attr(&backing.options.attr_timeout, &attributes),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        self.apply_rules(Operation::Readlink, &self.inode_path(number), None, move |backing, rules| {
            match rules.and_then(|()| readlinkat(&*backing.inodes.get(number)?, "")) {
                Ok(target) => reply.data(target.as_bytes()),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (path, name) = (self.child_path(parent, name), name.to_owned());
        self.apply_rules(Operation::Mkdir, &path, None, move |backing, rules| {
            let make = || {
                mkdirat(&*backing.inodes.get(parent)?, &*name, Mode::from_bits_truncate(mode & !umask))?;
                backing.lookup(parent, &name)
            };
            entry(backing, rules.and_then(|()| make()), reply);
        });
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (path, name, target) = (self.child_path(parent, name), name.to_owned(), target.to_owned());
        self.apply_rules(Operation::Symlink, &path, None, move |backing, rules| {
            let make = || {
                symlinkat(&target, &*backing.inodes.get(parent)?, &*name)?;
                backing.lookup(parent, &name)
            };
            entry(backing, rules.and_then(|()| make()), reply);
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
        self.apply_rules(Operation::Rename, &path, None, move |backing, rules| {
            let rename =
                || renameat(&*backing.inodes.get(parent)?, &*name, &*backing.inodes.get(new_parent)?, &*new_name);
            done(rules.and_then(|()| rename()), reply);
        });
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.apply_rules(Operation::Open, &self.inode_path(number), None, move |backing, rules| {
            match rules.and_then(|()| backing.open_inode(&*backing.inodes.get(number)?, flags.0)) {
                Ok(file) => reply.opened(backing.add(Open::File(file)), backing.file_flags()),
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
        self.apply_rules(Operation::Create, &path, None, move |backing, rules| {
            let create = || {
                let flags = OFlag::from_bits_retain(flags) | OFlag::O_CREAT | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_truncate(mode & !umask);
                let fd = openat(&*backing.inodes.get(parent)?, &*name, flags, mode)?;
                Ok((backing.lookup(parent, &name)?, backing.add(Open::File(File::from(fd)))))
            };
            match rules.and_then(|()| create()) {
                Ok((attributes, handle)) => reply.created(
                    &backing.options.attr_timeout,
                    &attributes,
                    Generation(0),
                    handle,
                    backing.file_flags(),
                ),
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
        self.apply_rules(Operation::Read, &self.inode_path(number), Some(end), move |backing, rules| {
            match rules.and_then(|()| backing.read(handle, offset, size)) {
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
        self.apply_rules(Operation::Write, &self.inode_path(number), Some(end), move |backing, rules| {
            let write = || match &*backing.handle(handle)? {
                Open::File(file) => file.write_at(&data, offset).map_err(|error| errno(&error)),
                Open::Directory(_) => Err(Errno::EISDIR),
            };
            match rules.and_then(|()| write()) {
                Ok(count) => reply.written(count as u32),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn flush(&self, _request: &Request, number: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.apply_rules(Operation::Flush, &self.inode_path(number), None, move |_, rules| done(rules, reply));
    }

    fn fsync(&self, _request: &Request, number: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.apply_rules(Operation::Fsync, &self.inode_path(number), None, move |backing, rules| {
            let sync = || match &*backing.handle(handle)? {
                Open::File(file) => file.sync_all().map_err(|error| errno(&error)),
                Open::Directory(_) => Ok(()),
            };
            done(rules.and_then(|()| sync()), reply);
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
        self.apply_rules(Operation::Release, &self.inode_path(number), None, move |backing, rules| {
            backing.handles().remove(&handle.0);
            done(rules, reply);
        });
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.apply_rules(Operation::Opendir, &self.inode_path(number), None, move |backing, rules| {
            match rules.and_then(|()| backing.entries(&*backing.inodes.get(number)?)) {
                Ok(names) => reply.opened(backing.add(Open::Directory(names)), FopenFlags::empty()),
                Err(errno) => reply.error(reported(errno)),
            }
        });
    }

    fn readdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.apply_rules(Operation::Readdir, &self.inode_path(number), None, move |backing, rules| {
            match rules.and_then(|()| backing.handle(handle)).as_deref() {
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
        self.backing.handles().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.apply_rules(Operation::Statfs, &self.inode_path(number), None, move |backing, rules| {
            match rules.and_then(|()| fstatvfs(&*backing.inodes.get(INodeNo::ROOT)?)) {
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
        self.apply_rules(Operation::Remove, &path, None, move |backing, rules| {
            done(rules.and_then(|()| unlinkat(&*backing.inodes.get(parent)?, &*name, flags)), reply);
        });
    }
}

fn entry(backing: &Backing, result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    let Options { attr_timeout, entry_timeout, .. } = backing.options;
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

//! A FUSE file system for tests. It shows another directory, the backing directory, and a test can delay, fail or hang each
//! operation at run time. A write to the backing directory is a change that the kernel is not notified of. Needs root and
//! /dev/fuse; not part of the product.
#![forbid(unsafe_code)]

mod backing;
mod filesystem;
mod inodes;
mod rules;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

pub use rules::{Count, Operation, Rule, Rules};

/// Options of a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the kernel caches a name. Default: 1 s, as libfuse.
    pub entry_timeout: Duration,
    /// How long the kernel caches attributes. Default: 1 s, as libfuse.
    pub attr_timeout: Duration,
    /// Cached pages of a file are kept when it is opened again. Default: false.
    pub keep_cache: bool,
    /// Reads and writes bypass the page cache. Default: false.
    pub direct_io: bool,
    /// Regular files are reported with size 0, but have bytes to read (with `direct_io`). Default: false.
    pub zero_size: bool,
    /// Times are reported in whole seconds. Default: false.
    pub whole_seconds: bool,
    /// Cached pages are dropped when attributes show a change. Default: true, as libfuse.
    pub auto_invalidate: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            entry_timeout: Duration::from_secs(1),
            attr_timeout: Duration::from_secs(1),
            keep_cache: false,
            direct_io: false,
            zero_size: false,
            whole_seconds: false,
            auto_invalidate: true,
        }
    }
}

/// A mounted file system. Unmounted when dropped.
pub struct Mount {
    rules: Arc<Rules>,
    mount_point: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mount {
    /// Mounts the directory `backing` at `mount_point`, which must be an existing directory.
    pub fn new(backing: &Path, mount_point: &Path, options: &Options) -> io::Result<Mount> {
        let rules = Arc::new(Rules::default());
        let filesystem = filesystem::FaultFs::new(backing, options.clone(), Arc::clone(&rules))?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faultfs".into()), MountOption::DefaultPermissions];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(filesystem, mount_point, &config)?;
        Ok(Mount { rules, mount_point: mount_point.canonicalize()?, session: Some(session) })
    }

    /// The rules, empty at first.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether the kernel has ended the connection: it was unmounted by another process.
    pub fn is_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Ends hanging operations and unmounts, lazily if files are open.
    pub fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.rules.close();
        let Some(session) = self.session.take() else { return Ok(()) };
        if session.guard.is_finished() {
            return Ok(());
        }
        match umount2(&self.mount_point, MntFlags::empty()) {
            // EINVAL: no longer mounted.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(_) => umount2(&self.mount_point, MntFlags::MNT_DETACH)?,
        }
        // The session ends when the last open file is closed, which may be after this process.
        drop(session);
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("faultfs: cannot unmount {}: {error}", self.mount_point.display());
        }
    }
}

//! Strong entity tags: a hash of a file's bytes, worked out once for each version of it.
//!
//! Reading a file through takes its time, so it happens only where waiting is allowed ([`Access::MayBlock`]); everybody
//! else hears "would block" until the tag is known. The same file is never read by two threads at once.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::uio::pread;

use super::meta::FileMeta;
use super::plan::Source;
use super::root::Access;
use crate::error::{Error, Result};

/// Tags kept at most; beyond it all are forgotten at once.
const MOST: usize = 65_536;

/// What is known of a file's tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ContentTag {
    Known(String),
    /// The file is being written: no promise about its bytes can be made.
    Unsettled,
    /// Ask again where waiting is allowed.
    WouldBlock,
}

/// Tags by inode and device.
#[derive(Debug, Default)]
pub(super) struct ContentTags {
    known: Mutex<HashMap<(u64, u64), (FileMeta, String)>>,
    reading: [Mutex<()>; 8],
}

impl ContentTags {
    pub fn of(&self, file: &Source, access: Access) -> Result<ContentTag> {
        let meta = file.meta();
        if let Some(tag) = self.get(meta) {
            return Ok(ContentTag::Known(tag));
        }
        if access == Access::CachedOnly {
            return Ok(ContentTag::WouldBlock);
        }
        let stripe = &self.reading[(meta.ino % 8) as usize];
        let _reading = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tag) = self.get(meta) {
            return Ok(ContentTag::Known(tag));
        }
        if !meta.is_settled() {
            return Ok(ContentTag::Unsettled);
        }
        let mut hasher = blake3::Hasher::new();
        if let Source::Cached(cached) = file
            && let Some(bytes) = cached.block()
        {
            hasher.update(bytes);
        } else if let Some(fd) = descriptor(file) {
            hash(fd, &mut hasher)?;
            if FileMeta::of(fd)? != *meta {
                return Ok(ContentTag::Unsettled);
            }
        }
        let tag = quote(&hasher);
        let mut known = lock(&self.known);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert((meta.dev, meta.ino), (*meta, tag.clone()));
        Ok(ContentTag::Known(tag))
    }

    fn get(&self, meta: &FileMeta) -> Option<String> {
        let known = lock(&self.known);
        let (version, tag) = known.get(&(meta.dev, meta.ino))?;
        (version == meta).then(|| tag.clone())
    }
}

fn descriptor(file: &Source) -> Option<BorrowedFd<'_>> {
    match file {
        Source::Open(file) => Some((**file).as_fd()),
        Source::Cached(file) => file.source(),
    }
}

fn hash(fd: BorrowedFd<'_>, hasher: &mut blake3::Hasher) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut offset = 0;
    loop {
        match pread(fd, &mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                offset += read as i64;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("pread", errno)),
        }
    }
}

/// 128 bits of it, in hexadecimal and quotes.
fn quote(hasher: &blake3::Hasher) -> String {
    let bits: String = hasher.finalize().as_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{bits}\"")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

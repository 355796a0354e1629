//! Strong entity tags: a hash of a file's bytes, worked out once for each version of it.
//!
//! Reading a file through takes its time, so it happens only where waiting is allowed ([`Access::MayBlock`]); everybody
//! else hears "would block" until the tag is known. The same file is never read by two threads at once.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::uio::pread;

use super::open_file::{FileMeta, OpenFile};
use super::root::Access;
use crate::error::{Error, Result};

/// Tags kept at most; beyond it all are forgotten at once.
const MOST: usize = 65_536;

/// A file that was written this recently may be written again without a new modification time: the clock of a file
/// system ticks every 1 to 10 ms.
const SETTLED_NS: i128 = 50_000_000;

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
    pub fn of(&self, file: &OpenFile, access: Access) -> Result<ContentTag> {
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
        if !settled(meta) {
            return Ok(ContentTag::Unsettled);
        }
        let tag = hash(file)?;
        if FileMeta::of(file)? != *meta {
            return Ok(ContentTag::Unsettled);
        }
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

fn settled(meta: &FileMeta) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    // A time in the future says nothing about when it was written.
    !(0..SETTLED_NS).contains(&(now - i128::from(meta.mtime_ns)))
}

/// 128 bits of BLAKE3, in hexadecimal and quotes.
fn hash(file: &OpenFile) -> Result<String> {
    let mut buffer = vec![0; 256 * 1024];
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    loop {
        match pread(file.as_fd(), &mut buffer, offset) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                offset += read as i64;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("pread", errno)),
        }
    }
    let bits: String = hasher.finalize().as_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("\"{bits}\""))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

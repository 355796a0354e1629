//! Strong entity tags: a hash of a file's bytes, worked out once for each version of it.
//!
//! Reading a file through takes its time, so it happens only where waiting is allowed ([`Access::MayBlock`]), and in bounded
//! pieces where a thread has others to serve: each call of a [`Hashing::Piece`] reads the next one, whichever request it is
//! for, until the tag is known. Requests for one version share its hash; none waits for longer than a piece.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::uio::pread;

use super::plan::Source;
use crate::error::{Error, Result};
use crate::fs::meta::FileMeta;
use crate::fs::root::Access;

/// Tags kept at most; beyond it all are forgotten at once.
const MOST: usize = 65_536;

/// Bytes read in one piece: some milliseconds of hashing.
const PIECE: u64 = 4 * 1024 * 1024;
/// Hashes that are begun and not finished, at most; beyond it all are begun again.
const MAX_BEGUN: usize = 256;

/// How much of a file one call may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashing {
    /// All of it.
    Whole,
    /// One piece.
    Piece,
}

/// What is known of a file's tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ContentTag {
    Known(String),
    /// The file is being written: no promise about its bytes can be made.
    Unsettled,
    /// Ask again where waiting is allowed.
    WouldBlock,
}

type Shared<T> = Arc<Mutex<T>>;

/// Tags by inode and device.
#[derive(Debug, Default)]
pub(super) struct ContentTags {
    known: Mutex<HashMap<(u64, u64), (FileMeta, String)>>,
    begun: Mutex<HashMap<(u64, u64), Shared<Begun>>>,
}

/// A hash of the first `offset` bytes of a version.
#[derive(Debug)]
struct Begun {
    version: FileMeta,
    hasher: blake3::Hasher,
    offset: u64,
}

impl ContentTags {
    pub fn of(&self, file: &Source, access: Access, hashing: Hashing) -> Result<ContentTag> {
        let meta = file.meta();
        if let Some(tag) = self.get(meta) {
            return Ok(ContentTag::Known(tag));
        }
        if access == Access::CachedOnly {
            return Ok(ContentTag::WouldBlock);
        }
        if !meta.is_settled() {
            return Ok(ContentTag::Unsettled);
        }
        if let Source::Cached(cached) = file
            && let Some(bytes) = cached.block()
        {
            return Ok(self.keep(meta, blake3::Hasher::new().update(bytes)));
        }
        let Some(fd) = descriptor(file) else { return Ok(ContentTag::Unsettled) };
        let begun = self.begin(meta);
        loop {
            // Held for a piece at most, so that requests for one version read it once.
            let mut begun = lock(&begun);
            if let Some(tag) = self.get(meta) {
                return Ok(ContentTag::Known(tag));
            }
            if begun.version != *meta {
                *begun = Begun { version: *meta, hasher: blake3::Hasher::new(), offset: 0 };
            }
            let Begun { hasher, offset, .. } = &mut *begun;
            let ended = hash_piece(fd, hasher, offset)?;
            if ended {
                lock(&self.begun).remove(&(meta.dev, meta.ino));
                if FileMeta::of(fd)? != *meta {
                    return Ok(ContentTag::Unsettled);
                }
                return Ok(self.keep(meta, hasher));
            }
            if hashing == Hashing::Piece {
                return Ok(ContentTag::WouldBlock);
            }
        }
    }

    /// The hash of this file that is under way, be it of another version, or a new one.
    fn begin(&self, meta: &FileMeta) -> Shared<Begun> {
        let mut all = lock(&self.begun);
        let key = (meta.dev, meta.ino);
        if let Some(begun) = all.get(&key) {
            return begun.clone();
        }
        if all.len() >= MAX_BEGUN {
            all.clear();
        }
        let begun = Arc::new(Mutex::new(Begun { version: *meta, hasher: blake3::Hasher::new(), offset: 0 }));
        all.insert(key, begun.clone());
        begun
    }

    fn keep(&self, meta: &FileMeta, hasher: &blake3::Hasher) -> ContentTag {
        let tag = quote(hasher);
        let mut known = lock(&self.known);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert((meta.dev, meta.ino), (*meta, tag.clone()));
        ContentTag::Known(tag)
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

/// Reads up to [`PIECE`] bytes from `offset` on into the hash. True: the file has ended.
fn hash_piece(fd: BorrowedFd<'_>, hasher: &mut blake3::Hasher, offset: &mut u64) -> Result<bool> {
    let mut buffer = vec![0; 256 * 1024];
    let end = *offset + PIECE;
    while *offset < end {
        match pread(fd, &mut buffer, *offset as i64) {
            Ok(0) => return Ok(true),
            Ok(read) => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                *offset += read as u64;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("pread", errno)),
        }
    }
    Ok(false)
}

/// 128 bits of it, in hexadecimal and quotes.
fn quote(hasher: &blake3::Hasher) -> String {
    let bits: String = hasher.finalize().as_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{bits}\"")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Strong entity tags: a hash of the file's bytes, computed once per version.
//!
//! Hashing reads the whole file, so it happens only where blocking is allowed ([`Access::MayBlock`]), and in bounded chunks on a
//! thread that serves several requests: each call with [`Hashing::Chunk`] reads the next chunk, whichever request it is for,
//! until the tag is known. Requests for the same version share one hash; none waits longer than one chunk.
//!
//! Locks: the known tags, the hashes in progress, and one lock per hash. A hash is locked while a chunk is read; the known tags and
//! the table of hashes are locked inside it, and never the other way round.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::meta::FileMeta;
use super::root::Access;
use crate::error::{Error, Result};
use crate::io::read_full::read_full_at;

/// Tags that are kept. When full, all are discarded.
const MAX_TAGS: usize = 65_536;
/// Bytes of a chunk: hashing takes a few milliseconds.
const CHUNK: u64 = 4 * 1024 * 1024;
/// Hashes in progress. When full, all start over.
const MAX_IN_PROGRESS: usize = 256;

/// How much of a file one call may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// The whole file.
    Whole,
    /// One chunk.
    Chunk,
}

/// The tag of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ContentTag {
    Known(String),
    /// The file changed during the hash or a moment before, so its bytes are not certain.
    Unsettled,
    /// The tag is not known yet: call again where blocking is allowed.
    WouldBlock,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Memory(&'a [u8]),
    File(BorrowedFd<'a>),
}

/// Device and inode number.
type FileId = (u64, u64);

/// The tags of files.
#[derive(Debug, Default)]
pub(crate) struct ContentTags {
    known: Mutex<HashMap<FileId, (FileMeta, String)>>,
    in_progress: Mutex<HashMap<FileId, Arc<Mutex<HashState>>>>,
}

/// A hash of the first `offset` bytes of a version.
#[derive(Debug)]
struct HashState {
    version: FileMeta,
    hasher: blake3::Hasher,
    offset: u64,
}

impl HashState {
    fn new(version: FileMeta) -> Self {
        Self { version, hasher: blake3::Hasher::new(), offset: 0 }
    }

    /// Hashes up to [`CHUNK`] bytes. Returns true at the end of the file.
    fn hash_chunk(&mut self, fd: BorrowedFd<'_>) -> Result<bool> {
        let mut buffer = vec![0; 256 * 1024];
        let end = self.offset + CHUNK;
        while self.offset < end {
            let count = read_full_at(fd, self.offset, &mut buffer).map_err(|errno| Error::system("pread", errno))?;
            self.hasher.update(&buffer[..count]);
            self.offset += count as u64;
            if count < buffer.len() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ContentTags {
    /// The tag of the version `meta` of a file with the bytes `content`.
    pub fn tag_of(
        &self,
        meta: &FileMeta,
        content: Content<'_>,
        access: Access,
        hashing: Hashing,
    ) -> Result<ContentTag> {
        if let Some(tag) = self.known(meta) {
            return Ok(ContentTag::Known(tag));
        }
        if access == Access::CachedOnly {
            return Ok(ContentTag::WouldBlock);
        }
        if !meta.is_settled() {
            return Ok(ContentTag::Unsettled);
        }
        let fd = match content {
            Content::Memory(bytes) => return Ok(self.insert(meta, blake3::Hasher::new().update(bytes))),
            Content::File(fd) => fd,
        };
        let progress = self.progress(meta);
        loop {
            // Locked for one chunk at most, so that requests for the same version read it once.
            let mut progress = lock(&progress);
            if let Some(tag) = self.known(meta) {
                return Ok(ContentTag::Known(tag));
            }
            if progress.version != *meta {
                *progress = HashState::new(*meta);
            }
            if progress.hash_chunk(fd)? {
                lock(&self.in_progress).remove(&(meta.dev, meta.ino));
                if FileMeta::of(fd)? != *meta {
                    return Ok(ContentTag::Unsettled);
                }
                return Ok(self.insert(meta, &progress.hasher));
            }
            if hashing == Hashing::Chunk {
                return Ok(ContentTag::WouldBlock);
            }
        }
    }

    /// The hash of this file in progress, possibly of another version, or a new one.
    fn progress(&self, meta: &FileMeta) -> Arc<Mutex<HashState>> {
        let mut all = lock(&self.in_progress);
        if all.len() >= MAX_IN_PROGRESS && !all.contains_key(&(meta.dev, meta.ino)) {
            all.clear();
        }
        all.entry((meta.dev, meta.ino)).or_insert_with(|| Arc::new(Mutex::new(HashState::new(*meta)))).clone()
    }

    fn insert(&self, meta: &FileMeta, hasher: &blake3::Hasher) -> ContentTag {
        let tag = quote(hasher);
        let mut known = lock(&self.known);
        if known.len() >= MAX_TAGS {
            known.clear();
        }
        known.insert((meta.dev, meta.ino), (*meta, tag.clone()));
        ContentTag::Known(tag)
    }

    fn known(&self, meta: &FileMeta) -> Option<String> {
        let known = lock(&self.known);
        let (version, tag) = known.get(&(meta.dev, meta.ino))?;
        (version == meta).then(|| tag.clone())
    }
}

/// 128 bits of the hash, in hexadecimal, with quotes.
fn quote(hasher: &blake3::Hasher) -> String {
    format!("\"{}\"", &hasher.finalize().to_hex()[..32])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

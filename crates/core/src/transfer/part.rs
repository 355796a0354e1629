//! The parts of a transfer: memory, files, pages.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::fs::OpenFile;
use zerosend_sys::memory::{Mapping, SealedPages};

/// A file that several transfers can send at the same time: it is only read at explicit offsets.
pub trait FileSource: AsFd + Send + Sync {
    /// A mapping of the file from offset 0, if one is kept.
    fn mapping(&self) -> Option<&Mapping> {
        None
    }
}

impl FileSource for std::fs::File {}
impl FileSource for std::os::fd::OwnedFd {}
impl FileSource for OpenFile {}

/// A file shared by transfers.
pub type SharedFile = Arc<dyn FileSource>;

/// A range of bytes to send.
pub enum Part {
    /// Bytes in memory.
    Memory(Vec<u8>),
    /// A range of shared memory.
    Block {
        /// The whole block.
        bytes: Arc<[u8]>,
        /// First byte of the range.
        offset: usize,
        /// Bytes in the range.
        length: usize,
    },
    /// A range of a file.
    File {
        /// The file.
        file: SharedFile,
        /// First byte of the range.
        offset: u64,
        /// Bytes in the range.
        length: u64,
    },
    /// A range of pages that are no longer written to. They are sent by `vmsplice(2)`, whatever the method of the transfer,
    /// so that they are not copied.
    Pages {
        /// The pages; unmapped when the last reference is dropped.
        pages: SealedPages,
        /// First byte of the range.
        offset: u64,
        /// Bytes in the range.
        length: u64,
    },
}

impl Part {
    pub(super) fn len(&self) -> u64 {
        match self {
            Part::Memory(bytes) => bytes.len() as u64,
            Part::Block { length, .. } => *length as u64,
            Part::File { length, .. } | Part::Pages { length, .. } => *length,
        }
    }

    /// The bytes of a part that user space can read.
    pub(super) fn memory(&self) -> Option<&[u8]> {
        match self {
            Part::Memory(bytes) => Some(bytes),
            Part::Block { bytes, offset, length } => Some(&bytes[*offset..*offset + *length]),
            Part::File { .. } | Part::Pages { .. } => None,
        }
    }
}

//! [`Transfer`] sends memory and files to a descriptor, resumable at any byte; [`Receive`] is the other direction.
//!
//! A transfer owns the bytes to send and a cursor, but neither a thread nor the descriptor. Its driver (the JavaScript
//! thread, a reactor, a pool thread) passes the descriptor to each call of [`Transfer::advance`] and decides by the
//! returned [`Progress`] when to call again. A call never waits for the target ([`Progress::Blocked`]), and waits for a
//! disk only with [`Disk::MayBlock`]; otherwise it returns [`Progress::Cold`].
//!
//! | file | subject |
//! |---|---|
//! | `part` | the pieces of a transfer: memory, files, pages |
//! | `cursor` | the unsent parts; counts the bytes that the target has accepted |
//! | `send`, `receive` | [`Transfer`], [`Receive`] |
//! | `progress` | results of a turn, and the turn loop of both directions |
//! | `strategy` | which method `auto` means |
//! | `mover` | the method in use, with the state it keeps between attempts |
//! | `sendfile`, `splice`, `mmap`, `read_write`, `vmsplice` | one attempt of one method |
//! | `residency`, `prefetch` | which bytes can be sent without a disk, and reading the others on the pool |
//!
//! Bytes that a method holds in a pipe are still ahead of the cursor. They are sent first in the next turn; if the pipe is
//! discarded, they are read from the file again.

mod attempt;
mod budget;
mod cursor;
mod method;
mod mmap;
mod mover;
mod part;
mod pipe_stage;
mod prefetch;
mod progress;
mod read_write;
mod receive;
mod residency;
mod send;
mod sendfile;
mod splice;
mod strategy;
mod target_file;
mod vmsplice;

pub use attempt::{Cork, Disk};
pub use budget::{Budget, Cancel};
pub use method::Method;
pub use part::{FileSource, Part, SharedFile};
pub use prefetch::{Prefetch, Prefetched, PrefetchedBytes};
pub use progress::{Progress, Report};
pub use read_write::DEFAULT_BUFFER;
pub use receive::Receive;
pub use send::Transfer;
pub use target_file::{Start, TargetFile};
pub use zerosend_sys::io::Target;

//! Memory outside of the allocator: mapped files, anonymous pages, and the memory of a ring.
//!
//! No type here hands out a `&[u8]` or `&mut [u8]` of this memory. User space that touches a page of a truncated file gets
//! `SIGBUS`, while the kernel reports `EFAULT` from `sendmsg(2)`, `vmsplice(2)` and `process_vm_readv(2)`; and a slice must not
//! change while it exists, but another process may write to a mapped file at any time. So mapped files are only accessed by
//! the kernel, through a [`Span`], which is an address and a length for a syscall.

mod atomic_copy;
mod mapping;
mod pages;
mod region;
mod ring;

pub use mapping::{Advice, MapMode, Mapping};
pub use pages::{Pages, SealedPages, SharedPages, WeakPages};
pub use region::Span;
pub use ring::{HEADER_BYTES, Header, RingMapping, Side};

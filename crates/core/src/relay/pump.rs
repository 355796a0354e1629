//! What a worker lends to a link for one turn.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::append::AppendReporter;
use super::options::RelayMethod;
use crate::event_loop::slab::Token;
use crate::io::pipe_pool::PipePool;

/// Resources of the worker that one turn of a link may use.
pub(super) struct PumpContext<'a> {
    pub pipes: &'a mut PipePool,
    pub mirror_pipes: &'a mut PipePool,
    /// For bytes that pass through user space. Its contents do not outlive a call.
    pub scratch: &'a mut [u8],
    pub method: RelayMethod,
    /// Maximum number of bytes that one direction moves.
    pub budget: u64,
    /// Token of the link.
    pub token: Token,
    pub append_reporter: &'a AppendReporter,
    /// Number of links and mirrors that wait for descriptors.
    pub waiting: &'a Arc<AtomicUsize>,
}

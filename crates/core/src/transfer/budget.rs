//! Limits how much one turn may send, so that one fast receiver cannot starve the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that ends a turn early. Clones share it.
#[derive(Debug, Default, Clone)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// True after [`Cancel::request`].
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the flag.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The bytes a turn may still send.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u64,
    cancel: Option<Cancel>,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self { left: bytes, cancel: None }
    }

    /// A budget of `bytes` that is spent as soon as `cancel` is requested.
    pub fn stoppable(bytes: u64, cancel: Cancel) -> Self {
        Self { left: bytes, cancel: Some(cancel) }
    }

    /// No limit: for a thread that serves one transfer only.
    pub fn unlimited() -> Self {
        Self { left: u64::MAX, cancel: None }
    }

    /// Bytes that may still be sent.
    pub fn left(&self) -> u64 {
        if self.cancel.as_ref().is_some_and(Cancel::is_requested) { 0 } else { self.left }
    }

    /// Subtracts `count` bytes.
    pub fn spend(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
    }
}

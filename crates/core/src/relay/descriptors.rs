//! File descriptors: those reserved for a connection before it is accepted, and the workers and links that wait for free ones.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Descriptors kept open so that as many can be opened later: one for the target of a connection and one for each of its
/// mirrors that is a server. A connection is accepted only with its reserve; until then it stays in the backlog.
pub(super) struct DescriptorReserve(Vec<OwnedFd>);

impl DescriptorReserve {
    /// Duplicates `fd` `size` times. If there are not enough descriptors, calls `free_some` and tries again once.
    pub fn acquire(size: usize, fd: BorrowedFd<'_>, free_some: impl FnOnce()) -> Option<Self> {
        let duplicate = |_| fd.try_clone_to_owned().ok();
        let mut held: Vec<_> = (0..size).map_while(duplicate).collect();
        if held.len() < size {
            free_some();
            held.extend((held.len()..size).map_while(duplicate));
        }
        (held.len() == size).then_some(Self(held))
    }

    /// Closes one descriptor, so that another can be opened.
    pub fn release_one(&mut self) {
        self.0.pop();
    }
}

/// The numbers of the workers that wait for descriptors, longest wait first. A worker that frees descriptors does not use them
/// itself while others wait.
#[derive(Default)]
pub(super) struct DescriptorQueue {
    count: AtomicUsize,
    workers: Mutex<VecDeque<usize>>,
}

impl DescriptorQueue {
    pub fn add(&self, worker: usize) {
        self.change(|workers| {
            if !workers.contains(&worker) {
                workers.push_back(worker);
            }
        });
    }

    pub fn remove(&self, worker: usize) {
        self.change(|workers| workers.retain(|other| *other != worker));
    }

    pub fn take_first(&self) -> Option<usize> {
        if self.count.load(Ordering::Relaxed) == 0 { None } else { self.change(VecDeque::pop_front) }
    }

    /// Whether a worker other than this one waits.
    pub fn others_wait(&self, worker: usize) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.change(|workers| workers.iter().any(|other| *other != worker))
    }

    fn change<R>(&self, change: impl FnOnce(&mut VecDeque<usize>) -> R) -> R {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut workers);
        self.count.store(workers.len(), Ordering::Relaxed);
        result
    }
}

/// Counts one link or mirror as waiting for descriptors until it is dropped. While the count is above 0 the relay accepts no
/// connections.
pub(super) struct DescriptorWait(Arc<AtomicUsize>);

impl DescriptorWait {
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for DescriptorWait {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

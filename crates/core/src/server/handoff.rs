//! The queue of connections that the server hands off to the application behind it (the front door).
//!
//! A connection is handed off between two requests, once all earlier responses are in the kernel's send buffer, so the order
//! of pipelined requests is kept. The application gets the socket and the bytes that were read and not answered.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message::Message;
use crate::event_loop::mailbox::Mailbox;

/// Why a connection is handed off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The server does not answer its request, or its bytes are not a valid request.
    Request,
    /// The head of a request did not arrive within [`super::Limits::head_timeout`].
    TimedOut,
    /// It exceeds [`HandoffQueue::set_max_connections`].
    TooMany,
}

/// A connection for the application.
#[derive(Debug)]
pub struct Handoff {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// Bytes that were read from the socket and come before those still in it.
    pub received: Vec<u8>,
    /// Why it is handed off.
    pub reason: Reason,
}

/// A bounded queue of connections. While it is full, the server accepts no connections.
pub struct HandoffQueue {
    capacity: usize,
    queue: Mutex<Queue>,
    /// Called when the queue becomes non-empty.
    wake: Box<dyn Fn() + Send + Sync>,
    max_connections: AtomicUsize,
    /// Connections handed off and not yet released.
    handed_off: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    connections: VecDeque<Handoff>,
    /// Slots reserved by workers and not yet filled.
    reserved: usize,
    /// Workers to notify when a slot becomes free.
    waiting: Vec<Arc<Mailbox<Message>>>,
}

impl HandoffQueue {
    /// A queue of at most `capacity` connections, and of 1 if that is 0. `wake` is called on a worker thread when the queue
    /// becomes non-empty.
    pub fn new(capacity: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            capacity: capacity.max(1),
            queue: Mutex::default(),
            wake: Box::new(wake),
            max_connections: AtomicUsize::new(usize::MAX),
            handed_off: AtomicUsize::new(0),
        }
    }

    /// Removes and returns up to `max` connections. Call [`HandoffQueue::release`] once each of them has closed.
    pub fn take(&self, max: usize) -> Vec<Handoff> {
        let mut queue = self.lock();
        let count = max.min(queue.connections.len());
        let taken = queue.connections.drain(..count).collect();
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for mailbox in waiting {
            mailbox.send(Message::QueueHasRoom);
        }
        taken
    }

    /// `count` connections of the application have closed.
    pub fn release(&self, count: usize) {
        let subtract = |handed_off: usize| Some(handed_off.saturating_sub(count));
        let _ = self.handed_off.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }

    /// Limits the connections of server and application together. Default: `usize::MAX`.
    pub fn set_max_connections(&self, max: usize) {
        self.max_connections.store(max, Ordering::Relaxed);
    }

    /// Whether another connection would exceed the limit when the server has `connections`.
    pub(super) fn is_full(&self, connections: usize) -> bool {
        let max = self.max_connections.load(Ordering::Relaxed);
        connections.saturating_add(self.handed_off.load(Ordering::Relaxed)) >= max
    }

    /// Reserves a slot for [`HandoffQueue::hand_off`]. Returns false when the queue is full; `mailbox` then gets
    /// [`Message::QueueHasRoom`] when a slot becomes free.
    pub(super) fn reserve(&self, mailbox: &Arc<Mailbox<Message>>) -> bool {
        let mut queue = self.lock();
        if queue.connections.len() + queue.reserved < self.capacity {
            queue.reserved += 1;
            return true;
        }
        if !queue.waiting.iter().any(|other| Arc::ptr_eq(other, mailbox)) {
            queue.waiting.push(mailbox.clone());
        }
        false
    }

    /// Fills a reserved slot.
    pub(super) fn hand_off(&self, connection: Handoff) {
        if connection.reason != Reason::TooMany {
            self.handed_off.fetch_add(1, Ordering::Relaxed);
        }
        let mut queue = self.lock();
        queue.reserved -= 1;
        queue.connections.push_back(connection);
        let is_first = queue.connections.len() == 1;
        drop(queue);
        if is_first {
            (self.wake)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Handoff {
        let (socket, _) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        Handoff { socket: socket.into(), received: Vec::new(), reason: Reason::Request }
    }

    #[test]
    fn a_full_queue_notifies_a_waiting_worker_once() {
        let woken = Arc::new(AtomicUsize::new(0));
        let queue = HandoffQueue::new(2, {
            let woken = woken.clone();
            move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
        assert!(queue.reserve(&mailbox));
        assert!(queue.reserve(&mailbox));
        assert!(!queue.reserve(&mailbox));
        assert!(!queue.reserve(&mailbox));
        queue.hand_off(connection());
        queue.hand_off(connection());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(queue.take(1).len(), 1);
        assert_eq!(mailbox.take().len(), 1);
        assert!(queue.reserve(&mailbox));
        assert_eq!(queue.take(9).len(), 1);
    }

    #[test]
    fn handed_off_connections_count_until_they_are_released() {
        let queue = HandoffQueue::new(2, || ());
        let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
        for _ in 0..2 {
            assert!(queue.reserve(&mailbox));
            queue.hand_off(connection());
        }
        assert!(!queue.is_full(100));
        queue.set_max_connections(3);
        assert!(queue.is_full(1));
        assert!(!queue.is_full(0));
        queue.release(1);
        assert!(!queue.is_full(1));
    }
}

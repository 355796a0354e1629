//! The front door: a server that stands before an application on the same socket. It answers what is a file's and hands
//! every other connection over, with the bytes that were read of it, so that the application sees what it would have
//! seen without it.
//!
//! A connection is handed over between two requests, when all answers before are with the kernel; so the order of
//! pipelined requests holds. The queue of those handed over is bounded: while it is full nothing more is accepted.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::Message;
use super::options::{Mount, ServerOptions};
use crate::error::Result;
use crate::event_loop::mailbox::Mailbox;
use crate::static_site::Outcome;
use zerosend_http::request::{BodyLength, Method, RequestHead, Target};
use zerosend_http::route::{RoutePattern, is_route};

/// Why a connection is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the application's: its request, or what was sent instead of one.
    Request,
    /// Its request did not come in time.
    TimedOut,
    /// It is one more than [`Door::set_max_connections`] allows.
    TooMany,
}

/// A connection that is handed over.
#[derive(Debug)]
pub struct HandedOver {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// What was read from it and is for the application to read first.
    pub received: Vec<u8>,
    /// Why.
    pub reason: Reason,
}

/// What lies between the threads of the server and the application.
pub struct Door {
    except: Vec<RoutePattern>,
    capacity: usize,
    queue: Mutex<Queue>,
    /// Called when the queue is no longer empty.
    wake: Box<dyn Fn() + Send + Sync>,
    /// Connections that the application may have, those of the server included.
    max_connections: AtomicUsize,
    /// Connections that were handed over and have not been returned.
    away: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    connections: VecDeque<HandedOver>,
    /// Places that workers have taken and not yet filled.
    reserved: usize,
    /// Workers that wait for a place.
    waiting: Vec<Arc<Mailbox<Message>>>,
}

impl Door {
    /// A door whose queue holds `capacity` connections. Requests whose path one of `except` matches are the application's.
    pub fn new(capacity: usize, except: Vec<RoutePattern>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            except,
            capacity: capacity.max(1),
            queue: Mutex::default(),
            wake: Box::new(wake),
            max_connections: AtomicUsize::new(usize::MAX),
            away: AtomicUsize::new(0),
        }
    }

    /// Takes up to `most` connections. Each has to be given back by [`Door::returned`] when it has ended.
    pub fn take(&self, most: usize) -> Vec<HandedOver> {
        let mut queue = self.lock();
        let count = most.min(queue.connections.len());
        let taken = queue.connections.drain(..count).collect();
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for mailbox in waiting {
            mailbox.send(Message::Room);
        }
        taken
    }

    /// Connections of the application have ended.
    pub fn returned(&self, count: usize) {
        let _ = self.away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |away| Some(away.saturating_sub(count)));
    }

    /// Bounds the connections of server and application together. Default: `usize::MAX`, no bound.
    pub fn set_max_connections(&self, most: usize) {
        self.max_connections.store(most, Ordering::Relaxed);
    }

    /// Whether one more would be too many, when the server has `connections`.
    pub(super) fn is_full(&self, connections: usize) -> bool {
        let most = self.max_connections.load(Ordering::Relaxed);
        connections.saturating_add(self.away.load(Ordering::Relaxed)) >= most
    }

    /// Takes a place in the queue, to be filled by [`Door::hand_over`]. False: there is none, and `mailbox` will be told of
    /// the next.
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

    /// Fills a reserved place.
    pub(super) fn hand_over(&self, connection: HandedOver) {
        if connection.reason != Reason::TooMany {
            self.away.fetch_add(1, Ordering::Relaxed);
        }
        let mut queue = self.lock();
        queue.reserved -= 1;
        queue.connections.push_back(connection);
        let first = queue.connections.len() == 1;
        drop(queue);
        if first {
            (self.wake)();
        }
    }

    /// Whether a request may be answered by the server, as far as its head tells.
    pub(super) fn takes(&self, head: &RequestHead<'_>, mount: Option<&Mount>) -> bool {
        let Target::Path { path, .. } = head.target else { return false };
        let plain = matches!(head.method, Method::Get | Method::Head)
            && head.body == BodyLength::Known(0)
            && !(head.upgrade || head.expects_continue || head.expects_other);
        plain && mount.is_some_and(|mount| !(mount.private && head.has_credentials)) && !is_route(&self.except, path)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the beginning of a request could be that of one for the server. What cannot is handed over without waiting for
/// the rest.
pub(super) fn may_be_ours(input: &[u8], options: &ServerOptions) -> bool {
    let start = input.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(input.len());
    let input = &input[start..];
    let Some(target) = ["GET ", "HEAD "].iter().find_map(|method| after(input, method.as_bytes())) else {
        return false;
    };
    // The absolute form has a scheme.
    !target.starts_with(b"/") || options.mounts.iter().any(|mount| after(target, mount.prefix.as_bytes()).is_some())
}

/// What follows `prefix` in `input`; nothing when `input` ends before it does, and `None` when they part.
fn after<'a>(input: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let common = input.len().min(prefix.len());
    (input[..common] == prefix[..common]).then(|| &input[common..])
}

/// Whether the server answers with this itself. Errors and refusals are the application's to word.
pub(super) fn is_answer(outcome: &Result<Outcome>, mount: Option<&Mount>) -> bool {
    match outcome {
        Ok(Outcome::Response(response)) => matches!(response.status, 200 | 206 | 304),
        Ok(Outcome::NotFound | Outcome::Directory(_)) => mount.is_some_and(|mount| mount.answers_missing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Address;

    fn connection() -> HandedOver {
        let (socket, _) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        HandedOver { socket: socket.into(), received: Vec::new(), reason: Reason::Request }
    }

    #[test]
    fn the_queue_is_bounded_and_tells_who_waits() {
        let woken = Arc::new(AtomicUsize::new(0));
        let door = Door::new(2, Vec::new(), {
            let woken = woken.clone();
            move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
        assert!(door.reserve(&mailbox));
        assert!(door.reserve(&mailbox));
        assert!(!door.reserve(&mailbox));
        assert!(!door.reserve(&mailbox));
        door.hand_over(connection());
        door.hand_over(connection());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(door.take(1).len(), 1);
        assert_eq!(mailbox.take().len(), 1, "told once");
        assert!(door.reserve(&mailbox));
        assert_eq!(door.take(9).len(), 1);

        assert!(!door.is_full(100));
        door.set_max_connections(3);
        assert!(door.is_full(1));
        assert!(!door.is_full(0));
        door.returned(1);
        assert!(!door.is_full(1));
    }

    #[test]
    fn what_cannot_be_for_the_server_is_known_early() {
        let mount = |prefix: &str| {
            let site = crate::static_site::Site::new(vec!["/".into()], crate::static_site::SiteOptions::default())
                .expect("a site");
            Mount::new(prefix, Arc::new(site))
        };
        let address = Address::Unix("/nowhere".into());
        let options = ServerOptions::new(address, vec![mount("/static/"), mount("/other/")]);
        for ours in ["", "\r\n", "G", "GET", "GET ", "GET /", "GET /sta", "GET /static/x", "HEAD /oth", "GET http://a/"]
        {
            assert!(may_be_ours(ours.as_bytes(), &options), "{ours:?}");
        }
        for other in ["P", "\r\nPOST", "GET /api", "GET /staff", "HEADS", "get /", "\x16\x03\x01", "GET\t/"] {
            assert!(!may_be_ours(other.as_bytes(), &options), "{other:?}");
        }
    }
}

//! How a worker comes by its connections: accepting, descriptors set aside for them, the end of accepting.
//!
//! On TCP each worker accepts from a socket of its own. A socket that all workers share is watched by the first of them, which
//! deals the connections out in turn; see `server/accepting.rs`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::append::AppendTarget;
use super::dial::Dial;
use super::link::Link;
use super::mirror::{Mirror, MirrorSink};
use super::mirror_file::{LinkFile, LinkName};
use super::options::{Destination, Direction, MirrorDestination, MirrorOptions, RelayOptions};
use super::side::Side;
use super::worker::{LISTENER, Message, Worker};
use crate::io::NonBlocking;
use crate::net::listener;

/// Connections accepted before others have their turn.
const MAX_ACCEPTS: usize = 64;
/// How long nothing is accepted for want of descriptors, unless a link ends before.
const PAUSE: Duration = Duration::from_millis(50);

/// Descriptors that are held so that they can be had: those that a connection needs besides its own. A connection is accepted
/// only while they are held, and waits in the backlog otherwise.
pub(super) struct DescriptorReserve(Vec<OwnedFd>);

impl DescriptorReserve {
    /// How many are needed for each connection: for the target and for mirrors that are servers.
    pub fn size(options: &RelayOptions) -> usize {
        let mirrors =
            options.mirrors.iter().filter(|mirror| matches!(mirror.to, MirrorDestination::Connection(_))).count();
        mirrors + usize::from(!matches!(options.destination, Destination::Echo))
    }

    /// Makes one available.
    pub fn release_one(&mut self) {
        self.0.pop();
    }
}

/// The workers that wait for descriptors, the one that has waited longest first: those that one worker gives up are not for
/// itself while others wait.
#[derive(Default)]
pub(super) struct DescriptorQueue {
    count: AtomicUsize,
    numbers: Mutex<VecDeque<usize>>,
}

impl DescriptorQueue {
    fn add(&self, number: usize) {
        self.change(|numbers| {
            if !numbers.contains(&number) {
                numbers.push_back(number);
            }
        });
    }

    fn remove(&self, number: usize) {
        self.change(|numbers| numbers.retain(|other| *other != number));
    }

    fn take_first(&self) -> Option<usize> {
        if self.count.load(Ordering::Relaxed) == 0 { None } else { self.change(VecDeque::pop_front) }
    }

    fn others_wait(&self, number: usize) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.change(|numbers| numbers.iter().any(|other| *other != number))
    }

    fn change<R>(&self, change: impl FnOnce(&mut VecDeque<usize>) -> R) -> R {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut numbers);
        self.count.store(numbers.len(), Ordering::Relaxed);
        result
    }
}

impl Worker {
    /// Accepts from the listener: at first one connection for each event, so that a single one costs a single call, and more
    /// while they come faster than that.
    pub(super) fn accept(&mut self) {
        let mut left = self.batch;
        while left > 0 {
            if self.listener.is_none() {
                return;
            }
            // A worker whose pause has ended was the next in the queue.
            let is_next = std::mem::take(&mut self.is_next);
            let others_wait = || !is_next && self.shared.descriptor_queue.others_wait(self.number);
            if self.shared.waiting.load(Ordering::Relaxed) > 0 || others_wait() {
                self.reserve = None;
                return self.pause();
            }
            let Some(reserve) = self.take_reserve() else { return self.pause() };
            let Some(listener) = &self.listener else { return };
            match listener::accept(listener) {
                Ok((socket, peer)) => {
                    left -= 1;
                    self.deal(socket, peer, reserve);
                    if self.draining {
                        self.backlog_left = self.backlog_left.saturating_sub(1);
                        if self.backlog_left == 0 {
                            return self.stop_listening();
                        }
                    }
                }
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => {
                    self.reserve = Some(reserve);
                    self.batch = 1;
                    if self.draining && errno == Errno::EAGAIN {
                        self.stop_listening();
                    }
                    return;
                }
                Err(_) => {
                    self.reserve = Some(reserve);
                    return self.pause();
                }
            }
        }
        self.batch = (self.batch * 2).min(MAX_ACCEPTS);
    }

    /// The descriptors for one more connection; `None` when there are not so many. Idle pipes are given up for them.
    fn take_reserve(&mut self) -> Option<DescriptorReserve> {
        if let Some(reserve) = self.reserve.take() {
            return Some(reserve);
        }
        let size = DescriptorReserve::size(&self.shared.options);
        let duplicate = || self.mailbox.waker().as_fd().try_clone_to_owned().ok();
        let mut held: Vec<_> = (0..size).map_while(|_| duplicate()).collect();
        if held.len() < size {
            self.pipes.close_idle();
            self.mirror_pipes.close_idle();
            held.extend((held.len()..size).map_while(|_| duplicate()));
        }
        (held.len() == size).then_some(DescriptorReserve(held))
    }

    /// Gives a new connection to the worker whose turn it is.
    fn deal(&mut self, socket: OwnedFd, peer: Option<SocketAddr>, reserve: DescriptorReserve) {
        if !self.peers.is_empty() && !self.draining {
            self.next_peer = (self.next_peer + 1) % (self.peers.len() + 1);
            if let Some(mailbox) = self.peers.get(self.next_peer) {
                return mailbox.send(Message::Accepted(socket, peer, reserve));
            }
        }
        self.admit(socket, peer, reserve);
    }

    pub(super) fn admit(&mut self, socket: OwnedFd, peer: Option<SocketAddr>, reserve: DescriptorReserve) {
        let shared = self.shared.clone();
        crate::failpoint::failpoint!("relay::accept");
        shared.stats.accepted.add(1);
        if shared.connections.load(Ordering::Relaxed) >= shared.options.connections {
            shared.stats.refused.add(1);
            return;
        }
        let client = Side::socket(socket);
        if peer.is_some() {
            client.set_no_delay();
        }
        let echo = matches!(shared.options.destination, Destination::Echo);
        let mut link = Link::accepted(client, peer, echo, Instant::now());
        link.reserve = Some(reserve);
        self.mirror(&mut link);
        let Some(token) = self.insert(link) else { return };
        self.contain(Some(token), |worker| {
            for index in 0..worker.shared.options.mirrors.len() {
                worker.dial_mirror(token, index);
            }
            if echo {
                worker.arm(token);
                worker.drive(token);
            } else {
                worker.connect(token);
            }
        });
    }

    /// Gives a link its mirrors.
    fn mirror(&self, link: &mut Link) {
        let of = |direction| self.shared.options.mirrors.iter().filter(move |mirror| mirror.direction == direction);
        let ordered = of(Direction::Up).chain(of(Direction::Down));
        let mut name = None;
        for (index, MirrorOptions { to, direction, policy }) in ordered.enumerate() {
            let file = |file| MirrorSink::File { file, writing: 0 };
            let sink = match to {
                MirrorDestination::File(shared) => match shared.stream() {
                    None => Ok(file(AppendTarget::Shared(shared.clone()))),
                    Some(fd) => fd
                        .and_then(|fd| NonBlocking::new(fd).map_err(|error| error.errno().unwrap_or(Errno::EIO)))
                        .map(|fd| MirrorSink::Stream { side: Side::new(fd), own: false }),
                },
                MirrorDestination::Files(files) => {
                    let name =
                        name.get_or_insert_with(|| Arc::new(LinkName::new(&self.shared.numbers, link.peer))).clone();
                    Ok(file(AppendTarget::Own(Arc::new(LinkFile::new(files.clone(), name)))))
                }
                MirrorDestination::Connection(addresses) => {
                    let dial = Dial::new(addresses.get(), Instant::now());
                    Ok(MirrorSink::Connecting { dial, side: None, addresses: addresses.clone() })
                }
            };
            let mirror = match sink {
                Ok(sink) => Mirror::new(sink, *policy, index),
                Err(errno) => Mirror::failed(errno, *policy, index),
            };
            link.flows[*direction as usize].mirrors.push(mirror);
        }
    }

    /// From now on no more than what is in the backlog is accepted, in turns, and the worker ends at `end` at the latest.
    pub(super) fn drain(&mut self, end: Instant) {
        self.end = Some(self.end.map_or(end, |before| before.min(end)));
        // What was dealt out is in their mailboxes before this, and nothing is after it.
        for peer in &self.peers {
            peer.send(Message::Drain(end));
        }
        if !self.draining {
            self.draining = true;
            // Others may connect all the time: what is more than the backlog can hold has come afterwards.
            self.backlog_left = usize::try_from(self.shared.options.backlog).unwrap_or(0).max(1) + 1;
            self.batch = MAX_ACCEPTS;
        }
    }

    /// Whether there are connections in the backlog that a draining relay still has to accept now.
    pub(super) fn has_backlog(&self) -> bool {
        self.draining && self.listener.is_some() && self.paused.is_none()
    }

    fn stop_listening(&mut self) {
        self.listener = None;
        self.paused = None;
        self.shared.descriptor_queue.remove(self.number);
        self.reserve = None;
    }

    /// Accepts nothing for a while.
    fn pause(&mut self) {
        self.shared.stats.refused.add(1);
        if let Some(listener) = &self.listener {
            let _ = self.epoll.delete(listener);
            self.paused = Some(Instant::now() + PAUSE);
            self.shared.descriptor_queue.add(self.number);
        }
    }

    /// A link has ended, so there may be descriptors: for the worker that has waited for them longest.
    pub(super) fn pass_on_descriptors(&mut self) {
        match self.shared.descriptor_queue.take_first() {
            Some(number) if number == self.number => self.resume(),
            Some(number) => {
                if let Some(mailbox) = self.shared.mailboxes.get().and_then(|mailboxes| mailboxes.get(number)) {
                    mailbox.send(Message::Resume);
                }
            }
            None => {}
        }
    }

    /// Ends the pause in this turn.
    pub(super) fn resume(&mut self) {
        self.paused = self.paused.map(|until| until.min(Instant::now()));
    }

    pub(super) fn end_pause(&mut self, now: Instant) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            self.is_next = true;
            self.shared.descriptor_queue.remove(self.number);
            self.watch_listener();
        }
    }

    pub(super) fn watch_listener(&mut self) {
        let Some(listener) = &self.listener else { return };
        match self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(_) => self.paused = Some(Instant::now() + PAUSE),
        }
    }
}

//! The loop: waits for events, and dispatches events, messages, turns and deadlines to a [`Handler`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::mailbox::Mailbox;
use super::scheduler::{Due, Scheduler};
use super::slab::Token;
use crate::error::{Error, Result};
use crate::stats;

/// Epoll data of the waker and of the listener. A slab never returns them: its tokens are below 2^51.
const WAKER: u64 = u64::MAX;
pub(crate) const LISTENER: u64 = u64::MAX - 1;
const MAX_DRAIN: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Events per `epoll_wait`.
const MAX_EVENTS: usize = 256;
/// Timers per round, so that many at once do not delay events.
const MAX_TIMERS: usize = 256;

/// The descriptors and times of a loop that its handler uses.
pub(crate) struct EventLoop<M> {
    epoll: Epoll,
    mailbox: Arc<Mailbox<M>>,
    now: Instant,
    drain_deadline: Option<Instant>,
}

impl<M> EventLoop<M> {
    /// A loop that receives the messages of `mailbox`.
    pub fn new(mailbox: Arc<Mailbox<M>>) -> Result<Self> {
        let failed = |syscall| move |errno| Error::system(syscall, errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        epoll.add(mailbox.waker(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER)).map_err(failed("epoll_ctl"))?;
        Ok(Self { epoll, mailbox, now: Instant::now(), drain_deadline: None })
    }

    /// The epoll instance.
    pub fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// The messages to this thread.
    pub fn mailbox(&self) -> &Arc<Mailbox<M>> {
        &self.mailbox
    }

    /// The time at which this round began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Starts graceful shutdown, which ends at `deadline`; a later call can only shorten it. Returns true on the first call.
    pub fn drain(&mut self, deadline: Instant) -> bool {
        let is_first = self.drain_deadline.is_none();
        self.drain_deadline = Some(self.drain_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        is_first
    }

    /// Whether graceful shutdown has started.
    pub fn is_draining(&self) -> bool {
        self.drain_deadline.is_some()
    }

    /// When graceful shutdown ends.
    pub fn drain_deadline(&self) -> Option<Instant> {
        self.drain_deadline
    }

    /// Whether graceful shutdown is over: its deadline has passed, or `is_idle` returns true.
    pub fn is_drained(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.drain_deadline.is_some_and(|deadline| self.now >= deadline || is_idle())
    }
}

/// What a thread does with its events.
///
/// Every method with the prefix `on_` runs contained: a panic ends that call only. If the call was about one entry, the loop
/// calls [`Handler::on_panic`] with its token, and all other entries continue.
pub(crate) trait Handler: Sized {
    /// Messages from other threads.
    type Message;
    /// A connection, link or transfer.
    type Entry;

    fn event_loop(&mut self) -> &mut EventLoop<Self::Message>;

    fn scheduler(&mut self) -> &mut Scheduler<Self::Entry>;

    /// The token in the epoll data of an entry's descriptor.
    fn token_of_event(data: u64) -> Token {
        data
    }

    /// The entry that a message is about.
    fn token_of_message(&self, message: &Self::Message) -> Option<Token>;

    /// A descriptor of an entry is ready.
    fn on_event(&mut self, data: u64, events: EpollFlags);

    /// The listener is readable.
    fn on_listener(&mut self) {}

    /// A message has arrived.
    fn on_message(&mut self, message: Self::Message);

    /// Called after the events and messages of a round, before its turns.
    fn before_turns(&mut self) {}

    /// The entry was in the queue of turns.
    fn on_turn(&mut self, token: Token);

    /// The deadline of the entry has passed. It has no deadline until the handler sets another.
    fn on_deadline(&mut self, token: Token);

    /// Called at the end of each round.
    fn on_round_end(&mut self) {}

    /// A call about this entry panicked, or one about no entry. Counts the panic and removes the entry.
    fn on_panic(&mut self, token: Option<Token>);

    /// A time, besides the deadlines of entries and of draining, at which the handler needs a round.
    fn next_round_at(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Whether the loop ends after this round.
    fn is_done(&mut self) -> bool;
}

/// The time `drain` from now, for [`EventLoop::drain`]; in ten years, if an [`Instant`] cannot represent that.
pub(crate) fn drain_deadline(drain: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(drain).unwrap_or(now + MAX_DRAIN)
}

/// Runs the loop on the calling thread until [`Handler::is_done`].
pub(crate) fn run<H: Handler>(handler: &mut H) {
    let mut events = [EpollEvent::empty(); MAX_EVENTS];
    loop {
        let timeout = timeout(handler);
        let event_loop = handler.event_loop();
        // Fails with EINTR only: this thread owns the descriptor and the buffer.
        let count = event_loop.epoll.wait(&mut events, timeout).unwrap_or_default();
        event_loop.now = Instant::now();
        for event in &events[..count] {
            match event.data() {
                WAKER => handler.event_loop().mailbox.waker().clear(),
                LISTENER => contain(handler, None, H::on_listener),
                data => {
                    contain(handler, Some(H::token_of_event(data)), |handler| handler.on_event(data, event.events()));
                }
            }
        }
        for message in handler.event_loop().mailbox.take() {
            let token = handler.token_of_message(&message);
            contain(handler, token, |handler| handler.on_message(message));
        }
        contain(handler, None, H::before_turns);
        // Entries that enqueue themselves again get their next turn after the next events.
        for _ in 0..handler.scheduler().turns() {
            if let Some(token) = handler.scheduler().pop_turn() {
                contain(handler, Some(token), |handler| handler.on_turn(token));
            }
        }
        let now = handler.event_loop().now;
        for _ in 0..MAX_TIMERS {
            match handler.scheduler().pop_due(now) {
                Some(Due::Expired(token)) => contain(handler, Some(token), |handler| handler.on_deadline(token)),
                Some(Due::Moved) => {}
                None => break,
            }
        }
        contain(handler, None, H::on_round_end);
        if handler.is_done() {
            return;
        }
    }
}

/// Runs `body`. If it panics, the panic ends here and [`Handler::on_panic`] is called.
pub(crate) fn contain<H: Handler>(handler: &mut H, token: Option<Token>, body: impl FnOnce(&mut H)) {
    if stats::contain(|| body(handler)).is_none() {
        stats::contain(|| handler.on_panic(token));
    }
}

fn timeout<H: Handler>(handler: &mut H) -> EpollTimeout {
    if handler.scheduler().turns() > 0 {
        return EpollTimeout::ZERO;
    }
    let now = Instant::now();
    let moments = [handler.next_round_at(now), handler.event_loop().drain_deadline];
    let moments = moments.into_iter().flatten().map(|moment| moment.saturating_duration_since(now));
    match handler.scheduler().until_next(now).into_iter().chain(moments).min() {
        // Rounded up to whole milliseconds: a wait that ends before the deadline would be repeated with a timeout of 0.
        Some(wait) => EpollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(EpollTimeout::MAX),
        None => EpollTimeout::NONE,
    }
}

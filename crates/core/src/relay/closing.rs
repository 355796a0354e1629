//! The end of a link: reset after a failure, once its peers have acknowledged all bytes, or closed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::link::Link;
use super::link_state::{Closing, LinkState};
use super::message::Message;
use super::mirror::Mirror;
use super::session::Outcome;
use super::worker::Worker;
use crate::event_loop::slab::Token;

/// Time without acknowledgements after which a side is reset although bytes are outstanding.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time until the first check for acknowledgements.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(1);

impl Worker {
    /// The link has finished. After a failure its sides are reset, once their peers have acknowledged all bytes.
    pub(super) fn finish(&mut self, token: Token, outcome: Outcome) {
        let Some(link) = self.links.get_mut(token) else { return };
        if outcome == Outcome::Complete {
            return self.close(token, outcome, false);
        }
        let unacknowledged = link.discarded_by_reset();
        let closing = Closing { outcome, unacknowledged, progressed: Instant::now(), pause: MIN_CHECK_INTERVAL };
        link.state = LinkState::Closing(closing);
        self.counters.add_progress(link);
        for flow in &mut link.flows {
            flow.buffer.release(&mut self.pipes);
            flow.mirrors.iter_mut().for_each(Mirror::stop_waiting);
        }
        self.check_closing(token);
    }

    pub(super) fn check_closing(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let unacknowledged = link.discarded_by_reset();
        let LinkState::Closing(closing) = &mut link.state else { return };
        let now = Instant::now();
        if unacknowledged < closing.unacknowledged {
            (closing.unacknowledged, closing.progressed) = (unacknowledged, now);
        }
        let outcome = closing.outcome;
        if unacknowledged == 0 || now >= closing.progressed + CLOSE_TIMEOUT {
            self.close(token, outcome, true);
        } else {
            self.update_deadline(token);
        }
    }

    pub(super) fn close(&mut self, token: Token, outcome: Outcome, reset: bool) {
        if let Some(link) = self.links.remove(token) {
            self.end(link, outcome, reset);
        }
    }

    pub(super) fn end(&mut self, mut link: Link, outcome: Outcome, reset: bool) {
        if reset {
            link.reset_on_close();
        }
        for flow in &mut link.flows {
            flow.buffer.release(&mut self.pipes);
            for mirror in &mut flow.mirrors {
                // The report of a session is made now, so its files get no bytes later.
                mirror.abandon(&mut self.mirror_pipes, link.session.is_none().then_some(&self.append_reporter));
            }
        }
        self.counters.add_progress(&mut link);
        self.counters.add_outcome(&link, outcome);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.pass_on_descriptors();
        if let (Some(targets), Some(index)) = (&self.shared.targets, link.target_index) {
            targets.release(index);
        }
        if let Some(id) = link.session {
            self.sessions.remove(&id);
        }
        if let Some(on_finished) = link.on_finished.take() {
            let report = link.report(outcome);
            // Closes its descriptors before the report.
            drop(link);
            on_finished(report);
        }
    }

    /// A link was closed: its descriptors are for the worker that has waited longest.
    fn pass_on_descriptors(&mut self) {
        match self.shared.descriptor_queue.take_first() {
            Some(number) if number == self.number => self.acceptor.end_pause(self.event_loop.now()),
            Some(number) => {
                if let Some(mailbox) = self.shared.mailboxes.get().and_then(|mailboxes| mailboxes.get(number)) {
                    mailbox.send(Message::Resume);
                }
            }
            None => {}
        }
    }
}

//! Deadlines of links: to connect, without bytes, for mirrors, and until a side is reset.

use std::time::{Duration, Instant};

use super::link_state::LinkState;
use super::session::Outcome;
use super::worker::Worker;
use crate::event_loop::slab::Token;

/// Time that mirrors with droppable bytes get after the flows have finished.
pub(super) const MIRROR_LINGER: Duration = Duration::from_secs(5);
/// Maximum time between checks for acknowledgements of a side that is reset. It is doubled after each check.
const MAX_CHECK_INTERVAL: Duration = Duration::from_millis(50);

impl Worker {
    pub(super) fn update_deadline(&mut self, token: Token) {
        let deadline = self.deadline(token);
        self.links.set_deadline(token, deadline);
    }

    fn deadline(&mut self, token: Token) -> Option<Instant> {
        let link = self.links.get_mut(token)?;
        let options = &self.shared.options;
        let after = |since: Instant, limit: Duration| (!limit.is_zero()).then(|| since + limit);
        let own = match &link.state {
            LinkState::Connecting(connecting) => connecting.deadline(options.connect_timeout),
            LinkState::Relaying if link.may_be_dropped() => after(link.progressed, MIRROR_LINGER),
            LinkState::Relaying => after(link.progressed, options.idle_timeout),
            LinkState::Closing(closing) => return Some(Instant::now() + closing.pause),
        };
        link.mirrors().filter_map(|mirror| mirror.deadline(options.connect_timeout)).chain(own).min()
    }

    pub(super) fn check_deadline(&mut self, token: Token) {
        let now = self.event_loop.now();
        let Some(link) = self.links.get_mut(token) else { return };
        if let LinkState::Closing(closing) = &mut link.state {
            closing.pause = (closing.pause * 2).min(MAX_CHECK_INTERVAL);
            return self.check_closing(token);
        }
        // Progress moves the deadline of a link without a call of `update_deadline`.
        let deadline = self.deadline(token);
        if deadline.is_none_or(|deadline| deadline > now) {
            return self.links.set_deadline(token, deadline);
        }
        if self.check_mirrors(token, now) {
            self.update_deadline(token);
            return self.drive(token);
        }
        let Some(link) = self.links.get_mut(token) else { return };
        match link.state {
            LinkState::Connecting(_) => self.connecting_expired(token, now),
            LinkState::Relaying if link.may_be_dropped() => {
                let outcome = link.outcome();
                self.finish(token, outcome);
            }
            LinkState::Relaying => {
                if link.has_peer_progress() {
                    link.progressed = now;
                    return self.update_deadline(token);
                }
                link.reset_incomplete_on_close();
                self.counters.idle_timeouts.add(1);
                self.close(token, Outcome::Idle, false);
            }
            LinkState::Closing(_) => {}
        }
    }
}

//! What a relay counts.

use super::endpoint::Endpoint;
use super::session::Outcome;
use nix::errno::Errno;

use super::link::{Link, State};
use super::mirror::MirrorReport;
use crate::stats::Counter;

/// Counters, shared by the workers.
#[derive(Debug, Default)]
pub(super) struct RelayStats {
    pub accepted: Counter,
    pub refused: Counter,
    pub unreachable: Counter,
    pub retries: Counter,
    pub connect_timeouts: Counter,
    pub idle_timeouts: Counter,
    pub client_failures: Counter,
    pub target_failures: Counter,
    pub mirror_failures: Counter,
    pub forced_closes: Counter,
    pub degraded: Counter,
    pub up: Counter,
    pub down: Counter,
    pub mirrored: Counter,
    pub dropped: Counter,
    pub panics: Counter,
}

impl RelayStats {
    /// Counts what a link has moved since it was last counted, and that it has had to do without a pipe.
    pub fn count(&self, link: &mut Link) {
        let mirrors = |what: fn(&MirrorReport) -> u64| link.mirrors().map(|mirror| what(&mirror.report)).sum();
        let [up, down] = &link.flows;
        let degraded = u64::from(up.buffer.degraded || down.buffer.degraded);
        let now = [up.bytes, down.bytes, mirrors(|mirror| mirror.bytes), mirrors(|mirror| mirror.dropped), degraded];
        let counters = [&self.up, &self.down, &self.mirrored, &self.dropped, &self.degraded];
        for ((now, before), counter) in now.into_iter().zip(&mut link.counted).zip(counters) {
            if now > *before {
                counter.add(now - *before);
                *before = now;
            }
        }
    }

    /// Counts how a link has ended.
    pub fn end(&self, link: &Link, outcome: Outcome) {
        self.mirror_failures.add(link.mirrors().filter(|mirror| mirror.report.failure.is_some()).count() as u64);
        let joined = matches!(link.state, State::Relaying | State::Closing(_));
        match outcome {
            // Those that never came to be are counted as refused or unreachable.
            Outcome::Failed(Endpoint::Client, Errno::EMFILE | Errno::ENFILE) if !joined => {}
            Outcome::Failed(Endpoint::Client, _) => self.client_failures.add(1),
            Outcome::Failed(Endpoint::Target, _) => self.target_failures.add(u64::from(joined)),
            Outcome::Failed(Endpoint::Mirror(_), _) | Outcome::Complete | Outcome::Idle | Outcome::Aborted => {}
        }
    }
}

/// The counters of a relay now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelaySnapshot {
    /// Connections now.
    pub connections: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Of these, closed at once: too many, or no descriptors.
    pub refused: u64,
    /// Connections for which no target answered.
    pub unreachable: u64,
    /// Further targets that were tried.
    pub retries: u64,
    /// Targets that did not answer in time.
    pub connect_timeouts: u64,
    /// Connections closed for want of bytes.
    pub idle_timeouts: u64,
    /// Connections that ended because the client was reset or failed otherwise.
    pub client_failures: u64,
    /// Connections that ended because the target was reset or failed otherwise.
    pub target_failures: u64,
    /// Mirrors that failed.
    pub mirror_failures: u64,
    /// Connections cut by the end of the relay.
    pub forced_closes: u64,
    /// Connections that had bytes go through user space for want of a pipe.
    pub degraded: u64,
    /// Bytes from clients to targets.
    pub bytes_up: u64,
    /// Bytes from targets to clients.
    pub bytes_down: u64,
    /// Bytes that mirrors got.
    pub mirrored: u64,
    /// Bytes that mirrors missed.
    pub dropped: u64,
    /// Connections that were ended by an internal error.
    pub panics: u64,
}

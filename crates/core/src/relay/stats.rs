//! Counters of a relay. Each worker has its own block of counters in its own cache lines; readers add them up.

use std::sync::Arc;

use nix::errno::Errno;

use super::endpoint::Endpoint;
use super::link::Link;
use super::link_state::LinkState;
use super::session::{MirrorReport, Outcome};
use crate::stats::Counter;

/// Passes the counters of a relay to the macro `$define`: the documentation and name of each.
#[macro_export]
macro_rules! relay_counters {
    ($define:ident) => {
        $define! {
            /// Accepted connections.
            accepted,
            /// Accepted connections that were closed at once, and pauses in accepting for lack of descriptors.
            refused,
            /// Connections for which no target could be connected to.
            unreachable,
            /// Further targets that were tried.
            retries,
            /// Targets that did not answer within the connect timeout.
            connect_timeouts,
            /// Connections closed by the idle timeout.
            idle_timeouts,
            /// Connections closed because the client was reset or failed.
            client_failures,
            /// Connections closed because the target was reset or failed.
            target_failures,
            /// Mirrors of connections that failed.
            mirror_failures,
            /// Connections closed by force at the end of the drain time.
            forced_closes,
            /// Connections whose bytes went through user space for lack of a pipe.
            degraded,
            /// Bytes from clients to targets.
            bytes_up,
            /// Bytes from targets to clients.
            bytes_down,
            /// Bytes written to mirrors.
            mirrored,
            /// Bytes that mirrors missed.
            dropped,
            /// Connections closed because of an internal error (a panic).
            panics,
        }
    };
}

macro_rules! define_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker. Aligned to two cache lines: adjacent lines are prefetched in pairs.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(super) struct RelayCounters {
            $(pub $name: Counter,)*
        }

        /// Values of the counters of a relay at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct RelaySnapshot {
            /// Open connections.
            pub connections: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl RelaySnapshot {
            pub(super) fn sum(connections: u64, workers: &[Arc<RelayCounters>]) -> Self {
                Self { connections, $($name: workers.iter().map(|counters| counters.$name.get()).sum(),)* }
            }
        }
    };
}

relay_counters!(define_counters);

impl RelayCounters {
    /// Adds the bytes that a link has moved since the last call, and once that it lacked a pipe.
    pub fn add_progress(&self, link: &mut Link) {
        let sum = |bytes: fn(&MirrorReport) -> u64| link.mirrors().map(|mirror| bytes(&mirror.report)).sum();
        let [up, down] = &link.flows;
        let degraded = u64::from(up.buffer.degraded || down.buffer.degraded);
        let now = [up.bytes, down.bytes, sum(|report| report.bytes), sum(|report| report.dropped), degraded];
        let counters = [&self.bytes_up, &self.bytes_down, &self.mirrored, &self.dropped, &self.degraded];
        for ((now, before), counter) in now.into_iter().zip(&mut link.counted).zip(counters) {
            if now > *before {
                counter.add(now - *before);
                *before = now;
            }
        }
    }

    /// Counts the outcome of a link.
    pub fn add_outcome(&self, link: &Link, outcome: Outcome) {
        self.mirror_failures.add(link.mirrors().filter(|mirror| mirror.report.failure.is_some()).count() as u64);
        let was_connected = matches!(link.state, LinkState::Relaying | LinkState::Closing(_));
        match outcome {
            // Links that never had a target are counted as refused or unreachable.
            Outcome::Failed(Endpoint::Client, Errno::EMFILE | Errno::ENFILE) if !was_connected => {}
            Outcome::Failed(Endpoint::Client, _) => self.client_failures.add(1),
            Outcome::Failed(Endpoint::Target, _) => self.target_failures.add(u64::from(was_connected)),
            Outcome::Failed(Endpoint::Mirror(_), _) | Outcome::Complete | Outcome::Idle | Outcome::Aborted => {}
        }
    }
}

//! What a server counts. Each worker has counters of its own, so that no two cores fight for one; readers add them up.

use std::fmt::Write as _;

use crate::stats::Counter;
use crate::transfer::Method;

/// Why a connection was cut or a request refused for being too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Too many connections.
    Connections,
    /// Too many connections of one address.
    ConnectionsPerAddress,
    /// A head too long, or with too many fields.
    Head,
    /// A body too long.
    Body,
    /// As many requests on a connection as may be.
    Requests,
    /// A head or body that took too long.
    HeadTimeout,
    /// A connection without a request for too long.
    IdleTimeout,
    /// No progress in sending.
    SendTimeout,
    /// Progress in sending too slow.
    MinRate,
    /// A file that took too long to open or to read.
    DiskTimeout,
    /// No descriptor left.
    Descriptors,
    /// The queue of connections that are handed over is full.
    HandoffQueue,
}

impl Limit {
    /// All of them, in the order of [`Snapshot::limits`].
    pub const ALL: [Limit; 12] = [
        Limit::Connections,
        Limit::ConnectionsPerAddress,
        Limit::Head,
        Limit::Body,
        Limit::Requests,
        Limit::HeadTimeout,
        Limit::IdleTimeout,
        Limit::SendTimeout,
        Limit::MinRate,
        Limit::DiskTimeout,
        Limit::Descriptors,
        Limit::HandoffQueue,
    ];

    /// The name in statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connectionsPerAddress",
            Self::Head => "head",
            Self::Body => "body",
            Self::Requests => "requests",
            Self::HeadTimeout => "headTimeout",
            Self::IdleTimeout => "idleTimeout",
            Self::SendTimeout => "sendTimeout",
            Self::MinRate => "minRate",
            Self::DiskTimeout => "diskTimeout",
            Self::Descriptors => "descriptors",
            Self::HandoffQueue => "handoffQueue",
        }
    }
}

/// The counters of one worker, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerStats {
    pub accepted: Counter,
    pub closed: Counter,
    pub handed_off: Counter,
    pub requests: Counter,
    /// Bytes of bodies handed to the kernel.
    pub bytes: Counter,
    /// Bytes of heads handed to the kernel.
    pub head_bytes: Counter,
    /// Responses whose connection ended before they did.
    pub aborted: Counter,
    /// Errors of the server itself: unreadable files, files that became shorter, panics that were contained.
    pub failures: Counter,
    pub statuses: [Counter; 5],
    pub methods: [Counter; Method::ALL.len()],
    pub limits: [Counter; Limit::ALL.len()],
}

impl WorkerStats {
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].add(1);
    }

    pub fn status(&self, status: u16) {
        if let Some(counter) = self.statuses.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.add(1);
        }
    }

    pub fn method(&self, method: Method) {
        if let Some(at) = Method::ALL.iter().position(|other| *other == method) {
            self.methods[at].add(1);
        }
    }
}

/// The counters of a server, added up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Connections now.
    pub connections: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections handed over to an application so far, see [`super::HandoffQueue`].
    pub handed_off: u64,
    /// Requests answered or being answered.
    pub requests: u64,
    /// Bytes of bodies handed to the kernel.
    pub bytes: u64,
    /// Bytes of heads handed to the kernel.
    pub head_bytes: u64,
    /// Responses whose connection ended before they did.
    pub aborted: u64,
    /// Errors of the server itself.
    pub failures: u64,
    /// Lines of the access log that were lost because nobody took them in time.
    pub log_lost: u64,
    /// Responses by class: 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Responses with bytes of a file, by the method that sent them, as in [`Method::ALL`].
    pub methods: [u64; Method::ALL.len()],
    /// How often each limit was met, as in [`Limit::ALL`].
    pub limits: [u64; Limit::ALL.len()],
}

impl Snapshot {
    pub(super) fn sum<'a>(workers: impl Iterator<Item = &'a WorkerStats>) -> Self {
        let mut sum = Self::default();
        let mut closed = 0;
        for stats in workers {
            sum.accepted += stats.accepted.get();
            closed += stats.closed.get();
            sum.handed_off += stats.handed_off.get();
            sum.requests += stats.requests.get();
            sum.bytes += stats.bytes.get();
            sum.head_bytes += stats.head_bytes.get();
            sum.aborted += stats.aborted.get();
            sum.failures += stats.failures.get();
            add(&mut sum.statuses, &stats.statuses);
            add(&mut sum.methods, &stats.methods);
            add(&mut sum.limits, &stats.limits);
        }
        sum.connections = sum.accepted.saturating_sub(closed + sum.handed_off);
        sum
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(2048);
        let mut single = |name: &str, kind: &str, help: &str, value: u64| {
            let _ =
                writeln!(text, "# HELP zerosend_{name} {help}\n# TYPE zerosend_{name} {kind}\nzerosend_{name} {value}");
        };
        single("connections", "gauge", "Connections open now.", self.connections);
        single("connections_accepted_total", "counter", "Connections accepted.", self.accepted);
        single("handed_over_total", "counter", "Connections handed over to an application.", self.handed_off);
        single("requests_total", "counter", "Requests.", self.requests);
        single("sent_bytes_total", "counter", "Bytes of bodies handed to the kernel.", self.bytes);
        single("sent_head_bytes_total", "counter", "Bytes of heads handed to the kernel.", self.head_bytes);
        single("aborted_total", "counter", "Responses whose connection ended before they did.", self.aborted);
        single("failures_total", "counter", "Errors of the server, contained panics included.", self.failures);
        single("log_lost_total", "counter", "Lines of the access log that were lost.", self.log_lost);
        let mut family = |name: &str, help: &str, label: &str, values: &mut dyn Iterator<Item = (String, u64)>| {
            let _ = writeln!(text, "# HELP zerosend_{name} {help}\n# TYPE zerosend_{name} counter");
            for (key, value) in values {
                let _ = writeln!(text, "zerosend_{name}{{{label}=\"{key}\"}} {value}");
            }
        };
        let statuses = self.statuses.iter().enumerate().map(|(at, value)| (format!("{}xx", at + 1), *value));
        family("responses_total", "Responses by class of status.", "class", &mut { statuses });
        let methods =
            Method::ALL.iter().zip(self.methods).skip(1).map(|(name, value)| (name.as_str().to_owned(), value));
        family("bodies_total", "Bodies of files by the method that sent them.", "method", &mut { methods });
        let limits = Limit::ALL.iter().zip(self.limits).map(|(name, value)| (name.as_str().to_owned(), value));
        family("limits_total", "How often each limit was met.", "limit", &mut { limits });
        text
    }
}

fn add(sums: &mut [u64], counters: &[Counter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.get();
    }
}

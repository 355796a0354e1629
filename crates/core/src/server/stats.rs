//! The counters of a server. Each worker has separate ones, which readers add up, so that workers do not share cache lines.

use std::fmt::Write as _;

use crate::stats::Counter;
use crate::transfer::Method;

/// Declares [`Limit`]: each variant, its name in statistics, and what it counts.
macro_rules! limits {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// A limit that a connection or request has met.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Limit {
            $(#[doc = $doc] $variant,)*
        }

        impl Limit {
            /// All limits, in the order of [`Snapshot::limits`].
            pub const ALL: [Limit; [$($name),*].len()] = [$(Limit::$variant),*];

            /// The name in statistics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

limits! {
    Connections "connections" "Connections beyond `limits.connections`.";
    ConnectionsPerAddress "connectionsPerAddress" "Connections beyond `limits.connections_per_address`.";
    Head "head" "Heads that are too long or have too many fields.";
    Body "body" "Request bodies that are too long.";
    Requests "requests" "Connections closed after `limits.requests_per_connection`.";
    HeadTimeout "headTimeout" "Heads and bodies that did not arrive in time.";
    IdleTimeout "idleTimeout" "Idle connections closed.";
    SendTimeout "sendTimeout" "Responses without progress.";
    MinRate "minRate" "Responses below the minimum rate.";
    DiskTimeout "diskTimeout" "Files that took too long to open or read.";
    Descriptors "descriptors" "Times the process had too few descriptors left.";
    HandoffQueue "handoffQueue" "Connections that had to wait for a place in the handoff queue.";
}

/// Passes the counters of a server to the macro `$define`: the name of each, the name of its metric, and its documentation.
#[macro_export]
macro_rules! server_counters {
    ($define:ident) => {
        $define! {
            accepted "connections_accepted_total" "Connections accepted.";
            handed_off "handed_off_total" "Connections handed off to an application.";
            requests "requests_total" "Requests answered, or being answered.";
            bytes "sent_bytes_total" "Bytes of response bodies accepted by the kernel.";
            head_bytes "sent_head_bytes_total" "Bytes of response heads accepted by the kernel.";
            aborted "aborted_total" "Responses cut short by the end of their connection.";
            failures "failures_total" "Internal errors: unreadable or truncated files, panics.";
        }
    };
}

macro_rules! define_counters {
    ($($field:ident $metric:literal $help:literal;)*) => {
        /// The counters of one worker.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(super) struct WorkerStats {
            $(#[doc = $help] pub $field: Counter,)*
            pub closed: Counter,
            statuses: [Counter; 5],
            methods: [Counter; Method::ALL.len()],
            limits: [Counter; Limit::ALL.len()],
        }

        /// The counters of a server, summed over its workers.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Snapshot {
            /// Open connections.
            pub connections: u64,
            $(#[doc = $help] pub $field: u64,)*
            /// Access log lines lost because they could not be written in time.
            pub log_lost: u64,
            /// Responses by status class, 1xx to 5xx.
            pub statuses: [u64; 5],
            /// Responses with bytes of a file, by the method that sent them, in the order of [`Method::ALL`].
            pub methods: [u64; Method::ALL.len()],
            /// How often each limit was met, in the order of [`Limit::ALL`].
            pub limits: [u64; Limit::ALL.len()],
        }

        impl Snapshot {
            fn add(&mut self, stats: &WorkerStats) {
                $(self.$field += stats.$field.get();)*
                add_each(&mut self.statuses, &stats.statuses);
                add_each(&mut self.methods, &stats.methods);
                add_each(&mut self.limits, &stats.limits);
            }

            /// The metrics without labels: name, type, help text, value.
            fn metrics(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str, u64)> {
                let log_lost = ("log_lost_total", "counter", "Access log lines lost.", self.log_lost);
                [
                    ("connections", "gauge", "Open connections.", self.connections),
                    $(($metric, "counter", $help, self.$field),)*
                    log_lost,
                ]
                .into_iter()
            }
        }
    };
}

server_counters!(define_counters);

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

impl Snapshot {
    pub(super) fn sum<'a>(workers: impl Iterator<Item = &'a WorkerStats>) -> Self {
        let mut sum = Self::default();
        let mut closed = 0;
        for stats in workers {
            sum.add(stats);
            closed += stats.closed.get();
        }
        sum.connections = sum.accepted.saturating_sub(closed + sum.handed_off);
        sum
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(4096);
        let header = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP zerosend_{name} {help}\n# TYPE zerosend_{name} {kind}");
        };
        for (name, kind, help, value) in self.metrics() {
            header(&mut text, name, kind, help);
            let _ = writeln!(text, "zerosend_{name} {value}");
        }
        let mut family = |name: &str, help: &str, label: &str, values: &mut dyn Iterator<Item = (&str, u64)>| {
            header(&mut text, name, "counter", help);
            for (key, value) in values {
                let _ = writeln!(text, "zerosend_{name}{{{label}=\"{key}\"}} {value}");
            }
        };
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(self.statuses);
        family("responses_total", "Responses by status class.", "class", &mut { classes });
        // The first method is `Auto`, which sends nothing.
        let methods = Method::ALL.iter().map(|method| method.as_str()).zip(self.methods).skip(1);
        family("bodies_total", "File responses by the method that sent them.", "method", &mut { methods });
        let limits = Limit::ALL.iter().map(|limit| limit.as_str()).zip(self.limits);
        family("limits_total", "How often each limit was met.", "limit", &mut { limits });
        text
    }
}

fn add_each(sums: &mut [u64], counters: &[Counter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.get();
    }
}

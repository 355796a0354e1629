//! Fail points: places in which tests inject a panic or a delay. There is one in each turn of a connection, each pool job and each
//! message between threads.
//!
//! Without the feature `failpoints` they compile to nothing. With it, `fail::cfg` and `fail::cfg_callback` configure them; see
//! `tests/faults`, which also injects failures of system calls.

/// A fail point.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        ::fail::fail_point!($name);
    };
}

pub(crate) use failpoint;

/// The names of all fail points.
#[cfg(feature = "failpoints")]
pub const NAMES: &[&str] = &[
    "pool::job",
    "reactor::turn",
    "reactor::command",
    "server::accept",
    "server::message",
    "server::turn",
    "relay::accept",
    "relay::message",
    "relay::turn",
    "cache::load",
];

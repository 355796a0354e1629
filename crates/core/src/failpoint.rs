//! Places where tests inject a panic or a delay: at each turn of a connection, each pool job, each hand-over between threads.
//!
//! Without the feature `failpoints` a place compiles to nothing. With it, `fail::cfg` and `fail::cfg_callback` say what
//! happens there; see `tests/faults`, which also makes the system calls of these threads fail.

/// A place with a name, where a test may inject a panic or a delay.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        ::fail::fail_point!($name);
    };
}

pub(crate) use failpoint;

/// The names of all places, for tests that go through them.
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

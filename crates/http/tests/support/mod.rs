//! Settings of the tests that take long under Miri.
#![allow(dead_code)]

use proptest::test_runner::Config;

/// Every how many recorded responses one is replayed.
pub const STEP: usize = if cfg!(miri) { 25 } else { 1 };

/// Miri does not let proptest access its file of failures.
pub fn config() -> Config {
    if cfg!(miri) { Config { cases: 8, failure_persistence: None, ..Config::default() } } else { Config::default() }
}

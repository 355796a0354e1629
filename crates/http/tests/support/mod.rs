//! Shared by the tests with random input.

use proptest::test_runner::Config;

/// Miri is slow, and does not let proptest access its file of failures.
pub fn config() -> Config {
    if cfg!(miri) { Config { cases: 8, failure_persistence: None, ..Config::default() } } else { Config::default() }
}

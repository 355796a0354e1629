//! A panic never crosses into Node: it becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use zerosend_core::{Code, Error, Result};

/// Runs `body`; a panic in it is [`Code::Internal`].
pub fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Error::new(Code::Internal, format!("a bug in zerosend was contained, please report it: {reason}")))
    })
}

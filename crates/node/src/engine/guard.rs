//! The boundary of every call from JavaScript: errors become exceptions, and a panic becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use napi::Env;
use zerosend_core::{Code, Error, Result, stats};

use crate::engine::error;

/// Runs `body` and throws its error in JavaScript. A panic must not unwind into Node, which is C++: it becomes
/// `ERR_ZEROSEND_INTERNAL`.
pub fn guard<T>(env: &Env, body: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| {
            stats::count_contained_panic();
            let reason = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_string())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(Error::new(Code::Internal, format!("internal error, please report it: {reason}")))
        })
        .map_err(|failure| error::throw(env, &failure))
}

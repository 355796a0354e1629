//! Work that takes as long as it takes, on a thread of its own: the pool's threads are for those who wait for a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::Env;
use zerosend_core::{Error, Result, stats, thread};

use crate::engine::{Held, with};
use crate::events::{Answer, Request};

/// Tells a thread to stop when it is dropped.
pub struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work`, whose result answers `request`; what it tells of its progress comes before. It is given what says that it is to stop:
/// when the token that is returned is released.
pub fn under_way(
    env: &Env,
    request: f64,
    work: impl FnOnce(&AtomicBool, &mut dyn FnMut(u64)) -> Result<Answer> + Send + 'static,
) -> napi::Result<f64> {
    with(env, |engine| {
        let request = Request::new(&engine.events, request);
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        thread::spawn("zerosend-work", move || {
            let outcome = stats::contain(|| work(&told, &mut |bytes| request.progress(bytes)));
            request.answer(outcome.unwrap_or_else(|| Err(Error::dropped())));
        })
        .map_err(|error| thread::failed("for this", &error))?;
        Ok(engine.hold(Held::UnderWay(StopOnDrop(stop)))? as f64)
    })
}

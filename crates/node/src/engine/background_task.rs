//! Work of unbounded duration, each on a dedicated thread: the threads of the pool are for requests that a client waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::Env;
use zerosend_core::{Error, Result, stats, thread};

use crate::engine::events::Payload;
use crate::engine::handles::Kind;
use crate::engine::with;

/// A thread that is asked to stop when this is dropped.
pub struct BackgroundTask {
    stop: Arc<AtomicBool>,
}

impl Kind for BackgroundTask {
    const NAME: &'static str = "a background task";
    const RELEASED: &'static str = "the background task has ended";
}

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Runs `work` on a new thread; its result completes `request`. `work` is given a flag that is set when it is to stop, and
/// a function that reports progress in bytes. Returns a handle; releasing it stops the work.
pub fn run_in_background(
    env: &Env,
    request: f64,
    work: impl FnOnce(&AtomicBool, &mut dyn FnMut(u64)) -> Result<Payload> + Send + 'static,
) -> napi::Result<f64> {
    with(env, |engine| {
        let request = engine.request(request);
        let stop = Arc::new(AtomicBool::new(false));
        let task = BackgroundTask { stop: stop.clone() };
        thread::spawn("zerosend-work", move || {
            let result = stats::contain(|| work(&stop, &mut |bytes| request.progress(bytes)));
            request.complete(result.unwrap_or_else(|| Err(Error::dropped())));
        })
        .map_err(|error| thread::failed("for this", &error))?;
        Ok(engine.handles.objects.register(task))
    })
}

//! Jobs that run one after another on the pool.
//!
//! A slow file so occupies at most one thread of the pool, and releases it after each job.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::io::pool::{Lane, Pool, Volume};

type Job = Box<dyn FnOnce() + Send>;

struct State {
    jobs: VecDeque<Job>,
    running: bool,
}

/// A queue of jobs. Clones share it.
#[derive(Clone)]
pub struct Serial {
    volume: Volume,
    state: Arc<Mutex<State>>,
}

impl Serial {
    /// A queue of jobs that depend on `volume`.
    pub fn new(volume: Volume) -> Self {
        Self { volume, state: Arc::new(Mutex::new(State { jobs: VecDeque::new(), running: false })) }
    }

    /// Runs `job` after those added before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        state.jobs.push_back(Box::new(job));
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            self.next();
        }
    }

    fn next(&self) {
        let mut state = self.lock();
        let Some(job) = state.jobs.pop_front() else {
            state.running = false;
            return;
        };
        drop(state);
        let work = move || {
            job();
            Ok(())
        };
        let serial = self.clone();
        // The callback is called after a panic of the job, too.
        Pool::global().run(Lane::Long, self.volume, work, move |_| serial.next()).detach();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_in_order_also_after_a_panic() {
        let serial = Serial::new(Volume::NONE);
        let (sender, receiver) = mpsc::channel();
        for number in 0..1000 {
            let sender = sender.clone();
            serial.run(move || {
                assert!(number % 100 != 50, "one in a hundred panics");
                let _ = sender.send(number);
            });
        }
        drop(sender);
        let order: Vec<_> = receiver.iter().collect();
        assert_eq!(order, (0..1000).filter(|number| number % 100 != 50).collect::<Vec<_>>());
    }
}

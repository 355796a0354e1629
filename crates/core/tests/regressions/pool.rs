//! The pool: lanes, hung file systems, and callbacks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use zerosend_core::io::pool::{Lane, Pool, Task, Volume};
use zerosend_core::{Code, Error, Result, stats};

/// Longer than a job that does not hang takes on any machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn hung(device: u64) -> Volume {
    Volume::of_device(0xdead_0000 + device)
}

/// Starts jobs that hang until the sender is dropped.
fn hang(lane: Lane, volume: Volume, count: usize) -> (Sender<()>, Receiver<Result<()>>, Vec<Task>) {
    let (release, wait) = channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let (sender, results) = channel();
    let tasks = (0..count).map(|_| {
        let (wait, sender) = (wait.clone(), sender.clone());
        let work = move || {
            let _ = wait.lock().expect("no job panics").recv();
            Ok(())
        };
        Pool::global().run(lane, volume, work, move |result| sender.send(result).unwrap_or_default())
    });
    (release, results, tasks.collect())
}

fn runs(lane: Lane, volume: Volume) {
    let (sender, receiver) = channel();
    Pool::global().run(lane, volume, || Ok(7), move |result| sender.send(result).unwrap_or_default()).detach();
    assert_eq!(receiver.recv_timeout(TIMEOUT), Ok(Ok(7)), "{lane:?} {volume:?}");
}

#[test]
fn a_hung_file_system_does_not_delay_jobs_of_others() {
    for lane in [Lane::Short, Lane::Long] {
        let hanging: Vec<_> = (1..=3).map(|device| hang(lane, hung(device), 300)).collect();
        for _ in 0..20 {
            runs(lane, hung(9));
            runs(lane, Volume::NONE);
        }
        runs(if lane == Lane::Short { Lane::Long } else { Lane::Short }, hung(1));
        for (release, results, _) in hanging {
            drop(release);
            assert_eq!(results.iter().filter(Result::is_ok).count(), 300);
        }
    }
}

#[test]
fn a_slow_file_does_not_delay_others_of_its_file_system() {
    let (release, _, _) = hang(Lane::Short, hung(20), 4);
    runs(Lane::Short, hung(20));
    drop(release);
}

#[test]
fn a_long_job_lets_others_run_after_each_step() {
    let (sender, receiver) = channel();
    let steps = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (sender, steps) = (sender.clone(), steps.clone());
            let step = move || {
                steps.fetch_add(1, Ordering::Relaxed);
                ControlFlow::<Result<()>>::Continue(())
            };
            Pool::global().run_in_steps(Lane::Long, hung(21), step, move |result| {
                sender.send(result).unwrap_or_default();
            })
        })
        .collect();
    // None of the eight jobs ends by itself, and four may run at the same time.
    runs(Lane::Long, hung(21));
    for task in tasks {
        assert!(task.cancel(Error::new(Code::Aborted, "cancelled")));
        assert_eq!(receiver.recv_timeout(TIMEOUT).expect("a result").expect_err("cancelled").code(), Code::Aborted);
    }
    assert!(steps.load(Ordering::Relaxed) > 0);
}

#[test]
fn each_callback_is_called_once_after_a_panic_a_cancellation_or_a_result() {
    let before = stats::contained_panics();
    let (sender, receiver) = channel();
    let callback = |name: &'static str| {
        let sender = sender.clone();
        move |result: Result<()>| sender.send((name, result.map_err(|error| error.code()))).unwrap_or_default()
    };
    let next = || receiver.recv_timeout(TIMEOUT).expect("a result");

    Pool::global().run(Lane::Short, Volume::NONE, || panic!("a bug"), callback("panics")).detach();
    assert_eq!(next(), ("panics", Err(Code::Internal)));
    assert!(stats::contained_panics() > before);

    Pool::global().run(Lane::Short, Volume::NONE, || Ok(()), |_: Result<()>| panic!("a bug")).detach();
    runs(Lane::Short, Volume::NONE);

    // A waiting job is cancelled and does not run. A running job is not interrupted, and its result is dropped.
    struct Dropped(Sender<(&'static str, std::result::Result<(), Code>)>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send(("dropped", Ok(()))).unwrap_or_default();
        }
    }
    let (release, wait) = channel::<()>();
    let (started, has_started) = channel();
    let result = Dropped(sender.clone());
    let work = move || {
        started.send(()).expect("the test waits");
        let _ = wait.recv();
        Ok(result)
    };
    let outcome = callback("runs");
    let runs = Pool::global().run(Lane::Short, hung(30), work, move |result| outcome(result.map(|_| ())));
    has_started.recv_timeout(TIMEOUT).expect("started");
    let (others, _, _) = hang(Lane::Short, hung(31), 300);
    let waits = Pool::global().run(Lane::Short, hung(31), || panic!("it must not run"), callback("waits"));
    assert!(waits.cancel(Error::new(Code::Aborted, "cancelled")));
    assert_eq!(next(), ("waits", Err(Code::Aborted)));
    assert!(runs.cancel(Error::new(Code::Timeout, "timeout")));
    assert_eq!(next(), ("runs", Err(Code::Timeout)));
    assert!(!runs.cancel(Error::new(Code::Aborted, "twice")) && !runs.is_pending());
    drop(release);
    assert_eq!(next(), ("dropped", Ok(())));
    drop(others);
    assert!(receiver.try_recv().is_err(), "nothing else");
}

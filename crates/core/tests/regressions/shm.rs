//! Shared memory and mappings.

use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use zerosend_core::shm::{PipeTo, Ring, RingHandle, RingOptions, Role};
use zerosend_core::stats;

const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn a_panic_on_the_threads_of_a_ring_is_counted_and_later_waits_are_answered() {
    let ring = RingHandle::new(Ring::create(None, &RingOptions::default()).expect("a ring"));
    for _ in 0..3 {
        let before = stats::contained_panics();
        let (sender, receiver) = channel();
        ring.when_ready(Role::Writer, 1, Box::new(|_| panic!("a bug")));
        // Runs after it, on the same thread.
        ring.when_ready(Role::Writer, 1, Box::new(move |outcome| sender.send(outcome).unwrap_or_default()));
        receiver.recv_timeout(TIMEOUT).expect("an answer").expect("room");
        assert!(stats::contained_panics() > before);
    }
    let before = stats::contained_panics();
    let (_kept, target) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let target = target.as_fd().try_clone_to_owned().expect("a clone");
    let (sender, receiver) = channel::<()>();
    let task = PipeTo::start(ring.ring().clone(), target, move |_| {
        let _sender = sender;
        panic!("a bug")
    });
    task.expect("started").cancel();
    // The sender is dropped when the callback has panicked.
    assert!(receiver.recv_timeout(TIMEOUT).is_err());
    let end = Instant::now() + TIMEOUT;
    while stats::contained_panics() == before {
        assert!(Instant::now() < end, "not counted");
        std::thread::yield_now();
    }
}

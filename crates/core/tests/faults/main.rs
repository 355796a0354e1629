//! Random faults: every system call of zerosend's threads may fail, move fewer bytes or be delayed, and every turn, pool job and
//! message between threads may panic or be delayed. There must be no hang, no leak and no wrong byte, and connections that are
//! not hit must continue.
//!
//! `ZEROSEND_FAULT_SCHEDULES` is the number of random schedules (default 200), `ZEROSEND_FAULT_SEED` the first seed.
//! `ZEROSEND_FAULT_TRACE=1` prints each failure; `ZEROSEND_FAULT_ONLY` names the only call that fails.

#![cfg(feature = "failpoints")]

mod interpose;
mod reactor_panics;
mod relay_panics;
mod server_panics;
mod workload;

use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use interpose::Rates;
use workload::{Outcomes, TestBed};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Sets the panics and delays at each fail point, for 1000 executions.
fn set_fail_points(panics: u32, delays: u32) {
    for name in zerosend_core::failpoint::NAMES {
        let act = move || {
            let number = interpose::random() % 1000;
            if number < u64::from(panics) {
                panic!("injected");
            }
            if number < u64::from(panics + delays) {
                std::thread::sleep(Duration::from_micros(interpose::random() % 2000));
            }
        };
        fail::cfg_callback(*name, act).expect("a fail point");
    }
}

/// The faults of one schedule, until it is dropped. Prints the seed when the schedule fails.
struct Faults(u64);

impl Faults {
    fn begin(seed: u64, rates: Rates, panics: u32, delays: u32) -> Self {
        interpose::begin(seed, rates);
        set_fail_points(panics, delays);
        Self(seed)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        interpose::end();
        set_fail_points(0, 0);
        if std::thread::panicking() {
            eprintln!("in the schedule of seed {}", self.0);
        }
    }
}

/// Does not print the messages of injected panics, which would hide others.
fn silence_injected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"injected")
                && info.payload().downcast_ref::<String>().is_none_or(|message| message != "injected")
            {
                default_hook(info);
            }
        }));
    });
}

/// Resources that must not be leaked.
struct Resources {
    /// Workers of servers and relays.
    threads: Vec<String>,
    descriptors: usize,
    pipes: usize,
}

/// Descriptors of pipes that the pool keeps: 16 pipes.
const MAX_IDLE_PIPE_ENDS: usize = 32;

impl Resources {
    fn now() -> Self {
        let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let is_worker = |name: &String| name.starts_with("zerosend-server") || name.starts_with("zerosend-relay");
        let open = std::fs::read_dir("/proc/self/fd").expect("procfs");
        let targets: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
        let pipes = targets.iter().filter(|target| target.to_string_lossy().starts_with("pipe:")).count();
        Self {
            threads: names.map(|name| name.trim().to_owned()).filter(is_worker).collect(),
            descriptors: targets.len() - pipes,
            pipes,
        }
    }
}

#[test]
fn random_faults_cause_no_hang_leak_or_wrong_byte() {
    silence_injected_panics();
    interpose::TRACE.store(number("ZEROSEND_FAULT_TRACE", 0) > 0, Ordering::Relaxed);
    if let Ok(name) = std::env::var("ZEROSEND_FAULT_ONLY") {
        let _ = interpose::ONLY.set(name);
    }
    let scenario = fail::FailScenario::setup();
    let (schedules, first) = (number("ZEROSEND_FAULT_SCHEDULES", 200), number("ZEROSEND_FAULT_SEED", 1));
    let start = Instant::now();
    let mut sum = Outcomes::default();

    // Creates what the process keeps (the reactor, its epoll descriptor, pooled pipes) before descriptors are counted.
    TestBed::new(0).check();
    let before = Resources::now();

    const PER_BED: u64 = 25;
    for batch in (first..first + schedules).collect::<Vec<_>>().chunks(PER_BED as usize) {
        let bed = TestBed::new(batch[0]);
        for &seed in batch {
            let kinds = [
                (Rates { error: 5, short: 50, delay: 0 }, 0, 0),
                (Rates { error: 40, short: 200, delay: 0 }, 0, 0),
                (Rates { error: 0, short: 300, delay: 50 }, 0, 100),
                (Rates::default(), 20, 50),
                (Rates { error: 20, short: 100, delay: 20 }, 10, 20),
                (Rates { error: 200, short: 100, delay: 0 }, 50, 0),
            ];
            let (rates, panics, delays) = kinds[(seed % kinds.len() as u64) as usize];
            let faults = Faults::begin(seed, rates, panics, delays);
            sum.add(&bed.load(seed));
            drop(faults);
        }
        // Without faults everything works again.
        bed.check();
        drop(bed);
    }

    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let Resources { threads, descriptors, pipes } = Resources::now();
        if threads.is_empty() && descriptors <= before.descriptors && pipes <= before.pipes.max(MAX_IDLE_PIPE_ENDS) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "leaked: threads {threads:?}, {descriptors} descriptors ({} before), {pipes} pipe ends",
            before.descriptors
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    scenario.teardown();
    println!(
        "{schedules} schedules from seed {first}, {} faults, {:?}: {sum:?}",
        interpose::injected(),
        start.elapsed()
    );
    assert!(interpose::injected() > schedules, "too few faults were injected");
    assert!(sum.complete > 0 && sum.truncated > 0 && sum.refused > 0, "some outcome did not occur: {sum:?}");
}

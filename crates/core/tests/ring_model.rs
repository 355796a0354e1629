//! All interleavings of a ring's writer and reader, by loom: bytes are never read before they are written or written over before
//! they are read, and nobody sleeps for ever.

#![allow(unsafe_code)] // loom hands out raw pointers.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use zerosend_core::shm::protocol::{self, Side as _, Word32, Word64};

struct Position(AtomicU64);

impl Word64 for Position {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
}

/// A futex: the kernel compares and falls asleep in one step.
struct Futex {
    value: AtomicU32,
    queue: Mutex<()>,
    awake: Condvar,
}

impl Futex {
    fn wait(&self, expected: u32) {
        let mut queue = self.queue.lock().unwrap();
        while self.value.load(Ordering::Relaxed) == expected {
            queue = self.awake.wait(queue).unwrap();
        }
    }
}

impl Word32 for Futex {
    fn load(&self, order: Ordering) -> u32 {
        self.value.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.value.store(value, order);
    }

    fn wake(&self) {
        let _queue = self.queue.lock().unwrap();
        self.awake.notify_all();
    }
}

struct Side {
    position: Position,
    sleeps: Futex,
    state: Futex,
}

impl Side {
    fn new() -> Self {
        let futex = || Futex { value: AtomicU32::new(0), queue: Mutex::new(()), awake: Condvar::new() };
        Self { position: Position(AtomicU64::new(0)), sleeps: futex(), state: futex() }
    }
}

impl protocol::Side for Side {
    type Position = Position;
    type Flag = Futex;

    fn position(&self) -> &Position {
        &self.position
    }

    fn sleeps(&self) -> &Futex {
        &self.sleeps
    }

    fn state(&self) -> &Futex {
        &self.state
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

const OVER: u32 = 2;

/// A ring of as many slots as its capacity. loom reports who touches a slot that another is still at.
struct Ring {
    writer: Side,
    reader: Side,
    slots: Vec<UnsafeCell<u64>>,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        let slots = (0..capacity).map(|_| UnsafeCell::new(0)).collect();
        Self { writer: Side::new(), reader: Side::new(), slots }
    }

    fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, position: u64) -> &UnsafeCell<u64> {
        &self.slots[(position % self.capacity()) as usize]
    }

    fn write(&self, count: u64) {
        for position in 0..count {
            let room = || protocol::writable(&self.reader, position, self.capacity()).unwrap() > 0;
            while !room() {
                if protocol::prepare_sleep(&self.writer, 1, room) {
                    self.writer.sleeps().wait(1);
                }
            }
            // SAFETY: loom checks that nobody else is at the slot.
            self.slot(position).with_mut(|slot| unsafe { *slot = position + 1 });
            protocol::advance(&self.writer, &self.reader, position + 1, || self.capacity());
        }
        protocol::set_state(&self.writer, &self.reader, OVER);
    }

    fn read(&self) -> u64 {
        let mut position = 0;
        loop {
            let there = || protocol::readable(&self.writer, position, self.capacity()).unwrap();
            let over = || protocol::state(&self.writer) == OVER;
            if there() == 0 {
                if over() && there() == 0 {
                    return position;
                }
                if protocol::prepare_sleep(&self.reader, 1, || there() > 0 || over()) {
                    self.reader.sleeps().wait(1);
                }
                continue;
            }
            // SAFETY: loom checks that nobody else is at the slot.
            self.slot(position).with(|slot| assert_eq!(unsafe { *slot }, position + 1));
            position += 1;
            let used = || protocol::readable(&self.writer, position, self.capacity()).unwrap();
            protocol::advance(&self.reader, &self.writer, position, || self.capacity() - used());
        }
    }
}

fn model(capacity: usize, count: u64) {
    let mut checker = loom::model::Builder::new();
    // More switches than that find nothing more, in all experience, and take hours.
    checker.preemption_bound = Some(3);
    checker.check(move || {
        let ring = Arc::new(Ring::new(capacity));
        let writer = ring.clone();
        let writing = thread::spawn(move || writer.write(count));
        assert_eq!(ring.read(), count, "all that was written before the end");
        writing.join().unwrap();
    });
}

#[test]
fn one_slot_that_both_wait_for() {
    model(1, 2);
}

#[test]
fn two_slots() {
    model(2, 3);
}

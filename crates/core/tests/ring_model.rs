//! All interleavings of the writer and the reader of a ring, explored by loom: no byte is read before it is written or
//! overwritten before it is read, and no side sleeps without being woken.

use std::sync::atomic::Ordering;

use loom::cell::Cell;
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

/// A futex: comparing the value and falling asleep are one step.
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

const ENDED: u32 = 2;

/// A ring with a slot for each byte of its capacity. loom fails on concurrent accesses to a slot.
struct Ring {
    writer: Side,
    reader: Side,
    slots: Vec<Cell<u64>>,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        let slots = (0..capacity).map(|_| Cell::new(0)).collect();
        Self { writer: Side::new(), reader: Side::new(), slots }
    }

    fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, position: u64) -> &Cell<u64> {
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
            self.slot(position).set(position + 1);
            protocol::advance(&self.writer, &self.reader, position + 1, || self.capacity());
        }
        protocol::set_state(&self.writer, &self.reader, ENDED);
    }

    fn read(&self) -> u64 {
        let mut position = 0;
        loop {
            let readable = || protocol::readable(&self.writer, position, self.capacity()).unwrap();
            let ended = || protocol::state(&self.writer) == ENDED;
            if readable() == 0 {
                if ended() && readable() == 0 {
                    return position;
                }
                if protocol::prepare_sleep(&self.reader, 1, || readable() > 0 || ended()) {
                    self.reader.sleeps().wait(1);
                }
                continue;
            }
            assert_eq!(self.slot(position).get(), position + 1);
            position += 1;
            let used = || protocol::readable(&self.writer, position, self.capacity()).unwrap();
            protocol::advance(&self.reader, &self.writer, position, || self.capacity() - used());
        }
    }
}

fn model(capacity: usize, count: u64) {
    let mut checker = loom::model::Builder::new();
    // Few bugs need more preemptions (Musuvathi and Qadeer, PLDI 2007), and exploring them takes hours.
    checker.preemption_bound = Some(3);
    checker.check(move || {
        let ring = Arc::new(Ring::new(capacity));
        let writer = ring.clone();
        let writing = thread::spawn(move || writer.write(count));
        assert_eq!(ring.read(), count, "all bytes before the end");
        writing.join().unwrap();
    });
}

#[test]
fn one_slot_on_which_both_sides_wait() {
    model(1, 2);
}

#[test]
fn two_slots_with_three_bytes() {
    model(2, 3);
}

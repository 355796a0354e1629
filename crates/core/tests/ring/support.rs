//! Rings and data for the tests.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;

use zerosend_core::shm::{Framing, ReadOutcome, Ring, RingOptions, Role, SegmentName, unlink};
use zerosend_core::{Code, Error};

/// A flag that is never set.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// A name that is removed after the test.
pub struct Named(pub SegmentName);

impl Named {
    pub fn new(what: &str) -> Self {
        let name = SegmentName::new(&format!("zerosend-test-{what}-{}", std::process::id())).expect("a name");
        let _ = unlink(&name);
        Self(name)
    }

    pub fn path(&self) -> String {
        format!("/dev/shm{}", self.0.as_str())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

pub fn options(capacity: u64, framing: Framing) -> RingOptions {
    RingOptions { capacity, framing, ..RingOptions::default() }
}

/// A ring without a name, opened twice as by two processes: the writer and the reader.
pub fn open_twice(capacity: u64, framing: Framing) -> (Ring, Ring) {
    let writer = Ring::create(None, &options(capacity, framing)).expect("a ring");
    let reader = Ring::from_fd(writer.as_fd(), false).expect("the same ring");
    (writer, reader)
}

pub fn code(error: &Error) -> Code {
    error.code()
}

pub fn write_all(ring: &Ring, mut bytes: &[u8]) -> zerosend_core::Result<()> {
    while !bytes.is_empty() {
        match ring.write(bytes)? {
            0 => ring.wait(Role::Writer, 1, &NEVER)?,
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

pub fn send_message(ring: &Ring, message: &[u8]) -> zerosend_core::Result<()> {
    while !ring.write_message(message)? {
        ring.wait(Role::Writer, message.len() + 4, &NEVER)?;
    }
    Ok(())
}

/// All bytes until the end, read with a buffer of `size` bytes.
pub fn read_all(ring: &Ring, size: usize) -> zerosend_core::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        match ring.read(&mut buffer)? {
            ReadOutcome::Bytes(count) => all.extend_from_slice(&buffer[..count]),
            ReadOutcome::TooLarge(size) => buffer = vec![0; size],
            ReadOutcome::Ended => return Ok(all),
            ReadOutcome::Empty => ring.wait(Role::Reader, 1, &NEVER)?,
        }
    }
}

/// The messages of framed bytes.
pub fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(bytes[..4].try_into().expect("four")) as usize;
        all.push(bytes[4..4 + length].to_vec());
        bytes = &bytes[4 + length..];
    }
    all
}

/// Pseudo-random bytes.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

//! Peers in other processes, some of which are killed.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use zerosend_core::Code;
use zerosend_core::shm::{Framing, ReadOutcome, Ring, Role, SegmentName};

use crate::support::{NEVER, Named, code, frames, noise, options, send_message, write_all};

/// Another process, killed on drop.
struct Peer(Child);

impl Peer {
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("exited");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process that runs one of the ignored tests below.
fn start(what: &str, name: &Named, argument: u64) -> Peer {
    let child = Command::new(std::env::current_exe().expect("a program"))
        .args(["--ignored", "--exact", &format!("processes::{what}"), "--nocapture", "--test-threads=1"])
        .env("ZEROSEND_RING", name.0.as_str())
        .env("ZEROSEND_RING_ARGUMENT", argument.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    Peer(child)
}

/// The ring and argument of a process of [`start`]; `None` in other processes.
fn argument() -> Option<(Ring, u64)> {
    let name = SegmentName::new(&std::env::var("ZEROSEND_RING").ok()?).expect("a name");
    let argument = std::env::var("ZEROSEND_RING_ARGUMENT").ok()?.parse().ok()?;
    Some((Ring::open(&name).expect("a ring"), argument))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A message with a number, and bytes that depend on it.
fn numbered(number: u64) -> Vec<u8> {
    let mut message = number.to_le_bytes().to_vec();
    message.extend(noise((number % 700) as usize, number));
    message
}

#[test]
#[ignore = "the other process of a test"]
fn as_a_writer_without_end() {
    let Some((ring, first)) = argument() else { return };
    for number in first.. {
        send_message(&ring, &numbered(number)).expect("written");
    }
}

#[test]
#[ignore = "the other process of a test"]
fn as_a_reader_without_end() {
    let Some((ring, _)) = argument() else { return };
    let mut buffer = vec![0; 3000];
    loop {
        match ring.read(&mut buffer).expect("read") {
            ReadOutcome::Empty => ring.wait(Role::Reader, 1, &NEVER).expect("bytes"),
            ReadOutcome::Bytes(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
#[ignore = "the other process of a test"]
fn as_a_writer_of_bytes() {
    let Some((ring, bytes)) = argument() else { return };
    let mut sum = blake3::Hasher::new();
    let mut left = bytes as usize;
    let mut seed = 0;
    let pattern = noise(1 << 20, 5);
    while left > 0 {
        seed += 1;
        let from = (seed * 7919) % (pattern.len() / 2);
        let piece = &pattern[from..from + left.min(1 + (seed * 104_729) % 500_000)];
        sum.update(piece);
        write_all(&ring, piece).expect("written");
        left -= piece.len();
    }
    ring.end().expect("ended");
    std::fs::write(format!("/dev/shm{}.sum", ring.name().expect("a name").as_str()), sum.finalize().as_bytes())
        .expect("written");
}

#[test]
fn bytes_between_two_processes_are_complete() {
    let name = Named::new("bytes");
    let bytes = setting("ZEROSEND_RING_BYTES", 256 << 20);
    let ring = Ring::create(Some(&name.0), &options(1 << 20, Framing::Bytes)).expect("a ring");
    let mut child = start("as_a_writer_of_bytes", &name, bytes);
    let (mut sum, mut buffer, mut count) = (blake3::Hasher::new(), vec![0; 1 << 18], 0);
    loop {
        match ring.read(&mut buffer).expect("read") {
            ReadOutcome::Empty => ring.wait(Role::Reader, 1, &NEVER).expect("bytes"),
            ReadOutcome::Bytes(read) => {
                sum.update(&buffer[..read]);
                count += read as u64;
            }
            ReadOutcome::Ended => break,
            ReadOutcome::TooLarge(_) => unreachable!("a stream of bytes"),
        }
    }
    assert!(child.0.wait().expect("exited").success());
    let path = format!("{}.sum", name.path());
    let expected = std::fs::read(&path).expect("a sum");
    std::fs::remove_file(path).expect("removed");
    assert_eq!(count, bytes);
    assert!(sum.finalize().as_bytes()[..] == expected[..]);
}

/// Waits for a peer that was killed. `None`: it left something to read; else the number of deaths reported, which is 0 when it
/// was killed before it took its role.
fn wait_for_death(ring: &Ring, role: Role, bytes: usize) -> Option<u64> {
    let stop = Arc::new(AtomicBool::new(false));
    let timeout = stop.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(800));
        timeout.store(true, Ordering::Release);
    });
    let error = ring.wait(role, bytes, &stop).err()?;
    if code(&error) == Code::Closed {
        return Some(0);
    }
    assert_eq!(code(&error), Code::PeerDied);
    assert!(error.message().contains(" died without ending it"), "{error}");
    Some(1)
}

#[test]
fn a_killed_writer_is_reported_and_replaced() {
    let name = Named::new("writers");
    let ring = Ring::create(Some(&name.0), &options(16_384, Framing::Messages)).expect("a ring");
    let (mut next, mut died) = (0, 0);
    let mut buffer = vec![0; 16_384];
    for round in 0..setting("ZEROSEND_KILLS", 100) / 2 {
        let mut child = start("as_a_writer_without_end", &name, next);
        let kill = Instant::now() + Duration::from_millis(5 + round * 7919 % 30);
        let mut killed = false;
        loop {
            if !killed && Instant::now() > kill {
                child.kill();
                killed = true;
            }
            match ring.read(&mut buffer).expect("never corrupt") {
                ReadOutcome::Bytes(count) => {
                    for message in frames(&buffer[..count]) {
                        assert!(message == numbered(next), "message {next}");
                        next += 1;
                    }
                }
                ReadOutcome::Empty if killed => match wait_for_death(&ring, Role::Reader, 1) {
                    None => {}
                    Some(deaths) => {
                        died += deaths;
                        break;
                    }
                },
                ReadOutcome::Empty => thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(died > 0 && next > 0, "{died} died, {next} messages");
    println!("{died} writers died, {next} messages received");
}

#[test]
fn a_killed_reader_is_reported_and_replaced() {
    let name = Named::new("readers");
    let ring = Ring::create(Some(&name.0), &options(16_384, Framing::Messages)).expect("a ring");
    let (mut died, mut sent) = (0, 0_u64);
    for round in 0..setting("ZEROSEND_KILLS", 100) / 2 {
        let mut child = start("as_a_reader_without_end", &name, 0);
        let kill = Instant::now() + Duration::from_millis(5 + round * 7919 % 30);
        let mut killed = false;
        loop {
            if !killed && Instant::now() > kill {
                child.kill();
                killed = true;
            }
            if ring.write_message(&numbered(sent)).expect("never corrupt") {
                sent += 1;
                continue;
            }
            if !killed {
                thread::yield_now();
                continue;
            }
            if let Some(deaths) = wait_for_death(&ring, Role::Writer, 712) {
                died += deaths;
                break;
            }
        }
    }
    assert!(died > 0, "{sent} sent");
    println!("{died} readers died, {sent} messages sent");
}

//! Rings between threads and between processes, also when one of them is killed or breaks the rules.
//!
//! `ZEROSEND_KILLS` (default 100): how many processes are killed. `ZEROSEND_RING_BYTES` (default 256 MiB): how much passes
//! between two processes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use zerosend_core::shm::{Framing, PipeTo, Read, Ring, RingOptions, Role, SegmentName, unlink};
use zerosend_core::{Code, Error};

static NEVER: AtomicBool = AtomicBool::new(false);

/// A name that goes away with the test.
struct Named(SegmentName);

impl Named {
    fn new(what: &str) -> Self {
        let name = SegmentName::new(&format!("zerosend-test-{what}-{}", std::process::id())).expect("a name");
        let _ = unlink(&name);
        Self(name)
    }

    fn path(&self) -> String {
        format!("/dev/shm{}", self.0.as_str())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

fn options(capacity: u64, framing: Framing) -> RingOptions {
    RingOptions { capacity, framing, ..RingOptions::default() }
}

/// Both ends of a ring without a name, each with what it needs of its own, as two processes have it.
fn both(capacity: u64, framing: Framing) -> (Arc<Ring>, Arc<Ring>) {
    let writer = Ring::create(None, &options(capacity, framing)).expect("a ring");
    let reader = Ring::from_fd(writer.as_fd(), false).expect("the same");
    (Arc::new(writer), Arc::new(reader))
}

fn code(error: &Error) -> Code {
    error.code()
}

fn write_all(ring: &Ring, mut bytes: &[u8]) -> zerosend_core::Result<()> {
    while !bytes.is_empty() {
        match ring.write(bytes)? {
            0 => ring.wait(Role::Writer, 1, &NEVER)?,
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

fn send(ring: &Ring, message: &[u8]) -> zerosend_core::Result<()> {
    while !ring.write_message(message)? {
        ring.wait(Role::Writer, message.len() + 4, &NEVER)?;
    }
    Ok(())
}

/// Everything until the end, in pieces of this size.
fn read_all(ring: &Ring, piece: usize) -> zerosend_core::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        match ring.read(&mut buffer)? {
            Read::Bytes(count) => all.extend_from_slice(&buffer[..count]),
            Read::TooLarge(size) => buffer = vec![0; size],
            Read::Ended => return Ok(all),
            Read::Empty => ring.wait(Role::Reader, 1, &NEVER)?,
        }
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(bytes[..4].try_into().expect("four")) as usize;
        all.push(bytes[4..4 + length].to_vec());
        bytes = &bytes[4 + length..];
    }
    all
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bytes_come_as_they_went(
        pieces in prop::collection::vec(1_usize..20_000, 1..60),
        piece in 1_usize..30_000,
        pages in 1_u64..4,
    ) {
        let (writer, reader) = both(pages * 4096, Framing::Bytes);
        let data = noise(pieces.iter().sum(), pieces.len() as u64);
        let expected = data.clone();
        let writing = thread::spawn(move || {
            let mut rest = &data[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece);
                write_all(&writer, now).expect("written");
                rest = later;
            }
            writer.end().expect("ended");
        });
        prop_assert!(read_all(&reader, piece).expect("read") == expected);
        writing.join().expect("no panic");
    }

    #[test]
    fn messages_come_as_they_went(
        sizes in prop::collection::vec(0_usize..8188, 1..200),
        piece in 4_usize..30_000,
    ) {
        let (writer, reader) = both(8192, Framing::Messages);
        let messages: Vec<_> = sizes.iter().enumerate().map(|(at, size)| noise(*size, at as u64)).collect();
        let expected = messages.clone();
        let writing = thread::spawn(move || {
            for message in &messages {
                send(&writer, message).expect("written");
            }
            writer.end().expect("ended");
        });
        prop_assert!(frames(&read_all(&reader, piece).expect("read")) == expected);
        writing.join().expect("no panic");
    }
}

#[test]
fn the_largest_message_and_one_that_is_larger() {
    let (writer, reader) = both(4096, Framing::Messages);
    let largest = noise(writer.largest_message(), 1);
    for _ in 0..3 {
        assert!(writer.write_message(&largest).expect("room"));
        assert!(!writer.write_message(b"").expect("no room"));
        assert_eq!(reader.read(&mut [0; 100]).expect("there"), Read::TooLarge(4096));
        let mut buffer = vec![0; 4096];
        assert_eq!(reader.read(&mut buffer).expect("there"), Read::Bytes(4096));
        assert!(buffer[4..] == largest);
    }
    let error = writer.write_message(&[0; 4093]).expect_err("too large");
    assert_eq!(code(&error), Code::OutOfRange);
    assert!(error.message().contains("4093 bytes") && error.message().contains("4092"), "{error}");
    assert_eq!(reader.read(&mut [0; 10]).expect("nothing"), Read::Empty);
}

#[test]
fn one_writer_and_one_reader() {
    let (writer, reader) = both(4096, Framing::Bytes);
    assert_eq!(writer.write(b"one").expect("room"), 3);
    let error = reader.write(b"two").expect_err("there is one");
    assert_eq!(code(&error), Code::Busy);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    let mut three = [0; 3];
    assert_eq!(reader.read(&mut three).expect("there"), Read::Bytes(3));
    assert_eq!(code(&writer.read(&mut three).expect_err("there is one")), Code::Busy);

    // A reader that leaves makes room for the next, and until then the writer is told.
    reader.close();
    assert_eq!(code(&writer.write(b"x").expect_err("nobody reads")), Code::Closed);
    assert_eq!(code(&reader.read(&mut three).expect_err("closed")), Code::Closed);
    let next = Ring::from_fd(writer.as_fd(), false).expect("the same");
    assert_eq!(next.read(&mut three).expect("open"), Read::Empty);
    assert_eq!(writer.write(b"abc").expect("somebody reads"), 3);
    writer.end().expect("ended");
    assert_eq!(code(&writer.write(b"d").expect_err("ended")), Code::Closed);
    assert_eq!(next.read(&mut three).expect("there"), Read::Bytes(3));
    assert_eq!(next.read(&mut three).expect("over"), Read::Ended);
    drop(writer);
    assert_eq!(code(&next.write(b"d").expect_err("ended for ever")), Code::Closed);
}

#[test]
fn who_waits_is_told_of_bytes_room_ends_and_of_a_close() {
    let (writer, reader) = both(4096, Framing::Bytes);
    let wait = |ring: &Arc<Ring>, role, bytes| {
        let (sender, receiver) = channel();
        ring.when_ready(role, bytes, Box::new(move |outcome| sender.send(outcome).expect("heard")));
        receiver
    };
    let soon = Duration::from_secs(5);
    let bytes = wait(&reader, Role::Reader, 1);
    assert!(bytes.recv_timeout(Duration::from_millis(30)).is_err(), "nothing is there");
    assert_eq!(writer.write(&[7; 5000]).expect("room"), 4096);
    bytes.recv_timeout(soon).expect("told").expect("bytes");
    let room = wait(&writer, Role::Writer, 1000);
    assert_eq!(reader.read(&mut [0; 999]).expect("there"), Read::Bytes(999));
    assert!(room.recv_timeout(Duration::from_millis(30)).is_err(), "not enough");
    assert_eq!(reader.read(&mut [0; 1]).expect("there"), Read::Bytes(1));
    room.recv_timeout(soon).expect("told").expect("room");
    assert_eq!(reader.read(&mut [0; 5000]).expect("there"), Read::Bytes(3096));
    let end = wait(&reader, Role::Reader, 1);
    writer.end().expect("ended");
    end.recv_timeout(soon).expect("told").expect("the end");

    let (_writer, reader) = both(4096, Framing::Bytes);
    let closed = wait(&reader, Role::Reader, 1);
    thread::sleep(Duration::from_millis(20));
    reader.close();
    assert_eq!(code(&closed.recv_timeout(soon).expect("told").expect_err("closed")), Code::Closed);
}

#[test]
fn a_header_that_is_wrong_is_an_error() {
    let name = Named::new("header");
    let ring = Ring::create(Some(&name.0), &options(4096, Framing::Messages)).expect("a ring");
    assert_eq!(std::fs::metadata(name.path()).expect("there").permissions().mode() & 0o777, 0o600);
    let taken = Ring::create(Some(&name.0), &RingOptions::default()).err().expect("taken");
    assert_eq!(taken.errno(), Some(nix::errno::Errno::EEXIST));
    ring.write_message(b"hello").expect("room");
    let file = File::options().read(true).write(true).open(name.path()).expect("a file");
    let mut before = [0; 1024];
    file.read_exact_at(&mut before, 0).expect("a header");

    // Magic, version, framing, capacity; then the positions of both sides.
    for (at, bytes, what) in [
        (0, &[1; 8][..], "does not begin"),
        (8, &[9, 0, 0, 0], "version 9"),
        (12, &[7, 0, 0, 0], "framing is 7"),
        (16, &[0, 0, 1, 0, 0, 0, 0, 0], "capacity says 65536"),
        (128, &[0, 0x20, 0, 0, 0, 0, 0, 0], "contradict"),
        (256, &[0xff; 8], "contradict"),
    ] {
        file.write_all_at(bytes, at).expect("written");
        let error = Ring::open(&name.0).and_then(|ring| ring.read(&mut [0; 100])).expect_err(what);
        assert_eq!(code(&error), Code::Corrupt, "{error}");
        assert!(error.message().contains(what), "{error}");
        file.write_all_at(&before, 0).expect("written");
    }
    // A message that says it is longer than what was written.
    file.write_all_at(&[0xff, 0xff, 0, 0], 65_536).expect("written");
    let reader = Ring::open(&name.0).expect("a ring");
    assert_eq!(code(&reader.read(&mut [0; 100]).expect_err("a lie")), Code::Corrupt);
    drop(reader);
    // Any noise: an error or some bytes, and no access out of bounds.
    for seed in 0..500 {
        file.write_all_at(&before, 0).expect("written");
        file.write_all_at(&noise(48, seed), 128 + seed % 200).expect("written");
        if let Ok(reader) = Ring::open(&name.0) {
            let _ = reader.read(&mut [0; 8192]);
            let _ = reader.write_message(&[1; 1000]);
        }
    }
    // Files that are no rings.
    drop(ring);
    for size in [0, 100, 65_536, 70_000, 1 << 32] {
        file.set_len(size).expect("a size");
        assert_eq!(code(&Ring::open(&name.0).err().expect("no ring")), Code::Corrupt, "{size}");
    }
    let error = Ring::open(&SegmentName::new("no-such-ring").expect("a name")).err().expect("missing");
    assert_eq!(error.to_string(), "ENOENT: No such file or directory, shm_open '/no-such-ring'");
    assert!(SegmentName::new("a/b").is_err() && SegmentName::new("..").is_err() && SegmentName::new("").is_err());
}

#[test]
fn a_ring_without_a_name_cannot_be_cut() {
    let (writer, _reader) = both(4096, Framing::Bytes);
    let file = File::from(writer.as_fd().try_clone_to_owned().expect("a duplicate"));
    assert_eq!(file.set_len(100).expect_err("sealed").raw_os_error(), Some(libc::EPERM));
    let error =
        Ring::from_fd(TcpListener::bind("127.0.0.1:0").expect("a socket").as_fd(), false).err().expect("no memory");
    assert!(matches!(code(&error), Code::System(_) | Code::InvalidArgument), "{error}");
}

/// Another process. Killed and gone when this is dropped.
struct Peer(Child);

impl Peer {
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("an end");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs one of the tests below.
fn process(what: &str, name: &Named, argument: u64) -> Peer {
    let child = Command::new(std::env::current_exe().expect("a program"))
        .args(["--ignored", "--exact", what, "--nocapture", "--test-threads=1"])
        .env("ZEROSEND_RING", name.0.as_str())
        .env("ZEROSEND_RING_ARGUMENT", argument.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    Peer(child)
}

/// The ring that this process is to use, when it is such a process.
fn given() -> Option<(Ring, u64)> {
    let name = SegmentName::new(&std::env::var("ZEROSEND_RING").ok()?).expect("a name");
    let argument = std::env::var("ZEROSEND_RING_ARGUMENT").ok()?.parse().ok()?;
    Some((Ring::open(&name).expect("a ring"), argument))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Number, then noise that follows from it.
fn numbered(number: u64) -> Vec<u8> {
    let mut message = number.to_le_bytes().to_vec();
    message.extend(noise((number % 700) as usize, number));
    message
}

#[test]
#[ignore = "the other process of a test"]
fn as_a_writer_for_ever() {
    let Some((ring, first)) = given() else { return };
    for number in first.. {
        send(&ring, &numbered(number)).expect("written");
    }
}

#[test]
#[ignore = "the other process of a test"]
fn as_a_reader_for_ever() {
    let Some((ring, _)) = given() else { return };
    let mut buffer = vec![0; 3000];
    loop {
        match ring.read(&mut buffer).expect("read") {
            Read::Empty => ring.wait(Role::Reader, 1, &NEVER).expect("bytes"),
            Read::Bytes(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
#[ignore = "the other process of a test"]
fn as_a_writer_of_bytes() {
    let Some((ring, bytes)) = given() else { return };
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
fn much_between_two_processes() {
    let name = Named::new("much");
    let bytes = setting("ZEROSEND_RING_BYTES", 256 << 20);
    let ring = Ring::create(Some(&name.0), &options(1 << 20, Framing::Bytes)).expect("a ring");
    let mut child = process("as_a_writer_of_bytes", &name, bytes);
    let (mut sum, mut buffer, mut count) = (blake3::Hasher::new(), vec![0; 1 << 18], 0);
    loop {
        match ring.read(&mut buffer).expect("read") {
            Read::Empty => ring.wait(Role::Reader, 1, &NEVER).expect("bytes"),
            Read::Bytes(read) => {
                sum.update(&buffer[..read]);
                count += read as u64;
            }
            Read::Ended => break,
            Read::TooLarge(_) => unreachable!("no messages"),
        }
    }
    assert!(child.0.wait().expect("an end").success());
    let path = format!("{}.sum", name.path());
    let expected = std::fs::read(&path).expect("a sum");
    std::fs::remove_file(path).expect("removed");
    assert_eq!(count, bytes);
    assert!(sum.finalize().as_bytes()[..] == expected[..]);
}

/// Waits for a peer that was killed: `None` when there is still something of it, else how many have died in the ring (none when
/// it was killed before it had a role).
fn after_a_death(ring: &Ring, role: Role, bytes: usize) -> Option<u64> {
    let stop = Arc::new(AtomicBool::new(false));
    let patience = stop.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(800));
        patience.store(true, Ordering::Release);
    });
    let error = ring.wait(role, bytes, &stop).err()?;
    if code(&error) == Code::Closed {
        return Some(0);
    }
    assert_eq!(code(&error), Code::PeerDied);
    assert!(error.message().contains("has died (process "), "{error}");
    Some(1)
}

#[test]
fn writers_that_are_killed_are_followed_by_others() {
    let name = Named::new("writers");
    let ring = Ring::create(Some(&name.0), &options(16_384, Framing::Messages)).expect("a ring");
    let (mut next, mut died) = (0, 0);
    let mut buffer = vec![0; 16_384];
    for round in 0..setting("ZEROSEND_KILLS", 100) / 2 {
        let mut child = process("as_a_writer_for_ever", &name, next);
        let kill = Instant::now() + Duration::from_millis(5 + round * 7919 % 30);
        let mut killed = false;
        loop {
            if !killed && Instant::now() > kill {
                child.kill();
                killed = true;
            }
            match ring.read(&mut buffer).expect("never corrupt") {
                Read::Bytes(count) => {
                    for message in frames(&buffer[..count]) {
                        assert!(message == numbered(next), "message {next}");
                        next += 1;
                    }
                }
                Read::Empty if killed => match after_a_death(&ring, Role::Reader, 1) {
                    None => {}
                    Some(deaths) => {
                        died += deaths;
                        break;
                    }
                },
                Read::Empty => thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(died > 0 && next > 0, "{died} died, {next} messages");
    println!("{died} writers died, {next} messages came");
}

#[test]
fn readers_that_are_killed_are_an_error_of_the_writer_or_followed_by_others() {
    let name = Named::new("readers");
    let ring = Ring::create(Some(&name.0), &options(16_384, Framing::Messages)).expect("a ring");
    let (mut died, mut sent) = (0, 0_u64);
    for round in 0..setting("ZEROSEND_KILLS", 100) / 2 {
        let mut child = process("as_a_reader_for_ever", &name, 0);
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
            if let Some(deaths) = after_a_death(&ring, Role::Writer, 712) {
                died += deaths;
                break;
            }
        }
    }
    assert!(died > 0, "{sent} sent");
    println!("{died} readers died, {sent} messages went");
}

#[test]
fn a_ring_is_drained_to_a_socket_and_to_a_file() {
    for framing in [Framing::Bytes, Framing::Messages] {
        for socket in [true, false] {
            let (writer, reader) = both(16_384, framing);
            let directory = tempfile::TempDir::new().expect("a directory");
            let path = directory.path().join("out");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let mut receiving = None;
            let target: OwnedFd = if socket {
                receiving = Some(TcpStream::connect(listener.local_addr().expect("an address")).expect("connected"));
                listener.accept().expect("a connection").0.into()
            } else {
                File::create(&path).expect("a file").into()
            };
            let (sender, done) = channel();
            let _drain =
                PipeTo::start(reader, target, move |outcome| sender.send(outcome).expect("heard")).expect("begun");
            let sizes: Vec<usize> = (0..400).map(|at| at * 7919 % 10_000).collect();
            let data = noise(sizes.iter().sum(), 3);
            let expected = data.clone();
            let writing = thread::spawn(move || {
                let mut rest = &data[..];
                for size in sizes {
                    let (now, later) = rest.split_at(size);
                    match framing {
                        Framing::Bytes => write_all(&writer, now).expect("written"),
                        Framing::Messages => send(&writer, now).expect("written"),
                    }
                    rest = later;
                }
                writer.end().expect("ended");
            });
            let mut all = Vec::new();
            if let Some(stream) = &mut receiving {
                stream.read_to_end(&mut all).expect("received");
            }
            assert_eq!(done.recv().expect("told").expect("drained"), expected.len() as u64);
            writing.join().expect("no panic");
            if !socket {
                all = std::fs::read(&path).expect("a file");
            }
            assert!(all == expected, "{framing:?} {socket}");
        }
    }
}

#[test]
fn a_drain_whose_target_goes_or_that_is_cancelled() {
    let (writer, reader) = both(1 << 20, Framing::Bytes);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let (sender, done) = channel();
    let told = sender.clone();
    let drain =
        PipeTo::start(reader.clone(), ours.into(), move |outcome| told.send(outcome).expect("heard")).expect("begun");
    assert!(done.recv_timeout(Duration::from_millis(20)).is_err());
    drain.cancel();
    assert_eq!(code(&done.recv().expect("told").expect_err("cancelled")), Code::Aborted);
    drop(theirs);

    // Nobody reads there, and then it goes.
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let _drain =
        PipeTo::start(reader, ours.into(), move |outcome| sender.send(outcome).expect("heard")).expect("begun");
    writer.write(&[1; 900_000]).expect("room");
    let mut some = [0; 1000];
    theirs.read_exact(&mut some).expect("some");
    theirs.write_all(b"x").expect("ignored");
    drop(theirs);
    let error = done.recv().expect("told").expect_err("it is gone");
    assert!(error.is_peer_gone() && error.bytes() > Some(0), "{error:?}");
}

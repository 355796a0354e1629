//! Writing, reading, roles and waits.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use zerosend_core::shm::{Framing, ReadOutcome, Ring, RingHandle, Role};
use zerosend_core::{Code, Result};

use crate::support::{code, frames, noise, open_twice, read_all, send_message, write_all};

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_read_as_they_were_written(
        writes in prop::collection::vec(1_usize..20_000, 1..60),
        buffer in 1_usize..30_000,
        pages in 1_u64..4,
    ) {
        let (writer, reader) = open_twice(pages * 4096, Framing::Bytes);
        let data = noise(writes.iter().sum(), writes.len() as u64);
        let expected = data.clone();
        let writing = thread::spawn(move || {
            let mut rest = &data[..];
            for length in writes {
                let (bytes, later) = rest.split_at(length);
                write_all(&writer, bytes).expect("written");
                rest = later;
            }
            writer.end().expect("ended");
        });
        prop_assert!(read_all(&reader, buffer).expect("read") == expected);
        writing.join().expect("no panic");
    }

    #[test]
    fn messages_are_read_as_they_were_written(
        sizes in prop::collection::vec(0_usize..8188, 1..200),
        buffer in 4_usize..30_000,
    ) {
        let (writer, reader) = open_twice(8192, Framing::Messages);
        let messages: Vec<_> = sizes.iter().enumerate().map(|(at, size)| noise(*size, at as u64)).collect();
        let expected = messages.clone();
        let writing = thread::spawn(move || {
            for message in &messages {
                send_message(&writer, message).expect("written");
            }
            writer.end().expect("ended");
        });
        prop_assert!(frames(&read_all(&reader, buffer).expect("read")) == expected);
        writing.join().expect("no panic");
    }
}

#[test]
fn the_largest_message_fits_and_a_larger_one_is_refused() {
    let (writer, reader) = open_twice(4096, Framing::Messages);
    let largest = noise(writer.max_message(), 1);
    for _ in 0..3 {
        assert!(writer.write_message(&largest).expect("room"));
        assert!(!writer.write_message(b"").expect("no room"));
        assert_eq!(reader.read(&mut [0; 100]).expect("there"), ReadOutcome::TooLarge(4096));
        let mut buffer = vec![0; 4096];
        assert_eq!(reader.read(&mut buffer).expect("there"), ReadOutcome::Bytes(4096));
        assert!(buffer[4..] == largest);
    }
    let error = writer.write_message(&[0; 4093]).expect_err("too large");
    assert_eq!(code(&error), Code::OutOfRange);
    assert!(error.message().contains("4093 bytes") && error.message().contains("up to 4092"), "{error}");
    assert_eq!(reader.read(&mut [0; 10]).expect("nothing"), ReadOutcome::Empty);
}

#[test]
fn a_second_writer_or_reader_is_refused_until_the_first_has_closed() {
    let (writer, reader) = open_twice(4096, Framing::Bytes);
    assert_eq!(writer.write(b"one").expect("room"), 3);
    let error = reader.write(b"two").expect_err("a second one");
    assert_eq!(code(&error), Code::Busy);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    let mut three = [0; 3];
    assert_eq!(reader.read(&mut three).expect("there"), ReadOutcome::Bytes(3));
    assert_eq!(code(&writer.read(&mut three).expect_err("a second one")), Code::Busy);

    // Without a reader the writer fails; a new reader takes the role.
    reader.close();
    assert_eq!(code(&writer.write(b"x").expect_err("no reader")), Code::Closed);
    assert_eq!(code(&reader.read(&mut three).expect_err("closed")), Code::Closed);
    let next = Ring::from_fd(writer.as_fd(), false).expect("the same ring");
    assert_eq!(next.read(&mut three).expect("open"), ReadOutcome::Empty);
    assert_eq!(writer.write(b"abc").expect("a reader"), 3);
    writer.end().expect("ended");
    assert_eq!(code(&writer.write(b"d").expect_err("ended")), Code::Closed);
    assert_eq!(next.read(&mut three).expect("there"), ReadOutcome::Bytes(3));
    assert_eq!(next.read(&mut three).expect("over"), ReadOutcome::Ended);
    drop(writer);
    assert_eq!(code(&next.write(b"d").expect_err("ended")), Code::Closed);
}

fn wait(ring: &RingHandle, role: Role, bytes: usize) -> Receiver<Result<()>> {
    let (sender, receiver) = channel();
    ring.when_ready(role, bytes, Box::new(move |outcome| sender.send(outcome).expect("a receiver")));
    receiver
}

#[test]
fn waits_end_with_bytes_room_the_end_and_a_close() {
    let (writer, reader) = open_twice(4096, Framing::Bytes);
    let (writer, reader) = (RingHandle::new(writer), RingHandle::new(reader));
    let soon = Duration::from_secs(5);
    let bytes = wait(&reader, Role::Reader, 1);
    assert!(bytes.recv_timeout(Duration::from_millis(30)).is_err(), "the ring is empty");
    assert_eq!(writer.write(&[7; 5000]).expect("room"), 4096);
    bytes.recv_timeout(soon).expect("an answer").expect("bytes");
    let room = wait(&writer, Role::Writer, 1000);
    assert_eq!(reader.read(&mut [0; 999]).expect("there"), ReadOutcome::Bytes(999));
    assert!(room.recv_timeout(Duration::from_millis(30)).is_err(), "not enough");
    assert_eq!(reader.read(&mut [0; 1]).expect("there"), ReadOutcome::Bytes(1));
    room.recv_timeout(soon).expect("an answer").expect("room");
    assert_eq!(reader.read(&mut [0; 5000]).expect("there"), ReadOutcome::Bytes(3096));
    let end = wait(&reader, Role::Reader, 1);
    writer.end().expect("ended");
    end.recv_timeout(soon).expect("an answer").expect("the end");

    let (_writer, reader) = open_twice(4096, Framing::Bytes);
    let reader = RingHandle::new(reader);
    let closed = wait(&reader, Role::Reader, 1);
    thread::sleep(Duration::from_millis(20));
    reader.close();
    assert_eq!(code(&closed.recv_timeout(soon).expect("an answer").expect_err("closed")), Code::Closed);
}

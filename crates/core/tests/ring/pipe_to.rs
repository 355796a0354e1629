//! Sending the contents of a ring to a descriptor.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use zerosend_core::Code;
use zerosend_core::shm::{Framing, PipeTo};

use crate::support::{code, noise, open_twice, send_message, write_all};

#[test]
fn a_ring_is_sent_to_a_socket_and_to_a_file() {
    for framing in [Framing::Bytes, Framing::Messages] {
        for socket in [true, false] {
            let (writer, reader) = open_twice(16_384, framing);
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
            let _task =
                PipeTo::start(Arc::new(reader), target, move |outcome| sender.send(outcome).expect("a receiver"))
                    .expect("started");
            let sizes: Vec<usize> = (0..400).map(|at| at * 7919 % 10_000).collect();
            let data = noise(sizes.iter().sum(), 3);
            let expected = data.clone();
            let writing = thread::spawn(move || {
                let mut rest = &data[..];
                for size in sizes {
                    let (bytes, later) = rest.split_at(size);
                    match framing {
                        Framing::Bytes => write_all(&writer, bytes).expect("written"),
                        Framing::Messages => send_message(&writer, bytes).expect("written"),
                    }
                    rest = later;
                }
                writer.end().expect("ended");
            });
            let mut all = Vec::new();
            if let Some(stream) = &mut receiving {
                stream.read_to_end(&mut all).expect("received");
            }
            assert_eq!(done.recv().expect("an answer").expect("sent"), expected.len() as u64);
            writing.join().expect("no panic");
            if !socket {
                all = std::fs::read(&path).expect("a file");
            }
            assert!(all == expected, "{framing:?} {socket}");
        }
    }
}

#[test]
fn a_cancelled_pipe_and_a_closed_target_are_errors() {
    let (writer, reader) = open_twice(1 << 20, Framing::Bytes);
    let reader = Arc::new(reader);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let (sender, done) = channel();
    let first = sender.clone();
    let task = PipeTo::start(reader.clone(), ours.into(), move |outcome| first.send(outcome).expect("a receiver"))
        .expect("started");
    assert!(done.recv_timeout(Duration::from_millis(20)).is_err());
    task.cancel();
    assert_eq!(code(&done.recv().expect("an answer").expect_err("cancelled")), Code::Aborted);
    drop(theirs);

    // The other end does not read, then closes.
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let _task =
        PipeTo::start(reader, ours.into(), move |outcome| sender.send(outcome).expect("a receiver")).expect("started");
    writer.write(&[1; 900_000]).expect("room");
    let mut some = [0; 1000];
    theirs.read_exact(&mut some).expect("some");
    theirs.write_all(b"x").expect("ignored");
    drop(theirs);
    let error = done.recv().expect("an answer").expect_err("closed");
    assert!(error.is_peer_gone() && error.bytes() > Some(0), "{error:?}");
}

//! Invalid headers and segments.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use zerosend_core::Code;
use zerosend_core::shm::{Framing, Ring, RingOptions, SegmentName};

use crate::support::{Named, code, noise, open_twice, options};

#[test]
fn an_invalid_header_is_an_error() {
    let name = Named::new("header");
    let ring = Ring::create(Some(&name.0), &options(4096, Framing::Messages)).expect("a ring");
    assert_eq!(std::fs::metadata(name.path()).expect("there").permissions().mode() & 0o777, 0o600);
    let error = Ring::create(Some(&name.0), &RingOptions::default()).err().expect("in use");
    assert_eq!(error.errno(), Some(nix::errno::Errno::EEXIST));
    ring.write_message(b"hello").expect("room");
    let file = File::options().read(true).write(true).open(name.path()).expect("a file");
    let mut before = [0; 1024];
    file.read_exact_at(&mut before, 0).expect("a header");

    // Magic, version, framing, capacity; then the positions of both sides.
    for (at, bytes, what) in [
        (0, &[1; 8][..], "no ring header"),
        (8, &[9, 0, 0, 0], "version is 9"),
        (12, &[7, 0, 0, 0], "framing is 7"),
        (16, &[0, 0, 1, 0, 0, 0, 0, 0], "capacity 65536"),
        (128, &[0, 0x20, 0, 0, 0, 0, 0, 0], "inconsistent"),
        (256, &[0xff; 8], "inconsistent"),
    ] {
        file.write_all_at(bytes, at).expect("written");
        let error = Ring::open(&name.0).and_then(|ring| ring.read(&mut [0; 100])).expect_err(what);
        assert_eq!(code(&error), Code::Corrupt, "{error}");
        assert!(error.message().contains(what), "{error}");
        file.write_all_at(&before, 0).expect("written");
    }
    // The length of a message exceeds the written bytes.
    file.write_all_at(&[0xff, 0xff, 0, 0], 65_536).expect("written");
    let reader = Ring::open(&name.0).expect("a ring");
    assert_eq!(code(&reader.read(&mut [0; 100]).expect_err("a wrong length")), Code::Corrupt);
    drop(reader);
    // Random values: an error or some bytes, and no access out of bounds.
    for seed in 0..500 {
        file.write_all_at(&before, 0).expect("written");
        file.write_all_at(&noise(48, seed), 128 + seed % 200).expect("written");
        if let Ok(reader) = Ring::open(&name.0) {
            let _ = reader.read(&mut [0; 8192]);
            let _ = reader.write_message(&[1; 1000]);
        }
    }
    // Files that are not rings.
    drop(ring);
    for size in [0, 100, 65_536, 70_000, 1 << 32] {
        file.set_len(size).expect("a size");
        assert_eq!(code(&Ring::open(&name.0).err().expect("not a ring")), Code::Corrupt, "{size}");
    }
    let error = Ring::open(&SegmentName::new("no-such-ring").expect("a name")).err().expect("missing");
    assert!(error.to_string().ends_with(", shm_open '/no-such-ring'"), "{error}");
    assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
    assert!(SegmentName::new("a/b").is_err() && SegmentName::new("..").is_err() && SegmentName::new("").is_err());
}

#[test]
fn a_ring_without_a_name_cannot_be_truncated() {
    let (writer, _reader) = open_twice(4096, Framing::Bytes);
    let file = File::from(writer.as_fd().try_clone_to_owned().expect("a duplicate"));
    assert_eq!(file.set_len(100).expect_err("sealed").raw_os_error(), Some(libc::EPERM));
    let error =
        Ring::from_fd(TcpListener::bind("127.0.0.1:0").expect("a socket").as_fd(), false).err().expect("not memory");
    assert!(matches!(code(&error), Code::System(_) | Code::InvalidArgument), "{error}");
}

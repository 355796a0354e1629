//! A ring in memory that another process has written: it is opened or refused, and never returns more bytes than its capacity.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use zerosend_core::shm::{ReadOutcome, Ring};

use super::take;

/// Bytes before the data; see `sys::shared::HEADER_BYTES`.
const HEADER: u64 = 65_536;
const CAPACITY: u64 = 4096;

pub fn ring(data: &[u8]) {
    let ([options, offset, length], bytes) = take::<3>(data);
    let Ok(fd) = memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING) else { return };
    let file = File::from(fd);
    let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).expect("memory for a few pages");
    let mut header = Vec::new();
    header.extend_from_slice(b"zerosend");
    header.extend_from_slice(&1_u32.to_le_bytes());
    header.extend_from_slice(&u32::from(options & 1).to_le_bytes());
    header.extend_from_slice(&CAPACITY.to_le_bytes());
    file.set_len(HEADER + CAPACITY).expect("memory for a few pages");
    write(&header, 0);
    // Data, and words anywhere in the header except the magic: 0 there is a ring that is being created.
    let (data, words) = bytes.split_at(bytes.len().min(usize::from(length)));
    write(data, HEADER);
    if options & 2 != 0 {
        write(words, 8 + u64::from(offset) * 2);
    } else {
        // Positions: 64 bits at the start of the cache lines of writer and reader.
        for (line, word) in words.chunks(12).take(2).enumerate() {
            write(word, 128 * (line as u64 + 1));
        }
    }
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seals");

    let Ok(ring) = Ring::from_fd(file.as_fd(), true) else { return };
    assert!(ring.capacity() == CAPACITY && ring.max_message() < CAPACITY as usize);
    let mut buffer = [0; 5000];
    for _ in 0..4 {
        match ring.read(&mut buffer) {
            Ok(ReadOutcome::Bytes(count)) => {
                assert!(count <= CAPACITY as usize, "{count} bytes of a ring of {CAPACITY}")
            }
            Ok(ReadOutcome::TooLarge(size)) => {
                assert!(size as u64 <= CAPACITY, "a message of {size} bytes in a ring of {CAPACITY}")
            }
            Ok(_) => {}
            Err(_) => break,
        }
        let _ = ring.write_message(&buffer[..usize::from(offset)]);
        let _ = ring.write(&buffer[..usize::from(length)]);
    }
    let _ = ring.end();
    ring.close();
}

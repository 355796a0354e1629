//! The cache while another thread truncates, rewrites, replaces and deletes its files; and with more files than it may hold.
//!
//! `ZEROSEND_STRESS_SECONDS` (default 5) and `ZEROSEND_MANY_FILES` (default 20,000) set the duration and the number of files.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use zerosend_core::cache::{CacheOptions, FileCache};
use zerosend_core::transfer::{Budget, Disk, Method, Progress, Target, Transfer};

/// Both tests count the descriptors and mappings of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Open descriptors, without those that the C library opens briefly: it reads the number of processors from /sys when a thread
/// allocates for the first time.
fn descriptors() -> usize {
    let links = fs::read_dir("/proc/self/fd").expect("proc").flatten().map(|entry| fs::read_link(entry.path()));
    links.flatten().filter(|link| !link.starts_with("/sys") && !link.starts_with("/proc")).count()
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("proc").lines().count()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// The bytes of a version: its number, bytes derived from the number, and a checksum of both.
fn version(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < size - 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push(state as u8);
    }
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn is_version(bytes: &[u8]) -> bool {
    bytes.len() >= 16 && version(u64::from_le_bytes(bytes[..8].try_into().expect("eight")), bytes.len()) == bytes
}

/// Sends a cached file through a socket, like a server; `None` when the connection is closed early.
fn send(cache: &FileCache, path: &Path) -> Option<Vec<u8>> {
    let file = cache.get(path).ok()?;
    let (out, mut from) = UnixStream::pair().expect("a pair");
    out.set_nonblocking(true).expect("non-blocking");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("readable");
        bytes
    });
    let size = file.meta().size;
    let mut transfer = Transfer::new([file.part(0, size)], Method::Auto, Target::Socket, Disk::MayBlock);
    let sent = loop {
        match transfer.advance(&out, &mut Budget::unlimited()) {
            Ok(Progress::Done) => break true,
            Ok(_) => thread::yield_now(),
            Err(_) => break false,
        }
    };
    drop(out);
    let bytes = reader.join().expect("read");
    (sent && bytes.len() as u64 == size).then_some(bytes)
}

#[test]
fn readers_get_whole_versions_while_files_change() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = TempDir::new().expect("a directory");
    // In memory, mapped, and too large to be kept.
    let files: Vec<_> = [100, 4096, 60_000, 65_536, 80_000, 300_000, 3_000_000]
        .into_iter()
        .enumerate()
        .map(|(at, size)| (directory.path().join(at.to_string()), size))
        .collect();
    let options = CacheOptions { max_files: 3, max_file_size: 1 << 20, ..CacheOptions::default() };
    let cache = Arc::new(FileCache::new(options).expect("options"));
    let before = descriptors();
    let stop = AtomicBool::new(false);
    let (whole, aborted, wrong) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(setting("ZEROSEND_STRESS_SECONDS", 5));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while Instant::now() < end {
                for (path, size) in &files {
                    number += 1;
                    let bytes = version(number, *size);
                    match number % 5 {
                        0 => {
                            let _ = fs::remove_file(path);
                        }
                        1 => {
                            // Truncated, possibly during a transfer; the next round replaces it.
                            if let Ok(file) = File::options().write(true).open(path) {
                                file.set_len(*size as u64 / 2).expect("shorter");
                            }
                        }
                        // Rewritten in place, only files in memory: a reader of a mapping or of an open file may see both
                        // versions, as with every server that does not copy.
                        2 if *size <= 65_536 => {
                            let mut file =
                                File::options().create(true).truncate(false).write(true).open(path).expect("open");
                            file.seek(SeekFrom::Start(0)).expect("seek");
                            file.write_all(&bytes).expect("room");
                            file.set_len(*size as u64).expect("as long");
                        }
                        _ => {
                            let new = path.with_extension("new");
                            fs::write(&new, &bytes).expect("room");
                            let old = SystemTime::now() - Duration::from_secs(1000 + number % 100_000);
                            File::options().write(true).open(&new).expect("open").set_modified(old).expect("settable");
                            fs::rename(new, path).expect("renamed");
                        }
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        for reader in 0..16 {
            let (cache, files, stop) = (&cache, &files, &stop);
            let (whole, aborted, wrong) = (&whole, &aborted, &wrong);
            scope.spawn(move || {
                let mut turn = reader;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let (path, size) = &files[turn % files.len()];
                    let bytes = if turn % 3 == 0 {
                        cache.get(path).ok().and_then(|file| file.read_at(0, file.meta().size).ok())
                    } else {
                        send(cache, path)
                    };
                    match bytes {
                        None => aborted.fetch_add(1, Ordering::Relaxed),
                        Some(bytes) if bytes.len() != *size || is_version(&bytes) => {
                            whole.fetch_add(1, Ordering::Relaxed)
                        }
                        Some(_) => wrong.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    let stats = cache.stats();
    println!("{whole:?} whole, {aborted:?} aborted or missing, {wrong:?} wrong; {stats:?}");
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    assert!(whole.load(Ordering::Relaxed) > 100 && stats.hits > 0 && stats.stale > 0 && stats.evictions > 0);
    cache.close();
    drop(cache);
    assert_eq!(descriptors(), before, "descriptors");
    let maps = fs::read_to_string("/proc/self/maps").expect("proc");
    assert!(!maps.contains(&*directory.path().to_string_lossy()), "no mapping of a file is left");
}

#[test]
fn memory_and_descriptors_are_bounded_with_more_files_than_fit() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = TempDir::new().expect("a directory");
    let count = setting("ZEROSEND_MANY_FILES", 20_000);
    let options = CacheOptions { max_files: 1000, ..CacheOptions::default() };
    let cache = FileCache::new(options).expect("options");
    let (mut after_first, mut largest) = (0, 0);
    let (fds, maps) = (descriptors(), mappings());
    let path = |number: u64| directory.path().join(number.to_string());
    for number in 0..count {
        // A thousand files at a time, to limit the space on the disk; settled before they are requested.
        if number % 1000 == 0 {
            for written in number..count.min(number + 1000) {
                fs::write(path(written), vec![written as u8; 2000]).expect("room");
            }
            thread::sleep(Duration::from_millis(70));
        }
        cache.get(&path(number)).expect("there");
        fs::remove_file(path(number)).expect("removed");
        if number == 2000 {
            after_first = resident_kib();
        }
        largest = largest.max(if number % 1000 == 0 { resident_kib() } else { 0 });
        if number % 1000 == 0 {
            assert_eq!(descriptors(), fds);
            // The allocator maps memory too. A mapping for each file would be thousands.
            assert!(mappings() <= maps + 100, "{} mappings after {maps}", mappings());
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.files, stats.bytes), (1000, 2_000_000));
    assert_eq!((stats.misses, stats.evictions, stats.hits), (count, count - 1000, 0));
    println!("RSS {after_first} KiB after 2,000 files, at most {largest} KiB up to {count}");
    assert!(largest < after_first + 4096, "{after_first} KiB grew to {largest}");
}

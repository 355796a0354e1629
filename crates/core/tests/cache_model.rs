//! The cache compared with a naive model: for random sequences of requests and changes on the disk, both have the same files in the
//! same order with the same sums.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use zerosend_core::cache::{CacheOptions, FileCache, MAX_IN_MEMORY, Revalidate};

const FILES: usize = 8;
const VERSIONS: usize = 36;

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Invalidate(usize),
    Clear,
    /// Replaces the file.
    Replace(usize, usize),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..FILES;
    prop_oneof![
        12 => file.clone().prop_map(Step::Get),
        1 => file.clone().prop_map(Step::Invalidate),
        1 => Just(Step::Clear),
        4 => (file.clone(), 0..VERSIONS).prop_map(|(file, version)| Step::Replace(file, version)),
        1 => file.prop_map(Step::Delete),
    ]
}

/// Files that symbolic links point to, so that no step has to wait until a written file is settled.
fn prepared() -> &'static [(PathBuf, u64)] {
    static PREPARED: LazyLock<(TempDir, Vec<(PathBuf, u64)>)> = LazyLock::new(|| {
        let directory = TempDir::new().expect("a directory");
        let sizes = [0, 1, 300, 999, 1000, 1999, MAX_IN_MEMORY, MAX_IN_MEMORY + 1, 70_000, 100_000, 149_000, 200_000];
        let files = (0..VERSIONS).map(|version| {
            let path = directory.path().join(version.to_string());
            let size = sizes[version % sizes.len()];
            fs::write(&path, bytes(version as u64, size)).expect("room");
            (path, size)
        });
        let files = files.collect();
        settle();
        (directory, files)
    });
    &PREPARED.1
}

/// Waits until files written before are old enough to be cached.
fn settle() {
    std::thread::sleep(Duration::from_millis(70));
}

/// The model: a list of files.
#[derive(Default)]
struct Naive {
    /// The most recently used last.
    kept: Vec<(PathBuf, u64, u64)>,
    hits: u64,
    misses: u64,
    stale: u64,
    evictions: u64,
    rejected: u64,
}

impl Naive {
    fn get(&mut self, path: &Path, disk: &HashMap<PathBuf, (u64, u64)>, options: &CacheOptions) -> bool {
        let now = disk.get(path).copied();
        if let Some(at) = self.kept.iter().position(|(other, ..)| other == path) {
            let entry = self.kept.remove(at);
            if now == Some((entry.1, entry.2)) {
                self.kept.push(entry);
                self.hits += 1;
                return true;
            }
            self.stale += 1;
        }
        self.misses += 1;
        let Some((version, size)) = now else { return false };
        if size > options.max_file_size {
            self.rejected += 1;
            return true;
        }
        self.kept.push((path.into(), version, size));
        let over = |kept: &[(PathBuf, u64, u64)]| {
            kept.len() > options.max_files
                || kept.iter().map(|(.., size)| size).sum::<u64>() > options.max_bytes
                || kept.iter().filter(|(.., size)| *size > MAX_IN_MEMORY).count() > options.max_mapped
        };
        while over(&self.kept) {
            self.kept.remove(0);
            self.evictions += 1;
        }
        true
    }
}

/// The bytes of a version, different for each.
fn bytes(version: u64, size: u64) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(31).wrapping_add(version * 7)) as u8).collect()
}

fn write(path: &Path, version: u64, size: u64, replace: bool) {
    let target = if replace { path.with_extension("new") } else { path.to_owned() };
    fs::write(&target, bytes(version, size)).expect("room");
    if replace {
        fs::rename(target, path).expect("renamed");
    }
}

fn matches(version: u64, size: u64, bytes: &[u8]) -> bool {
    bytes.len() as u64 == size
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == ((at as u64).wrapping_mul(31).wrapping_add(version * 7)) as u8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_equals_the_model(
        steps in prop::collection::vec(step(), 1..120),
        max_files in 1..6usize,
        max_bytes in prop_oneof![Just(1000u64), Just(70_000), Just(300_000), Just(1 << 30)],
        max_mapped in 1..3usize,
    ) {
        let directory = TempDir::new().expect("a directory");
        let options = CacheOptions { max_files, max_bytes, max_mapped, max_file_size: max_bytes.min(150_000), ..CacheOptions::default() };
        let cache = FileCache::new(options).expect("options");
        let mut naive = Naive::default();
        let mut disk = HashMap::new();
        let path = |file: usize| directory.path().join(file.to_string());
        for step in steps {
            match step {
                Step::Get(file) => {
                    let expected = naive.get(&path(file), &disk, &options);
                    let got = cache.get(&path(file));
                    prop_assert_eq!(got.is_ok(), expected);
                    if let Ok(got) = got {
                        let (version, size) = disk[&path(file)];
                        prop_assert!(matches(version, size, &got.read_at(0, size).expect("whole")));
                    }
                }
                Step::Invalidate(file) => {
                    let had = naive.kept.iter().any(|(other, ..)| *other == path(file));
                    naive.kept.retain(|(other, ..)| *other != path(file));
                    prop_assert_eq!(cache.invalidate(&path(file)), had);
                }
                Step::Clear => {
                    naive.kept.clear();
                    cache.clear();
                }
                Step::Replace(file, version) => {
                    let (target, size) = &prepared()[version];
                    let _ = fs::remove_file(path(file));
                    symlink(target, path(file)).expect("linked");
                    disk.insert(path(file), (version as u64, *size));
                }
                Step::Delete(file) => {
                    let _ = fs::remove_file(path(file));
                    disk.remove(&path(file));
                }
            }
            let stats = cache.stats();
            let kept: Vec<_> = cache.entries().iter().map(|file| file.path().to_owned()).collect();
            let expected: Vec<_> = naive.kept.iter().rev().map(|(path, ..)| path.clone()).collect();
            prop_assert_eq!(kept, expected, "the most recently used first");
            prop_assert_eq!(stats.files, naive.kept.len() as u64);
            prop_assert_eq!(stats.bytes, naive.kept.iter().map(|(.., size)| size).sum::<u64>());
            prop_assert_eq!(stats.mapped, naive.kept.iter().filter(|(.., size)| *size > MAX_IN_MEMORY).count() as u64);
            prop_assert_eq!((stats.hits, stats.misses), (naive.hits, naive.misses));
            prop_assert_eq!((stats.stale, stats.evictions, stats.rejected), (naive.stale, naive.evictions, naive.rejected));
        }
    }
}

fn file(directory: &TempDir, name: &str, version: u64, size: u64) -> PathBuf {
    let path = directory.path().join(name);
    write(&path, version, size, false);
    settle();
    path
}

#[test]
fn a_file_written_a_moment_ago_is_served_and_not_kept() {
    let directory = TempDir::new().expect("a directory");
    let cache = FileCache::new(CacheOptions::default()).expect("options");
    let path = directory.path().join("new");
    for text in ["one", "two", "three"] {
        fs::write(&path, text).expect("room");
        assert_eq!(cache.get(&path).expect("there").read_at(0, text.len() as u64).expect("whole"), text.as_bytes());
    }
    assert_eq!((cache.stats().files, cache.stats().rejected), (0, 3));
    settle();
    cache.get(&path).expect("there");
    assert_eq!(cache.stats().files, 1);
}

#[test]
fn entries_are_revalidated_after_an_interval_or_never() {
    let directory = TempDir::new().expect("a directory");
    let path = file(&directory, "a", 1, 10);
    for (revalidate, sees) in [(Revalidate::After(Duration::from_millis(100)), true), (Revalidate::Never, false)] {
        write(&path, 1, 10, false);
        settle();
        let cache = FileCache::new(CacheOptions { revalidate, ..CacheOptions::default() }).expect("options");
        cache.get(&path).expect("there");
        write(&path, 2, 20, true);
        assert_eq!(cache.get(&path).expect("there").meta().size, 10, "not yet due");
        std::thread::sleep(Duration::from_millis(120));
        assert_eq!(cache.get(&path).expect("there").meta().size, if sees { 20 } else { 10 });
        assert!(cache.invalidate(&path));
        assert_eq!(cache.get(&path).expect("there").meta().size, 20);
    }
}

#[test]
fn missing_files_are_remembered_up_to_a_limit() {
    let directory = TempDir::new().expect("a directory");
    let options = CacheOptions { revalidate: Revalidate::Never, max_files: 10, ..CacheOptions::default() };
    let cache = FileCache::new(options).expect("options");
    let path = directory.path().join("missing");
    for _ in 0..5 {
        let error = cache.get(&path).expect_err("missing");
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
        assert_eq!(error.path(), Some(&*path));
    }
    assert_eq!((cache.stats().negative_hits, cache.stats().misses), (4, 5));
    for number in 0..1000 {
        cache.get(&directory.path().join(number.to_string())).expect_err("missing");
    }
    cache.get(&path).expect_err("missing");
    assert_eq!(cache.stats().negative_hits, 4, "the oldest entry was removed");
    write(&path, 1, 10, false);
    cache.invalidate(&path);
    cache.get(&path).expect("there now");
}

#[test]
fn concurrent_requests_load_a_file_once() {
    let directory = TempDir::new().expect("a directory");
    let path = file(&directory, "a", 1, 50_000);
    for _ in 0..1000 {
        let cache = FileCache::new(CacheOptions::default()).expect("options");
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    cache.get(&path).expect("there");
                });
            }
        });
        assert_eq!((cache.stats().misses, cache.stats().hits), (1, 7));
    }
}

#[test]
fn bytes_stay_valid_after_eviction_and_truncation_is_an_error() {
    let directory = TempDir::new().expect("a directory");
    let (small, large) = (file(&directory, "s", 1, 1000), file(&directory, "l", 2, 100_000));
    let cache = FileCache::new(CacheOptions::default()).expect("options");
    let (one, two) = (cache.get(&small).expect("there"), cache.get(&large).expect("there"));
    cache.clear();
    write(&small, 3, 500, true);
    write(&large, 4, 500, true);
    assert!(matches(1, 1000, &one.read_at(0, 1000).expect("whole")));
    assert!(matches(2, 100_000, &two.read_at(0, 100_000).expect("the old inode")));
    let three = cache.get(&file(&directory, "t", 5, 100_000)).expect("there");
    File::options().write(true).open(directory.path().join("t")).expect("there").set_len(10).expect("shorter");
    assert_eq!(three.read_at(0, 100_000).expect_err("shorter").code(), zerosend_core::Code::Truncated);
    assert_eq!(one.read_at(900, 200).expect_err("beyond").code(), zerosend_core::Code::OutOfRange);
}

#[test]
fn a_closed_cache_returns_no_files() {
    let directory = TempDir::new().expect("a directory");
    let path = file(&directory, "a", 1, 10);
    let cache = FileCache::new(CacheOptions::default()).expect("options");
    cache.get(&path).expect("there");
    cache.close();
    assert_eq!(cache.get(&path).expect_err("closed").code(), zerosend_core::Code::Closed);
    assert_eq!(cache.stats().files, 0);
    for options in [
        CacheOptions { max_files: 0, ..CacheOptions::default() },
        CacheOptions { max_bytes: 0, ..CacheOptions::default() },
    ] {
        assert!(FileCache::new(options).expect_err("refused").message().starts_with("invalid max"));
    }
}

//! Cost of the cache: hits with and without revalidation, by 1 to 8 threads; misses; insertions that evict; and, for comparison,
//! the map of the `lru` crate alone.
//!
//! `cargo bench -p zerosend-core --bench cache`

use std::fs::{self, File};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use lru::LruCache;
use tempfile::TempDir;
use zerosend_core::cache::{CacheOptions, FileCache, Revalidate};

const FILES: usize = 256;

fn files(directory: &TempDir) -> Vec<PathBuf> {
    let time = SystemTime::now() - Duration::from_secs(1000);
    (0..FILES)
        .map(|number| {
            let path = directory.path().join(format!("file-{number}.txt"));
            fs::write(&path, vec![7; 1024]).expect("room on the disk");
            File::options().write(true).open(&path).expect("there").set_modified(time).expect("settable");
            path
        })
        .collect()
}

/// `rounds` lookups by each of `threads`.
fn lookups(cache: &FileCache, paths: &[PathBuf], threads: usize, rounds: u64) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for offset in 0..threads {
            scope.spawn(move || {
                for round in 0..rounds as usize {
                    black_box(cache.get(&paths[(round + offset * 31) % paths.len()]).expect("there"));
                }
            });
        }
    });
    began.elapsed()
}

fn cache(criterion: &mut Criterion) {
    let directory = TempDir::new().expect("a directory");
    let paths = files(&directory);
    let with = |revalidate, max_files| {
        FileCache::new(CacheOptions { revalidate, max_files, ..CacheOptions::default() }).expect("options")
    };

    let mut group = criterion.benchmark_group("cache");
    group.bench_function("lru crate alone, behind a lock", |bencher| {
        let map = Mutex::new(LruCache::new(NonZeroUsize::new(1024).expect("not 0")));
        for path in &paths {
            map.lock().expect("whole").put(path.clone(), ());
        }
        let mut round = 0;
        bencher.iter(|| {
            round += 1;
            black_box(map.lock().expect("whole").get(&paths[round % FILES]));
        });
    });
    for (name, revalidate) in [("never", Revalidate::Never), ("always", Revalidate::Always)] {
        for threads in [1, 2, 4, 8] {
            let cache = with(revalidate, 1024);
            lookups(&cache, &paths, 1, FILES as u64);
            group.bench_function(format!("hit, revalidate {name}, {threads} threads"), |bencher| {
                bencher.iter_custom(|rounds| lookups(&cache, &paths, threads, rounds));
            });
        }
    }
    group.bench_function("miss and eviction", |bencher| {
        let cache = with(Revalidate::Always, FILES / 2);
        bencher.iter_custom(|rounds| lookups(&cache, &paths, 1, rounds));
    });
    group.bench_function("a missing file", |bencher| {
        let cache = with(Revalidate::Always, 1024);
        let missing = directory.path().join("missing");
        bencher.iter(|| black_box(cache.get(&missing).is_err()));
    });
    group.bench_function("a missing file, remembered", |bencher| {
        let cache = with(Revalidate::Never, 1024);
        let missing = directory.path().join("missing");
        bencher.iter(|| black_box(cache.get(&missing).is_err()));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = cache
}
criterion_main!(benches);

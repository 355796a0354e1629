//! Versions of files, roots, validators.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use zerosend_core::cache::{CacheOptions, FileCache};
use zerosend_core::fs::Access;
use zerosend_core::static_site::{Outcome, Overrides, PathInput, Request, Response, ServedRange, Site, SiteOptions};
use zerosend_http::conditional::Conditions;

/// Waits until files written before are old enough to be cached.
fn settle() {
    std::thread::sleep(Duration::from_millis(70));
}

/// Overwrites a file and restores its modification time, like `tar`, `rsync -t` and `cp -p`.
fn restore(path: &Path, bytes: &[u8], modified: SystemTime) {
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(modified)).unwrap();
}

fn year_2020() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800)
}

fn respond(site: &Site, path: &str, conditions: Conditions<'_>) -> Outcome {
    let request = Request {
        head_only: false,
        path: PathInput::Encoded(path),
        conditions,
        overrides: Overrides::default(),
        root_index: 0,
    };
    site.respond(&request, Access::MayBlock).unwrap()
}

fn response(site: &Site, path: &str) -> Response {
    match respond(site, path, Conditions::default()) {
        Outcome::Response(response) => response,
        other => panic!("{path}: {other:?}"),
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value)
}

/// The bytes of a response, read through a transfer.
fn body(response: Response) -> Vec<u8> {
    use zerosend_core::transfer::{Disk, Method, Target, Transfer};
    let mut transfer = Transfer::new(response.into_parts(), Method::Auto, Target::Socket, Disk::MayBlock);
    let mut all = Vec::new();
    loop {
        match transfer.take(1 << 20).unwrap() {
            Some(bytes) if bytes.is_empty() => return all,
            Some(bytes) => all.extend(bytes),
            None => unreachable!("this transfer may wait for the disk"),
        }
    }
}

#[test]
fn a_file_restored_with_its_old_time_and_length_is_another_version() {
    let directory = TempDir::new().unwrap();
    // In memory, and mapped.
    for size in [10, 100_000] {
        let path = directory.path().join("index.html");
        for replace in [false, true] {
            restore(&path, &vec![b'1'; size], year_2020());
            settle();
            let cache = Arc::new(FileCache::new(CacheOptions::default()).unwrap());
            let options = SiteOptions { content_tags: true, ..SiteOptions::default() };
            let tagged = Site::new(vec![directory.path().into()], options).unwrap();
            let plain = Site::new(vec![directory.path().into()], SiteOptions::default()).unwrap();
            let plain = plain.with_cache(cache.clone());
            assert_eq!(body(response(&plain, "/")), vec![b'1'; size]);
            assert_eq!(cache.get(&path).unwrap().read_at(0, 1).unwrap(), b"1");
            assert_eq!(cache.stats().files, 2, "kept");
            let tag = header(&response(&tagged, "/"), "etag").unwrap().to_owned();
            assert!(tag.starts_with('"'), "{tag}");

            if replace {
                // ext4 gives a new file the inode number of the deleted one.
                fs::remove_file(&path).unwrap();
            }
            restore(&path, &vec![b'2'; size], year_2020());
            assert_eq!(body(response(&plain, "/")), vec![b'2'; size], "size {size}, replaced: {replace}");
            assert_eq!(cache.get(&path).unwrap().read_at(0, 1).unwrap(), b"2");
            settle();
            let changed = response(&tagged, "/");
            assert_ne!(header(&changed, "etag"), Some(&*tag), "another strong tag for other bytes");
        }
    }
}

#[test]
fn a_file_changed_a_moment_ago_is_not_kept_even_with_an_old_modification_time() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a");
    let cache = FileCache::new(CacheOptions::default()).unwrap();
    for round in 0..200_u8 {
        // Two writes within a tick of the file system's clock have the same times.
        restore(&path, &[round], year_2020());
        assert_eq!(cache.get(&path).unwrap().read_at(0, 1).unwrap(), [round]);
    }
    settle();
    cache.get(&path).unwrap();
    assert_eq!(cache.stats().files, 1);
}

#[test]
fn a_served_range_belongs_to_the_request_and_not_to_the_site() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a"), "0123456789").unwrap();
    settle();
    let cache = Arc::new(FileCache::new(CacheOptions::default()).unwrap());
    let site = Site::new(vec![directory.path().into()], SiteOptions::default()).unwrap().with_cache(cache.clone());
    let respond = |overrides, range| {
        let conditions = Conditions { range, ..Conditions::default() };
        let request =
            Request { head_only: false, path: PathInput::Decoded("/a"), conditions, overrides, root_index: 0 };
        let Outcome::Response(response) = site.respond(&request, Access::MayBlock).unwrap() else { panic!() };
        let range = header(&response, "content-range").map(str::to_owned);
        (String::from_utf8(body(response)).unwrap(), range)
    };
    for start in 0..=10 {
        let served = ServedRange { start, last: Some(start + 2) };
        let overrides = Overrides { served, ..Overrides::default() };
        assert_eq!(respond(overrides, None).0, &"0123456789"[start as usize..10.min(start as usize + 3)]);
        assert_eq!(respond(Overrides::default(), None).0, "0123456789");
    }
    let served = ServedRange { start: 2, last: Some(u64::MAX) };
    let overrides = Overrides { served, max_range_length: Some(3), ..Overrides::default() };
    assert_eq!(respond(overrides, Some("bytes=1-")), ("345".to_owned(), Some("bytes 1-3/8".to_owned())));
    assert_eq!((cache.stats().files, cache.stats().misses), (1, 1), "one entry for all ranges");
}

#[test]
fn overrides_apply_to_one_response_only() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a"), "0123456789").unwrap();
    let site = Site::new(vec![directory.path().into()], SiteOptions::default()).unwrap();
    let respond = |overrides, conditions| {
        let request =
            Request { head_only: false, path: PathInput::Decoded("/a"), conditions, overrides, root_index: 0 };
        let Outcome::Response(response) = site.respond(&request, Access::MayBlock).unwrap() else { panic!() };
        response
    };
    let none = Conditions::default;
    for max_age in [0, 7, 8] {
        let response = respond(Overrides { max_age: Some(max_age), ..Overrides::default() }, none());
        assert_eq!(header(&response, "cache-control"), Some(&*format!("public, max-age={max_age}")));
        assert_eq!(header(&respond(Overrides::default(), none()), "cache-control"), Some("public, max-age=0"));
    }
    let tag_override = Overrides { etag: Some("\"own\""), ..Overrides::default() };
    assert_eq!(respond(tag_override, Conditions { if_none_match: Some("\"own\""), ..none() }).status, 304);
    assert_eq!(respond(Overrides::default(), Conditions { if_none_match: Some("\"own\""), ..none() }).status, 200);
    let date = "Sat, 01 Jan 2022 00:00:00 GMT";
    let date_override = Overrides { last_modified: Some(date), ..Overrides::default() };
    assert_eq!(respond(date_override, Conditions { if_modified_since: Some(date), ..none() }).status, 304);
    assert_eq!(respond(Overrides::default(), Conditions { if_modified_since: Some(date), ..none() }).status, 200);
    let invalid_date = Overrides { last_modified: Some("soon"), ..Overrides::default() };
    let response = respond(invalid_date, Conditions { if_modified_since: Some(date), ..none() });
    assert_eq!((response.status, header(&response, "last-modified")), (200, Some("soon")));
}

#[test]
fn a_content_tag_is_computed_in_bounded_chunks() {
    let directory = TempDir::new().unwrap();
    let file = File::create(directory.path().join("large")).unwrap();
    file.set_len(40 * 1024 * 1024).unwrap();
    settle();
    let options = SiteOptions { content_tags: true, ..SiteOptions::default() };
    let site = Site::new(vec![directory.path().into()], options.clone()).unwrap();
    let request = Request {
        head_only: true,
        path: PathInput::Encoded("/large"),
        conditions: Conditions::default(),
        root_index: 0,
        overrides: Overrides::default(),
    };
    // Each call hashes 4 MiB.
    let mut calls = 0;
    let tag = loop {
        calls += 1;
        match site.respond_step(&request).unwrap() {
            Outcome::WouldBlock => {}
            Outcome::Response(response) => break header(&response, "etag").unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(calls, 11);
    let Outcome::Response(again) = site.respond_step(&request).unwrap() else { panic!("the tag was not kept") };
    assert_eq!(header(&again, "etag"), Some(&*tag));
    let whole = Site::new(vec![directory.path().into()], options).unwrap();
    assert_eq!(header(&response(&whole, "/large"), "etag"), Some(&*tag));
}

//! The mounted file system. Needs root and /dev/fuse; skipped with a message otherwise.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tempfile::TempDir;
use zerosend_faultfs::{Mount, Operation, Options, Rule};

/// The backing directory, the mount point and the mount; `None` where nothing can be mounted.
fn mounted(options: &Options) -> Option<(TempDir, TempDir, Mount)> {
    if !nix::unistd::geteuid().is_root() || fs::metadata("/dev/fuse").is_err() {
        eprintln!("skipped: mounting needs root and /dev/fuse");
        return None;
    }
    let (backing, point) = (TempDir::new().expect("backing"), TempDir::new().expect("mount point"));
    let mount = Mount::new(backing.path(), point.path(), options).expect("mount");
    Some((backing, point, mount))
}

fn without_caching() -> Options {
    Options { entry_timeout: Duration::ZERO, attr_timeout: Duration::ZERO, ..Options::default() }
}

fn rule(operation: Operation, glob: &str) -> Rule {
    Rule { operation: Some(operation), glob: glob.into(), ..Rule::default() }
}

#[test]
fn writes_are_visible_on_both_sides() {
    let Some((backing, point, mount)) = mounted(&without_caching()) else { return };
    fs::create_dir(point.path().join("dir")).expect("mkdir");
    fs::write(point.path().join("dir/a"), "one").expect("write");
    assert_eq!(fs::read(backing.path().join("dir/a")).expect("read"), b"one");
    fs::write(backing.path().join("dir/a"), "two and more").expect("write behind");
    assert_eq!(fs::read(point.path().join("dir/a")).expect("read"), b"two and more");
    std::os::unix::fs::symlink("dir/a", point.path().join("link")).expect("symlink");
    assert_eq!(fs::read(point.path().join("link")).expect("read"), b"two and more");
    fs::rename(point.path().join("dir/a"), point.path().join("b")).expect("rename");
    let names: Vec<_> = fs::read_dir(point.path()).expect("readdir").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 3);
    fs::remove_file(point.path().join("b")).expect("unlink");
    assert!(!backing.path().join("b").exists());
    mount.unmount().expect("unmount");
    assert_eq!(fs::read_dir(point.path()).expect("readdir").count(), 0);
}

#[test]
fn a_hanging_read_does_not_delay_other_operations() {
    let Some((backing, point, mount)) = mounted(&without_caching()) else { return };
    fs::write(backing.path().join("slow"), "slow").expect("write");
    fs::write(backing.path().join("quick"), "quick").expect("write");
    mount.rules().set(Rule { hang: true, ..rule(Operation::Read, "/slow") });
    let rules = Arc::clone(mount.rules());
    let slow = point.path().join("slow");
    let reader = thread::spawn(move || fs::read(slow));
    while rules.count(Operation::Read).waiting == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(fs::read(point.path().join("quick")).expect("read"), b"quick");
    assert_eq!(fs::metadata(point.path().join("slow")).expect("stat").len(), 4);
    rules.clear();
    assert_eq!(reader.join().expect("reader").expect("read"), b"slow");
    assert_eq!(rules.count(Operation::Read).waiting, 0);
}

#[test]
fn rules_delay_and_fail_operations() {
    let Some((backing, point, mount)) = mounted(&without_caching()) else { return };
    let path = point.path().join("file");
    fs::write(backing.path().join("file"), vec![7; 300_000]).expect("write");
    mount.rules().set(Rule { delay: Duration::from_millis(200), ..rule(Operation::Getattr, "/file") });
    // Opened before, so that fstat needs only a getattr.
    let file = fs::File::open(&path).expect("open");
    let begin = Instant::now();
    assert_eq!(file.metadata().expect("fstat").len(), 300_000);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    mount.rules().clear();
    for errno in [Errno::EIO, Errno::ENOTCONN, Errno::ESTALE] {
        mount.rules().set(Rule { errno: Some(errno), ..rule(Operation::Open, "*") });
        assert_eq!(fs::read(&path).expect_err("refused").raw_os_error(), Some(errno as i32));
    }
    mount.rules().clear();
    mount.rules().set(Rule { errno: Some(Errno::EIO), from: 200_000, ..rule(Operation::Read, "/file") });
    assert_eq!(fs::read(&path).expect_err("refused").raw_os_error(), Some(Errno::EIO as i32));
}

#[test]
fn options_report_size_zero_and_whole_seconds() {
    let options = Options { direct_io: true, zero_size: true, whole_seconds: true, ..without_caching() };
    let Some((backing, point, _mount)) = mounted(&options) else { return };
    fs::write(backing.path().join("file"), "bytes").expect("write");
    let path = point.path().join("file");
    let metadata = fs::metadata(&path).expect("stat");
    assert_eq!((metadata.len(), metadata.mtime_nsec(), metadata.ctime_nsec()), (0, 0, 0));
    assert_eq!(fs::read(&path).expect("read"), b"bytes");
}

#[test]
fn unmounting_ends_hanging_operations() {
    let Some((backing, point, mount)) = mounted(&without_caching()) else { return };
    fs::write(backing.path().join("file"), "bytes").expect("write");
    mount.rules().set(Rule { hang: true, ..rule(Operation::Read, "*") });
    let path = point.path().join("file");
    let reader = thread::spawn(move || fs::read(path));
    while mount.rules().count(Operation::Read).waiting == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    mount.unmount().expect("unmount");
    assert!(reader.join().expect("reader").is_err());
}

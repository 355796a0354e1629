//! Opening files: regular files only, below a root, under three policies for symbolic links, with and without openat2.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use zerosend_core::Code;
use zerosend_core::fs::{Access, Lookup, OpenFile, OpenSupport, Root, Symlinks};

const POLICIES: [Symlinks; 3] = [Symlinks::Follow, Symlinks::Beneath, Symlinks::Deny];
const SUPPORT: [OpenSupport; 3] = [OpenSupport::Full, OpenSupport::NoCached, OpenSupport::NoOpenat2];

/// `root/` with files of every type and symbolic links; `root-sibling/secret` and `secret` outside of it.
fn tree() -> TempDir {
    let tree = TempDir::new().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("root/dir/deep")).unwrap();
    fs::create_dir_all(at("root-sibling")).unwrap();
    fs::write(at("root/file"), "0123456789").unwrap();
    fs::write(at("root/dir/deep/file"), "deep").unwrap();
    fs::write(at("secret"), "secret").unwrap();
    fs::write(at("root-sibling/secret"), "secret").unwrap();
    symlink("file", at("root/link-inside")).unwrap();
    symlink("dir", at("root/link-dir")).unwrap();
    symlink("../secret", at("root/link-out")).unwrap();
    symlink(at("secret"), at("root/link-absolute")).unwrap();
    symlink("../root-sibling", at("root/link-sibling")).unwrap();
    symlink("nowhere", at("root/link-dangling")).unwrap();
    symlink("link-loop", at("root/link-loop")).unwrap();
    mkfifo(&at("root/fifo"), Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(at("root/socket")).unwrap());
    tree
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(TempDir::new().unwrap().path()).unwrap().uid() == 0
}

fn name_of(lookup: &Lookup) -> String {
    match lookup {
        Lookup::File(file) => format!("File({})", file.meta().size),
        other => format!("{other:?}"),
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_lookup_returns_the_type_of_the_file() {
    let tree = tree();
    let rows = [
        ("file", "File(10)"),
        ("dir/deep/file", "File(4)"),
        ("", "Directory"),
        ("dir", "Directory"),
        ("missing", "Missing"),
        ("missing/file", "Missing"),
        ("file/x", "NotADirectory"),
        ("fifo", "NotRegular"),
        ("socket", "NotRegular"),
        ("link-dangling", "Missing"),
    ];
    for support in SUPPORT {
        for policy in POLICIES {
            let root = Root::with_support(tree.path().join("root"), policy, support).unwrap();
            for (name, expected) in rows {
                let strict =
                    policy == Symlinks::Deny || (policy == Symlinks::Beneath && support == OpenSupport::NoOpenat2);
                let expected = if strict && name.starts_with("link") { "Refused" } else { expected };
                let found = root.open(name, Access::MayBlock).unwrap();
                assert_eq!(name_of(&found), expected, "{name} {policy:?} {support:?}");
            }
            let found = root.open(&"x".repeat(256), Access::MayBlock).unwrap();
            assert_eq!(name_of(&found), "TooLong", "{policy:?} {support:?}");
        }
    }
}

#[test]
fn symbolic_links_follow_the_policy() {
    let tree = tree();
    // Follow, Beneath, Deny; then Beneath without openat2.
    let rows = [
        ("link-inside", ["File(10)", "File(10)", "Refused", "Refused"]),
        ("link-dir/deep/file", ["File(4)", "File(4)", "Refused", "Refused"]),
        ("link-out", ["File(6)", "Refused", "Refused", "Refused"]),
        ("link-absolute", ["File(6)", "Refused", "Refused", "Refused"]),
        ("link-sibling/secret", ["File(6)", "Refused", "Refused", "Refused"]),
        ("link-loop", ["Refused", "Refused", "Refused", "Refused"]),
    ];
    for support in SUPPORT {
        let root = |policy| Root::with_support(tree.path().join("root"), policy, support).unwrap();
        let roots = POLICIES.map(root);
        for (name, expected) in rows {
            for (at, root) in roots.iter().enumerate() {
                let column = if at == 1 && support == OpenSupport::NoOpenat2 { 3 } else { at };
                let found = root.open(name, Access::MayBlock).unwrap();
                assert_eq!(name_of(&found), expected[column], "{name} {:?} {support:?}", POLICIES[at]);
            }
        }
    }
}

#[test]
fn an_unchecked_path_cannot_leave_the_root() {
    let tree = tree();
    for support in [OpenSupport::Full, OpenSupport::NoCached] {
        for policy in [Symlinks::Beneath, Symlinks::Deny] {
            let root = Root::with_support(tree.path().join("root"), policy, support).unwrap();
            for name in ["../secret", "dir/../../secret", "../root-sibling/secret", "/etc/passwd"] {
                let found = root.open(name, Access::MayBlock).unwrap();
                assert_eq!(name_of(&found), "Refused", "{name} {policy:?}");
            }
        }
    }
}

#[test]
fn a_lookup_that_may_not_block_needs_the_kernel_cache() {
    let tree = tree();
    for policy in POLICIES {
        let root = Root::new(tree.path().join("root"), policy).unwrap();
        root.open("file", Access::MayBlock).unwrap();
        let expected = if OpenSupport::probe() == OpenSupport::Full { "File(10)" } else { "WouldBlock" };
        assert_eq!(name_of(&root.open("file", Access::CachedOnly).unwrap()), expected, "{policy:?}");
        for support in [OpenSupport::NoCached, OpenSupport::NoOpenat2] {
            let root = Root::with_support(tree.path().join("root"), policy, support).unwrap();
            let found = root.open("file", Access::CachedOnly).unwrap();
            assert_eq!(name_of(&found), "WouldBlock", "{policy:?} {support:?}");
        }
    }
    // A name that was never looked up is not in the cache.
    if OpenSupport::probe() == OpenSupport::Full {
        let root = Root::new(tree.path().join("root"), Symlinks::Follow).unwrap();
        assert_eq!(name_of(&root.open("never-seen", Access::CachedOnly).unwrap()), "WouldBlock");
    }
}

#[test]
fn an_unreadable_file_is_distinguished_from_an_unsearchable_directory() {
    if is_root() {
        eprintln!(
            "SKIPPED an_unreadable_file_is_distinguished_from_an_unsearchable_directory: root can read everything"
        );
        return;
    }
    let tree = tree();
    let chmod =
        |name: &str, mode| fs::set_permissions(tree.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    chmod("root/file", 0o000);
    chmod("root/dir/deep", 0o000);
    for support in SUPPORT {
        for policy in POLICIES {
            let root = Root::with_support(tree.path().join("root"), policy, support).unwrap();
            let find = |name| name_of(&root.open(name, Access::MayBlock).unwrap());
            assert_eq!(find("file"), "Denied { file_exists: true }");
            assert_eq!(find("dir/deep/file"), "Denied { file_exists: false }");
            assert_eq!(find("dir/deep"), "Directory");
        }
    }
    chmod("root/dir/deep", 0o755);
}

#[test]
fn a_root_may_be_created_later_and_replaced() {
    let tree = TempDir::new().unwrap();
    let path = tree.path().join("later");
    for policy in POLICIES {
        let root = Root::new(&path, policy).unwrap();
        assert_eq!(name_of(&root.open("a", Access::MayBlock).unwrap()), "Missing", "{policy:?}");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a"), "1").unwrap();
        assert_eq!(name_of(&root.open("a", Access::MayBlock).unwrap()), "File(1)", "{policy:?}");
        // A build deletes and recreates its output directory.
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a"), "22").unwrap();
        assert_eq!(name_of(&root.open("a", Access::MayBlock).unwrap()), "File(2)", "{policy:?}");
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(name_of(&root.open("a", Access::MayBlock).unwrap()), "Missing", "{policy:?}");
    }
}

#[test]
fn a_root_must_be_an_absolute_directory() {
    let tree = tree();
    for path in [Path::new("relative"), &tree.path().join("root/file")] {
        let error = Root::new(path, Symlinks::Follow).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.path(), Some(path));
    }
}

#[test]
fn open_file_takes_regular_files_only() {
    let tree = tree();
    let at = |name: &str| tree.path().join("root").join(name);
    let file = OpenFile::open(&at("link-inside")).unwrap();
    assert_eq!(file.meta().size, 10);
    assert!(file.meta().is_file() && file.meta().ino != 0 && file.meta().mtime_ns > 0);
    let mut buffer = [0; 4];
    nix::sys::uio::pread(file.as_fd(), &mut buffer, 3).unwrap();
    assert_eq!(&buffer, b"3456");

    let rows = [("dir", "a directory"), ("fifo", "a FIFO"), ("socket", "a socket")];
    for (name, kind) in rows {
        let error = OpenFile::open(&at(name)).unwrap_err();
        assert_eq!(error.code(), Code::NotRegularFile, "{name}");
        assert_eq!(error.path(), Some(at(name).as_path()));
        assert!(error.to_string().contains(kind) && error.to_string().contains("use a regular file"), "{error}");
    }
    assert!(OpenFile::open(Path::new("/dev/null")).unwrap_err().to_string().contains("a character device"));

    let error = OpenFile::open(&at("missing")).unwrap_err();
    assert_eq!((error.errno(), error.syscall()), (Some(Errno::ENOENT), Some("open")));
    assert_eq!(error.path(), Some(at("missing").as_path()));
    assert_eq!(OpenFile::open(&at("file/x")).unwrap_err().errno(), Some(Errno::ENOTDIR));
    assert_eq!(OpenFile::open(&at("a\0b")).unwrap_err().errno(), Some(Errno::EINVAL));
    let (read, _write) = nix::unistd::pipe().unwrap();
    assert_eq!(OpenFile::from_fd(read).unwrap_err().code(), Code::NotRegularFile);
}

#[test]
fn metadata_equals_that_of_the_standard_library() {
    use std::os::unix::fs::MetadataExt;
    let tree = tree();
    let path = tree.path().join("root/file");
    let (ours, std) = (*OpenFile::open(&path).unwrap().meta(), fs::metadata(&path).unwrap());
    assert_eq!((ours.size, ours.ino, ours.dev, ours.mode), (std.size(), std.ino(), std.dev(), std.mode()));
    assert_eq!(ours.mtime_ns, std.mtime() * 1_000_000_000 + std.mtime_nsec());
}

/// Runs in a child process, because concurrent tests open descriptors too.
#[test]
fn failing_lookups_do_not_leak_descriptors() {
    if std::env::var_os("ZEROSEND_TEST_COUNT_DESCRIPTORS").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "failing_lookups_do_not_leak_descriptors"])
            .env("ZEROSEND_TEST_COUNT_DESCRIPTORS", "1")
            // The parent reports this test.
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let tree = tree();
    for support in SUPPORT {
        for policy in POLICIES {
            let root = Root::with_support(tree.path().join("root"), policy, support).unwrap();
            root.open("file", Access::MayBlock).unwrap();
            let before = open_descriptors();
            for _ in 0..1000 {
                for name in ["missing", "dir", "fifo", "socket", "link-out", "link-loop", "file/x", "link-dir/x"] {
                    root.open(name, Access::MayBlock).unwrap();
                }
                OpenFile::open(&tree.path().join("root/fifo")).unwrap_err();
            }
            assert_eq!(open_descriptors(), before, "{policy:?} {support:?}");
        }
    }
}

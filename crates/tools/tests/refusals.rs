//! Under a seccomp filter: `probe` finds the refused system calls, and files are sent without them.
//!
//! A filter cannot be removed, so each test runs this program again in a new process.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use tempfile::TempDir;
use zerosend_core::fs::OpenFile;
use zerosend_core::transfer::{Budget, Disk, Method, Part, Progress, Target, Transfer};
use zerosend_tools::{probe, residency};

const SYS_CACHESTAT: i64 = 451;

/// The refused system calls, by the name of the feature.
const CALLS: [(&str, i64); 11] = [
    ("sendfile", libc::SYS_sendfile),
    ("splice", libc::SYS_splice),
    ("tee", libc::SYS_tee),
    ("vmsplice", libc::SYS_vmsplice),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("openat2", libc::SYS_openat2),
    ("preadv2(RWF_NOWAIT)", libc::SYS_preadv2),
    ("cachestat", SYS_CACHESTAT),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("memfd", libc::SYS_memfd_create),
    ("io_uring", libc::SYS_io_uring_setup),
];

/// Runs one test in a new process, with the errno in `ZEROSEND_REFUSE`.
fn run_in_new_process(test: &str, errno: i32) {
    let status = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", test, "--test-threads=1"])
        .env("ZEROSEND_REFUSE", errno.to_string())
        // The output of the new process would be counted as another test.
        .stdout(Stdio::null())
        .status()
        .expect("a process");
    assert!(status.success(), "{test} with errno {errno}");
}

fn errno() -> Option<i32> {
    std::env::var("ZEROSEND_REFUSE").ok()?.parse().ok()
}

fn refuse(errno: i32) {
    let rules: BTreeMap<i64, _> = CALLS.iter().map(|(_, call)| (*call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch);
    let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
    apply_filter(&program).expect("applied");
}

#[test]
fn probe_reports_refused_system_calls() {
    let Some(errno) = errno() else {
        return [libc::ENOSYS, libc::EPERM]
            .into_iter()
            .for_each(|errno| run_in_new_process("probe_reports_refused_system_calls", errno));
    };
    let before = probe().expect("probed");
    refuse(errno);
    let after = probe().expect("probed");
    for mechanism in &after.mechanisms {
        let refused = CALLS.iter().any(|(name, _)| *name == mechanism.name);
        let refusal = mechanism.refusal.map(|refusal| refusal.errno as i32);
        if refused {
            assert_eq!(refusal, Some(errno), "{}", mechanism.name);
        } else {
            let unchanged = before.mechanisms.iter().find(|other| other.name == mechanism.name);
            assert_eq!(unchanged.expect("the same").refusal, mechanism.refusal, "{}", mechanism.name);
        }
    }
}

#[test]
fn files_are_sent_and_inspected_without_refused_system_calls() {
    let Some(errno) = errno() else {
        let test = "files_are_sent_and_inspected_without_refused_system_calls";
        return [libc::ENOSYS, libc::EPERM].into_iter().for_each(|errno| run_in_new_process(test, errno));
    };
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("file");
    let data: Vec<u8> = (0..2_000_000_u32).map(|at| (at / 3) as u8).collect();
    std::fs::write(&path, &data).expect("written");
    refuse(errno);
    let found = residency(&path).expect("asked");
    assert_eq!((found.by, found.resident, found.pages), ("mincore", 489, 489));
    for method in [Method::Auto, Method::Sendfile, Method::Splice, Method::Mmap, Method::Vmsplice, Method::ReadWrite] {
        let file = Arc::new(OpenFile::open(&path).expect("open"));
        let part = Part::File { file, offset: 0, length: data.len() as u64 };
        let mut transfer = Transfer::new([part], method, Target::Socket, Disk::MayBlock);
        let (out, mut from) = UnixStream::pair().expect("a pair");
        out.set_nonblocking(true).expect("non-blocking");
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).expect("readable");
            all
        });
        while transfer.advance(&out, &mut Budget::unlimited()).expect("sent") != Progress::Done {
            thread::yield_now();
        }
        drop(out);
        assert!(reader.join().expect("no panic") == data, "{method:?}");
    }
}

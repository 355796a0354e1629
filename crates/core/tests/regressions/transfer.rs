//! Transfers: residency, truncated files, large offsets, interrupted calls.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use zerosend_core::transfer::{Budget, Disk, Method, Part, Progress, Target, Transfer};
use zerosend_core::{Code, Result};
use zerosend_sys::memory::{Mapping, Span};
use zerosend_sys::residency::{Residency, residency};
use zerosend_sys::{Kernel, Linux, SysResult};

const METHODS: [Method; 6] = Method::ALL;

fn sample(length: usize) -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&vec![b'x'; length]).expect("room on the disk");
    Arc::new(file)
}

fn transfer(file: &Arc<File>, length: u64, method: Method, disk: Disk) -> Transfer {
    Transfer::new([Part::File { file: file.clone(), offset: 0, length }], method, Target::Socket, disk)
}

fn pair() -> (UnixStream, UnixStream) {
    let (out, from) = UnixStream::pair().expect("a pair of sockets");
    out.set_nonblocking(true).expect("non-blocking");
    from.set_nonblocking(true).expect("non-blocking");
    (out, from)
}

fn read_all(mut from: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

/// The real kernel, except that residency is scripted. Calls that may wait for a disk panic unless `answer` is `Resident`.
struct Scripted {
    answer: Residency,
}

impl Scripted {
    fn check_resident(&self) {
        assert_eq!(self.answer, Residency::Resident, "residency was not checked in this turn");
    }
}

impl Kernel for Scripted {
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], target: Target, more: bool) -> SysResult<usize> {
        Linux.gather(out, slices, target, more)
    }

    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize> {
        self.check_resident();
        Linux.sendfile(out, file, offset, length)
    }

    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize> {
        assert!(resident_only, "this call may wait for a disk");
        match self.answer {
            Residency::Resident => Linux.pread(file, buffer, offset, false),
            Residency::Cold => Err(Errno::EAGAIN),
            Residency::Unknown => Err(Errno::EOPNOTSUPP),
        }
    }

    fn resident(&mut self, _: BorrowedFd<'_>, _: u64, _: u64) -> Residency {
        self.answer
    }

    fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64> {
        Linux.size(file)
    }

    fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping> {
        Linux.map(file, offset, length)
    }

    fn gather_span(
        &mut self,
        out: BorrowedFd<'_>,
        slices: &[IoSlice<'_>],
        span: Span<'_>,
        target: Target,
        more: bool,
    ) -> SysResult<usize> {
        self.check_resident();
        Linux.gather_span(out, slices, span, target, more)
    }

    fn splice(
        &mut self,
        from: BorrowedFd<'_>,
        offset: Option<u64>,
        to: BorrowedFd<'_>,
        length: usize,
        more: bool,
    ) -> SysResult<usize> {
        if offset.is_some() {
            self.check_resident();
        }
        Linux.splice(from, offset, to, length, more)
    }

    fn vmsplice(&mut self, pipe: BorrowedFd<'_>, span: Span<'_>, gift: bool) -> SysResult<usize> {
        self.check_resident();
        Linux.vmsplice(pipe, span, gift)
    }

    fn read(&mut self, from: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize> {
        Linux.read(from, buffer)
    }

    fn cork(&mut self, socket: BorrowedFd<'_>, on: bool) -> SysResult<()> {
        Linux.cork(socket, on)
    }

    fn is_unix_socket(&mut self, socket: BorrowedFd<'_>) -> bool {
        Linux.is_unix_socket(socket)
    }
}

fn finish(transfer: &mut Transfer, kernel: &mut Scripted, out: &UnixStream, from: &UnixStream) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    loop {
        match transfer.advance_on(kernel, out.as_fd(), &mut Budget::new(100_000))? {
            Progress::Done => {
                received.extend(read_all(from));
                return Ok(received);
            }
            Progress::Blocked => received.extend(read_all(from)),
            Progress::Yield => {}
            Progress::Cold => {
                let prefetched = transfer.prefetch().expect("a file is next").wait()?;
                transfer.prefetched(prefetched);
            }
        }
    }
}

/// Pages may be evicted between two turns, also after a prefetch, and some file systems do not report residency.
#[test]
fn residency_is_checked_in_every_turn() {
    const LENGTH: usize = 3_000_000;
    for method in METHODS {
        for next in [Residency::Cold, Residency::Unknown] {
            let file = sample(LENGTH);
            let (out, from) = pair();
            let mut transfer = transfer(&file, LENGTH as u64, method, Disk::ResidentOnly);
            let mut kernel = Scripted { answer: Residency::Resident };
            let first = transfer.advance_on(&mut kernel, out.as_fd(), &mut Budget::new(10_000));
            assert_eq!(first, Ok(Progress::Yield), "{method:?}");
            kernel.answer = next;
            let received = finish(&mut transfer, &mut kernel, &out, &from).expect("sent");
            assert!(received == vec![b'x'; LENGTH], "{method:?} {next:?}: {} bytes", received.len());
        }
    }
}

/// After a truncation the rest of the last page reads as zeros from a mapping.
#[test]
fn a_file_truncated_inside_its_last_page_sends_no_zeros() {
    const LENGTH: u64 = 300_001;
    for disk in [Disk::ResidentOnly, Disk::MayBlock] {
        for method in METHODS {
            let file = sample(LENGTH as usize);
            let (out, from) = pair();
            let mut transfer = transfer(&file, LENGTH, method, disk);
            let first = transfer.advance(&out, &mut Budget::new(100_000)).expect("whole");
            assert!(matches!(first, Progress::Yield | Progress::Blocked), "{method:?}");
            let mut received = read_all(&from);
            file.set_len(LENGTH - 1).expect("truncated");
            let error = loop {
                match transfer.advance(&out, &mut Budget::new(100_000)) {
                    Ok(Progress::Done) => panic!("{method:?}: sent a byte beyond the end"),
                    Ok(Progress::Cold) => {
                        let prefetched = transfer.prefetch().expect("a file is next").wait();
                        transfer.prefetched(prefetched.expect("readable"));
                    }
                    Ok(_) => received.extend(read_all(&from)),
                    Err(error) => break error,
                }
            };
            received.extend(read_all(&from));
            assert_eq!(error.code(), Code::Truncated, "{method:?}");
            assert!(!received.contains(&0), "{method:?}: {} bytes", received.len());
            assert!(received.len() < LENGTH as usize, "{method:?}");
        }
    }
}

#[test]
fn ranges_up_to_the_largest_offset_do_not_overflow() {
    let file = sample(1);
    for (offset, length) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (0, u64::MAX), (i64::MAX as u64, 2)] {
        residency(file.as_fd(), offset, length);
        let part = Part::File { file: file.clone(), offset, length };
        let (out, _from) = pair();
        let mut transfer = Transfer::new([part], Method::Sendfile, Target::Socket, Disk::ResidentOnly);
        transfer.prepend(vec![b'h'; 10]);
        for _ in 0..4 {
            if let Ok(Progress::Cold) = transfer.advance(&out, &mut Budget::new(1000))
                && let Some(prefetch) = transfer.prefetch()
                && let Ok(prefetched) = prefetch.wait()
            {
                transfer.prefetched(prefetched);
            }
        }
    }
}

/// So that a series of signals cannot extend a turn without limit.
#[test]
fn interrupted_calls_cost_budget() {
    struct Interrupted;
    impl Kernel for Interrupted {
        fn gather(&mut self, _: BorrowedFd<'_>, _: &[IoSlice<'_>], _: Target, _: bool) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn sendfile(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, _: u64, _: usize) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn pread(&mut self, _: BorrowedFd<'_>, _: &mut [u8], _: u64, _: bool) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn resident(&mut self, _: BorrowedFd<'_>, _: u64, _: u64) -> Residency {
            Residency::Resident
        }
        fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64> {
            Linux.size(file)
        }
        fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping> {
            Linux.map(file, offset, length)
        }
        fn gather_span(
            &mut self,
            _: BorrowedFd<'_>,
            _: &[IoSlice<'_>],
            _: Span<'_>,
            _: Target,
            _: bool,
        ) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn splice(
            &mut self,
            _: BorrowedFd<'_>,
            _: Option<u64>,
            _: BorrowedFd<'_>,
            _: usize,
            _: bool,
        ) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn vmsplice(&mut self, _: BorrowedFd<'_>, _: Span<'_>, _: bool) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn read(&mut self, _: BorrowedFd<'_>, _: &mut [u8]) -> SysResult<usize> {
            Err(Errno::EINTR)
        }
        fn cork(&mut self, _: BorrowedFd<'_>, _: bool) -> SysResult<()> {
            Ok(())
        }
        fn is_unix_socket(&mut self, _: BorrowedFd<'_>) -> bool {
            false
        }
    }
    for method in METHODS {
        let file = sample(100_000);
        let (out, _from) = pair();
        let mut transfer = transfer(&file, 100_000, method, Disk::ResidentOnly);
        let outcome = transfer.advance_on(&mut Interrupted, out.as_fd(), &mut Budget::new(1 << 20));
        assert_eq!(outcome, Ok(Progress::Yield), "{method:?}");
        assert!(matches!(transfer.take_on(&mut Interrupted, 100), Ok(None)), "{method:?}");
    }
}

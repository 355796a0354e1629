//! Transfers: what is resident, and files that change while they are sent.

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

/// The real kernel; what it says about residency is scripted, and every call that could wait for a disk is refused after
/// a page was said to be cold or unknown.
struct Scripted {
    answer: Residency,
    asked: usize,
    moved: usize,
}

impl Scripted {
    fn may_move(&mut self) {
        assert_eq!(self.answer, Residency::Resident, "moved without asking in this turn");
        self.moved += 1;
    }
}

impl Kernel for Scripted {
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], target: Target, more: bool) -> SysResult<usize> {
        Linux.gather(out, slices, target, more)
    }

    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize> {
        self.may_move();
        Linux.sendfile(out, file, offset, length)
    }

    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize> {
        assert!(resident_only, "it would wait for the disk");
        match self.answer {
            Residency::Resident => Linux.pread(file, buffer, offset, false),
            Residency::Cold => Err(Errno::EAGAIN),
            Residency::Unknown => Err(Errno::EOPNOTSUPP),
        }
    }

    fn resident(&mut self, _: BorrowedFd<'_>, _: u64, _: u64) -> Residency {
        self.asked += 1;
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
        self.may_move();
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
            self.may_move();
        }
        Linux.splice(from, offset, to, length, more)
    }

    fn vmsplice(&mut self, pipe: BorrowedFd<'_>, span: Span<'_>, gift: bool) -> SysResult<usize> {
        self.may_move();
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

/// What was resident in one turn may be evicted in the next, also when the pool has just brought it in, and on some file
/// systems nothing is known. The thread that serves others never waits for a disk, and the transfer ends nevertheless.
#[test]
fn residency_is_asked_in_every_turn_and_never_assumed() {
    const LENGTH: usize = 3_000_000;
    for method in METHODS {
        for later in [Residency::Cold, Residency::Unknown] {
            let file = sample(LENGTH);
            let (out, from) = pair();
            let mut transfer = transfer(&file, LENGTH as u64, method, Disk::ResidentOnly);
            let mut kernel = Scripted { answer: Residency::Resident, asked: 0, moved: 0 };
            let first = transfer.advance_on(&mut kernel, out.as_fd(), &mut Budget::new(10_000));
            assert_eq!(first, Ok(Progress::Yield), "{method:?}");
            kernel.answer = later;
            let received = finish(&mut transfer, &mut kernel, &out, &from).expect("sent");
            assert!(received == vec![b'x'; LENGTH], "{method:?} {later:?}: {} bytes", received.len());
        }
    }
}

/// Within the last page what is cut off reads as zeros from a mapping.
#[test]
fn a_file_cut_inside_its_last_page_sends_no_zero_byte() {
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
                    Ok(Progress::Done) => panic!("{method:?}: a byte beyond the end"),
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

/// A storm of signals must not keep the thread from others.
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

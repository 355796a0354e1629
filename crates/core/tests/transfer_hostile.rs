//! Every method with a kernel that returns random short counts, `EAGAIN`, `EINTR` and cold pages, compared with a copy of the same
//! parts. Pipes, mappings and sockets are those of the real kernel.

use std::fs::File;
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use proptest::prelude::*;
use zerosend_core::transfer::{Budget, Cork, Disk, Method, Part, Progress, Target, Transfer};
use zerosend_sys::memory::{Mapping, Pages, Span};
use zerosend_sys::residency::Residency;
use zerosend_sys::{Kernel, Linux, SysResult};

/// A random number generator with a seed: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }

    /// From 1 to `length`; small numbers are more likely.
    fn short(&mut self, length: usize) -> usize {
        match self.next() % 4 {
            0 => length,
            1 => 1 + self.next() as usize % length,
            2 => 1 + self.next() as usize % length.min(5000),
            _ => 1 + self.next() as usize % length.min(7),
        }
    }
}

struct Hostile {
    random: Random,
    /// Calls passed to the real kernel, by kind.
    calls: [u64; 6],
    /// Some calls fail with EINVAL, as on a file system that does not support the method.
    refuses: bool,
    /// Residency is never unknown.
    reports_residency: bool,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        Self { random: Random(seed), calls: [0; 6], refuses: false, reports_residency: false }
    }

    /// For calls that `read-write` does not make.
    fn refuse_method(&mut self) -> SysResult<()> {
        self.refuse()?;
        if self.refuses && self.random.one_in(8) { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn interrupt(&mut self) -> SysResult<()> {
        if self.random.one_in(6) { Err(Errno::EINTR) } else { Ok(()) }
    }

    fn refuse(&mut self) -> SysResult<()> {
        self.interrupt()?;
        if self.random.one_in(6) { Err(Errno::EAGAIN) } else { Ok(()) }
    }
}

/// The first `count` bytes of `slices`.
fn first_bytes<'a>(slices: &'a [IoSlice<'_>], mut count: usize) -> Vec<IoSlice<'a>> {
    let mut kept = Vec::new();
    for slice in slices {
        let step = slice.len().min(count);
        if step > 0 {
            kept.push(IoSlice::new(&slice[..step]));
        }
        count -= step;
    }
    kept
}

impl Kernel for Hostile {
    fn gather(&mut self, out: BorrowedFd<'_>, slices: &[IoSlice<'_>], target: Target, more: bool) -> SysResult<usize> {
        self.refuse()?;
        self.calls[0] += 1;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = self.random.short(all.max(1));
        Linux.gather(out, &first_bytes(slices, count), target, more)
    }

    fn sendfile(&mut self, out: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<usize> {
        self.refuse_method()?;
        self.calls[1] += 1;
        Linux.sendfile(out, file, offset, self.random.short(length))
    }

    fn pread(&mut self, file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, resident_only: bool) -> SysResult<usize> {
        self.interrupt()?;
        if resident_only && self.random.one_in(6) {
            return Err(Errno::EAGAIN);
        }
        self.calls[2] += 1;
        let count = self.random.short(buffer.len());
        Linux.pread(file, &mut buffer[..count], offset, false)
    }

    fn resident(&mut self, _file: BorrowedFd<'_>, _offset: u64, _length: u64) -> Residency {
        match self.random.next() % 8 {
            0 => Residency::Cold,
            1 if !self.reports_residency => Residency::Unknown,
            _ => Residency::Resident,
        }
    }

    fn is_unix_socket(&mut self, _: BorrowedFd<'_>) -> bool {
        self.random.one_in(2)
    }

    fn size(&mut self, file: BorrowedFd<'_>) -> SysResult<u64> {
        Linux.size(file)
    }

    fn map(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> SysResult<Mapping> {
        self.refuse_method()?;
        // Windows of a few pages, so that a file needs several.
        let pages = self.random.short(length.div_ceil(4096)).clamp(1, 16);
        Linux.map(file, offset, length.min(pages * 4096))
    }

    fn gather_span(
        &mut self,
        out: BorrowedFd<'_>,
        slices: &[IoSlice<'_>],
        span: Span<'_>,
        target: Target,
        more: bool,
    ) -> SysResult<usize> {
        self.refuse()?;
        self.calls[3] += 1;
        let heads: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = self.random.short((heads + span.len()).max(1));
        if count <= heads {
            return Linux.gather(out, &first_bytes(slices, count), target, more);
        }
        Linux.gather_span(out, slices, span.first(count - heads), target, more)
    }

    fn splice(
        &mut self,
        from: BorrowedFd<'_>,
        offset: Option<u64>,
        to: BorrowedFd<'_>,
        length: usize,
        more: bool,
    ) -> SysResult<usize> {
        self.refuse_method()?;
        self.calls[4] += 1;
        Linux.splice(from, offset, to, self.random.short(length), more)
    }

    fn vmsplice(&mut self, pipe: BorrowedFd<'_>, span: Span<'_>, gift: bool) -> SysResult<usize> {
        self.refuse_method()?;
        self.calls[5] += 1;
        let count = self.random.short(span.len());
        Linux.vmsplice(pipe, span.first(count), gift)
    }

    fn read(&mut self, from: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize> {
        self.interrupt()?;
        let count = self.random.short(buffer.len());
        Linux.read(from, &mut buffer[..count])
    }

    fn cork(&mut self, socket: BorrowedFd<'_>, on: bool) -> SysResult<()> {
        Linux.cork(socket, on)
    }
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    (0..length).map(|_| random.next() as u8).collect()
}

#[derive(Debug, Clone)]
enum PartKind {
    Memory(usize),
    File { before: usize, length: usize, after: usize },
    Pages { before: usize, length: usize },
}

fn part_kind() -> impl Strategy<Value = PartKind> {
    prop_oneof![
        (0..3000usize).prop_map(PartKind::Memory),
        (0..9000usize, 0..200_000usize, 0..5000usize).prop_map(|(before, length, after)| PartKind::File {
            before,
            length,
            after
        }),
        (0..9000usize, 0..100_000usize).prop_map(|(before, length)| PartKind::Pages { before, length }),
    ]
}

fn cork() -> impl Strategy<Value = Cork> {
    prop_oneof![Just(Cork::Auto), Just(Cork::On), Just(Cork::Off)]
}

/// A part and its bytes.
fn build(kind: &PartKind, seed: u64) -> (Part, Vec<u8>) {
    match *kind {
        PartKind::Memory(length) => (Part::Memory(bytes(length, seed)), bytes(length, seed)),
        PartKind::File { before, length, after } => {
            let all = bytes(before + length + after, seed);
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&all).expect("room on the disk");
            let part = Part::File { file: Arc::new(file), offset: before as u64, length: length as u64 };
            (part, all[before..before + length].to_vec())
        }
        PartKind::Pages { before, length } => {
            let all = bytes(before + length, seed);
            let mut pages = Pages::new(all.len()).expect("memory");
            pages.copy_in(0, &all);
            let part = Part::Pages { pages: pages.seal(), offset: before as u64, length: length as u64 };
            (part, all[before..].to_vec())
        }
    }
}

/// Advances `transfer` to `out` and reads `from` when it is blocked. Sometimes takes bytes out of the transfer and sends them by
/// other means, as the pump does.
fn drive(transfer: &mut Transfer, kernel: &mut Hostile, out: &UnixStream, from: &UnixStream, chunk: u64) -> Vec<u8> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut receive = |received: &mut Vec<u8>| {
        while let Ok(count @ 1..) = (&mut &*from).read(&mut buffer) {
            received.extend_from_slice(&buffer[..count]);
        }
    };
    loop {
        match transfer.advance_on(kernel, out.as_fd(), &mut Budget::new(chunk)).expect("no error was injected") {
            Progress::Done => break,
            Progress::Yield => {}
            Progress::Cold => {
                let prefetched = transfer.prefetch().expect("a file is next").wait();
                transfer.prefetched(prefetched.expect("readable"));
            }
            Progress::Blocked => {
                receive(&mut received);
                if kernel.random.one_in(2)
                    && let Some(taken) = transfer.take_on(kernel, 1 + chunk as usize % 16384).expect("readable")
                {
                    (&mut &*out).write_all(&taken).expect("the socket was emptied");
                }
            }
        }
    }
    receive(&mut received);
    received
}

fn pair() -> (UnixStream, UnixStream) {
    let (out, from) = UnixStream::pair().expect("a pair of sockets");
    out.set_nonblocking(true).expect("non-blocking");
    from.set_nonblocking(true).expect("non-blocking");
    (out, from)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_received_bytes_are_those_of_the_parts(
        kinds in prop::collection::vec(part_kind(), 0..5),
        method in prop::sample::select(Method::ALL.to_vec()),
        disk in prop_oneof![Just(Disk::ResidentOnly), Just(Disk::MayBlock)],
        cork in cork(),
        chunk in 1..300_000u64,
        buffer in 1..200_000usize,
        refuses in any::<bool>(),
        seed in 1..u64::MAX,
    ) {
        let (parts, expected): (Vec<_>, Vec<_>) = kinds.iter().enumerate().map(|(at, kind)| build(kind, seed ^ at as u64)).unzip();
        let expected = expected.concat();
        let mut transfer = Transfer::new(parts, method, Target::Socket, disk);
        transfer.set_cork(cork);
        transfer.set_buffer(buffer);
        let mut kernel = Hostile::new(seed);
        kernel.refuses = refuses;
        let (out, from) = pair();
        // At most 200 turns for a transfer.
        let received = drive(&mut transfer, &mut kernel, &out, &from, chunk.max(expected.len() as u64 / 200));
        prop_assert_eq!(transfer.remaining(), 0);
        prop_assert_eq!(transfer.report().bytes, expected.len() as u64);
        prop_assert!(received == expected, "{} bytes instead of {}", received.len(), expected.len());
    }

    /// Dropped after any turn, the rest is sent from the offset that the report gives.
    #[test]
    fn a_dropped_transfer_is_resumed_at_its_byte_count(
        length in 1..400_000usize,
        method in prop::sample::select(Method::ALL.to_vec()),
        turns in 0..12usize,
        seed in 1..u64::MAX,
    ) {
        let all = bytes(length, seed);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&all).expect("room on the disk");
        let file = Arc::new(file);
        let rest = |offset: u64| {
            let part = Part::File { file: file.clone(), offset, length: length as u64 - offset };
            Transfer::new([part], method, Target::Socket, Disk::MayBlock)
        };
        let mut kernel = Hostile::new(seed);
        let (out, from) = pair();
        let mut first = rest(0);
        for _ in 0..turns {
            let chunk = 1 + kernel.random.next() % 20_000;
            first.advance_on(&mut kernel, out.as_fd(), &mut Budget::new(chunk)).expect("no error was injected");
        }
        let sent = first.report().bytes;
        drop(first);
        let mut received = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = (&mut &from).read(&mut buffer) {
            received.extend_from_slice(&buffer[..count]);
        }
        prop_assert_eq!(received.len() as u64, sent, "the count is the number of bytes received");
        received.extend(drive(&mut rest(sent), &mut kernel, &out, &from, 1 << 20));
        prop_assert!(received == all);
    }
}

#[test]
fn each_method_makes_its_system_call() {
    for (method, call) in
        [(Method::Sendfile, 1), (Method::Splice, 4), (Method::Mmap, 3), (Method::ReadWrite, 2), (Method::Vmsplice, 5)]
    {
        let (part, expected) = build(&PartKind::File { before: 100, length: 150_000, after: 0 }, 7);
        let mut transfer = Transfer::new([part], method, Target::Socket, Disk::MayBlock);
        let mut kernel = Hostile::new(7);
        // `mmap` is replaced by `read-write` where residency is unknown.
        kernel.reports_residency = true;
        let (out, from) = pair();
        assert!(drive(&mut transfer, &mut kernel, &out, &from, 1 << 20) == expected);
        assert!(kernel.calls[call] > 0, "{method:?}: {:?}", kernel.calls);
        assert_eq!(transfer.report().method, method);
    }
}

#[test]
fn a_file_truncated_during_the_transfer_fails_for_every_method() {
    for method in Method::ALL {
        for cut in [150_000u64, 151_000, 4096] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&bytes(300_000, 3)).expect("room on the disk");
            file.seek(SeekFrom::Start(0)).expect("seekable");
            let file: Arc<File> = Arc::new(file);
            let part = Part::File { file: file.clone(), offset: 0, length: 300_000 };
            let mut transfer = Transfer::new([part], method, Target::Socket, Disk::MayBlock);
            let (out, from) = pair();
            transfer.advance(&out, &mut Budget::new(10_000)).expect("the file is whole");
            file.set_len(cut).expect("truncated");
            let mut buffer = vec![0; 1 << 20];
            let error = loop {
                let _ = (&mut &from).read(&mut buffer);
                match transfer.advance(&out, &mut Budget::unlimited()) {
                    Ok(Progress::Done) => panic!("{method:?}: sent bytes beyond {cut}"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.code(), zerosend_core::Code::Truncated, "{method:?}: {error}");
        }
    }
}

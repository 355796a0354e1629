//! Chooses the method for `auto`: a table, with the measurement behind each row.
//!
//! The figures are from `benches/methods.rs` (`cargo bench -p zerosend-core --bench methods`) on a virtual machine with two
//! cores, sender and receiver on a core each: bytes per second relative to `read-write` in the same run.
//! `docs/methods.md` has all of them.

use super::{Method, Target};

/// The kinds of descriptor that the table distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Tcp,
    UnixSocket,
    /// A pipe, file or terminal.
    Fd,
}

/// Peer, maximum of bytes, method.
struct Row(Peer, u64, Method);

/// Up to this many bytes of a file that is mapped already (in the file cache) are sent by `mmap`: head and file in one call,
/// and no mapping to make.
const MAX_MAPPED: u64 = 256 * 1024;

const TABLE: [Row; 4] = [
    // The buffer is in the CPU cache, and the head is sent in the same sendmsg. sendfile: 0.74 at 1 KiB, 0.75 at 4 KiB, 0.99 at
    // 16 KiB, 0.88 at 64 KiB.
    Row(Peer::Tcp, 64 * 1024, Method::ReadWrite),
    // 1.19 at 256 KiB, 2.1 at 1 MiB, 1.6 at 16 MiB, 1.8 at 64 MiB. splice is as fast within the spread, with twice the
    // calls; mmap is slower up to 256 KiB (0.72), because mapping costs more than it saves.
    Row(Peer::Tcp, u64::MAX, Method::Sendfile),
    // Pages are passed one by one: sendfile is 0.29 to 0.90 at every size, splice 0.31 to 0.93.
    Row(Peer::UnixSocket, u64::MAX, Method::ReadWrite),
    // Not measured: sendfile(2) copies nothing.
    Row(Peer::Fd, u64::MAX, Method::Sendfile),
];

/// The method for a file part of `length` bytes when the options name `wanted`. `is_unix` tells whether a socket is a Unix
/// socket; it is called only where the result depends on it.
pub(super) fn choose(
    wanted: Method,
    length: u64,
    target: Target,
    is_mapped: bool,
    is_unix: impl FnOnce() -> bool,
) -> Method {
    if wanted != Method::Auto {
        return wanted;
    }
    if is_mapped && length <= MAX_MAPPED && target == Target::Socket {
        return Method::Mmap;
    }
    let peer = match target {
        Target::Fd => Peer::Fd,
        Target::Socket if look_up(Peer::Tcp, length) == look_up(Peer::UnixSocket, length) => Peer::Tcp,
        Target::Socket if is_unix() => Peer::UnixSocket,
        Target::Socket => Peer::Tcp,
    };
    look_up(peer, length)
}

fn look_up(peer: Peer, length: u64) -> Method {
    let row = TABLE.iter().find(|Row(of, up_to, _)| *of == peer && length <= *up_to);
    row.map_or(Method::ReadWrite, |Row(_, _, method)| *method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_length_and_peer() {
        for length in [0, 1, 65_536, 65_537, u64::MAX] {
            for peer in [Peer::Tcp, Peer::UnixSocket, Peer::Fd] {
                assert!(TABLE.iter().any(|Row(of, up_to, _)| *of == peer && length <= *up_to));
            }
            assert_eq!(choose(Method::Mmap, length, Target::Socket, false, || panic!("not called")), Method::Mmap);
        }
        assert_eq!(choose(Method::Auto, 100, Target::Socket, false, || panic!("not called")), Method::ReadWrite);
        assert_eq!(choose(Method::Auto, 1 << 20, Target::Socket, false, || false), Method::Sendfile);
        assert_eq!(choose(Method::Auto, 1 << 20, Target::Socket, false, || true), Method::ReadWrite);
        assert_eq!(choose(Method::Auto, 100_000, Target::Socket, true, || panic!("not called")), Method::Mmap);
        assert_eq!(choose(Method::Auto, 1 << 20, Target::Fd, false, || panic!("not called")), Method::Sendfile);
    }
}

//! What `auto` means: a table, each row with the measurement that put it there.
//!
//! The figures are of `benches/methods.rs` (`cargo bench -p zerosend-core --bench methods`) on a virtual machine with two
//! cores, sender and receiver on a core each: bytes per second as a multiple of `read-write`'s in the same run.
//! `docs/methods.md` has all of them.

use super::{Method, Target};

/// What the bytes go to, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Tcp,
    UnixSocket,
    /// A pipe, file or terminal.
    Stream,
}

/// Up to how many bytes, which method.
struct Row(Peer, u64, Method);

/// Up to this many bytes of a file that somebody keeps mapped (the file cache) go by `mmap`: one call with the head, and no
/// mapping to make.
const MAPPED: u64 = 256 * 1024;

const TABLE: [Row; 4] = [
    // The copy is through a warm buffer, and the head goes in the same sendmsg. sendfile: 0.74 at 1 KiB, 0.75 at 4 KiB, 0.99 at
    // 16 KiB, 0.88 at 64 KiB.
    Row(Peer::Tcp, 64 * 1024, Method::ReadWrite),
    // 1.19 at 256 KiB, 2.1 at 1 MiB, 1.6 at 16 MiB, 1.8 at 64 MiB. splice is as fast within the spread, and makes twice the
    // calls; mmap is slower up to 256 KiB (0.72), for mapping costs more than it saves.
    Row(Peer::Tcp, u64::MAX, Method::Sendfile),
    // Pages are handed over one by one there: sendfile is 0.29 to 0.90 at every size, splice 0.31 to 0.93.
    Row(Peer::UnixSocket, u64::MAX, Method::ReadWrite),
    // Not measured: sendfile(2) copies nothing.
    Row(Peer::Stream, u64::MAX, Method::Sendfile),
];

/// The method for a file part of `length` bytes when the user asked for `wanted`. `is_unix` says whether a socket is one
/// of those, and is asked only where that decides.
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
    if is_mapped && length <= MAPPED && target == Target::Socket {
        return Method::Mmap;
    }
    let peer = match target {
        Target::Stream => Peer::Stream,
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
    fn the_table_has_a_row_for_everything() {
        for length in [0, 1, 65_536, 65_537, u64::MAX] {
            for peer in [Peer::Tcp, Peer::UnixSocket, Peer::Stream] {
                assert!(TABLE.iter().any(|Row(of, up_to, _)| *of == peer && length <= *up_to));
            }
            assert_eq!(choose(Method::Mmap, length, Target::Socket, false, || panic!("not asked")), Method::Mmap);
        }
        assert_eq!(choose(Method::Auto, 100, Target::Socket, false, || panic!("not asked")), Method::ReadWrite);
        assert_eq!(choose(Method::Auto, 1 << 20, Target::Socket, false, || false), Method::Sendfile);
        assert_eq!(choose(Method::Auto, 1 << 20, Target::Socket, false, || true), Method::ReadWrite);
        assert_eq!(choose(Method::Auto, 100_000, Target::Socket, true, || panic!("not asked")), Method::Mmap);
        assert_eq!(choose(Method::Auto, 1 << 20, Target::Stream, false, || panic!("not asked")), Method::Sendfile);
    }
}

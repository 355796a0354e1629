//! Socket options of both sides of a link.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Unanswered keep-alive probes after which the kernel closes a connection.
const KEEP_ALIVE_PROBES: u32 = 6;

/// Sets the options of a listening socket, from which accepted sockets inherit them, or of a socket before it connects.
///
/// - `SO_OOBINLINE`: a byte of urgent data stays at its place in the stream; without it recv(2) skips the byte.
/// - `SO_KEEPALIVE`: the first probe after `keep_alive` without a segment, then six probes in the same time, so that an
///   unreachable peer is detected although nothing is written to it. `tcp_retries2` of tcp(7) bounds the time that written
///   bytes may stay unacknowledged. `TCP_USER_TIMEOUT` is not set: it would close connections whose peer is alive but does not
///   read.
pub(super) fn set(socket: &impl AsFd, keep_alive: Duration) {
    let _ = setsockopt(socket, sockopt::OobInline, &true);
    if keep_alive.is_zero() || setsockopt(socket, sockopt::KeepAlive, &true).is_err() {
        return;
    }
    // Seconds, 32,767 at most (`MAX_TCP_KEEPIDLE` in the kernel). Unix sockets have none of these options.
    let idle = keep_alive.as_millis().div_ceil(1000).clamp(1, 32_767) as u32;
    if setsockopt(socket, sockopt::TcpKeepIdle, &idle).is_ok() {
        let _ = setsockopt(socket, sockopt::TcpKeepInterval, &idle.div_ceil(KEEP_ALIVE_PROBES));
        let _ = setsockopt(socket, sockopt::TcpKeepCount, &KEEP_ALIVE_PROBES);
    }
}

/// Sets the options of an open socket; keep-alive settings that it already has stay.
pub(super) fn set_for_session(socket: &impl AsFd, keep_alive: Duration) {
    let has_keep_alive = getsockopt(socket, sockopt::KeepAlive).unwrap_or(false);
    set(socket, if has_keep_alive { Duration::ZERO } else { keep_alive });
}

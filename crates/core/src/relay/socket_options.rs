//! Options of the sockets on both sides.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Probes of a silent peer before its connection is given up.
const PROBES: u32 = 6;

/// Prepares a socket that listens, whose connections inherit all of it, or that is about to connect.
///
/// - `SO_OOBINLINE`: a byte of urgent data stays in its place in the stream; without it recv(2) leaves the byte out.
/// - `SO_KEEPALIVE` after `keep_alive` without a segment, then six probes in the same time again: an unreachable peer is
///   found although nothing is written to it. Bytes that were written are bounded by `tcp_retries2` of tcp(7) anyway.
///   `TCP_USER_TIMEOUT` would end connections whose peer is alive and does not read, so it is not used.
pub(super) fn set(socket: &impl AsFd, keep_alive: Duration) {
    let _ = setsockopt(socket, sockopt::OobInline, &true);
    if keep_alive.is_zero() || setsockopt(socket, sockopt::KeepAlive, &true).is_err() {
        return;
    }
    // In seconds, at most 32,767 (`MAX_TCP_KEEPIDLE` in the kernel). Unix sockets know none of them.
    let idle = keep_alive.as_millis().div_ceil(1000).clamp(1, 32_767) as u32;
    if setsockopt(socket, sockopt::TcpKeepIdle, &idle).is_ok() {
        let _ = setsockopt(socket, sockopt::TcpKeepInterval, &idle.div_ceil(PROBES));
        let _ = setsockopt(socket, sockopt::TcpKeepCount, &PROBES);
    }
}

/// Prepares a socket that was opened elsewhere: probes that are on already stay as they are.
pub(super) fn set_session_socket_options(socket: &impl AsFd, keep_alive: Duration) {
    let is_probed = getsockopt(socket, sockopt::KeepAlive).unwrap_or(false);
    set(socket, if is_probed { Duration::ZERO } else { keep_alive });
}

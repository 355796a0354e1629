//! Replaces the C library's wrappers of system calls in this test binary. By a seed, each call may fail, move fewer bytes than
//! requested, or be delayed.
//!
//! Symbols of an executable take precedence over those of shared libraries, so every call of zerosend, `nix` and the standard
//! library is made through these functions. They affect only zerosend's threads (their names begin with `zerosend-`) and threads
//! with an [`OnThisThread`]; clients and peers of the tests are not affected.
//!
//! The errors are those that a kernel can return for the call. `EAGAIN` is returned only where no readiness event must follow: an
//! edge-triggered descriptor that returns `EAGAIN` while it is readable would never be reported again, and the kernel does not do
//! that. `EPIPE` is not returned: it requires that the peer has closed its side, which these peers do not.
#![allow(unsafe_code, reason = "the functions have the signatures of the C library")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use libc::{EpollEvent, iovec, mode_t, msghdr, off64_t, size_t, sockaddr, socklen_t, ssize_t, stat64};

mod libc {
    #![allow(non_camel_case_types)]
    pub use ::libc::*;
    pub type EpollEvent = epoll_event;
}

/// Chances in a thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// The call fails.
    pub error: u32,
    /// It moves fewer bytes than requested.
    pub short: u32,
    /// It takes up to three milliseconds longer.
    pub delay: u32,
}

static SEED: AtomicU64 = AtomicU64::new(0);
/// Counts changes of the seed, so that threads notice them.
static EPOCH: AtomicU32 = AtomicU32::new(0);
static ERROR: AtomicU32 = AtomicU32::new(0);
static SHORT: AtomicU32 = AtomicU32::new(0);
static DELAY: AtomicU32 = AtomicU32::new(0);
static INJECTED: AtomicU64 = AtomicU64::new(0);

/// Prints each failure.
pub static TRACE: AtomicBool = AtomicBool::new(false);

/// Only calls of this name fail.
pub static ONLY: OnceLock<String> = OnceLock::new();

/// Lets calls fail at these rates from now on.
pub fn begin(seed: u64, rates: Rates) {
    SEED.store(seed, Ordering::Relaxed);
    ERROR.store(rates.error, Ordering::Relaxed);
    SHORT.store(rates.short, Ordering::Relaxed);
    DELAY.store(rates.delay, Ordering::Relaxed);
    EPOCH.fetch_add(1, Ordering::Release);
}

/// Stops all faults.
pub fn end() {
    begin(0, Rates::default());
}

/// Failures, short counts and delays so far.
pub fn injected() -> u64 {
    INJECTED.load(Ordering::Relaxed)
}

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
    static SEEN: Cell<u32> = const { Cell::new(0) };
    /// This is a thread of zerosend.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Until it is dropped, calls of this thread are affected too.
pub struct OnThisThread(());

impl OnThisThread {
    pub fn new() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }
}

impl Drop for OnThisThread {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

fn is_affected() -> bool {
    if DEPTH.get() > 0 {
        return true;
    }
    if !IS_OURS.get() {
        let mut name = [0u8; 16];
        // SAFETY: PR_GET_NAME writes 16 bytes at most, the size of the buffer; see prctl(2).
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        // A new thread has its parent's name until it sets its own, so another name is not final.
        IS_OURS.set(name.starts_with(b"zerosend-"));
    }
    IS_OURS.get()
}

/// xorshift64*, seeded for each thread and epoch.
pub fn random() -> u64 {
    let epoch = EPOCH.load(Ordering::Acquire);
    if SEEN.get() != epoch || STATE.get() == 0 {
        SEEN.set(epoch);
        // SAFETY: gettid(2) takes nothing and cannot fail.
        let thread = unsafe { libc::gettid() } as u64;
        STATE.set((SEED.load(Ordering::Relaxed) ^ thread.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
    }
    let mut state = STATE.get();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    STATE.set(state);
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
}

fn chance(rate: &AtomicU32) -> bool {
    let rate = rate.load(Ordering::Relaxed);
    rate > 0 && random() % 1000 < u64::from(rate)
}

/// Delays the call at the rate of delays. Returns the errno it fails with, if it fails.
fn failure(name: &str, errnos: &[c_int]) -> Option<c_int> {
    if !is_affected() {
        return None;
    }
    if chance(&DELAY) {
        INJECTED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: usleep(3) takes a number only.
        unsafe { libc::usleep((random() % 3000) as c_uint) };
    }
    if errnos.is_empty() || !chance(&ERROR) {
        return None;
    }
    INJECTED.fetch_add(1, Ordering::Relaxed);
    if ONLY.get().is_some_and(|only| only != name) {
        return None;
    }
    let errno = errnos[(random() % errnos.len() as u64) as usize];
    if TRACE.load(Ordering::Relaxed) {
        eprintln!("{name}: {}", std::io::Error::from_raw_os_error(errno));
    }
    Some(errno)
}

/// The length, or a shorter one at the rate of short counts.
fn shortened(length: size_t) -> size_t {
    if length > 1 && is_affected() && chance(&SHORT) {
        INJECTED.fetch_add(1, Ordering::Relaxed);
        return 1 + (random() as size_t) % (length - 1);
    }
    length
}

fn fail_with(errno: c_int) {
    // SAFETY: the address of this thread's errno, which lives as long as the thread.
    unsafe { *libc::__errno_location() = errno };
}

/// The address of the function in the C library.
fn real(cache: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cache.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: a string that ends with NUL; RTLD_NEXT finds the definition after that of this executable.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null(), "the C library has no {name:?}");
    cache.store(found, Ordering::Relaxed);
    found
}

fn name(with_nul: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(with_nul.as_bytes()).unwrap_or(c"")
}

/// Defines a wrapper: its errors, and the argument whose length may be shortened.
macro_rules! wrap {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty, $errnos:expr $(, short $length:ident)?;)*) => { $(
        /// Replaces the C library's function.
        ///
        /// # Safety
        ///
        /// As for the function of that name.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            let errnos: &[c_int] = $errnos;
            if let Some(errno) = failure(stringify!($name), errnos) {
                fail_with(errno);
                return !0;
            }
            $(let $length = shortened($length);)?
            let address = real(&REAL, name(concat!(stringify!($name), "\0")));
            // SAFETY: the C library's function of this name has this type.
            let function = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $result>(address) };
            // SAFETY: the caller guarantees valid arguments.
            unsafe { function($($argument),*) }
        }
    )* };
}

/// Reads of eventfd(2) have eight bytes and cannot fail in a kernel.
fn unless_wakeup(length: size_t, errnos: &'static [c_int]) -> &'static [c_int] {
    if length == 8 { &[] } else { errnos }
}

fn on_add(operation: c_int, errnos: &'static [c_int]) -> &'static [c_int] {
    if operation == libc::EPOLL_CTL_ADD { errnos } else { &[] }
}

const OPEN: &[c_int] = &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO, libc::EINTR];
const READ: &[c_int] = &[libc::EIO, libc::EINTR, libc::ENOMEM];
const WRITE: &[c_int] = &[libc::EIO, libc::ENOSPC, libc::EINTR];
const RECEIVE: &[c_int] = &[libc::EINTR, libc::ENOMEM, libc::ECONNRESET, libc::ETIMEDOUT];
const SEND: &[c_int] = &[libc::EINTR, libc::ENOMEM, libc::ENOBUFS, libc::ECONNRESET];
const MOVE: &[c_int] = &[libc::EINTR, libc::ENOMEM, libc::EIO];
const ACCEPT: &[c_int] =
    &[libc::EINTR, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED, libc::EPROTO];
const CONNECT: &[c_int] = &[libc::ECONNREFUSED, libc::ENETUNREACH, libc::EADDRNOTAVAIL, libc::ETIMEDOUT];
const DESCRIPTORS: &[c_int] = &[libc::EMFILE, libc::ENFILE];

wrap! {
    read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t, unless_wakeup(length, READ), short length;
    pread(fd: c_int, buffer: *mut c_void, length: size_t, at: off64_t) -> ssize_t, READ, short length;
    pread64(fd: c_int, buffer: *mut c_void, length: size_t, at: off64_t) -> ssize_t, READ, short length;
    pwrite(fd: c_int, buffer: *const c_void, length: size_t, at: off64_t) -> ssize_t, WRITE, short length;
    pwrite64(fd: c_int, buffer: *const c_void, length: size_t, at: off64_t) -> ssize_t, WRITE, short length;
    recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t, RECEIVE, short length;
    send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t, SEND, short length;
    writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t, WRITE;
    sendfile64(out: c_int, file: c_int, at: *mut off64_t, length: size_t) -> ssize_t, MOVE, short length;
    splice(from: c_int, from_at: *mut off64_t, to: c_int, to_at: *mut off64_t, length: size_t, flags: c_uint) -> ssize_t,
        MOVE, short length;
    tee(from: c_int, to: c_int, length: size_t, flags: c_uint) -> ssize_t, &[libc::ENOMEM], short length;
    vmsplice(fd: c_int, vectors: *const iovec, count: size_t, flags: c_uint) -> ssize_t, &[libc::ENOMEM];
    accept4(fd: c_int, name: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int, ACCEPT;
    connect(fd: c_int, name: *const sockaddr, length: socklen_t) -> c_int, CONNECT;
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, DESCRIPTORS;
    pipe2(ends: *mut c_int, flags: c_int) -> c_int, DESCRIPTORS;
    epoll_wait(fd: c_int, events: *mut EpollEvent, count: c_int, wait: c_int) -> c_int, &[libc::EINTR];
    epoll_ctl(fd: c_int, operation: c_int, of: c_int, event: *mut EpollEvent) -> c_int,
        on_add(operation, &[libc::ENOMEM, libc::ENOSPC]);
    fstat64(fd: c_int, stat: *mut stat64) -> c_int, &[libc::EIO, libc::ENOMEM];
    open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, OPEN;
    openat64(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, OPEN;
    openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, OPEN;
    syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long,
        by_number(number);
}

/// Errors of calls without a wrapper in the C library, by number.
fn by_number(number: c_long) -> &'static [c_int] {
    match number {
        libc::SYS_openat2 => OPEN,
        libc::SYS_statx => &[libc::EIO, libc::ENOMEM, libc::EINTR],
        // RWF_NOWAIT: not in the page cache.
        libc::SYS_preadv2 => &[libc::EAGAIN, libc::EIO, libc::EINTR],
        _ => &[],
    }
}

/// Replaces the C library's function. It may send only a part of the first vector.
///
/// # Safety
///
/// As for sendmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    if let Some(errno) = failure("sendmsg", SEND) {
        fail_with(errno);
        return -1;
    }
    // SAFETY: the C library's function of this name has this type.
    let function: unsafe extern "C" fn(c_int, *const msghdr, c_int) -> ssize_t =
        unsafe { std::mem::transmute(real(&REAL, c"sendmsg")) };
    // SAFETY: the caller's message is valid, with as many vectors as it says.
    let (mut copy, first) = unsafe { (*message, (*message).msg_iov.as_ref().copied()) };
    if let Some(mut first) = first {
        let length = shortened(first.iov_len);
        if length != first.iov_len {
            first.iov_len = length;
            copy.msg_iov = &raw mut first;
            copy.msg_iovlen = 1;
            // SAFETY: `copy` is the caller's message with one vector, a part of its first.
            return unsafe { function(fd, &raw const copy, flags) };
        }
    }
    // SAFETY: the caller guarantees valid arguments.
    unsafe { function(fd, message, flags) }
}

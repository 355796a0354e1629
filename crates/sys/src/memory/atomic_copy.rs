//! Copies from and to memory that another process may write at the same time.
//!
//! A plain copy (`memcpy`) would be a data race, which is undefined behavior, when a peer breaks the protocol that orders the
//! accesses. Relaxed atomic accesses have a defined result in every case: bytes that change meanwhile are read with their old
//! or their new value.
//!
//! The compiler does not vectorize atomic accesses, which takes two to three times as long as `memcpy`. So on x86-64 longer
//! copies are made by `rep movsb`, which is as fast as `memcpy` on processors with ERMS (Intel since 2012, AMD since 2020).

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const WORD: usize = size_of::<usize>();

/// Copies of at least this many bytes are made by `rep movsb`. Below, starting it costs more on processors without FSRM.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const MIN_MOVSB: usize = 128;

/// Copies `length` bytes as by one relaxed atomic load and store for each byte.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of `length` bytes, and the two do not overlap. This process accesses bytes that
/// other threads or processes may access at the same time only by atomic operations.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn movsb(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the instruction reads `length` bytes from `rsi` on and writes them from `rdi` on, ascending, because the direction
    // flag is clear at the start of every `asm!` block; all are valid (the contract of this function). It changes only the three
    // registers, uses no stack, and leaves the flags. The processor accesses each byte as a whole, so the block does what
    // relaxed atomic accesses of single bytes would do; a concurrent write of another process is not a data race.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") length => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies `bytes` to `to`.
///
/// # Safety
///
/// `to` is valid for writes of `bytes.len()` bytes. This process accesses them only by atomic operations, or while no other
/// access of it can happen at the same time.
pub(super) unsafe fn store(to: NonNull<u8>, bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if bytes.len() >= MIN_MOVSB {
        // SAFETY: `to` is valid for writes and accessed atomically (the contract of this function). `bytes` is an ordinary slice, so
        // it is valid for reads, does not change meanwhile, and does not overlap with memory that other processes write.
        return unsafe { movsb(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }
    let (head, rest) = bytes.split_at(unaligned(to, bytes.len()));
    let (words, tail) = rest.as_chunks::<WORD>();
    let first_word = to.as_ptr().wrapping_add(head.len()).cast::<usize>();
    let store_byte = |index: usize, byte: u8| {
        // SAFETY: the index is that of a byte of `bytes`, so the address is within the destination, which is valid for writes and
        // accessed atomically (the contract of this function). A byte has no alignment.
        unsafe { AtomicU8::from_ptr(to.as_ptr().add(index)) }.store(byte, Ordering::Relaxed);
    };
    for (index, byte) in head.iter().enumerate() {
        store_byte(index, *byte);
    }
    for (index, word) in words.iter().enumerate() {
        // SAFETY: the index is that of a word of `bytes` behind `head`, so the address is within the destination, which is valid for
        // writes and accessed atomically (the contract of this function). It is aligned: `head` has the bytes before the first
        // aligned address.
        unsafe { AtomicUsize::from_ptr(first_word.add(index)) }.store(usize::from_ne_bytes(*word), Ordering::Relaxed);
    }
    for (index, byte) in tail.iter().enumerate() {
        store_byte(bytes.len() - tail.len() + index, *byte);
    }
}

/// Copies bytes from `from` to all of `into`.
///
/// # Safety
///
/// `from` is valid for reads and writes of `into.len()` bytes. This process accesses them only by atomic operations, or while
/// no other access of it can happen at the same time.
pub(super) unsafe fn load(from: NonNull<u8>, into: &mut [u8]) {
    let length = into.len();
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if length >= MIN_MOVSB {
        // SAFETY: `from` is valid for reads and accessed atomically (the contract of this function). `into` is borrowed exclusively,
        // so it is valid for writes, has no other accesses, and does not overlap.
        return unsafe { movsb(from.as_ptr(), into.as_mut_ptr(), length) };
    }
    let (head, rest) = into.split_at_mut(unaligned(from, length));
    let first_word = from.as_ptr().wrapping_add(head.len()).cast::<usize>();
    let (words, tail) = rest.as_chunks_mut::<WORD>();
    let load_byte = |index: usize| {
        // SAFETY: the index is that of a byte of `into`, so the address is within the source, which is valid and accessed atomically
        // (the contract of this function). A byte has no alignment.
        unsafe { AtomicU8::from_ptr(from.as_ptr().add(index)) }.load(Ordering::Relaxed)
    };
    for (index, byte) in head.iter_mut().enumerate() {
        *byte = load_byte(index);
    }
    for (index, word) in words.iter_mut().enumerate() {
        // SAFETY: the index is that of a word of `into` behind `head`, so the address is within the source, which is valid and accessed
        // atomically (the contract of this function). It is aligned: `head` has the bytes before the first aligned address.
        *word = unsafe { AtomicUsize::from_ptr(first_word.add(index)) }.load(Ordering::Relaxed).to_ne_bytes();
    }
    let before = length - tail.len();
    for (index, byte) in tail.iter_mut().enumerate() {
        *byte = load_byte(before + index);
    }
}

/// The `N` bytes at `from`, for small `N`.
///
/// # Safety
///
/// `from` is valid for reads and writes of `N` bytes. This process accesses them only by atomic operations, or while no other
/// access of it can happen at the same time.
pub(super) unsafe fn load_array<const N: usize>(from: NonNull<u8>) -> [u8; N] {
    std::array::from_fn(|index| {
        // SAFETY: `index < N`, so the address is within the source, which is valid and accessed atomically (the contract of this
        // function). A byte has no alignment.
        unsafe { AtomicU8::from_ptr(from.as_ptr().add(index)) }.load(Ordering::Relaxed)
    })
}

/// Bytes before the first address that is aligned to a word, at most `length`.
fn unaligned(start: NonNull<u8>, length: usize) -> usize {
    (start.addr().get().wrapping_neg() % WORD).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Miri runs this as well (`cargo +nightly miri test -p zerosend-sys atomic_copy`): it has no system calls.
    #[test]
    fn all_lengths_at_all_alignments_are_copied_and_nothing_beyond() {
        let source: Vec<u8> = (1..=200).collect();
        for at in 0..WORD {
            for length in (0..20).chain([31, 65, 127, 128, 129, 200]) {
                let mut memory = [0_usize; 32];
                let bytes = memory.as_mut_ptr().cast::<u8>();
                let mut back = vec![0; length];
                // SAFETY: `at + length` and `at + 4` are less than the 256 bytes of `memory`, which nothing else accesses meanwhile.
                let first = unsafe {
                    let start = NonNull::new(bytes.add(at)).expect("an address");
                    store(start, &source[..length]);
                    load(start, &mut back);
                    load_array::<4>(start)
                };
                assert_eq!(first[..length.min(4)], source[..length.min(4)]);
                assert!(back == source[..length], "{length} bytes at {at}");
                let memory: Vec<u8> = memory.iter().flat_map(|word| word.to_ne_bytes()).collect();
                assert!(memory[..at].iter().chain(&memory[at + length..]).all(|byte| *byte == 0));
            }
        }
    }
}

//! Reading until a buffer is full.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::uio::pread;

use zerosend_sys::SysResult;

/// Fills `buffer` with `pread(2)` from `offset` on. Returns the number of bytes read: fewer than the buffer holds only at the end
/// of the file.
pub fn read_full_at(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> SysResult<usize> {
    read_full(buffer, |rest, filled| {
        let position = offset.checked_add(filled as u64).and_then(|position| i64::try_from(position).ok());
        pread(file.as_fd(), rest, position.ok_or(Errno::EOVERFLOW)?)
    })
}

/// Calls `read` with the rest of `buffer` and the number of bytes before it, until the buffer is full or `read` returns 0.
/// Retries after `EINTR`; another error discards what was read. Returns the number of bytes read.
pub fn read_full(buffer: &mut [u8], mut read: impl FnMut(&mut [u8], usize) -> SysResult<usize>) -> SysResult<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..], filled) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_several_calls_and_retries_after_a_signal() {
        let mut calls = 0;
        let mut buffer = [0; 5];
        let read = read_full(&mut buffer, |rest, filled| {
            calls += 1;
            match calls {
                2 => Err(Errno::EINTR),
                _ => {
                    let count = rest.len().min(2);
                    rest[..count].fill(filled as u8);
                    Ok(count)
                }
            }
        });
        assert_eq!((read, buffer), (Ok(5), [0, 0, 2, 2, 4]));
    }

    #[test]
    fn returns_fewer_bytes_at_the_end_of_the_file() {
        let mut left = 3;
        let read = |_: &mut [u8], _| {
            left -= 1;
            Ok(usize::from(left > 0))
        };
        assert_eq!(read_full(&mut [0; 5], read), Ok(2));
        assert_eq!(read_full(&mut [0; 5], |_, _| Err(Errno::EIO)), Err(Errno::EIO));
    }

    #[test]
    fn an_offset_beyond_63_bits_is_an_error() {
        let file = std::fs::File::open("/proc/self/exe").expect("procfs");
        assert_eq!(read_full_at(&file, u64::MAX, &mut [0]), Err(Errno::EOVERFLOW));
        assert_eq!(read_full_at(&file, 1 << 40, &mut [0]), Ok(0));
    }
}

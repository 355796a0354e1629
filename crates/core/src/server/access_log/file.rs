//! The file of the access log: lines are written whole, or counted as lost.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::fstat;

use super::queue::Shared;
use crate::error;
use crate::output::{self, Output};
use zerosend_sys::SysResult;

/// What a pipe takes at once when `poll(2)` says that it takes something, and what is never mixed with the bytes of others:
/// `PIPE_BUF` of `pipe(7)`.
const PIPE_BUF: usize = 4096;

/// Where lines go to.
pub struct LogFile {
    /// Absent: the standard output.
    name: Option<(PathBuf, u32)>,
    /// Opened, and not yet taken by the thread of the log.
    opened: Mutex<Option<Output>>,
}

impl LogFile {
    /// Opens the file, FIFO or terminal at `path`; a file that is made gets `mode`, less the umask. May wait for a disk, but not for
    /// the reader of a FIFO.
    pub fn open(path: &Path, mode: u32) -> error::Result<Self> {
        let opened = output::open(path, mode)?;
        Ok(Self { name: Some((path.to_owned(), mode)), opened: Mutex::new(Some(opened)) })
    }

    /// The standard output.
    pub fn standard_output() -> error::Result<Self> {
        Ok(Self { name: None, opened: Mutex::new(Some(output::standard_output()?)) })
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.name.as_ref().map(|(path, _)| path.as_path())
    }

    pub(super) fn reopen(&self) -> error::Result<()> {
        if let Some((path, mode)) = &self.name {
            let opened = output::open(path, *mode)?;
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        }
        Ok(())
    }

    fn take(&self) -> Option<Output> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_reopened(&self) -> bool {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Writes lines on the thread of the log.
pub(super) struct LineWriter {
    file: Arc<LogFile>,
    output: Option<Output>,
    torn: Option<Torn>,
}

/// The end of a line whose beginning was written when the disk was full.
struct Torn {
    rest: Vec<u8>,
    /// Of the file, then. Another size now: what follows the beginning is not ours to say.
    size: i64,
}

impl LineWriter {
    pub fn new(file: Arc<LogFile>) -> Self {
        let output = file.take();
        Self { file, output, torn: None }
    }

    /// Writes whole lines; returns how many are lost.
    pub fn write(&mut self, lines: &[u8], shared: &Shared) -> usize {
        let mut lost = 0;
        let mut rest = lines;
        loop {
            if let Some(output) = self.file.take() {
                self.output = Some(output);
                lost += usize::from(self.torn.take().is_some());
            }
            let Some(output) = &self.output else { return lost + count(rest) };
            if !output.is_stream() {
                lost += self.write_to_file(rest);
                shared.set_torn(self.torn.is_some());
                return lost;
            }
            let (written, ended) = self.write_to_stream(output, rest, shared);
            rest = &rest[written..];
            if ended != Ended::Reopened {
                return lost + count(rest);
            }
            // A line that was begun elsewhere is not ended here.
            if written > 0 && lines[lines.len() - rest.len() - 1] != b'\n' {
                rest = &rest[first_line(rest)..];
                lost += 1;
            }
        }
    }

    fn write_to_file(&mut self, lines: &[u8]) -> usize {
        let Some(output) = &self.output else { return count(lines) };
        let mut lost = 0;
        let mut rest = lines;
        let completed;
        let mut begun = false;
        if let Some(torn) = self.torn.take() {
            if size(output) == Some(torn.size) {
                completed = [torn.rest.as_slice(), lines].concat();
                rest = &completed;
                begun = true;
            } else {
                lost += 1;
            }
        }
        while !rest.is_empty() {
            match nix::unistd::write(output, rest) {
                Ok(written @ 1..) => {
                    begun = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => {
                    lost += count(rest);
                    if let Some(size) = size(output).filter(|_| begun) {
                        // Neither lost nor written yet.
                        lost -= 1;
                        self.torn = Some(Torn { rest: rest[..first_line(rest)].to_vec(), size });
                    }
                    break;
                }
            }
        }
        lost
    }

    /// Waits for room in a pipe, socket or terminal, until the log is closed and its time is up. Returns the bytes written.
    fn write_to_stream(&self, output: &Output, lines: &[u8], shared: &Shared) -> (usize, Ended) {
        let mut rest = lines;
        let ended = loop {
            if rest.is_empty() {
                break Ended::Written;
            }
            if let Err(ended) = self.wait(output, shared) {
                break ended;
            }
            match write_some(output, &rest[..whole_lines(rest)]) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => break Ended::Failed,
            }
        };
        (lines.len() - rest.len(), ended)
    }

    /// Waits until `output` takes bytes.
    fn wait(&self, output: &Output, shared: &Shared) -> Result<(), Ended> {
        loop {
            let timeout = match shared.end() {
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Ended::Failed);
                    }
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            let mut ends =
                [PollFd::new(output.as_fd(), PollFlags::POLLOUT), PollFd::new(shared.waker.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ends, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return Err(Ended::Failed),
            }
            if ends[0].any().unwrap_or(false) {
                return Ok(());
            }
            if ends[1].any().unwrap_or(false) {
                shared.waker.clear();
                if self.file.is_reopened() {
                    return Err(Ended::Reopened);
                }
            }
        }
    }
}

/// Why no more is written to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Written,
    Failed,
    Reopened,
}

fn size(output: &Output) -> Option<i64> {
    fstat(output).ok().map(|stat| stat.st_size)
}

/// Bytes up to and with the first newline.
fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

/// As many whole lines as `PIPE_BUF` holds, or a part of one that is longer.
fn whole_lines(bytes: &[u8]) -> usize {
    if bytes.len() <= PIPE_BUF {
        return bytes.len();
    }
    bytes[..PIPE_BUF].iter().rposition(|byte| *byte == b'\n').map_or(PIPE_BUF, |end| end + 1)
}

fn write_some(output: &Output, bytes: &[u8]) -> SysResult<usize> {
    if output.is_socket() {
        send(output.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
    } else {
        nix::unistd::write(output, bytes)
    }
}

//! Writes whole lines to a file or stream.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::fstat;

use super::file::LogFile;
use super::queue::Queue;
use crate::output::Output;
use zerosend_sys::SysResult;

/// `PIPE_BUF` of pipe(7): a write of up to this many bytes is atomic, and does not block after poll(2) has reported room.
const PIPE_BUF: usize = 4096;

pub(super) struct LineWriter {
    file: Arc<LogFile>,
    output: Option<Output>,
    partial: Option<PartialLine>,
}

/// The rest of a line whose start was written when the disk became full.
struct PartialLine {
    rest: Vec<u8>,
    /// Size of the file after the start. If it differs now, another process has written to the file, and the line is lost.
    file_size: i64,
}

impl LineWriter {
    pub fn new(file: Arc<LogFile>) -> Self {
        let output = file.take();
        Self { file, output, partial: None }
    }

    /// Writes complete lines. Returns the number of lost lines.
    pub fn write(&mut self, lines: &[u8], queue: &Queue) -> usize {
        let mut lost = 0;
        let mut rest = lines;
        loop {
            if let Some(output) = self.file.take() {
                self.output = Some(output);
                lost += usize::from(self.partial.take().is_some());
            }
            let Some(output) = &self.output else { return lost + count(rest) };
            if !output.is_stream() {
                lost += self.write_to_file(rest);
                queue.set_partial(self.partial.is_some());
                return lost;
            }
            let (written, stop) = self.write_to_stream(output, rest, queue);
            rest = &rest[written..];
            if stop != Stop::Reopened {
                return lost + count(rest);
            }
            // Skip the rest of a line whose start went to the previous output.
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
        let mut is_line_started = false;
        if let Some(partial) = self.partial.take() {
            if size(output) == Some(partial.file_size) {
                completed = [partial.rest.as_slice(), lines].concat();
                rest = &completed;
                is_line_started = true;
            } else {
                lost += 1;
            }
        }
        while !rest.is_empty() {
            match nix::unistd::write(output, rest) {
                Ok(written @ 1..) => {
                    is_line_started = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => {
                    lost += count(rest);
                    if let Some(file_size) = size(output).filter(|_| is_line_started) {
                        // `Queue::lost` counts the partial line until it is completed.
                        lost -= 1;
                        self.partial = Some(PartialLine { rest: rest[..first_line(rest)].to_vec(), file_size });
                    }
                    break;
                }
            }
        }
        lost
    }

    /// Writes to a pipe, socket or terminal, and waits for room until the deadline of the queue. Returns the number of bytes
    /// written.
    fn write_to_stream(&self, output: &Output, lines: &[u8], queue: &Queue) -> (usize, Stop) {
        let mut rest = lines;
        let stop = loop {
            if rest.is_empty() {
                break Stop::Done;
            }
            if let Err(stop) = self.wait_for_room(output, queue) {
                break stop;
            }
            match write_some(output, &rest[..atomic_len(rest)]) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => break Stop::Failed,
            }
        };
        (lines.len() - rest.len(), stop)
    }

    fn wait_for_room(&self, output: &Output, queue: &Queue) -> Result<(), Stop> {
        loop {
            let timeout = match queue.deadline() {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Stop::Failed);
                    }
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            let mut fds =
                [PollFd::new(output.as_fd(), PollFlags::POLLOUT), PollFd::new(queue.waker.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return Err(Stop::Failed),
            }
            if fds[0].any().unwrap_or(false) {
                return Ok(());
            }
            if fds[1].any().unwrap_or(false) {
                queue.waker.clear();
                if self.file.is_reopened() {
                    return Err(Stop::Reopened);
                }
            }
        }
    }
}

/// Why a write to a stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Done,
    Failed,
    Reopened,
}

fn size(output: &Output) -> Option<i64> {
    fstat(output).ok().map(|stat| stat.st_size)
}

/// Length of the first line with its newline.
fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

/// Length of the complete lines that fit in `PIPE_BUF`; `PIPE_BUF` if the first line is longer.
fn atomic_len(lines: &[u8]) -> usize {
    if lines.len() <= PIPE_BUF {
        return lines.len();
    }
    lines[..PIPE_BUF].iter().rposition(|byte| *byte == b'\n').map_or(PIPE_BUF, |end| end + 1)
}

fn write_some(output: &Output, bytes: &[u8]) -> SysResult<usize> {
    if output.is_socket() {
        send(output.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
    } else {
        nix::unistd::write(output, bytes)
    }
}

//! Driving transfers: one turn on a Node socket, a piece for Node's own queue, a read-ahead, or all of it by the reactor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::{Buffer, Latin1String};
use napi_derive::napi;
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername};
use zerosend_core::event_loop::slab::Token;
use zerosend_core::io::NonBlocking;
use zerosend_core::reactor::{Job, Observer, Reactor, Work};
use zerosend_core::transfer::{Budget, Method, Progress, Report, Transfer};
use zerosend_core::{Code, Error, Result};
use zerosend_sys as sys;

use crate::engine::{Held, Pending, with};
use crate::events::{Answer, Request};
use crate::ffi::JsFd;
use crate::site::Current;

/// Why a turn ended.
#[napi]
pub enum Turn {
    /// Every byte is with the kernel.
    Done,
    /// The socket takes no more now.
    Blocked,
    /// The budget is spent.
    Yield,
    /// The next bytes are not in the page cache.
    Cold,
}

impl From<Progress> for Turn {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Done => Turn::Done,
            Progress::Blocked => Turn::Blocked,
            Progress::Yield => Turn::Yield,
            Progress::Cold => Turn::Cold,
        }
    }
}

/// What a transfer has done so far.
#[napi(object)]
pub struct TransferReport {
    /// Bytes handed to the kernel.
    pub bytes: f64,
    /// The method that moved them.
    #[napi(ts_type = "Exclude<ReturnType<typeof methodNames>[number], 'auto'>")]
    pub method: String,
    /// Syscalls made.
    pub syscalls: f64,
}

impl From<Report> for TransferReport {
    fn from(report: Report) -> Self {
        Self {
            bytes: report.bytes as f64,
            method: report.method.as_str().to_string(),
            syscalls: report.syscalls as f64,
        }
    }
}

/// How the reactor is to drive a transfer.
#[napi(object)]
pub struct DriveOptions {
    /// Milliseconds without progress; none when absent.
    pub timeout: Option<f64>,
    /// Bytes a turn may send at most.
    pub chunk: f64,
    /// Milliseconds between two events of progress; none when absent.
    pub progress: Option<f64>,
    /// `TCP_NODELAY`; left as it is when absent.
    pub no_delay: Option<bool>,
}

/// One turn on the descriptor `fd`, which must be the caller's at this moment. Sends at most `budget` bytes.
#[napi]
pub fn advance(env: &Env, token: f64, #[napi(ts_arg_type = "number")] fd: JsFd, budget: f64) -> napi::Result<Turn> {
    with(env, |engine| turn(engine.transfer(token)?, &fd, budget))
}

/// Makes closing the socket `fd` a reset. Does nothing for what cannot be reset.
#[napi]
pub fn reset_on_close(env: &Env, #[napi(ts_arg_type = "number")] fd: JsFd) -> napi::Result<()> {
    with(env, |_| {
        // A socket that is closed or of another kind needs none.
        let _ = fd.borrow().and_then(sys::socket::reset_on_close);
        Ok(())
    })
}

/// The names of the methods, in the order in which `startCurrent` counts them.
#[napi(ts_return_type = "Array<'auto' | 'sendfile' | 'splice' | 'mmap' | 'read-write' | 'vmsplice'>")]
pub fn method_names() -> Vec<&'static str> {
    Method::ALL.iter().map(|method| method.as_str()).collect()
}

/// One turn of the transfer of the last answer (see `respond`), with `head` (latin1) before it. Below 0: all is sent, by
/// the method with the number `-1 - n` in `methodNames()`. Else the transfer's token times 4, plus the turn.
#[napi]
pub fn start_current(
    env: &Env,
    #[napi(ts_arg_type = "number")] fd: JsFd,
    head: Latin1String,
    budget: f64,
) -> napi::Result<f64> {
    with(env, |engine| {
        let mut transfer = engine.current.take().and_then(Current::into_transfer).ok_or_else(ended)?;
        transfer.prepend(head.to_vec());
        match turn(&mut transfer, &fd, budget)? {
            Turn::Done => {
                let used = transfer.report().method;
                let number = Method::ALL.iter().position(|method| *method == used).unwrap_or(0);
                Ok(-1.0 - number as f64)
            }
            turn => Ok((engine.hold(Held::Transfer(transfer))? * 4 + turn as u64) as f64),
        }
    })
}

/// Bytes that were sent on the socket `fd` and that the peer may still acknowledge; 0 where that cannot be known.
#[napi]
pub fn unacknowledged(env: &Env, #[napi(ts_arg_type = "number")] fd: JsFd) -> napi::Result<f64> {
    with(env, |_| {
        let bytes = fd.borrow().and_then(|socket| {
            // ENOTCONN: the peer has reset the connection, and what it has not acknowledged stays counted.
            getpeername::<SockaddrStorage>(socket.as_raw_fd())?;
            sys::socket::unacknowledged(socket)
        });
        Ok(bytes.unwrap_or(0) as f64)
    })
}

/// Puts `head` (latin1) before a transfer that has not begun.
#[napi]
pub fn set_head(env: &Env, token: f64, head: Latin1String) -> napi::Result<()> {
    with(env, |engine| {
        engine.transfer(token)?.prepend(head.to_vec());
        Ok(())
    })
}

/// Takes the next bytes, at most `max`, out of the transfer. `null`: they are not in the page cache; call `warm`. Empty:
/// nothing is left.
#[napi]
pub fn take(env: &Env, token: f64, max: u32) -> napi::Result<Option<Buffer>> {
    with(env, |engine| Ok(engine.transfer(token)?.take(max as usize)?.map(Buffer::from)))
}

/// Reads ahead what the transfer sends next. `request` is answered when it is resident.
#[napi]
pub fn warm(env: &Env, token: f64, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        let prefetch = engine.transfer(token)?.prefetch();
        let answer = Request::new(&engine.events, request);
        match prefetch {
            Some(prefetch) => {
                let task = prefetch.start(move |prefetched| {
                    answer.answer(prefetched.map(|prefetched| Answer::Prefetched(token as Token, prefetched)));
                });
                engine.jobs.insert(request as u64, Pending::Pool(task));
            }
            // Nothing of a file is left.
            None => answer.answer(Ok(Answer::Ended)),
        }
        Ok(())
    })
}

/// Bytes that have not been handed to the kernel; 0 for a transfer that has ended.
#[napi]
pub fn remaining(env: &Env, token: f64) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.transfer(token).map_or(0.0, |transfer| transfer.remaining() as f64)))
}

/// What the transfer has done so far.
#[napi]
pub fn report(env: &Env, token: f64) -> napi::Result<TransferReport> {
    with(env, |engine| Ok(engine.transfer(token)?.report().into()))
}

/// Hands a transfer and a held target to the reactor. `request` hears of progress and of the end.
#[napi]
pub fn drive(env: &Env, token: f64, target: f64, request: f64, options: DriveOptions) -> napi::Result<()> {
    with(env, |engine| {
        let Some(Held::Target(fd)) = engine.held.remove(target as Token) else { return Err(ended()) };
        let Some(Held::Transfer(mut transfer)) = engine.held.remove(token as Token) else { return Err(ended()) };
        let target = NonBlocking::new(fd)?;
        transfer.set_target(target.target());
        if let Some(on) = options.no_delay {
            set_no_delay(target.as_fd(), on)?;
        }
        let job = Job {
            work: Work::Send(*transfer),
            peer: Arc::new(target),
            timeout: options.timeout.map(milliseconds),
            chunk: options.chunk as u64,
            progress: options.progress.map(milliseconds),
            observer: Box::new(Watch(Request::new(&engine.events, request))),
        };
        let handle = Reactor::global().submit(job)?;
        engine.jobs.insert(request as u64, Pending::Reactor(handle));
        Ok(())
    })
}

/// Aborts what another thread does for `request`; it is answered with `ABORT_ERR`.
#[napi]
pub fn cancel(env: &Env, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.cancel(request);
        Ok(())
    })
}

/// Tells a request how its transfer goes.
pub struct Watch(pub Request);

impl Observer for Watch {
    fn progress(&mut self, sent: u64) {
        self.0.progress(sent);
    }

    fn done(self: Box<Self>, result: Result<Report>) {
        self.0.answer(result.map(Answer::Report));
    }
}

/// Nothing to do for what is not TCP: other sockets have no such delay.
fn set_no_delay(target: BorrowedFd<'_>, on: bool) -> Result<()> {
    match sys::socket::set_no_delay(target, on) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT | Errno::ENOTSOCK) => Ok(()),
        Err(errno) => Err(Error::system("setsockopt", errno)),
    }
}

fn turn(transfer: &mut Transfer, fd: &JsFd, budget: f64) -> Result<Turn> {
    let out = fd.borrow().map_err(|errno| Error::system("sendmsg", errno))?;
    Ok(transfer.advance(out, &mut Budget::new(budget as u64))?.into())
}

pub fn ended() -> Error {
    Error::new(Code::Closed, "the transfer has ended or was released")
}

pub fn milliseconds(count: f64) -> Duration {
    Duration::from_millis(count as u64)
}

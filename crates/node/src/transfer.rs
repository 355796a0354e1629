//! Transfers: one turn on a socket of Node, a chunk for the stream of Node, a prefetch, or all of it on the reactor.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{Buffer, Latin1String};
use napi_derive::napi;
use nix::errno::Errno;
use zerosend_core::io::NonBlocking;
use zerosend_core::reactor::{Observer, Reactor, Work};
use zerosend_core::transfer::{Budget, Method, Progress, Report, Transfer};
use zerosend_core::{Error, Result, reactor};
use zerosend_sys as sys;

use crate::descriptor::{Descriptor, borrow};
use crate::engine::convert::from_milliseconds;
use crate::engine::events::{Payload, Request};
use crate::engine::static_site::not_pending;
use crate::engine::{Engine, Job, with};
use crate::ffi::JsFd;

/// Why a turn ended.
#[napi]
pub enum Turn {
    /// The kernel has all bytes.
    Done,
    /// The send buffer of the socket is full.
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
    /// Bytes that the kernel has accepted.
    pub bytes: f64,
    /// The method that sent them.
    #[napi(ts_type = "Exclude<ReturnType<typeof methodNames>[number], 'auto'>")]
    pub method: String,
    /// System calls made.
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

/// How the reactor sends or receives.
#[napi(object)]
pub struct DriveOptions {
    /// Milliseconds without progress after which it fails. Absent: no limit.
    pub timeout: Option<f64>,
    /// Maximum number of bytes in one turn.
    pub chunk: f64,
    /// Milliseconds between two progress events. Absent: none.
    pub progress: Option<f64>,
    /// The value of `TCP_NODELAY`. Absent: unchanged.
    pub no_delay: Option<bool>,
}

impl DriveOptions {
    /// Gives `work` on `peer` to the reactor. `request` gets the progress; its last event has a `TransferReport`.
    pub fn submit(&self, engine: &mut Engine, work: Work, peer: NonBlocking, request: f64) -> Result<()> {
        let job = reactor::Job {
            work,
            peer: Arc::new(peer),
            timeout: self.timeout.map(from_milliseconds),
            chunk: self.chunk as u64,
            progress: self.progress.map(from_milliseconds),
            observer: Box::new(RequestObserver(engine.request(request))),
        };
        let handle = Reactor::global().submit(job)?;
        engine.add_job(request, Job::Reactor(handle));
        Ok(())
    }
}

struct RequestObserver(Request);

impl Observer for RequestObserver {
    fn progress(&mut self, bytes: u64) {
        self.0.progress(bytes);
    }

    fn done(self: Box<Self>, result: Result<Report>) {
        self.0.complete(result.map(|report| Payload::value(TransferReport::from(report))));
    }
}

/// The names of the methods, in the order of the numbers that `startPending` returns.
#[napi(ts_return_type = "Array<'auto' | 'sendfile' | 'splice' | 'mmap' | 'read-write' | 'vmsplice'>")]
pub fn method_names() -> Vec<&'static str> {
    Method::ALL.iter().map(|method| method.as_str()).collect()
}

/// One turn of at most `budget` bytes on the descriptor `fd`, which the caller keeps open during the call.
#[napi]
pub fn advance(env: &Env, transfer: f64, #[napi(ts_arg_type = "number")] fd: JsFd, budget: f64) -> napi::Result<Turn> {
    with(env, |engine| turn(engine.handles.transfers.get(transfer)?, &fd, budget))
}

/// Starts the transfer of the pending response with this number (see `respond`): one turn with `head` (latin1) before the
/// body. Below 0: all bytes are sent, by the method with the index `-1 - result` in `methodNames()`. Otherwise the handle of
/// the transfer times 4, plus the `Turn`.
#[napi]
pub fn start_pending(
    env: &Env,
    number: f64,
    #[napi(ts_arg_type = "number")] fd: JsFd,
    head: Latin1String,
    budget: f64,
) -> napi::Result<f64> {
    with(env, |engine| {
        let mut transfer = engine.take_pending(number)?.into_transfer().ok_or_else(not_pending)?;
        transfer.prepend(head.to_vec());
        match turn(&mut transfer, &fd, budget)? {
            Turn::Done => {
                let used = transfer.report().method;
                let index = Method::ALL.iter().position(|method| *method == used).unwrap_or(0);
                Ok(-1.0 - index as f64)
            }
            turn => Ok(engine.handles.transfers.register(transfer) * 4.0 + f64::from(turn as u32)),
        }
    })
}

/// Puts `head` (latin1) before a transfer that has not started.
#[napi]
pub fn set_head(env: &Env, transfer: f64, head: Latin1String) -> napi::Result<()> {
    with(env, |engine| {
        engine.handles.transfers.get(transfer)?.prepend(head.to_vec());
        Ok(())
    })
}

/// Takes the next bytes, `max` at most, out of the transfer. `null`: they are not in the page cache; call `prefetch`. Empty:
/// the transfer has no more bytes.
#[napi]
pub fn take(env: &Env, transfer: f64, max: u32) -> napi::Result<Option<Buffer>> {
    with(env, |engine| Ok(engine.handles.transfers.get(transfer)?.take(max as usize)?.map(Buffer::from)))
}

/// Reads the next bytes of the transfer into the page cache; then `request` completes, without a value.
#[napi]
pub fn prefetch(env: &Env, transfer: f64, request: f64) -> napi::Result<()> {
    with(env, |engine| {
        let prefetch = engine.handles.transfers.get(transfer)?.prefetch();
        let pending = engine.request(request);
        match prefetch {
            Some(prefetch) => {
                let task = prefetch.start(move |prefetched| {
                    pending.complete(prefetched.map(|prefetched| {
                        Payload::new(move |reply| {
                            // It may have been released meanwhile.
                            if let Ok(transfer) = reply.handles.transfers.get(transfer) {
                                transfer.prefetched(prefetched);
                            }
                            Ok(())
                        })
                    }));
                });
                engine.add_job(request, Job::Pool(task));
            }
            // All that is left is in memory.
            None => pending.complete(Ok(Payload::empty())),
        }
        Ok(())
    })
}

/// Bytes that the kernel has not accepted yet; 0 for a transfer that was released.
#[napi]
pub fn remaining(env: &Env, transfer: f64) -> napi::Result<f64> {
    with(env, |engine| Ok(engine.handles.transfers.get(transfer).map_or(0.0, |transfer| transfer.remaining() as f64)))
}

/// What the transfer has done so far.
#[napi]
pub fn report(env: &Env, transfer: f64) -> napi::Result<TransferReport> {
    with(env, |engine| Ok(engine.handles.transfers.get(transfer)?.report().into()))
}

/// Lets the reactor send a transfer to a descriptor. Uses up both handles. The last event of `request` has a
/// `TransferReport` as its value.
#[napi]
pub fn drive(env: &Env, transfer: f64, target: f64, request: f64, options: DriveOptions) -> napi::Result<()> {
    with(env, |engine| {
        let target: Descriptor = engine.handles.objects.remove(target)?;
        let mut transfer = engine.handles.transfers.remove(transfer)?;
        let target = target.into_nonblocking()?;
        transfer.set_target(target.target());
        if let Some(on) = options.no_delay {
            set_no_delay(target.as_fd(), on)?;
        }
        options.submit(engine, Work::Send(transfer), target, request)
    })
}

/// Succeeds for sockets other than TCP, which do not have the option.
fn set_no_delay(target: BorrowedFd<'_>, on: bool) -> Result<()> {
    match sys::socket::set_no_delay(target, on) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOPROTOOPT | Errno::ENOTSOCK) => Ok(()),
        Err(errno) => Err(Error::system("setsockopt", errno)),
    }
}

fn turn(transfer: &mut Transfer, fd: &JsFd, budget: f64) -> Result<Turn> {
    Ok(transfer.advance(borrow("sendmsg", fd)?, &mut Budget::new(budget as u64))?.into())
}

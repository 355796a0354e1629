//! Measures one method for `zerosend bench`.

use std::path::PathBuf;
use std::time::Duration;

use napi::Env;
use napi_derive::napi;
use zerosend_tools::bench::{self, Case, Sample, Socket, Usage};

use crate::engine::background_task::run_in_background;
use crate::engine::convert::parse_enum;
use crate::engine::events::Payload;
use crate::engine::guard::guard;

/// One measurement.
#[napi(object)]
pub struct BenchCase {
    pub path: String,
    #[napi(ts_type = "ReturnType<typeof methodNames>[number]")]
    pub method: String,
    /// The buffer size of `read-write`, or the maximum number of bytes of a call of another method. Default: that of the method.
    pub chunk: Option<f64>,
    #[napi(ts_type = "'tcp' | 'unix'")]
    pub socket: String,
    /// Evict the file from the page cache before each repetition.
    pub cold: bool,
    /// Milliseconds; the file is sent again until they have passed.
    pub min_time: f64,
}

/// The result of a measurement.
#[napi(object, object_from_js = false)]
pub struct BenchSample {
    /// Bytes sent, over all repetitions.
    pub bytes: f64,
    /// Repetitions.
    pub times: f64,
    pub seconds: f64,
    #[napi(ts_type = "Exclude<ReturnType<typeof methodNames>[number], 'auto'>")]
    pub method: &'static str,
    /// System calls that send.
    pub syscalls: f64,
    /// Calls of poll(2) for a full socket.
    pub polls: f64,
    pub sender: BenchUsage,
    pub receiver: BenchUsage,
    /// Pages of the file in the page cache before a repetition, on average.
    pub resident: f64,
    /// Pages of the file.
    pub pages: f64,
}

/// What a thread has used: getrusage(2).
#[napi(object, object_from_js = false)]
pub struct BenchUsage {
    /// Seconds of CPU time in user mode.
    pub user: f64,
    /// Seconds of CPU time in the kernel.
    pub system: f64,
    /// Voluntary context switches.
    pub waits: f64,
    /// Involuntary context switches.
    pub preemptions: f64,
}

/// Runs a measurement. The event of `request` has a `BenchSample` as its value. Returns a handle; releasing it stops the
/// measurement.
#[napi]
pub fn bench(env: &Env, request: f64, options: BenchCase) -> napi::Result<f64> {
    let path = PathBuf::from(options.path);
    let case = guard(env, || {
        Ok(Case {
            method: options.method.parse()?,
            chunk: options.chunk.map(|bytes| bytes as u64),
            socket: parse_enum("socket", &options.socket, SOCKETS)?,
            cold: options.cold,
            min_time: Duration::from_secs_f64(options.min_time / 1000.0),
        })
    })?;
    run_in_background(env, request, move |stop, _| {
        Ok(Payload::value(BenchSample::from(bench::run(&path, case, stop)?)))
    })
}

impl From<Sample> for BenchSample {
    fn from(sample: Sample) -> Self {
        Self {
            bytes: sample.bytes as f64,
            times: sample.times as f64,
            seconds: sample.time.as_secs_f64(),
            method: sample.method.as_str(),
            syscalls: sample.syscalls as f64,
            polls: sample.polls as f64,
            sender: sample.sender.into(),
            receiver: sample.receiver.into(),
            resident: sample.resident,
            pages: sample.pages as f64,
        }
    }
}

impl From<Usage> for BenchUsage {
    fn from(usage: Usage) -> Self {
        Self {
            user: usage.user.as_secs_f64(),
            system: usage.system.as_secs_f64(),
            waits: usage.waits as f64,
            preemptions: usage.preemptions as f64,
        }
    }
}

const SOCKETS: &[(&str, Socket)] = &[("tcp", Socket::Tcp), ("unix", Socket::Unix)];

//! Measures one method for `zerosend bench`.

use std::path::PathBuf;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::JsObjectValue;
use napi_derive::napi;
use zerosend_tools::bench::{self, Case, Sample, Socket, Usage};

use crate::background_task::under_way;
use crate::engine::with;
use crate::events::Answer;
use crate::site::one_of;

/// A measurement to run.
#[napi(object)]
pub struct BenchCase {
    pub path: String,
    #[napi(ts_type = "ReturnType<typeof methodNames>[number]")]
    pub method: String,
    /// For `read-write` the bytes of the buffer, for other methods the maximum of bytes of a call.
    pub chunk: Option<f64>,
    #[napi(ts_type = "'tcp' | 'unix'")]
    pub socket: String,
    pub cold: bool,
    /// Milliseconds; the file is sent until they have passed, but at least once.
    pub min_time: f64,
}

/// The result. Times in seconds.
#[napi(object, object_from_js = false)]
pub struct BenchSample {
    pub bytes: f64,
    pub times: f64,
    pub seconds: f64,
    #[napi(ts_type = "Exclude<ReturnType<typeof methodNames>[number], 'auto'>")]
    pub method: &'static str,
    pub syscalls: f64,
    pub polls: f64,
    pub sender: BenchUsage,
    pub receiver: BenchUsage,
    pub resident: f64,
    pub pages: f64,
}

/// CPU time and context switches of a thread.
#[napi(object, object_from_js = false)]
pub struct BenchUsage {
    pub user: f64,
    pub system: f64,
    pub waits: f64,
    pub preemptions: f64,
}

/// Measures a case: the event of `request` has `sample`. Releasing the token ends it.
#[napi]
pub fn bench(env: &Env, request: f64, settings: BenchCase) -> napi::Result<f64> {
    let path = PathBuf::from(settings.path);
    let case = with(env, |_| {
        Ok(Case {
            method: settings.method.parse()?,
            chunk: settings.chunk.map(|bytes| bytes as u64),
            socket: one_of("socket", &settings.socket, SOCKETS)?,
            cold: settings.cold,
            min_time: Duration::from_secs_f64(settings.min_time / 1000.0),
        })
    })?;
    under_way(env, request, move |stop, _| {
        let sample = BenchSample::from(bench::run(&path, case, stop)?);
        Ok(Answer::Shape(Box::new(move |event| event.set_named_property("sample", sample))))
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

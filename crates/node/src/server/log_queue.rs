//! Log entries of a server that a Node server writes to its own log.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use napi_derive::napi;
use zerosend_core::server::access_log::Entry;

use crate::engine::convert::to_milliseconds;

/// Entries that may wait for JavaScript.
const MAX_ENTRIES: usize = 65_536;

/// A request that the native server has responded to.
#[napi(object, object_from_js = false)]
pub struct AccessLogEntry {
    /// Milliseconds since 1970.
    pub time: f64,
    pub remote_address: Option<String>,
    pub remote_port: Option<u32>,
    pub method: String,
    pub url: String,
    pub host: Option<String>,
    pub status_code: u32,
    /// Bytes of the body.
    pub bytes: f64,
    /// Bytes of the head.
    pub head_bytes: f64,
    /// Milliseconds.
    pub response_time: f64,
    /// The connection was closed before the end of the response.
    pub aborted: bool,
}

/// Entries that JavaScript has not taken. While it is full, the thread of the log waits, whose own queue is bounded too.
#[derive(Default)]
pub struct LogQueue {
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    closed: bool,
}

impl LogQueue {
    /// Adds `entries`. `notify` is called when the queue was empty.
    pub fn add(&self, entries: &[Entry], notify: &dyn Fn()) {
        let mut state = self.lock();
        while state.entries.len() >= MAX_ENTRIES && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let was_empty = state.entries.is_empty();
        state.entries.extend_from_slice(entries);
        drop(state);
        if was_empty {
            notify();
        }
    }

    pub fn take(&self) -> Vec<AccessLogEntry> {
        let entries = std::mem::take(&mut self.lock().entries);
        self.room.notify_one();
        entries.into_iter().map(AccessLogEntry::from).collect()
    }

    /// Ends all waits for room.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Entry> for AccessLogEntry {
    fn from(entry: Entry) -> Self {
        Self {
            time: to_milliseconds(entry.time.duration_since(UNIX_EPOCH).unwrap_or_default()),
            remote_address: entry.client.map(|client| client.ip().to_string()),
            remote_port: entry.client.map(|client| client.port().into()),
            method: entry.method,
            url: entry.target,
            host: entry.host,
            status_code: entry.status.into(),
            bytes: entry.bytes as f64,
            head_bytes: entry.head_bytes as f64,
            response_time: to_milliseconds(entry.duration),
            aborted: entry.aborted,
        }
    }
}

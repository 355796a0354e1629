//! What the handle of a server names.

use std::sync::Arc;

use zerosend_core::Result;
use zerosend_core::server::{HandoffQueue, Server};

use super::log_queue::LogQueue;
use crate::engine::Engine;
use crate::engine::handles::Kind;

/// A server, and what it gives to the Node server on the same socket.
pub struct ServerHandle {
    pub server: Server,
    pub handoff: Option<Handoff>,
}

/// The connections and log entries that JavaScript takes from a server.
pub struct Handoff {
    pub connections: Arc<HandoffQueue>,
    pub log: Option<Arc<LogQueue>>,
}

impl Kind for ServerHandle {
    const NAME: &'static str = "a server";
    const RELEASED: &'static str = "the server is closed";
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        // The thread of the log may be waiting for JavaScript to take entries.
        if let Some(log) = self.handoff.as_ref().and_then(|handoff| handoff.log.as_ref()) {
            log.close();
        }
    }
}

impl Engine {
    pub fn server(&mut self, handle: f64) -> Result<&ServerHandle> {
        self.handles.objects.get(handle).map(|server| &*server)
    }
}

//! State shared by the workers of a server.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::options::ServerOptions;
use super::stats::{Limit, Snapshot, WorkerStats};

pub(super) struct Shared {
    pub options: ServerOptions,
    /// [`ServerOptions::headers`] as complete lines.
    pub header_lines: Vec<u8>,
    /// The lines of a persistent response, see [`ServerOptions::announce_keep_alive`].
    pub keep_alive_lines: Vec<u8>,
    pub stats: Vec<Arc<WorkerStats>>,
    /// Workers that have not exited.
    pub running: AtomicUsize,
    connections: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Shared {
    pub fn new(options: ServerOptions) -> Self {
        let lines = options.headers.iter().map(|(name, value)| format!("{}: {value}\r\n", name.to_ascii_lowercase()));
        let header_lines = lines.collect::<String>().into_bytes();
        let keep_alive_lines = keep_alive_lines(&options);
        let stats = (0..options.workers).map(|_| Arc::default()).collect();
        Self {
            running: AtomicUsize::new(options.workers),
            options,
            header_lines,
            keep_alive_lines,
            stats,
            connections: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::sum(self.stats.iter().map(|stats| &**stats));
        sum.log_lost = self.options.log.as_ref().map_or(0, |log| log.lost());
        sum
    }

    /// Open connections, without those that are being refused.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a new connection, unless it exceeds a limit.
    pub fn accept(&self, client: Option<SocketAddr>) -> std::result::Result<(), Limit> {
        let limits = &self.options.limits;
        if limits.connections > 0 && self.connections() >= limits.connections {
            return Err(Limit::Connections);
        }
        if limits.connections_per_address > 0
            && let Some(client) = client
        {
            let mut addresses = self.addresses();
            let count = addresses.entry(client.ip().to_canonical()).or_default();
            if *count >= limits.connections_per_address {
                return Err(Limit::ConnectionsPerAddress);
            }
            *count += 1;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Uncounts a connection that [`Shared::accept`] has counted.
    pub fn release(&self, client: Option<SocketAddr>) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if self.options.limits.connections_per_address > 0
            && let Some(client) = client
        {
            let mut addresses = self.addresses();
            let ip = client.ip().to_canonical();
            if let Some(count) = addresses.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&ip);
                }
            }
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields that Node sends.
fn keep_alive_lines(options: &ServerOptions) -> Vec<u8> {
    let mut lines = Vec::new();
    if options.announce_keep_alive {
        lines.extend_from_slice(b"connection: keep-alive\r\n");
        let seconds = options.limits.idle_timeout.as_secs();
        if seconds > 0 {
            lines.extend_from_slice(format!("keep-alive: timeout={seconds}\r\n").as_bytes());
        }
    }
    lines
}

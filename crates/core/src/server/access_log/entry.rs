//! A request in the access log.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// A request and its response.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When the head of the request was complete.
    pub time: SystemTime,
    /// `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The method as sent; `-` without a valid head.
    pub method: String,
    /// The target as sent; `-` without a valid head.
    pub target: String,
    /// `Host`, or the authority of an absolute-form target.
    pub host: Option<String>,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// The status of the response.
    pub status: u16,
    /// Bytes of the response body accepted by the kernel.
    pub bytes: u64,
    /// Bytes of the response head accepted by the kernel.
    pub head_bytes: u64,
    /// From the complete head of the request to the last byte of the response.
    pub duration: Duration,
    /// `Referer`.
    pub referer: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// The response was cut short by the end of its connection.
    pub aborted: bool,
}

#[cfg(test)]
impl Entry {
    /// `GET /` with status 200, 12 body bytes, 100 head bytes and 1.5 ms.
    pub fn sample() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            client: None,
            method: "GET".into(),
            target: "/".into(),
            host: None,
            is_http10: false,
            status: 200,
            bytes: 12,
            head_bytes: 100,
            duration: Duration::from_micros(1500),
            referer: None,
            user_agent: None,
            aborted: false,
        }
    }
}

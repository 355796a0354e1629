//! Conversions that several modules need, between the values of JavaScript and those of the core.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use napi_derive::napi;
use nix::errno::Errno;
use zerosend_core::net::Address;
use zerosend_core::{Code, Error, Result};

/// A failed system call.
#[napi(object, object_from_js = false)]
pub struct ErrnoName {
    /// Negative, as in the errors of Node.
    pub errno: i32,
    /// Its name, `ECONNRESET` for example.
    pub code: String,
    /// The text of strerror(3).
    pub meaning: &'static str,
}

impl From<Errno> for ErrnoName {
    fn from(errno: Errno) -> Self {
        Self { errno: -(errno as i32), code: Code::System(errno).as_str().into_owned(), meaning: errno.desc() }
    }
}

/// Parses an option that is one of several words.
pub fn parse_enum<T: Copy>(option: &str, value: &str, words: &[(&str, T)]) -> Result<T> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let allowed: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let allowed = allowed.join(", ");
        Error::new(Code::InvalidArgument, format!("invalid {option} '{value}': use one of {allowed}"))
    })
}

/// A TCP address of an IP address as text and a port.
pub fn tcp_address(host: &str, port: u32) -> Result<Address> {
    let ip: IpAddr = host
        .parse()
        .map_err(|_| Error::new(Code::InvalidArgument, format!("invalid host '{host}': use an IP address")))?;
    Ok(Address::Tcp(SocketAddr::new(ip, port as u16)))
}

/// The IP address and port; no address and port 0 for a Unix socket.
pub fn host_and_port(address: Option<&Address>) -> (Option<String>, u32) {
    match address {
        Some(Address::Tcp(address)) => (Some(address.ip().to_string()), address.port().into()),
        _ => (None, 0),
    }
}

pub fn from_milliseconds(count: f64) -> Duration {
    Duration::from_millis(count as u64)
}

pub fn to_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Defines an object of numbers for JavaScript from a struct of the core that has fields with the same names.
macro_rules! numbers {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident from $source:ty {
            $($(#[$doc:meta])* $field:ident,)+
        }
    ) => {
        $(#[$attribute])*
        #[napi(object, object_from_js = false)]
        pub struct $name {
            $($(#[$doc])* pub $field: f64,)+
        }

        impl From<$source> for $name {
            fn from(source: $source) -> Self {
                Self { $($field: source.$field as f64,)+ }
            }
        }
    };
}
pub(crate) use numbers;

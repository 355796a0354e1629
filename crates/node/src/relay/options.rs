//! The options of a relay.

use std::sync::Arc;

use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::net::Address;
use zerosend_core::relay::{
    Balance, Destination, Direction, MirrorDestination, MirrorOptions, Policy, ProxyProtocol, RelayMethod,
    RelayOptions, TargetRequest,
};

use crate::engine::Engine;
use crate::engine::convert::{from_milliseconds, parse_enum, tcp_address};

/// An IP address and a port, or the path of a Unix socket.
#[napi(object)]
pub struct AddressSettings {
    pub host: Option<String>,
    pub port: u32,
    pub path: Option<String>,
}

/// A target: the addresses of one name. They are tried in order.
#[napi(object)]
pub struct TargetSettings {
    pub addresses: Vec<AddressSettings>,
}

/// A copy of the bytes of one direction, for a file or a server.
#[napi(object)]
pub struct MirrorSettings {
    /// The handle of a mirror from `openMirror`, which is used up. Absent: `connect` is given.
    pub file: Option<f64>,
    pub connect: Option<TargetSettings>,
    #[napi(ts_type = "'up' | 'down'")]
    pub direction: String,
    #[napi(ts_type = "'block' | 'drop'")]
    pub policy: String,
}

/// The options of a relay. The TypeScript side has filled in the defaults.
#[napi(object)]
pub struct RelaySettings {
    pub listen: AddressSettings,
    /// Absent: clients get back what they send. Empty: there is a target request for each connection.
    pub targets: Option<Vec<TargetSettings>>,
    pub mirrors: Vec<MirrorSettings>,
    #[napi(ts_type = "'round-robin' | 'least-connections'")]
    pub balance: String,
    pub workers: u32,
    pub backlog: i32,
    /// The mode of a Unix socket that it listens on. Absent: as the umask allows.
    pub socket_mode: Option<u32>,
    #[napi(ts_type = "'auto' | 'splice' | 'read-write'")]
    pub method: String,
    /// Bytes.
    pub pipe_size: u32,
    /// Maximum number of connections.
    pub connections: u32,
    /// Milliseconds.
    pub connect_timeout: f64,
    /// Milliseconds without a byte in either direction.
    pub idle_timeout: f64,
    /// Milliseconds before the first keep-alive probe (`TCP_KEEPIDLE`).
    pub keep_alive: f64,
    /// Maximum number of further targets for one connection.
    pub retries: u32,
    /// Milliseconds for which a target that failed is not tried.
    pub down_time: f64,
    /// Absent: no header.
    #[napi(ts_type = "'v1' | 'v2'")]
    pub proxy_protocol: Option<String>,
}

impl RelaySettings {
    /// `request_target` is called for each connection when `targets` is empty.
    pub fn into_options(
        self,
        engine: &mut Engine,
        request_target: impl Fn(TargetRequest) + Send + Sync + 'static,
    ) -> Result<RelayOptions> {
        let destination = match self.targets {
            None => Destination::Echo,
            Some(targets) if targets.is_empty() => Destination::Resolver(Arc::new(request_target)),
            Some(targets) => {
                let targets = targets.into_iter().map(TargetSettings::into_addresses).collect::<Result<_>>()?;
                Destination::Targets(targets, parse_enum("balance", &self.balance, BALANCES)?)
            }
        };
        let mut options = RelayOptions::new(self.listen.into_address()?, destination);
        options.workers = self.workers as usize;
        options.backlog = self.backlog;
        options.socket_mode = self.socket_mode;
        options.method = parse_enum("method", &self.method, METHODS)?;
        options.pipe_size = self.pipe_size as usize;
        options.connections = self.connections as usize;
        options.connect_timeout = from_milliseconds(self.connect_timeout);
        options.idle_timeout = from_milliseconds(self.idle_timeout);
        options.keep_alive = from_milliseconds(self.keep_alive);
        options.retries = self.retries;
        options.down_time = from_milliseconds(self.down_time);
        options.proxy_protocol =
            self.proxy_protocol.map(|name| parse_enum("proxyProtocol", &name, PROTOCOLS)).transpose()?;
        options.mirrors = self.mirrors.into_iter().map(|mirror| mirror.into_options(engine)).collect::<Result<_>>()?;
        Ok(options)
    }
}

impl MirrorSettings {
    fn into_options(self, engine: &mut Engine) -> Result<MirrorOptions> {
        let to = match self.connect {
            Some(server) => MirrorDestination::server(&server.into_addresses()?),
            None => engine.handles.objects.remove(self.file.unwrap_or_default())?,
        };
        let direction = parse_enum("direction", &self.direction, DIRECTIONS)?;
        Ok(MirrorOptions { to, direction, policy: parse_enum("policy", &self.policy, POLICIES)? })
    }
}

impl AddressSettings {
    fn into_address(self) -> Result<Address> {
        let address = match self.path {
            Some(path) => Address::Unix(path.into()),
            None => tcp_address(self.host.as_deref().unwrap_or_default(), self.port)?,
        };
        address.check()?;
        Ok(address)
    }
}

impl TargetSettings {
    pub fn into_addresses(self) -> Result<Vec<Address>> {
        self.addresses.into_iter().map(AddressSettings::into_address).collect()
    }
}

const BALANCES: &[(&str, Balance)] =
    &[("round-robin", Balance::RoundRobin), ("least-connections", Balance::LeastConnections)];
const DIRECTIONS: &[(&str, Direction)] = &[("up", Direction::Up), ("down", Direction::Down)];
pub const POLICIES: &[(&str, Policy)] = &[("block", Policy::Block), ("drop", Policy::Drop)];
pub const METHODS: &[(&str, RelayMethod)] =
    &[("auto", RelayMethod::Auto), ("splice", RelayMethod::Splice), ("read-write", RelayMethod::ReadWrite)];
const PROTOCOLS: &[(&str, ProxyProtocol)] = &[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

//! Relays: proxies and echo servers.

use napi::Env;
use napi_derive::napi;
use zerosend_core::relay::{Balance, Destination, ProxyProtocol, Relay, RelayMethod, RelayOptions, RelaySnapshot};
use zerosend_core::server::Address;
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Request};
use crate::server::{OpenedServer, tcp_address};
use crate::site::one_of;
use crate::transfer::milliseconds;
use zerosend_core::reactor::registry::Token;

/// An IP address and port, or the path of a Unix socket.
#[napi(object)]
pub struct AddressSettings {
    pub host: Option<String>,
    pub port: u32,
    pub path: Option<String>,
}

/// What a relay is told. Times in milliseconds.
#[napi(object)]
pub struct RelaySettings {
    pub listen: AddressSettings,
    /// Absent: clients get back what they send.
    pub targets: Option<Vec<AddressSettings>>,
    #[napi(ts_type = "'round-robin' | 'least-connections'")]
    pub balance: String,
    pub workers: u32,
    pub backlog: i32,
    #[napi(ts_type = "'splice' | 'read-write'")]
    pub method: String,
    pub pipe_size: u32,
    pub connections: u32,
    pub connect_timeout: f64,
    pub idle_timeout: f64,
    pub retries: u32,
    pub down_time: f64,
    #[napi(ts_type = "'v1' | 'v2'")]
    pub proxy_protocol: Option<String>,
}

/// What a relay has counted.
#[napi(object, object_from_js = false)]
pub struct RelayCounters {
    pub connections: f64,
    pub accepted: f64,
    pub refused: f64,
    pub unreachable: f64,
    pub retries: f64,
    pub connect_timeouts: f64,
    pub idle_timeouts: f64,
    pub failed: f64,
    pub cut: f64,
    pub degraded: f64,
    pub bytes_up: f64,
    pub bytes_down: f64,
}

/// Opens a relay. `request` is answered when it has ended.
#[napi]
pub fn open_relay(env: &Env, request: f64, settings: RelaySettings) -> napi::Result<OpenedServer> {
    with(env, |engine| {
        let relay = Relay::start(options(settings)?)?;
        let (host, port) = match relay.address() {
            Address::Tcp(address) => (Some(address.ip().to_string()), address.port()),
            Address::Unix(_) => (None, 0),
        };
        let ended = Request::new(&engine.events, request);
        relay.when_ended(move || ended.answer(Ok(Answer::Ended)));
        let token = engine.hold(Held::Relay(relay))? as f64;
        Ok(OpenedServer { token, host, port: port.into() })
    })
}

/// What the relay has counted so far.
#[napi]
pub fn relay_counters(env: &Env, token: f64) -> napi::Result<RelayCounters> {
    with(env, |engine| Ok(engine.relay(token)?.stats().into()))
}

/// Accepts no more, and cuts what is in flight after `drain` milliseconds.
#[napi]
pub fn close_relay(env: &Env, token: f64, drain: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(token)?.close(milliseconds(drain));
        Ok(())
    })
}

impl Engine {
    fn relay(&mut self, token: f64) -> Result<&Relay> {
        match self.held.get_mut(token as Token) {
            Some(Held::Relay(relay)) => Ok(relay),
            _ => Err(Error::new(Code::Closed, "the relay is closed")),
        }
    }
}

fn options(settings: RelaySettings) -> Result<RelayOptions> {
    let destination = match settings.targets {
        None => Destination::Echo,
        Some(targets) => {
            let targets = targets.into_iter().map(address).collect::<Result<_>>()?;
            Destination::Targets(targets, one_of("balance", &settings.balance, BALANCES)?)
        }
    };
    let mut options = RelayOptions::new(address(settings.listen)?, destination);
    options.workers = settings.workers as usize;
    options.backlog = settings.backlog;
    options.method = one_of("method", &settings.method, METHODS)?;
    options.pipe_size = settings.pipe_size as usize;
    options.connections = settings.connections as usize;
    options.connect_timeout = milliseconds(settings.connect_timeout);
    options.idle_timeout = milliseconds(settings.idle_timeout);
    options.retries = settings.retries;
    options.down_time = milliseconds(settings.down_time);
    options.proxy_protocol =
        settings.proxy_protocol.map(|name| one_of("proxyProtocol", &name, PROTOCOLS)).transpose()?;
    Ok(options)
}

fn address(settings: AddressSettings) -> Result<Address> {
    match settings.path {
        Some(path) => Ok(Address::Unix(path.into())),
        None => tcp_address(settings.host.as_deref().unwrap_or_default(), settings.port),
    }
}

const BALANCES: &[(&str, Balance)] =
    &[("round-robin", Balance::RoundRobin), ("least-connections", Balance::LeastConnections)];
const METHODS: &[(&str, RelayMethod)] = &[("splice", RelayMethod::Splice), ("read-write", RelayMethod::ReadWrite)];
const PROTOCOLS: &[(&str, ProxyProtocol)] = &[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

impl From<RelaySnapshot> for RelayCounters {
    fn from(counts: RelaySnapshot) -> Self {
        Self {
            connections: counts.connections as f64,
            accepted: counts.accepted as f64,
            refused: counts.refused as f64,
            unreachable: counts.unreachable as f64,
            retries: counts.retries as f64,
            connect_timeouts: counts.connect_timeouts as f64,
            idle_timeouts: counts.idle_timeouts as f64,
            failed: counts.failed as f64,
            cut: counts.cut as f64,
            degraded: counts.degraded as f64,
            bytes_up: counts.bytes_up as f64,
            bytes_down: counts.bytes_down as f64,
        }
    }
}

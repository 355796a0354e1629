//! Relays: proxies and echo servers.

pub mod session;

use std::sync::{Arc, Mutex, PoisonError};

use napi::Env;
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::net::Address;
use zerosend_core::relay::{
    Balance, Destination, Direction, MirrorDestination, MirrorOptions, Policy, ProxyProtocol, Relay, RelayMethod,
    RelayOptions, RelaySnapshot, TargetRequest, TargetRequestId,
};
use zerosend_core::{Code, Error, Result};

use crate::engine::{Engine, Held, with};
use crate::events::{Answer, Events, Request};
use crate::server::{OpenedServer, tcp_address};
use crate::site::one_of;
use crate::transfer::milliseconds;

/// An IP address and port, or the path of a Unix socket.
#[napi(object)]
pub struct AddressSettings {
    pub host: Option<String>,
    pub port: u32,
    pub path: Option<String>,
}

/// The addresses of a target, of which the first that can be connected to is used.
#[napi(object)]
pub struct TargetSettings {
    pub addresses: Vec<AddressSettings>,
}

/// A mirror of one direction: files or a server.
#[napi(object)]
pub struct MirrorSettings {
    /// Token of a mirror; invalid afterwards.
    pub file: Option<f64>,
    pub connect: Option<TargetSettings>,
    #[napi(ts_type = "'up' | 'down'")]
    pub direction: String,
    #[napi(ts_type = "'block' | 'drop'")]
    pub policy: String,
}

/// Options of a relay. Times in milliseconds.
#[napi(object)]
pub struct RelaySettings {
    pub listen: AddressSettings,
    /// Absent: an echo. Empty: the target of each connection is requested; see `takeTargetRequests`.
    pub targets: Option<Vec<TargetSettings>>,
    pub mirrors: Vec<MirrorSettings>,
    #[napi(ts_type = "'round-robin' | 'least-connections'")]
    pub balance: String,
    pub workers: u32,
    pub backlog: i32,
    /// Permissions of a Unix socket.
    pub socket_mode: Option<u32>,
    #[napi(ts_type = "'auto' | 'splice' | 'read-write'")]
    pub method: String,
    pub pipe_size: u32,
    pub connections: u32,
    pub connect_timeout: f64,
    pub idle_timeout: f64,
    pub keep_alive: f64,
    pub retries: u32,
    pub down_time: f64,
    #[napi(ts_type = "'v1' | 'v2'")]
    pub proxy_protocol: Option<String>,
}

macro_rules! define_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a relay.
        #[napi(object, object_from_js = false)]
        pub struct RelayCounters {
            /// Open connections.
            pub connections: f64,
            $($(#[$doc])* pub $name: f64,)*
        }

        impl From<RelaySnapshot> for RelayCounters {
            fn from(snapshot: RelaySnapshot) -> Self {
                Self { connections: snapshot.connections as f64, $($name: snapshot.$name as f64,)* }
            }
        }
    };
}

zerosend_core::relay_counters!(define_counters);

/// A request for the target of a connection.
#[napi(object)]
pub struct RelayTargetRequest {
    pub worker: u32,
    pub link: f64,
    /// Number of earlier requests for the same connection.
    pub attempt: u32,
    pub remote_address: Option<String>,
    pub remote_port: Option<u32>,
    pub local_address: Option<String>,
    pub local_port: Option<u32>,
}

/// A relay and its requests for targets.
pub struct HeldRelay {
    pub relay: Relay,
    target_requests: TargetRequests,
}

/// Requests for targets that JavaScript has not taken yet.
#[derive(Clone, Default)]
struct TargetRequests(Arc<Mutex<Vec<TargetRequest>>>);

impl TargetRequests {
    fn add(&self, target_request: TargetRequest, events: &Events, request: f64) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(target_request);
        if list.len() == 1 {
            events.push(request, Ok(Answer::Progress(0)));
        }
    }

    fn take(&self) -> Vec<TargetRequest> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens a relay. `request` makes progress when there are target requests to take, and is answered when the relay has closed.
#[napi]
pub fn open_relay(env: &Env, request: f64, settings: RelaySettings) -> napi::Result<OpenedServer> {
    with(env, |engine| {
        let target_requests = TargetRequests::default();
        let add_request = {
            let (target_requests, events) = (target_requests.clone(), engine.events.clone());
            move |target_request| target_requests.add(target_request, &events, request)
        };
        let relay = Relay::start(options(engine, settings, add_request)?)?;
        let (host, port) = match relay.address() {
            Some(Address::Tcp(address)) => (Some(address.ip().to_string()), address.port()),
            _ => (None, 0),
        };
        let closed = Request::new(&engine.events, request);
        relay.on_exit(move || closed.answer(Ok(Answer::Ended)));
        let token = engine.hold(Held::Relay(Box::new(HeldRelay { relay, target_requests })))? as f64;
        Ok(OpenedServer { token, host, port: port.into() })
    })
}

/// The counters of a relay.
#[napi]
pub fn relay_counters(env: &Env, token: f64) -> napi::Result<RelayCounters> {
    with(env, |engine| Ok(engine.relay(token)?.relay.stats().into()))
}

/// Takes the requests for targets. Each has to be answered with `resolveTarget`.
#[napi]
pub fn take_target_requests(env: &Env, token: f64) -> napi::Result<Vec<RelayTargetRequest>> {
    with(env, |engine| {
        let target_requests = engine.relay(token)?.target_requests.take();
        Ok(target_requests
            .into_iter()
            .map(|TargetRequest { id, client, local }| {
                let (worker, link, attempt) = id.numbers();
                RelayTargetRequest {
                    worker: worker as u32,
                    link: link as f64,
                    attempt,
                    remote_address: client.map(|address| address.ip().to_string()),
                    remote_port: client.map(|address| address.port().into()),
                    local_address: local.map(|address| address.ip().to_string()),
                    local_port: local.map(|address| address.port().into()),
                }
            })
            .collect())
    })
}

/// Sets the target of a connection: the first of its addresses that can be connected to. Absent: the client is reset.
#[napi]
pub fn resolve_target(
    env: &Env,
    token: f64,
    target_request: RelayTargetRequest,
    target: Option<TargetSettings>,
) -> napi::Result<()> {
    with(env, |engine| {
        let id = TargetRequestId::from_numbers((
            target_request.worker as usize,
            target_request.link as u64,
            target_request.attempt,
        ));
        let addresses = target.map_or_else(|| Ok(Vec::new()), addresses)?;
        engine.relay(token)?.relay.resolve_target(id, addresses);
        Ok(())
    })
}

/// Replaces the addresses of the target with this index.
#[napi]
pub fn set_target_addresses(env: &Env, token: f64, target: u32, settings: TargetSettings) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(token)?.relay.set_addresses(target as usize, addresses(settings)?);
        Ok(())
    })
}

/// Replaces the addresses of the mirror with this index, which is a server.
#[napi]
pub fn set_mirror_addresses(env: &Env, token: f64, mirror: u32, settings: TargetSettings) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(token)?.relay.set_mirror_addresses(mirror as usize, addresses(settings)?);
        Ok(())
    })
}

/// Stops accepting, and closes by force what is still open after `drain` milliseconds.
#[napi]
pub fn close_relay(env: &Env, token: f64, drain: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(token)?.relay.close(milliseconds(drain));
        Ok(())
    })
}

impl Engine {
    pub fn relay(&mut self, token: f64) -> Result<&HeldRelay> {
        match self.held.get_mut(token as Token) {
            Some(Held::Relay(relay)) => Ok(relay),
            _ => Err(Error::new(Code::Closed, "the relay is closed")),
        }
    }
}

fn options(
    engine: &mut Engine,
    settings: RelaySettings,
    add_request: impl Fn(TargetRequest) + Send + Sync + 'static,
) -> Result<RelayOptions> {
    let destination = match settings.targets {
        None => Destination::Echo,
        Some(targets) if targets.is_empty() => Destination::Resolver(Arc::new(add_request)),
        Some(targets) => {
            let targets = targets.into_iter().map(addresses).collect::<Result<_>>()?;
            Destination::Targets(targets, one_of("balance", &settings.balance, BALANCES)?)
        }
    };
    let mut options = RelayOptions::new(address(settings.listen)?, destination);
    options.workers = settings.workers as usize;
    options.backlog = settings.backlog;
    options.socket_mode = settings.socket_mode;
    options.method = one_of("method", &settings.method, METHODS)?;
    options.pipe_size = settings.pipe_size as usize;
    options.connections = settings.connections as usize;
    options.connect_timeout = milliseconds(settings.connect_timeout);
    options.idle_timeout = milliseconds(settings.idle_timeout);
    options.keep_alive = milliseconds(settings.keep_alive);
    options.retries = settings.retries;
    options.down_time = milliseconds(settings.down_time);
    options.proxy_protocol =
        settings.proxy_protocol.map(|name| one_of("proxyProtocol", &name, PROTOCOLS)).transpose()?;
    options.mirrors = settings.mirrors.into_iter().map(|settings| mirror(engine, settings)).collect::<Result<_>>()?;
    Ok(options)
}

fn mirror(engine: &mut Engine, settings: MirrorSettings) -> Result<MirrorOptions> {
    let to = match settings {
        MirrorSettings { connect: Some(server), .. } => MirrorDestination::server(&addresses(server)?),
        MirrorSettings { file, .. } => match engine.held.remove(file.unwrap_or_default() as Token) {
            Some(Held::Mirror(mirror)) => mirror,
            _ => return Err(Error::new(Code::Closed, "the mirror is closed")),
        },
    };
    let direction = one_of("direction", &settings.direction, DIRECTIONS)?;
    Ok(MirrorOptions { to, direction, policy: one_of("policy", &settings.policy, POLICIES)? })
}

fn address(settings: AddressSettings) -> Result<Address> {
    let address = match settings.path {
        Some(path) => Address::Unix(path.into()),
        None => tcp_address(settings.host.as_deref().unwrap_or_default(), settings.port)?,
    };
    address.check()?;
    Ok(address)
}

fn addresses(settings: TargetSettings) -> Result<Vec<Address>> {
    settings.addresses.into_iter().map(address).collect()
}

const BALANCES: &[(&str, Balance)] =
    &[("round-robin", Balance::RoundRobin), ("least-connections", Balance::LeastConnections)];
const DIRECTIONS: &[(&str, Direction)] = &[("up", Direction::Up), ("down", Direction::Down)];
pub const POLICIES: &[(&str, Policy)] = &[("block", Policy::Block), ("drop", Policy::Drop)];
pub const METHODS: &[(&str, RelayMethod)] =
    &[("auto", RelayMethod::Auto), ("splice", RelayMethod::Splice), ("read-write", RelayMethod::ReadWrite)];
const PROTOCOLS: &[(&str, ProxyProtocol)] = &[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

//! Relays: proxies and echo servers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use napi::Env;
use napi_derive::napi;
use zerosend_core::Result;
use zerosend_core::relay::{Relay, RelaySnapshot, TargetRequest, TargetRequestId};

use crate::engine::convert::{from_milliseconds, host_and_port, numbers};
use crate::engine::events::{Events, Payload};
use crate::engine::handles::Kind;
use crate::engine::{Engine, with};
use options::{RelaySettings, TargetSettings};

mod mirror;
mod options;
mod session;

/// A relay that listens.
#[napi(object, object_from_js = false)]
pub struct OpenedRelay {
    pub handle: f64,
    /// The IP address. Absent: a Unix socket.
    pub host: Option<String>,
    pub port: u32,
}

macro_rules! define_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        numbers! {
            /// The counters of a relay.
            pub struct RelayCounters from RelaySnapshot {
                /// Open connections.
                connections,
                $($(#[$doc])* $name,)*
            }
        }
    };
}

zerosend_core::relay_counters!(define_counters);

/// A connection that needs a target.
#[napi(object)]
pub struct RelayTargetRequest {
    pub worker: u32,
    pub link: f64,
    /// Number of earlier target requests for the same connection.
    pub attempt: u32,
    pub remote_address: Option<String>,
    pub remote_port: Option<u32>,
    pub local_address: Option<String>,
    pub local_port: Option<u32>,
}

impl From<TargetRequest> for RelayTargetRequest {
    fn from(TargetRequest { id, client, local }: TargetRequest) -> Self {
        let (worker, link, attempt) = id.numbers();
        let host = |address: Option<SocketAddr>| address.map(|address| address.ip().to_string());
        let port = |address: Option<SocketAddr>| address.map(|address| address.port().into());
        Self {
            worker: worker as u32,
            link: link as f64,
            attempt,
            remote_address: host(client),
            remote_port: port(client),
            local_address: host(local),
            local_port: port(local),
        }
    }
}

/// A relay and its target requests.
pub struct RelayHandle {
    relay: Relay,
    target_requests: TargetRequests,
}

impl Kind for RelayHandle {
    const NAME: &'static str = "a relay";
    const RELEASED: &'static str = "the relay is closed";
}

/// Target requests that JavaScript has not taken.
#[derive(Clone, Default)]
struct TargetRequests(Arc<Mutex<Vec<TargetRequest>>>);

impl TargetRequests {
    fn add(&self, target_request: TargetRequest, events: &Events, request: f64) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(target_request);
        if list.len() == 1 {
            events.progress(request, 0);
        }
    }

    fn take(&self) -> Vec<TargetRequest> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Opens a relay. `request` makes progress when there are target requests to take, and completes when the relay has closed.
#[napi]
pub fn open_relay(env: &Env, request: f64, settings: RelaySettings) -> napi::Result<OpenedRelay> {
    with(env, |engine| {
        let target_requests = TargetRequests::default();
        let add = {
            let (target_requests, events) = (target_requests.clone(), engine.events.clone());
            move |target_request| target_requests.add(target_request, &events, request)
        };
        let relay = Relay::start(settings.into_options(engine, add)?)?;
        let (host, port) = host_and_port(relay.address());
        let request = engine.request(request);
        relay.on_exit(move || request.complete(Ok(Payload::empty())));
        let handle = engine.handles.objects.register(RelayHandle { relay, target_requests });
        Ok(OpenedRelay { handle, host, port })
    })
}

/// The counters of the relay.
#[napi]
pub fn relay_counters(env: &Env, relay: f64) -> napi::Result<RelayCounters> {
    with(env, |engine| Ok(engine.relay(relay)?.relay.stats().into()))
}

/// Takes the target requests so far. Call `resolveTarget` for each.
#[napi]
pub fn take_target_requests(env: &Env, relay: f64) -> napi::Result<Vec<RelayTargetRequest>> {
    with(env, |engine| {
        Ok(engine.relay(relay)?.target_requests.take().into_iter().map(RelayTargetRequest::from).collect())
    })
}

/// Sets the target of a connection: the first of its addresses that can be connected to. Absent: the client is reset.
#[napi]
pub fn resolve_target(
    env: &Env,
    relay: f64,
    target_request: RelayTargetRequest,
    target: Option<TargetSettings>,
) -> napi::Result<()> {
    with(env, |engine| {
        let RelayTargetRequest { worker, link, attempt, .. } = target_request;
        let id = TargetRequestId::from_numbers((worker as usize, link as u64, attempt));
        let addresses = target.map_or_else(|| Ok(Vec::new()), TargetSettings::into_addresses)?;
        engine.relay(relay)?.relay.resolve_target(id, addresses);
        Ok(())
    })
}

/// Replaces the addresses of the target with this index.
#[napi]
pub fn set_target_addresses(env: &Env, relay: f64, target: u32, settings: TargetSettings) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(relay)?.relay.set_addresses(target as usize, settings.into_addresses()?);
        Ok(())
    })
}

/// Replaces the addresses of the mirror with this index, which is a server.
#[napi]
pub fn set_mirror_addresses(env: &Env, relay: f64, mirror: u32, settings: TargetSettings) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(relay)?.relay.set_mirror_addresses(mirror as usize, settings.into_addresses()?);
        Ok(())
    })
}

/// Stops accepting connections, and resets those that are left after `drain` milliseconds.
#[napi]
pub fn close_relay(env: &Env, relay: f64, drain: f64) -> napi::Result<()> {
    with(env, |engine| {
        engine.relay(relay)?.relay.close(from_milliseconds(drain));
        Ok(())
    })
}

impl Engine {
    fn relay(&mut self, handle: f64) -> Result<&RelayHandle> {
        self.handles.objects.get(handle).map(|relay| &*relay)
    }
}

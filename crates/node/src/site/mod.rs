//! Sites: which file is the response to a request, and with which headers.

use std::ops::ControlFlow;
use std::os::fd::IntoRawFd;

use napi::Env;
use napi_derive::napi;
use zerosend_core::fs::{Access, directory};
use zerosend_core::io::pool::Lane;
use zerosend_core::static_site::Outcome;
use zerosend_core::{Code, Error};
use zerosend_http::negotiation;

use crate::engine::events::Payload;
use crate::engine::static_site::{PendingResponse, SiteAnswer, not_pending};
use crate::engine::with;
use conditions::{RequestConditions, SiteRequest};
use options::SiteSettings;

pub mod conditions;
pub mod options;

/// Opens a site and returns its handle.
#[napi]
pub fn open_site(env: &Env, settings: SiteSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let site = settings.open(engine)?;
        Ok(engine.handles.sites.register(site))
    })
}

/// Finds the response to a request for `path` (percent-encoded when `encoded`), without blocking on the disk. -1: the disk
/// has to be read; call `respondLater`. Otherwise the response is the pending one, under `number` (below 0), until the next
/// call, `startPending`, `keepPending` or `release`. Returns its id: 0, or a number that all responses for the same version
/// of a file have, so that `describePending` is needed only once.
#[napi]
#[allow(clippy::too_many_arguments)]
pub fn respond(
    env: &Env,
    number: f64,
    site: f64,
    path: String,
    encoded: bool,
    head_only: bool,
    root_index: u32,
    conditions: Option<RequestConditions>,
) -> napi::Result<f64> {
    with(env, |engine| {
        let request = SiteRequest { path, encoded, head_only, root_index, conditions: conditions.unwrap_or_default() };
        engine.pending = None;
        let site = engine.handles.sites.get(site)?;
        match site.site.respond(&request.as_core(), Access::CachedOnly)? {
            Outcome::WouldBlock => Ok(-1.0),
            outcome => {
                let pending = PendingResponse::new(number, site, outcome);
                let id = pending.id();
                engine.pending = Some(pending);
                Ok(id as f64)
            }
        }
    })
}

/// Describes the pending response with this number.
#[napi]
pub fn describe_pending(env: &Env, number: f64) -> napi::Result<SiteAnswer> {
    with(env, |engine| {
        let pending = engine.pending.as_ref().filter(|pending| pending.number == number);
        Ok(pending.ok_or_else(not_pending)?.describe())
    })
}

/// Keeps the transfer of the pending response with this number and returns its handle; 0 when it has no bytes to send.
#[napi]
pub fn keep_pending(env: &Env, number: f64) -> napi::Result<f64> {
    with(env, |engine| {
        let pending = engine.take_pending(number)?;
        Ok(pending.into_transfer().map_or(0.0, |transfer| engine.handles.transfers.register(transfer)))
    })
}

/// Finds a response on a thread that may block on the disk. The event of `request` has the `SiteAnswer` as its value, and
/// the handle of the transfer when there are bytes to send.
#[napi]
#[allow(clippy::too_many_arguments)]
pub fn respond_later(
    env: &Env,
    request: f64,
    site: f64,
    path: String,
    encoded: bool,
    head_only: bool,
    root_index: u32,
    conditions: Option<RequestConditions>,
) -> napi::Result<()> {
    with(env, |engine| {
        let asked = SiteRequest { path, encoded, head_only, root_index, conditions: conditions.unwrap_or_default() };
        let site = engine.handles.sites.get(site)?.clone();
        let volume = site.site.volume(&asked.as_core());
        let lane = site.site.lane();
        engine.run_in_steps(lane, volume, request, move || match site.site.respond_step(&asked.as_core()) {
            Ok(Outcome::WouldBlock) => ControlFlow::Continue(()),
            Ok(outcome) => {
                let response = PendingResponse::new(0.0, &site, outcome);
                ControlFlow::Break(Ok(Payload::new(move |reply| {
                    reply.set_value(response.describe())?;
                    match response.into_transfer() {
                        Some(transfer) => {
                            let handle = reply.handles.transfers.register(transfer);
                            reply.set_handle(handle)
                        }
                        None => Ok(()),
                    }
                })))
            }
            Err(error) => ControlFlow::Break(Err(error)),
        });
        Ok(())
    })
}

/// Opens a directory below a root of the site, for a listing, or any entry for its attributes, under the site's rule for
/// symbolic links. The event of `request` has the descriptor as its value; the caller closes it.
#[napi]
pub fn open_entry(
    env: &Env,
    request: f64,
    site: f64,
    relative: String,
    root_index: u32,
    is_directory: bool,
) -> napi::Result<()> {
    with(env, |engine| {
        let site = engine.handles.sites.get(site)?.clone();
        let kind = if is_directory { directory::Kind::Directory } else { directory::Kind::Entry };
        let asked = SiteRequest {
            path: relative,
            encoded: false,
            head_only: false,
            root_index,
            conditions: RequestConditions::default(),
        };
        let volume = site.site.volume(&asked.as_core());
        engine.run(Lane::Short, volume, request, move || {
            let root = site.site.roots().get(root_index as usize);
            let root = root.ok_or_else(|| Error::new(Code::InvalidArgument, "the site has no root with this index"))?;
            let fd = directory::open(root, &asked.path, kind)?;
            Ok(Payload::new(move |reply| reply.set_value(fd.into_raw_fd())))
        });
        Ok(())
    })
}

/// The value of `Vary` with `accept-encoding` added; `null` when it is there already.
#[napi]
pub fn merge_vary(existing: Option<String>) -> Option<String> {
    negotiation::merge_vary(existing.as_deref())
}

//! From a complete head to the start of its response, a lookup, or a handoff.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::response::{Body, Response};
use super::state::{CONTINUE, Connection, State, Step};
use crate::error::{Error, Result};
use crate::event_loop::slab::Token;
use crate::io::pool::Pool;
use crate::server::access_log::Entry;
use crate::server::answer::{self, Decision, Exchange};
use crate::server::context::Context;
use crate::server::handoff::{Handoff, Reason};
use crate::server::message::{LookupResult, Message};
use crate::server::reply::Reply;
use crate::server::stats::Limit;
use zerosend_http::chunked::ChunkedSkipper;
use zerosend_http::request::{BodyLength, HeadError, RequestHead};

impl Connection {
    /// Begins to answer a request. Returns false when the application answers it; its head then stays in the input.
    pub(super) fn begin(&mut self, token: Token, head: &RequestHead<'_>, raw: &[u8], cx: &mut Context) -> bool {
        self.requests += 1;
        let options = &cx.shared.options;
        let has_handoff = options.handoff.is_some();
        // With a handoff queue, the requests that the server answers are counted in `begin_reply`.
        if !has_handoff {
            cx.stats.requests.add(1);
        }
        let limits = &options.limits;
        self.keep_alive = head.keep_alive && !cx.event_loop.is_draining() && !head.upgrade;
        if limits.requests_per_connection > 0 && self.requests >= limits.requests_per_connection {
            cx.stats.limit(Limit::Requests);
            self.keep_alive = false;
        }
        let is_too_long = !has_handoff
            && limits.body_bytes > 0
            && matches!(head.body, BodyLength::Known(length) if length > limits.body_bytes);
        // A client that sent `Expect: 100-continue` gets the final status instead and must not send its body.
        if is_too_long || (head.expects_continue && head.body != BodyLength::Known(0)) {
            self.keep_alive = false;
        }
        let exchange = Exchange::new(head, self.keep_alive, &cx.shared, cx.date.line());
        if is_too_long {
            let reply = exchange.error(413);
            cx.stats.limit(Limit::Body);
            self.begin_reply(reply, head, cx);
            return true;
        }
        match exchange.decide() {
            Ok(Decision::Reply(reply)) => self.begin_reply(reply, head, cx),
            Ok(Decision::HandOff) => {
                self.set_pending_handoff(Reason::Request);
                return false;
            }
            Ok(Decision::NeedsLookup(lane, volume)) => {
                self.set_timeout(limits.disk_timeout, cx.event_loop.now());
                let raw: Arc<[u8]> = raw.into();
                let (shared, mailbox) = (cx.shared.clone(), cx.event_loop.mailbox().clone());
                let lookup = {
                    let raw = raw.clone();
                    move || answer::lookup_blocking(&raw, &shared)
                };
                let notify = move |result: Result<LookupResult>| {
                    let result = result.unwrap_or_else(|error| LookupResult::new(Err(error)));
                    mailbox.send(Message::LookedUp(token, Box::new(result)));
                };
                let task = Pool::global().run_in_steps(lane, volume, lookup, notify);
                self.state = State::LookingUp { raw, task };
            }
            Err(error) => {
                let reply = exchange.failure(&error);
                self.begin_failure(&error, reply, head, cx);
            }
        }
        true
    }

    /// Takes the result of a lookup on a pool thread.
    pub fn looked_up(&mut self, result: LookupResult, cx: &mut Context) {
        // The lookup may have timed out.
        let State::LookingUp { raw, .. } = &self.state else { return };
        let raw = raw.clone();
        let Ok(head) = answer::parse(&raw, &cx.shared.options) else { return };
        let exchange = Exchange::new(&head, self.keep_alive, &cx.shared, cx.date.line());
        match exchange.complete(result) {
            Ok(Decision::Reply(reply)) => self.begin_reply(reply, &head, cx),
            Ok(_) => self.hand_off_request(&raw),
            Err(error) => {
                let reply = exchange.failure(&error);
                self.begin_failure(&error, reply, &head, cx);
            }
        }
    }

    /// Gives up a lookup that takes longer than `limits.disk_timeout`.
    pub(super) fn lookup_expired(&mut self, raw: &[u8], cx: &mut Context) {
        cx.stats.limit(Limit::DiskTimeout);
        match answer::parse(raw, &cx.shared.options) {
            Ok(head) if cx.shared.options.handoff.is_none() => {
                self.keep_alive = false;
                let reply = Exchange::new(&head, false, &cx.shared, cx.date.line()).error(503);
                self.begin_reply(reply, &head, cx);
            }
            _ => self.hand_off_request(raw),
        }
    }

    fn begin_failure(&mut self, error: &Error, reply: Reply, head: &RequestHead<'_>, cx: &mut Context) {
        if answer::is_exhausted(error) {
            cx.exhausted = true;
        } else {
            cx.stats.failures.add(1);
        }
        self.begin_reply(reply, head, cx);
    }

    fn begin_reply(&mut self, reply: Reply, head: &RequestHead<'_>, cx: &mut Context) {
        if cx.shared.options.handoff.is_some() {
            cx.stats.requests.add(1);
        }
        let body = match head.body {
            BodyLength::Known(0) => None,
            BodyLength::Known(length) => Some(Body::Known(length)),
            BodyLength::Chunked => Some(Body::Chunked(ChunkedSkipper::default())),
        };
        let log = cx.shared.options.log.is_some().then(|| log_entry(self.client, reply.status, Some(head)));
        self.start(reply, body, log, cx);
    }

    /// Responds with an error to malformed or unexpected input; the connection is closed after it.
    pub(super) fn refuse(&mut self, status: u16, cx: &mut Context) {
        self.keep_alive = false;
        let log = cx.shared.options.log.is_some().then(|| log_entry(self.client, status, None));
        self.start(Reply::refusal(status, cx.date.line()), None, log, cx);
    }

    pub(super) fn refuse_head(&mut self, error: HeadError, cx: &mut Context) {
        cx.stats.requests.add(1);
        if matches!(error, HeadError::HeadTooLong | HeadError::TargetTooLong | HeadError::TooManyHeaders) {
            cx.stats.limit(Limit::Head);
        }
        self.refuse(error.status(), cx);
    }

    fn start(&mut self, reply: Reply, body: Option<Body>, log: Option<Entry>, cx: &mut Context) {
        cx.stats.status(reply.status);
        self.state = State::Sending(Box::new(Response::new(reply, body, log, cx.event_loop.now())));
    }

    /// Replaces an unsent response by an error response, after which the connection is closed. A response that is sent in part
    /// ends in a reset.
    pub(super) fn fail_response(&mut self, status: u16, cx: &mut Context) -> Step {
        let State::Sending(response) = &mut self.state else { return CONTINUE };
        if !response.is_unsent() {
            response.record(true, &cx.stats, &mut cx.log);
            return self.abort(cx);
        }
        let mut log = response.log.take();
        if let Some(entry) = &mut log {
            entry.status = status;
        }
        self.keep_alive = false;
        self.start(Reply::refusal(status, cx.date.line()), None, log, cx);
        CONTINUE
    }

    /// Hands the connection off once the queue has room, without a time limit.
    pub(super) fn set_pending_handoff(&mut self, reason: Reason) {
        self.state = State::PendingHandoff(reason);
        self.deadline = None;
    }

    /// Hands off a request whose head `raw` has been consumed.
    fn hand_off_request(&mut self, raw: &[u8]) {
        self.pending.splice(..self.consumed, raw.iter().copied());
        self.consumed = 0;
        self.set_pending_handoff(Reason::Request);
    }

    pub fn into_handoff(mut self) -> Handoff {
        let reason = if let State::PendingHandoff(reason) = self.state { reason } else { Reason::Request };
        self.pending.drain(..self.consumed);
        Handoff { socket: self.socket, received: self.pending, reason }
    }
}

/// An entry for a response that starts now. Without a valid head, method and target are `-`.
fn log_entry(client: Option<SocketAddr>, status: u16, head: Option<&RequestHead<'_>>) -> Entry {
    let owned = |field: Option<&str>| field.map(str::to_owned);
    Entry {
        time: SystemTime::now(),
        client,
        method: head.map_or("-", |head| head.raw_method).to_owned(),
        target: head.map_or("-", |head| head.raw_target).to_owned(),
        host: owned(head.and_then(|head| head.host)),
        is_http10: head.is_some_and(|head| head.is_http10),
        status,
        bytes: 0,
        head_bytes: 0,
        duration: Duration::ZERO,
        referer: owned(head.and_then(|head| head.referer)),
        user_agent: owned(head.and_then(|head| head.user_agent)),
        aborted: false,
    }
}

//! From a request head to its response.

use std::ops::ControlFlow;

use nix::errno::Errno;

use super::error_page::{error_json, error_page};
use super::listing;
use super::message::LookupResult;
use super::mount::{ListFormat, Mount};
use super::options::ServerOptions;
use super::reply::Reply;
use super::routing;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::fs::Access;
use crate::fs::directory::{self, Listing};
use crate::io::pool::{Lane, Volume};
use crate::static_site::{Dotfiles, Outcome, Overrides, PathInput, Request, Response};
use crate::transfer;
use zerosend_http::head_writer::HeadWriter;
use zerosend_http::request::{HeadError, Method, RequestHead};

const ALLOW: &str = "GET, HEAD, OPTIONS";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) enum Decision {
    Reply(Reply),
    /// Run [`lookup_blocking`] on the pool, in this lane and for this volume.
    NeedsLookup(Lane, Volume),
    /// The application answers the request.
    HandOff,
}

/// Parses a head. With a handoff queue the path is not normalized, because the router of the application matches it as sent.
pub(super) fn parse<'a>(raw: &'a [u8], options: &ServerOptions) -> std::result::Result<RequestHead<'a>, HeadError> {
    let mut head = RequestHead::parse(raw, options.limits.headers)?;
    if options.handoff.is_none() {
        head.merge_path();
    }
    Ok(head)
}

/// Looks up the file of a request on a pool thread, in bounded steps: call again after `Continue`. `raw` is a head that
/// [`parse`] has accepted; parsing it again costs less than a copy of its fields, and only requests that need the disk do.
pub(super) fn lookup_blocking(raw: &[u8], shared: &Shared) -> ControlFlow<Result<LookupResult>> {
    let Ok(head) = parse(raw, &shared.options) else {
        return ControlFlow::Break(Ok(LookupResult::new(Ok(Outcome::BadPath))));
    };
    let exchange = Exchange::new(&head, true, shared, &[]);
    let Some(target) = &exchange.target else {
        return ControlFlow::Break(Ok(LookupResult::new(Ok(Outcome::NotFound))));
    };
    let mount = target.mount;
    ControlFlow::Break(Ok(match mount.site.respond_step(&target.request(&head)) {
        Ok(Outcome::WouldBlock) => return ControlFlow::Continue(()),
        Ok(Outcome::Directory(directory)) if mount.list.is_some() => {
            let root = &mount.site.roots()[directory.root_index];
            let dotfiles = mount.site.options().dotfiles == Dotfiles::Allow;
            match directory::list(root, &directory.path, dotfiles) {
                Ok(listing) => LookupResult { outcome: Ok(Outcome::Directory(directory)), listing: Some(listing) },
                Err(error) if error.errno() == Some(Errno::EACCES) => {
                    LookupResult::new(Ok(Outcome::Forbidden("permission denied")))
                }
                Err(error) => LookupResult::new(Err(error)),
            }
        }
        outcome => LookupResult::new(outcome),
    }))
}

/// Whether the lookup failed for lack of descriptors or memory. The client may try again later.
pub(super) fn is_exhausted(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// The part of a mount that a request names.
struct Target<'a> {
    mount: &'a Mount,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn request(&self, head: &'a RequestHead<'_>) -> Request<'a> {
        Request {
            head_only: head.method == Method::Head,
            // The prefix ends with a slash, which is the first byte of the path below the roots.
            path: PathInput::Encoded(&self.path[self.mount.prefix.len() - 1..]),
            conditions: head.conditions(),
            overrides: Overrides::default(),
            root_index: 0,
        }
    }
}

/// A request, and what every response to it depends on.
pub(super) struct Exchange<'a> {
    head: &'a RequestHead<'a>,
    /// `None` without a path (`OPTIONS *`) and outside all mounts.
    target: Option<Target<'a>>,
    keep_alive: bool,
    shared: &'a Shared,
    date_line: &'a [u8],
}

impl<'a> Exchange<'a> {
    pub fn new(head: &'a RequestHead<'a>, keep_alive: bool, shared: &'a Shared, date_line: &'a [u8]) -> Self {
        let target = head.path().and_then(|(path, _)| {
            let mount = routing::find_mount(&shared.options.mounts, path)?;
            Some(Target { mount, path })
        });
        Self { head, target, keep_alive, shared, date_line }
    }

    /// Answers the request if that needs no disk access. An error is a failed lookup, see [`Exchange::failure`].
    pub fn decide(&self) -> Result<Decision> {
        let head = self.head;
        let options = &self.shared.options;
        if options.handoff.is_some() && !routing::accepts(head, self.mount(), &options.exclude_routes) {
            return Ok(Decision::HandOff);
        }
        if head.expects_other {
            return Ok(Decision::Reply(self.error(417)));
        }
        match head.method {
            Method::Get | Method::Head => {}
            Method::Options => return Ok(Decision::Reply(self.options())),
            Method::NotAllowed => return Ok(Decision::Reply(self.error(405))),
            Method::Unknown => return Ok(Decision::Reply(self.error(501))),
        }
        let Some((path, _)) = head.path() else { return Ok(Decision::Reply(self.error(400))) };
        if options.metrics_path.as_deref() == Some(path) {
            let text = self.shared.snapshot().prometheus();
            return Ok(Decision::Reply(self.text(200, self.writer(200), PROMETHEUS, &text)));
        }
        let Some(target) = &self.target else { return self.complete(LookupResult::new(Ok(Outcome::NotFound))) };
        let site = &target.mount.site;
        let request = target.request(head);
        match site.respond(&request, Access::CachedOnly) {
            Ok(Outcome::WouldBlock) => Ok(Decision::NeedsLookup(site.lane(), site.volume(&request))),
            Ok(Outcome::Directory(_)) if target.mount.list.is_some() => {
                Ok(Decision::NeedsLookup(site.lane(), site.volume(&request)))
            }
            outcome => self.complete(LookupResult::new(outcome)),
        }
    }

    /// Answers the request with the result of a lookup.
    pub fn complete(&self, result: LookupResult) -> Result<Decision> {
        if self.shared.options.handoff.is_some() && !routing::serves_outcome(&result.outcome, self.mount()) {
            return Ok(Decision::HandOff);
        }
        Ok(Decision::Reply(match result.outcome? {
            Outcome::Response(response) => self.file(response),
            Outcome::Redirect => self.redirect(),
            Outcome::Directory(directory) => match result.listing {
                Some(listing) => self.listing(&listing, &directory.path),
                None => self.error(directory.status),
            },
            Outcome::NotFound | Outcome::WouldBlock => self.error(404),
            Outcome::Forbidden(_) => self.error(403),
            Outcome::BadPath => self.error(400),
        }))
    }

    /// The response for a failed lookup.
    pub fn failure(&self, error: &Error) -> Reply {
        self.error(if is_exhausted(error) { 503 } else { 500 })
    }

    /// An error response.
    pub fn error(&self, status: u16) -> Reply {
        let mut writer = self.writer(status);
        match status {
            405 => writer.field("allow", ALLOW),
            503 => writer.field("retry-after", "1"),
            _ => {}
        }
        self.error_body(status, writer)
    }

    fn mount(&self) -> Option<&'a Mount> {
        self.target.as_ref().map(|target| target.mount)
    }

    fn file(&self, response: Response) -> Reply {
        let status = response.status;
        let mut writer = self.writer(status);
        writer.fields(&response.head.headers);
        if matches!(status, 412 | 416) {
            return self.error_body(status, writer);
        }
        let method = self.mount().map_or(transfer::Method::Auto, |mount| mount.method);
        Reply { body: response.into_parts(), method, ..Reply::new(status, writer, "") }
    }

    /// Redirects to the same path with a slash. The path is normalized, so a client cannot read it as a network-path reference
    /// (`//host/`), RFC 3986 section 4.2.
    fn redirect(&self) -> Reply {
        let Some((path, query)) = self.head.path() else { return self.error(400) };
        let mut writer = self.writer(301);
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        writer.field("location", &format!("{path}/{query}"));
        self.error_body(301, writer)
    }

    fn listing(&self, listing: &Listing, directory: &str) -> Reply {
        let Some(Target { mount, path }) = &self.target else { return self.error(404) };
        if !path.ends_with('/') {
            return self.redirect();
        }
        let prefix = &mount.prefix;
        let shown = if directory.is_empty() { prefix.clone() } else { format!("{prefix}{directory}/") };
        let mut writer = self.writer(200);
        writer.field("vary", "accept");
        writer.field("cache-control", "no-cache");
        if mount.list == Some(ListFormat::Json) || self.prefers_json() {
            self.text(200, writer, JSON, &listing::json(listing, &shown))
        } else {
            self.text(200, writer, HTML, &listing::html(listing, &shown, directory.is_empty()))
        }
    }

    fn options(&self) -> Reply {
        let mut writer = self.writer(204);
        writer.field("allow", ALLOW);
        if self.shared.options.cors && self.head.origin.is_some() {
            writer.field("access-control-allow-methods", ALLOW);
            writer.field("access-control-allow-headers", "*, Range, If-None-Match, If-Modified-Since, If-Range");
            writer.field("access-control-max-age", "86400");
        }
        Reply::new(204, writer, "")
    }

    /// Error body: HTML, or JSON when the client prefers it.
    fn error_body(&self, status: u16, mut writer: HeadWriter) -> Reply {
        writer.field("vary", "accept");
        if self.prefers_json() {
            self.text(status, writer, JSON, &error_json(status))
        } else {
            self.text(status, writer, HTML, &error_page(status))
        }
    }

    fn prefers_json(&self) -> bool {
        self.head.accept.is_some_and(|accept| accept.contains("application/json") && !accept.contains("text/html"))
    }

    fn text(&self, status: u16, mut writer: HeadWriter, content_type: &str, text: &str) -> Reply {
        writer.field("content-type", content_type);
        writer.field("content-length", &text.len().to_string());
        Reply::new(status, writer, if self.head.method == Method::Head { "" } else { text })
    }

    /// Starts a head with the fields that every response has.
    fn writer(&self, status: u16) -> HeadWriter {
        let mut writer = HeadWriter::new(status);
        writer.lines(self.date_line);
        if !self.keep_alive {
            writer.field("connection", "close");
        } else if !self.shared.keep_alive_lines.is_empty() {
            writer.lines(&self.shared.keep_alive_lines);
        } else if self.head.is_http10 {
            writer.field("connection", "keep-alive");
        }
        writer.lines(&self.shared.header_lines);
        writer
    }
}

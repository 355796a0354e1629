//! From a request to the bytes of its answer: which mount, what its site says, and the head in front.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::context::Context;
use super::error_page::error_page;
use super::listing;
use super::message::LookupResult;
use super::mount::{ListFormat, Mount};
use super::options::ServerOptions;
use super::routing;
use super::shared::Shared;
use crate::error::Result;
use crate::fs::Access;
use crate::fs::directory::{self, Listing};
use crate::io::pool::{Lane, Volume};
use crate::static_site::{Outcome, Overrides, PathInput, Request};
use crate::transfer::{Method, Part};
use zerosend_http::head_writer::{HeadWriter, reason};
use zerosend_http::request::{HeadError, Method as RequestMethod, RequestHead};

/// What a server of files can be asked for.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// An answer, ready to be sent.
pub(super) struct Reply {
    pub status: u16,
    /// The head, and a body that is not a file's.
    pub head: Vec<u8>,
    /// Bytes of the head alone.
    pub head_length: usize,
    /// Stretches of files.
    pub body: Vec<Part>,
    pub method: Method,
}

impl Reply {
    /// One without a file: `body` may be empty.
    fn bare(status: u16, writer: HeadWriter, body: &str) -> Self {
        let head = writer.finish(body.as_bytes());
        let head_length = head.len() - body.len();
        Self { status, head, head_length, body: Vec::new(), method: Method::Auto }
    }
}

/// What is to be done about a request.
pub(super) enum Decision {
    /// This is the answer.
    Reply(Reply),
    /// Whoever may wait for a disk has to be asked, see [`lookup_blocking`].
    NeedsLookup,
    /// It is not for this server.
    HandOff,
}

/// Reads a head. With a handoff queue the path stays as it was sent, for the application's router has not seen it yet.
pub(super) fn parse<'a>(raw: &'a [u8], options: &ServerOptions) -> std::result::Result<RequestHead<'a>, HeadError> {
    let mut head = RequestHead::parse(raw, options.limits.headers)?;
    if options.handoff.is_none() {
        head.merge_path();
    }
    Ok(head)
}

/// Answers what can be answered without waiting for a disk.
pub(super) fn decide(head: &RequestHead<'_>, keep_alive: bool, access: Access, cx: &mut Context) -> Decision {
    if cx.options.handoff.is_some() && !routing::accepts(head, mount_of(head, &cx.options), &cx.options.exclude_routes)
    {
        return Decision::HandOff;
    }
    if head.expects_other {
        return Decision::Reply(error(417, head, keep_alive, cx));
    }
    match head.method {
        RequestMethod::Get | RequestMethod::Head => {}
        RequestMethod::Options => return Decision::Reply(options(head, keep_alive, cx)),
        RequestMethod::NotAllowed => return Decision::Reply(error(405, head, keep_alive, cx)),
        RequestMethod::Unknown => return Decision::Reply(error(501, head, keep_alive, cx)),
    }
    let Some((path, _)) = head.path() else { return Decision::Reply(error(400, head, keep_alive, cx)) };
    if cx.options.metrics_path.as_deref() == Some(path) {
        let text = cx.shared.snapshot().prometheus();
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        return Decision::Reply(text_reply(200, kind, &text, head, keep_alive, cx));
    }
    match ask(head, &cx.shared.clone(), Asking::With(access)) {
        Ok((_, Outcome::WouldBlock)) => Decision::NeedsLookup,
        Ok((Some(mount), Outcome::Directory(_))) if mount.list.is_some() => Decision::NeedsLookup,
        answered => {
            let answered = LookupResult { outcome: answered.map(|(_, outcome)| outcome), listing: None };
            complete(head, answered, keep_alive, cx)
        }
    }
}

/// What to do now that the outcome is known.
pub(super) fn complete(head: &RequestHead<'_>, answered: LookupResult, keep_alive: bool, cx: &mut Context) -> Decision {
    if cx.options.handoff.is_some() && !routing::serves_outcome(&answered.outcome, mount_of(head, &cx.options)) {
        return Decision::HandOff;
    }
    Decision::Reply(reply(head, answered, keep_alive, cx))
}

/// The mount that a request is about.
pub(super) fn mount_of<'a>(head: &RequestHead<'_>, options: &'a ServerOptions) -> Option<&'a Mount> {
    head.path().and_then(|(path, _)| routing::find_mount(&options.mounts, path))
}

/// The file system that has to be asked for a request.
pub(super) fn volume(head: &RequestHead<'_>, shared: &Shared) -> Volume {
    let Some((path, _)) = head.path() else { return Volume::NONE };
    let Some(mount) = routing::find_mount(&shared.options.mounts, path) else { return Volume::NONE };
    mount.site.volume(&request_of(mount, head, path))
}

/// The lane of the pool for [`lookup_blocking`].
pub(super) fn lane(head: &RequestHead<'_>, shared: &Shared) -> Lane {
    mount_of(head, &shared.options).map_or(Lane::Short, |mount| mount.site.lane())
}

/// Answers a request on a thread that may wait for the disk, in bounded pieces: `Continue` asks for another call. `raw` is a head
/// that has been parsed before.
pub(super) fn lookup_blocking(raw: &[u8], shared: &Arc<Shared>) -> ControlFlow<Result<LookupResult>> {
    let Ok(head) = parse(raw, &shared.options) else {
        return ControlFlow::Break(Ok(LookupResult { outcome: Ok(Outcome::BadPath), listing: None }));
    };
    ControlFlow::Break(Ok(match ask(&head, shared, Asking::Piece) {
        Ok((_, Outcome::WouldBlock)) => return ControlFlow::Continue(()),
        Ok((Some(mount), Outcome::Directory(directory))) if mount.list.is_some() => {
            let root = &mount.site.roots()[directory.root_index];
            let dotfiles = mount.site.options().dotfiles == crate::static_site::Dotfiles::Allow;
            match directory::list(root, &directory.path, dotfiles) {
                Ok(listing) => LookupResult { outcome: Ok(Outcome::Directory(directory)), listing: Some(listing) },
                Err(error) if error.errno() == Some(nix::errno::Errno::EACCES) => {
                    LookupResult { outcome: Ok(Outcome::Forbidden("permission denied")), listing: None }
                }
                Err(error) => LookupResult { outcome: Err(error), listing: None },
            }
        }
        answered => LookupResult { outcome: answered.map(|(_, outcome)| outcome), listing: None },
    }))
}

/// How a site is asked.
enum Asking {
    With(Access),
    Piece,
}

fn ask<'a>(head: &RequestHead<'_>, shared: &'a Shared, asking: Asking) -> Result<(Option<&'a Mount>, Outcome)> {
    let Some((path, _)) = head.path() else { return Ok((None, Outcome::BadPath)) };
    let Some(mount) = routing::find_mount(&shared.options.mounts, path) else { return Ok((None, Outcome::NotFound)) };
    let request = request_of(mount, head, path);
    let outcome = match asking {
        Asking::With(access) => mount.site.respond(&request, access)?,
        Asking::Piece => mount.site.respond_piece(&request)?,
    };
    Ok((Some(mount), outcome))
}

fn request_of<'a>(mount: &Mount, head: &'a RequestHead<'_>, path: &'a str) -> Request<'a> {
    Request {
        head_only: head.method == RequestMethod::Head,
        path: PathInput::Encoded(&path[mount.prefix.len() - 1..]),
        conditions: head.conditions(),
        overrides: Overrides::default(),
        root_index: 0,
    }
}

/// The answer that an outcome means.
fn reply(head: &RequestHead<'_>, answered: LookupResult, keep_alive: bool, cx: &mut Context) -> Reply {
    let Some((path, _)) = head.path() else { return error(400, head, keep_alive, cx) };
    match answered.outcome {
        Ok(Outcome::Response(response)) => match response.status {
            status @ (412 | 416) => {
                let mut writer = begin(status, head, keep_alive, cx);
                writer.fields(&response.head.headers);
                with_page(writer, status, head)
            }
            status => {
                let mut writer = begin(status, head, keep_alive, cx);
                writer.fields(&response.head.headers);
                let method = routing::find_mount(&cx.options.mounts, path).map_or(Method::Auto, |mount| mount.method);
                Reply { body: response.body.into_parts(), method, ..Reply::bare(status, writer, "") }
            }
        },
        Ok(Outcome::Redirect) => redirect(head, keep_alive, cx),
        Ok(Outcome::Directory(directory)) => match answered.listing {
            Some(listing) => list(head, &listing, &directory.path, keep_alive, cx),
            None => error(directory.status, head, keep_alive, cx),
        },
        Ok(Outcome::NotFound | Outcome::WouldBlock) => error(404, head, keep_alive, cx),
        Ok(Outcome::Forbidden(_)) => error(403, head, keep_alive, cx),
        Ok(Outcome::BadPath) => error(400, head, keep_alive, cx),
        Err(failure) => {
            use nix::errno::Errno;
            let exhausted = matches!(failure.errno(), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM));
            if exhausted {
                cx.exhausted = true;
            } else {
                cx.stats.failures.add(1);
            }
            error(if exhausted { 503 } else { 500 }, head, keep_alive, cx)
        }
    }
}

/// To the same path with a slash. The path has been merged, so that it cannot be read as the name of another host (`//name/`).
fn redirect(head: &RequestHead<'_>, keep_alive: bool, cx: &mut Context) -> Reply {
    let Some((path, query)) = head.path() else { return error(400, head, keep_alive, cx) };
    let mut writer = begin(301, head, keep_alive, cx);
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    writer.field("location", &format!("{path}/{query}"));
    with_page(writer, 301, head)
}

fn list(head: &RequestHead<'_>, entries: &Listing, directory: &str, keep_alive: bool, cx: &mut Context) -> Reply {
    let Some((path, _)) = head.path() else { return error(400, head, keep_alive, cx) };
    if !path.ends_with('/') {
        return redirect(head, keep_alive, cx);
    }
    let Some(mount) = routing::find_mount(&cx.options.mounts, path) else { return error(404, head, keep_alive, cx) };
    let prefix = &mount.prefix;
    let shown = if directory.is_empty() { prefix.clone() } else { format!("{prefix}{directory}/") };
    let as_json = mount.list == Some(ListFormat::Json) || prefers_json(head.accept);
    let (kind, text) = if as_json {
        ("application/json; charset=utf-8", listing::json(entries, &shown))
    } else {
        ("text/html; charset=utf-8", listing::html(entries, &shown, directory.is_empty()))
    };
    let mut writer = begin(200, head, keep_alive, cx);
    writer.field("vary", "accept");
    writer.field("cache-control", "no-cache");
    with_text(writer, 200, kind, &text, head)
}

fn prefers_json(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/json") && !accept.contains("text/html"))
}

fn options(head: &RequestHead<'_>, keep_alive: bool, cx: &mut Context) -> Reply {
    let mut writer = begin(204, head, keep_alive, cx);
    writer.field("allow", ALLOW);
    if cx.options.cors && head.origin.is_some() {
        writer.field("access-control-allow-methods", ALLOW);
        writer.field("access-control-allow-headers", "*, Range, If-None-Match, If-Modified-Since, If-Range");
        writer.field("access-control-max-age", "86400");
    }
    Reply::bare(204, writer, "")
}

/// A page of an error.
pub(super) fn error(status: u16, head: &RequestHead<'_>, keep_alive: bool, cx: &mut Context) -> Reply {
    let mut writer = begin(status, head, keep_alive, cx);
    match status {
        405 => writer.field("allow", ALLOW),
        503 => writer.field("retry-after", "1"),
        _ => {}
    }
    with_page(writer, status, head)
}

/// Error body: HTML, or JSON when the client prefers it.
fn with_page(mut writer: HeadWriter, status: u16, head: &RequestHead<'_>) -> Reply {
    writer.field("vary", "accept");
    if prefers_json(head.accept) {
        let text = format!("{{\"statusCode\":{status},\"error\":\"{}\"}}", reason(status));
        return with_text(writer, status, "application/json; charset=utf-8", &text, head);
    }
    with_text(writer, status, "text/html; charset=utf-8", &error_page(status), head)
}

/// Response to malformed or unexpected input, and to a request whose response has failed. The connection is closed after it.
pub(super) fn refusal(status: u16, cx: &mut Context) -> Reply {
    let page = error_page(status);
    let mut writer = HeadWriter::new(status);
    writer.lines(cx.date.now());
    writer.field("connection", "close");
    writer.field("content-type", "text/html; charset=utf-8");
    writer.field("content-length", &page.len().to_string());
    if status == 503 {
        writer.field("retry-after", "1");
    }
    Reply::bare(status, writer, &page)
}

/// The lines that every answer has.
fn begin(status: u16, head: &RequestHead<'_>, keep_alive: bool, cx: &mut Context) -> HeadWriter {
    let mut writer = HeadWriter::new(status);
    writer.lines(cx.date.now());
    if !keep_alive {
        writer.field("connection", "close");
    } else if !cx.shared.keep_alive_lines.is_empty() {
        writer.lines(&cx.shared.keep_alive_lines);
    } else if head.is_http10 {
        writer.field("connection", "keep-alive");
    }
    writer.lines(&cx.shared.header_lines);
    writer
}

fn text_reply(
    status: u16,
    kind: &str,
    text: &str,
    head: &RequestHead<'_>,
    keep_alive: bool,
    cx: &mut Context,
) -> Reply {
    let writer = begin(status, head, keep_alive, cx);
    with_text(writer, status, kind, text, head)
}

fn with_text(mut writer: HeadWriter, status: u16, kind: &str, text: &str, head: &RequestHead<'_>) -> Reply {
    writer.field("content-type", kind);
    writer.field("content-length", &text.len().to_string());
    let body = if head.method == RequestMethod::Head { "" } else { text };
    Reply::bare(status, writer, body)
}

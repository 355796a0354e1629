//! Parses a complete request head.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::error::HeadError;
use super::framing::{BodyLength, Framing};
use super::method::{Method, is_token};
use super::target::{self, Target, is_authority};
use crate::conditional::Conditions;

/// Upper bound of the number of header fields, whatever the caller's limit.
pub const MAX_HEADERS: usize = 256;

/// A parsed and validated request head.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// The method as sent.
    pub raw_method: &'a str,
    /// The target as sent.
    pub raw_target: &'a str,
    /// The parsed target; see [`RequestHead::path`].
    pub target: Target<'a>,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// Whether the connection persists after the response.
    pub keep_alive: bool,
    /// The length of the body that follows.
    pub body: BodyLength,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// Any other expectation: 417.
    pub expects_other: bool,
    /// A protocol upgrade, or CONNECT.
    pub upgrade: bool,
    /// `Host`, or the authority of an absolute-form target.
    pub host: Option<&'a str>,
    /// Has `Authorization` or `Cookie`.
    pub has_credentials: bool,
    /// `Referer`.
    pub referer: Option<&'a str>,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// `Accept`.
    pub accept: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    fields: Fields<'a>,
    /// The path after [`RequestHead::merge_path`], where it differs.
    merged: Option<String>,
}

/// The fields of [`Conditions`]. Lists may span several field lines, RFC 9110 section 5.3.
#[derive(Debug, Default)]
struct Fields<'a> {
    if_match: Option<Cow<'a, str>>,
    if_none_match: Option<Cow<'a, str>>,
    cache_control: Option<Cow<'a, str>>,
    accept_encoding: Option<Cow<'a, str>>,
    if_modified_since: Single<'a>,
    if_unmodified_since: Single<'a>,
    if_range: Single<'a>,
    range: Single<'a>,
}

/// A field that must not be repeated, RFC 9110 section 5.3. A repeated one is ignored.
#[derive(Debug, Default, Clone, Copy)]
struct Single<'a> {
    value: Option<&'a str>,
    repeated: bool,
}

impl<'a> Single<'a> {
    fn add(&mut self, value: Option<&'a str>) {
        self.repeated |= self.value.is_some();
        self.value = value;
    }

    fn get(&self) -> Option<&'a str> {
        self.value.filter(|_| !self.repeated)
    }
}

/// Appends a field line to a list.
fn join<'a>(list: &mut Option<Cow<'a, str>>, value: Option<&'a str>) {
    let Some(value) = value else { return };
    match list {
        None => *list = Some(Cow::Borrowed(value)),
        Some(list) => {
            let list = list.to_mut();
            list.push_str(", ");
            list.push_str(value);
        }
    }
}

impl<'a> RequestHead<'a> {
    /// Parses `head`, up to and including the empty line that [`HeadScanner`](super::HeadScanner) has found.
    pub fn parse(head: &'a [u8], max_headers: usize) -> Result<Self, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let fields = &mut fields[..max_headers.min(MAX_HEADERS)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, fields) {
            Ok(httparse::Status::Complete(_)) => {
                let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
                else {
                    return Err(HeadError::Bad("malformed request line"));
                };
                Self::from_parts(method, target, version == 0, request.headers)
            }
            Ok(httparse::Status::Partial) => Err(HeadError::Bad("malformed request head")),
            Err(httparse::Error::Version) => Self::parse_later_version(head, max_headers),
            Err(error) => Err(refuse(error)),
        }
    }

    /// RFC 9110 section 2.5: a higher minor version is processed as HTTP/1.1. `httparse` refuses it.
    fn parse_later_version(head: &'a [u8], max_headers: usize) -> Result<Self, HeadError> {
        const MALFORMED: HeadError = HeadError::Bad("malformed request line");
        let start = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(head.len());
        let line_end = memchr::memchr(b'\n', &head[start..]).map_or(head.len(), |found| start + found + 1);
        let line = std::str::from_utf8(&head[start..line_end]).map_err(|_| MALFORMED)?;
        let line = line.strip_suffix("\r\n").ok_or(MALFORMED)?;
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(MALFORMED);
        };
        match version.strip_prefix("HTTP/").map(str::as_bytes) {
            Some([b'1', b'.', b'2'..=b'9']) => {}
            Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(HeadError::Version),
            _ => return Err(MALFORMED),
        }
        if !is_token(method) || target.is_empty() {
            return Err(MALFORMED);
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match httparse::parse_headers(&head[line_end..], &mut fields[..max_headers.min(MAX_HEADERS)]) {
            Ok(httparse::Status::Complete((_, headers))) => Self::from_parts(method, target, false, headers),
            Ok(httparse::Status::Partial) => Err(HeadError::Bad("malformed request head")),
            Err(error) => Err(refuse(error)),
        }
    }

    fn from_parts(
        method: &'a str,
        raw_target: &'a str,
        is_http10: bool,
        headers: &[httparse::Header<'a>],
    ) -> Result<Self, HeadError> {
        let (target, authority) = target::parse(method, raw_target)?;
        let mut this = Self {
            method: Method::parse(method),
            raw_method: method,
            raw_target,
            target,
            is_http10,
            keep_alive: !is_http10,
            body: BodyLength::Known(0),
            expects_continue: false,
            expects_other: false,
            upgrade: method == "CONNECT",
            host: None,
            has_credentials: false,
            referer: None,
            user_agent: None,
            accept: None,
            origin: None,
            fields: Fields::default(),
            merged: None,
        };
        let mut framing = Framing::default();
        for header in headers {
            this.read_field(header, &mut framing)?;
        }
        if is_http10 {
            // RFC 9110 section 10.1.1: ignore expectations of HTTP/1.0.
            this.expects_continue = false;
            this.expects_other = false;
        }
        this.body = framing.length(is_http10)?;
        this.keep_alive = !framing.close && (this.keep_alive || framing.keep_alive);
        this.upgrade |= framing.upgrade && framing.upgrade_field;
        if this.host.is_none() && !is_http10 {
            return Err(HeadError::Bad("no Host"));
        }
        // RFC 9112 section 3.2.2: the authority of the target wins over Host.
        this.host = authority.or(this.host);
        Ok(this)
    }

    /// Removes empty and `.` segments from the path, see [`merge`](crate::path::merge).
    pub fn merge_path(&mut self) {
        if let Target::Path { path, .. } = self.target {
            self.merged = crate::path::merge(path);
        }
    }

    /// Path and query of the target; the path is the merged one after [`RequestHead::merge_path`].
    pub fn path(&self) -> Option<(&str, Option<&'a str>)> {
        match self.target {
            Target::Path { path, query } => Some((self.merged.as_deref().unwrap_or(path), query)),
            _ => None,
        }
    }

    /// The fields that select a representation.
    pub fn conditions(&self) -> Conditions<'_> {
        let fields = &self.fields;
        Conditions {
            if_match: fields.if_match.as_deref(),
            if_none_match: fields.if_none_match.as_deref(),
            if_modified_since: fields.if_modified_since.get(),
            if_unmodified_since: fields.if_unmodified_since.get(),
            if_range: fields.if_range.get(),
            range: fields.range.get(),
            cache_control: fields.cache_control.as_deref(),
            accept_encoding: fields.accept_encoding.as_deref(),
        }
    }

    fn read_field(&mut self, header: &httparse::Header<'a>, framing: &mut Framing) -> Result<(), HeadError> {
        let name = header.name;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // A value that is not UTF-8 is ignored, except in framing fields.
        let value = std::str::from_utf8(header.value).ok().map(str::trim_ascii);
        match name.len() {
            4 if is("host") => {
                let value = value.filter(|value| is_authority(value)).ok_or(HeadError::Bad("malformed Host"))?;
                if self.host.replace(value).is_some() {
                    return Err(HeadError::Bad("more than one Host"));
                }
            }
            5 if is("range") => self.fields.range.add(value),
            6 if is("accept") => self.accept = value,
            6 if is("expect") => match value {
                Some(value) if value.eq_ignore_ascii_case("100-continue") => self.expects_continue = true,
                _ => self.expects_other = true,
            },
            6 if is("cookie") => self.has_credentials = true,
            6 if is("origin") => self.origin = value,
            7 if is("referer") => self.referer = value,
            7 if is("upgrade") => framing.upgrade_field = true,
            8 if is("if-match") => join(&mut self.fields.if_match, value),
            8 if is("if-range") => self.fields.if_range.add(value),
            10 if is("connection") => framing.read_connection(value.ok_or(HeadError::Bad("malformed Connection"))?),
            10 if is("user-agent") => self.user_agent = value,
            13 if is("authorization") => self.has_credentials = true,
            13 if is("cache-control") => join(&mut self.fields.cache_control, value),
            13 if is("if-none-match") => join(&mut self.fields.if_none_match, value),
            14 if is("content-length") => framing.read_content_length(value)?,
            15 if is("accept-encoding") => join(&mut self.fields.accept_encoding, value),
            17 if is("transfer-encoding") => framing.read_transfer_encoding(value)?,
            17 if is("if-modified-since") => self.fields.if_modified_since.add(value),
            19 if is("if-unmodified-since") => self.fields.if_unmodified_since.add(value),
            _ => {}
        }
        Ok(())
    }
}

fn refuse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::Version => HeadError::Version,
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::HeaderName => HeadError::Bad("malformed header name"),
        httparse::Error::HeaderValue => HeadError::Bad("malformed header value"),
        httparse::Error::Token => HeadError::Bad("malformed request line"),
        _ => HeadError::Bad("malformed request head"),
    }
}

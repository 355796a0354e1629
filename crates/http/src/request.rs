//! The head of an HTTP/1.1 request, RFC 9112: where it ends, what it asks for, and everything about it that must be
//! refused before anybody acts on it.
//!
//! [`HeadScanner`] finds the end as bytes come in, [`RequestHead::parse`] reads it. The grammar is `httparse`'s; the rules
//! on top are ours: line ends are CRLF and nothing else, one `Host`, one meaning of the body's length. A request whose
//! length could be read in two ways is how requests are smuggled, so each such shape is an error.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use super::conditional::Conditions;

/// Header fields at most, whatever the limit asked for.
pub const MOST_HEADERS: usize = 256;
/// Empty lines before a request line that are overlooked, RFC 9112 section 2.2.
const MOST_EMPTY_LINES: u8 = 4;

/// Why a head is refused. After any of these the connection must be closed: nobody knows where the next request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// 400, and why.
    Bad(&'static str),
    /// 414: the request line alone is over the limit.
    TargetTooLong,
    /// 431: the head is over the limit of bytes.
    HeadTooLong,
    /// 431: too many fields.
    TooManyHeaders,
    /// 501: a transfer coding other than `chunked`.
    Coding,
    /// 505: another major version than 1.
    Version,
}

impl HeadError {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::TargetTooLong => 414,
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::Coding => 501,
            Self::Version => 505,
        }
    }

    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bad(reason) => reason,
            Self::TargetTooLong => "request target too long",
            Self::HeadTooLong => "request head too long",
            Self::TooManyHeaders => "too many header fields",
            Self::Coding => "transfer coding not implemented",
            Self::Version => "HTTP version not supported",
        }
    }
}

/// Finds the end of a head in bytes that come piece by piece; each byte is looked at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScanner {
    scanned: usize,
    line: usize,
    /// Where the request line ends, once it has.
    first: Option<usize>,
    empty: u8,
}

impl HeadScanner {
    /// Looks on in `bytes`, which begin where they began last time. `Some`: where the head ends and the body begins.
    pub fn scan(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, HeadError> {
        while let Some(found) = memchr::memchr(b'\n', bytes.get(self.scanned..).unwrap_or_default()) {
            let end = self.scanned + found;
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(HeadError::Bad("a line ends without CR"));
            }
            let empty = end == self.line + 1;
            self.scanned = end + 1;
            self.line = end + 1;
            match (empty, self.first) {
                (true, None) if self.empty < MOST_EMPTY_LINES => self.empty += 1,
                (true, None) => return Err(HeadError::Bad("empty lines before the request")),
                (true, Some(_)) if end < most => return Ok(Some(end + 1)),
                (true, Some(_)) => return Err(self.too_long(most)),
                (false, first) => self.first = first.or(Some(end)),
            }
        }
        self.scanned = bytes.len();
        if bytes.len() < most { Ok(None) } else { Err(self.too_long(most)) }
    }

    fn too_long(&self, most: usize) -> HeadError {
        if self.first.is_some_and(|end| end < most) { HeadError::HeadTooLong } else { HeadError::TargetTooLong }
    }

    /// True when a byte of a request has been seen, empty lines aside.
    pub fn has_begun(&self, bytes: &[u8]) -> bool {
        bytes.len() > usize::from(self.empty) * 2
    }
}

/// The methods that mean something to a server of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// A method that other resources have: 405.
    NotAllowed,
    /// Any other token: 501.
    Unknown,
}

/// What a request is about, RFC 9112 section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path, from origin-form or absolute-form, and the query after the `?`.
    Path {
        /// Percent-encoded, begins with a slash.
        path: &'a str,
        /// Without its `?`.
        query: Option<&'a str>,
    },
    /// `*`: the server as a whole.
    Asterisk,
    /// The host and port of a CONNECT.
    Authority,
}

/// How long the body of a request is, RFC 9112 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// Bytes; 0 for none.
    Known(u64),
    /// In chunks.
    Chunked,
}

/// A head, read and checked.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// What the method means here.
    pub verb: Verb,
    /// The target as sent.
    pub raw_target: &'a str,
    /// The target as sent, see [`RequestHead::path`].
    pub target: Target<'a>,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// Whether the client wants the connection to stay.
    pub keep_alive: bool,
    /// The length of the body that follows.
    pub body: BodyLength,
    /// The client waits for a word before it sends the body.
    pub expects_continue: bool,
    /// An expectation that nobody can meet: 417.
    pub expects_other: bool,
    /// `Upgrade`, or a CONNECT: nothing that a server of files knows.
    pub upgrade: bool,
    /// `Host`, or the authority of an absolute-form target.
    pub host: Option<&'a str>,
    /// Carries `Authorization` or `Cookie`.
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
    merged: Option<String>,
}

/// Fields that may come in several lines, which then mean one list, RFC 9110 section 5.3.
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

/// A field that may come once. One that comes again says nothing, RFC 9110 section 5.3: it is as if it were not there.
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
    /// Reads `head`, which ends where [`HeadScanner`] found the end.
    pub fn parse(head: &'a [u8], most_headers: usize) -> Result<Self, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let fields = &mut fields[..most_headers.min(MOST_HEADERS)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, fields) {
            Ok(httparse::Status::Complete(_)) => {
                let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
                else {
                    return Err(HeadError::Bad("malformed request line"));
                };
                Self::read(method, target, version == 0, request.headers)
            }
            Ok(httparse::Status::Partial) => Err(HeadError::Bad("malformed request head")),
            Err(httparse::Error::Version) => Self::parse_later_version(head, most_headers),
            Err(error) => Err(refuse(error)),
        }
    }

    /// RFC 9110 section 2.5: a later minor version is read as the latest that is known.
    fn parse_later_version(head: &'a [u8], most_headers: usize) -> Result<Self, HeadError> {
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
        let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
        match httparse::parse_headers(&head[line_end..], &mut fields[..most_headers.min(MOST_HEADERS)]) {
            Ok(httparse::Status::Complete((_, headers))) => Self::read(method, target, false, headers),
            Ok(httparse::Status::Partial) => Err(HeadError::Bad("malformed request head")),
            Err(error) => Err(refuse(error)),
        }
    }

    fn read(
        method: &'a str,
        raw_target: &'a str,
        is_http10: bool,
        headers: &[httparse::Header<'a>],
    ) -> Result<Self, HeadError> {
        let (target, authority) = read_target(method, raw_target)?;
        let mut this = Self {
            method,
            verb: read_verb(method),
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
            // RFC 9110 section 10.1.1: HTTP/1.0 has no expectations.
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

    /// Merges empty and `.` segments of the path, see [`merge`](super::path::merge).
    pub fn merge_path(&mut self) {
        if let Target::Path { path, .. } = self.target {
            self.merged = super::path::merge(path);
        }
    }

    /// The path and the query of the target, the path as [`RequestHead::merge_path`] has left it.
    pub fn path(&self) -> Option<(&str, Option<&'a str>)> {
        match self.target {
            Target::Path { path, query } => Some((self.merged.as_deref().unwrap_or(path), query)),
            _ => None,
        }
    }

    /// The fields that decide about a file.
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
        // A field that is no text says nothing to us, unless the framing hangs on it.
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

/// What the fields say of the connection and of the body's end.
#[derive(Default)]
struct Framing {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    upgrade_field: bool,
}

impl Framing {
    fn read_connection(&mut self, value: &str) {
        for token in value.split(',').map(str::trim_ascii) {
            self.close |= token.eq_ignore_ascii_case("close");
            self.keep_alive |= token.eq_ignore_ascii_case("keep-alive");
            self.upgrade |= token.eq_ignore_ascii_case("upgrade");
        }
    }

    fn read_content_length(&mut self, value: Option<&str>) -> Result<(), HeadError> {
        let digits = value.filter(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|value| value.parse().ok()).ok_or(HeadError::Bad("malformed Content-Length"))?;
        match self.content_length.replace(length) {
            // The same value twice may be forwarded as one by somebody before us; refusing is always safe.
            Some(_) => Err(HeadError::Bad("more than one Content-Length")),
            None => Ok(()),
        }
    }

    fn read_transfer_encoding(&mut self, value: Option<&str>) -> Result<(), HeadError> {
        if self.chunked {
            return Err(HeadError::Bad("more than one Transfer-Encoding"));
        }
        self.chunked = value.is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        match value {
            Some(_) if self.chunked => Ok(()),
            // `gzip, chunked` is well formed, but a body so coded is nothing that we could find the use of.
            Some(value) if value.to_ascii_lowercase().ends_with("chunked") => Err(HeadError::Coding),
            _ => Err(HeadError::Bad("malformed Transfer-Encoding")),
        }
    }

    fn length(&self, is_http10: bool) -> Result<BodyLength, HeadError> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(HeadError::Bad("both Content-Length and Transfer-Encoding")),
            (None, true) if is_http10 => Err(HeadError::Bad("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(BodyLength::Chunked),
            (length, false) => Ok(BodyLength::Known(length.unwrap_or(0))),
        }
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

/// `token` of RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    let is_token_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_char)
}

fn read_verb(method: &str) -> Verb {
    match method {
        "GET" => Verb::Get,
        "HEAD" => Verb::Head,
        "OPTIONS" => Verb::Options,
        "POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "CONNECT" => Verb::NotAllowed,
        _ => Verb::Unknown,
    }
}

fn read_target<'a>(method: &str, raw: &'a str) -> Result<(Target<'a>, Option<&'a str>), HeadError> {
    const MALFORMED: HeadError = HeadError::Bad("malformed request target");
    if raw.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(MALFORMED);
    }
    let split = |text: &'a str| match text.split_once('?') {
        Some((path, query)) => Target::Path { path, query: Some(query) },
        None => Target::Path { path: text, query: None },
    };
    if method == "CONNECT" {
        // RFC 9110 section 9.3.6: with a port.
        let is_authority = is_authority(raw) && has_port(raw) && !raw.starts_with(':');
        return if is_authority { Ok((Target::Authority, Some(raw))) } else { Err(MALFORMED) };
    }
    if raw.starts_with('/') {
        return Ok((split(raw), None));
    }
    if raw == "*" {
        return if method == "OPTIONS" { Ok((Target::Asterisk, None)) } else { Err(MALFORMED) };
    }
    let (scheme, rest) = raw.split_once("://").ok_or(MALFORMED)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(MALFORMED);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // An http URI with an empty host is invalid, RFC 9110 section 4.2.1.
    if authority.is_empty() || authority.starts_with(':') || !is_authority(authority) {
        return Err(MALFORMED);
    }
    let target = match split(path) {
        Target::Path { path: "", query: None } if method == "OPTIONS" => Target::Asterisk,
        Target::Path { path: "", query } => Target::Path { path: "/", query },
        target => target,
    };
    Ok((target, Some(authority)))
}

/// `uri-host [ ":" port ]` of RFC 9110 section 7.2, in the grammar of RFC 3986 section 3.2. Without user information. The host may
/// be empty in a `Host` field.
fn is_authority(value: &str) -> bool {
    let (host, port) = split_port(value);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && is_16_bits(port);
    port.is_none_or(is_port) && if host.starts_with('[') { is_ip_literal(host) } else { is_registered_name(host) }
}

fn has_port(value: &str) -> bool {
    split_port(value).1.is_some_and(|port| !port.is_empty())
}

/// The last colon that is not part of an IP literal comes before the port.
fn split_port(value: &str) -> (&str, Option<&str>) {
    let host_end = value.rfind(']').map_or(0, |end| end + 1);
    match value[host_end..].find(':') {
        Some(colon) => (&value[..host_end + colon], Some(&value[host_end + colon + 1..])),
        None => (value, None),
    }
}

/// Digits, however many zeros they begin with, that name a port; none do so too.
fn is_16_bits(digits: &str) -> bool {
    let digits = digits.trim_start_matches('0');
    digits.is_empty() || digits.parse::<u16>().is_ok()
}

fn is_ip_literal(host: &str) -> bool {
    let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) else { return false };
    address.parse::<Ipv6Addr>().is_ok() || is_later_ip(address)
}

/// `IPvFuture` of RFC 3986.
fn is_later_ip(address: &str) -> bool {
    let Some((version, rest)) = address.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex(version) && !rest.is_empty() && rest.bytes().all(|byte| byte == b':' || is_name_char(byte))
}

/// `reg-name` of RFC 3986, and no empty label save one at the end: no host has such a name.
fn is_registered_name(host: &str) -> bool {
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let is_escape = |bytes: &mut std::str::Bytes<'_>| {
            (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
        };
        if !(is_name_char(byte) || byte == b'%' && is_escape(&mut bytes)) {
            return false;
        }
    }
    !host.starts_with('.') && !host.contains("..")
}

/// `unreserved` and `sub-delims` of RFC 3986.
fn is_name_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}
